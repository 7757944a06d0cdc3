"""Making a container, without making one: who owns a state directory, and how a failure is undone."""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from pyrunc import store
from pyrunc.errors import Failure
from pyrunc.life import creation
from tests.support.records import refuse, removed, reserved

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "root")


def once_before(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Do something once, after a state directory is made and before it is locked."""
    hold = store.hold

    def late(*arguments: Any, **named: Any) -> int:
        monkeypatch.setattr(store, "hold", hold)
        act()
        return hold(*arguments, **named)

    monkeypatch.setattr(store, "hold", late)


def test_a_directory_that_is_deleted_before_it_is_locked(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    once_before(monkeypatch, lambda: removed(root, "c1"))
    container, lock = creation.reserve(root, "c1")
    assert store.is_at(lock, container.directory)
    os.close(lock)


def test_a_directory_that_somebody_else_has_made_anew(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another creator has made the directory anew: the first one must not remove that record."""

    def steal() -> None:
        removed(root, "c1")
        store.save(reserved(root, "c1"))

    once_before(monkeypatch, steal)
    with pytest.raises(Failure, match="already exists"):
        creation.reserve(root, "c1")
    assert store.open_container(root, "c1").id == "c1"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO])
def test_what_is_not_to_be_had_leaves_nothing(
    root: str, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    refuse(monkeypatch, "open", "/", number)
    with pytest.raises(Failure) as caught:
        creation.reserve(root, "c1")
    assert caught.value.errno == number
    assert not os.path.exists(root)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_modes_are_not_left_to_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        os.close(creation.reserve(f"{tmp_path}/a/b/root", "c1")[1])
    finally:
        os.umask(before)
    modes = [os.stat(tmp_path / name).st_mode & 0o7777 for name in ("a", "a/b", "a/b/root", "a/b/root/c1")]
    assert modes == [0o755, 0o755, 0o1711, 0o700]


def test_a_root_that_leads_nowhere(root: str) -> None:
    os.symlink("nowhere", root)
    with pytest.raises(Failure, match="no such file"):
        creation.reserve(root, "c1")


def test_what_cannot_be_undone_is_said_and_kept(root: str) -> None:
    container, lock = creation.reserve(root, "c1")
    store.save(container)

    def stuck() -> None:
        raise Failure("remove cgroup /x", errno=errno.EBUSY)

    why = Failure("the reason")
    creation.undo(why, container, lock, stuck, ())
    assert why.text() == (
        "the reason; not all is undone (remove cgroup /x: device or resource busy):"
        " pyrunc delete --force c1 takes the rest away"
    )
    again = store.lock(store.open_container(root, "c1"))  # the lock is free, too
    creation.undo(why, container, again, None, ())
    assert os.listdir(root) == []


def test_a_way_back_that_has_lost_its_directory(root: str) -> None:
    """The directory was deleted by hand and made anew by another creator: undo must leave it alone."""
    container, lock = creation.reserve(root, "c1")
    os.rmdir(container.directory)
    store.save(reserved(root, "c1"))
    creation.undo(Failure("the reason"), container, lock, None, ())
    assert store.open_container(root, "c1").id == "c1"


def test_now_is_rfc3339_with_nanoseconds() -> None:
    text = creation.now()
    assert len(text) == len("2026-01-02T03:04:05.123456789Z")
    assert text[10] == "T"
    assert text.endswith("Z")


def test_a_time_is_the_interpreter_s() -> None:
    """The times are the same as the interpreter's.

    On leap days and around them, at ends of centuries, and before 1970.
    """
    for day in range(-50_000, 200_000, 13):
        at = day * 86_400 + day % 86_400
        assert creation.rfc3339(at * 1_000_000_000 + 5) == time.strftime(
            "%Y-%m-%dT%H:%M:%S.000000005Z", time.gmtime(at)
        )
    assert creation.rfc3339(951_782_400_000_000_000) == "2000-02-29T00:00:00.000000000Z"
    assert creation.rfc3339(4_107_542_399_999_999_999) == "2100-02-28T23:59:59.999999999Z"
