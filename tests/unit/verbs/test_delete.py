"""delete, where the kernel is not asked: what --force may and may not pass over."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pytest

from pyrunc import store
from pyrunc.errors import Failure
from pyrunc.verbs import delete


@pytest.fixture
def container(tmp_path: Path) -> store.Container:
    made = store.reserve(str(tmp_path / "root"), "c1")
    store.save(made)
    return made


@pytest.mark.parametrize("force", [False, True])
def test_a_container_that_somebody_is_at_work_on(
    container: store.Container, monkeypatch: pytest.MonkeyPatch, *, force: bool
) -> None:
    """Force is no reason to say that it is gone when it is there, or to take it from under the other."""
    held = store.lock(container)
    monkeypatch.setattr(store, "lock", functools.partial(store.lock, seconds=0.02))
    with pytest.raises(Failure, match="another command is at work"):
        delete.delete(container.root, "c1", force=force)
    assert Path(container.directory, "state.json").exists()
    os.close(held)
    delete.delete(container.root, "c1", force=True)
    assert not os.path.exists(container.directory)


def test_one_that_goes_while_we_wait_for_it(
    container: store.Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = store.lock

    def late(record: store.Container) -> int:
        store.remove(container)
        return lock(record)

    monkeypatch.setattr(store, "lock", late)
    delete.delete(container.root, "c1", force=True)
    store.save(store.reserve(container.root, "c1"))
    with pytest.raises(Failure, match="container does not exist"):
        delete.delete(container.root, "c1")
