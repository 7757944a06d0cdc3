"""A visit of a container without a mount namespace of its own: each refusal is worded as what was refused."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

from pyrunc import store
from pyrunc.apply.errand import Errand
from pyrunc.apply.live import visit
from pyrunc.errors import Failure
from tests.support.leaks import descriptors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def container() -> store.Container:
    """Return the record of a container whose init is this process."""
    made = store.Container("/nowhere", "c1")
    stat = store.process_stat(os.getpid())
    assert stat is not None
    made.pid, made.start = os.getpid(), stat[2]
    return made


@pytest.fixture(autouse=True)
def nothing_is_left_open() -> Iterator[None]:
    before = descriptors()
    yield
    assert descriptors() == before


def refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let open(2) fail for paths that end with this name."""
    real: Callable[..., int] = os.open

    def opened(path: Any, *words: Any, **more: Any) -> int:
        if str(path).endswith(name):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, *words, **more)

    monkeypatch.setattr(os, "open", opened)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/root", "open the container's root: permission denied"),
        ("/mountinfo", "read the container's mount table: permission denied"),
    ],
)
def test_what_cannot_be_opened_is_named(
    container: store.Container, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    refused(monkeypatch, name)
    with pytest.raises(Failure) as caught:
        visit.look(container, [])
    assert caught.value.text() == said


def test_a_refusal_during_the_visit_is_none_of_opening_the_root(
    container: store.Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_all: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Errand, "run", run)
    with pytest.raises(OSError, match="No space left"):
        visit.look(container, [])
