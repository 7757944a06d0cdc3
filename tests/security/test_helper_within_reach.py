"""A helper in the container's mount namespace is stopped, looked through, or told too much.

`mounts` looks at a container, and changes it, by a helper that joins its namespaces. In the host's pid
namespace a container sees it, and may have the right to stop it; and what it reads is what the container has
made.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from pyrunc import store
from pyrunc.apply.live import inside
from pyrunc.apply.mounts import bind_sources
from pyrunc.errors import Failure
from tests.support.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyrunc.apply.live.inside import Place
    from pyrunc.store import Container
    from tests.support.containers import Bundle


@pytest.fixture
def container(bundle: Bundle, tmp_path: Path) -> Iterator[Container]:
    engine = Engine(tmp_path)
    name = engine.start(bundle)
    yield store.open_container(str(engine.root), name)
    engine.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside, "_SECONDS", 1)
    monkeypatch.setattr(inside, "_GRACE", 0.1)


@pytest.mark.usefixtures("quick")
def test_it_is_not_waited_for_for_ever(container: Container) -> None:
    with pytest.raises(Failure, match="was stopped, and did not go on within 1 seconds"):
        inside.run(container, lambda _place: os.kill(os.getpid(), signal.SIGSTOP), as_root=False)
    # Nor is it left behind.
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_signal_that_can_be_blocked_does_not_stop_it(container: Container) -> None:
    assert inside.run(container, lambda _place: os.kill(os.getpid(), signal.SIGTSTP), as_root=False) is None


@pytest.mark.usefixtures("quick")
def test_who_is_held_up_ends_by_itself(container: Container) -> None:
    def wait(_place: Place) -> object:
        return os.read(os.pipe()[0], 1)

    with pytest.raises(Failure, match="does not answer within 1 seconds"):
        inside.run(container, wait, as_root=False)


def test_it_has_nothing_of_the_host_open(container: Container, tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    needed = os.open(tmp_path, os.O_PATH)

    def look(place: Place) -> object:
        listing = os.open("self/fd", os.O_RDONLY, dir_fd=place.procfs)
        names = set(os.listdir(listing)) - {str(listing)}
        os.close(listing)
        found = {}
        for name in names:
            try:
                found[name] = os.readlink(f"self/fd/{name}", dir_fd=place.procfs)
            except FileNotFoundError:
                continue  # what the listing itself took
        return found

    try:
        found: dict[str, str] = inside.run(container, look, as_root=False, keep=(needed,))  # type: ignore[assignment]
    finally:
        os.close(directory)
        os.close(needed)
    assert str(directory) not in found
    assert str(needed) in found
    # The first three, what was asked for; the container's init, its root, a procfs, the way back.
    assert {found[str(fd)] for fd in range(3)} == {"/dev/null"}
    assert len(found) == 3 + 1 + 4


def test_a_table_without_end_is_refused(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bind_sources.read_bytes, "__defaults__", (100,))
    monkeypatch.setattr(bind_sources.read_all, "__defaults__", (100,))
    with pytest.raises(Failure, match="look into the container: file too large"):
        inside.look(container, ["/"])


def test_an_answer_without_end_is_not_read(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside, "_LARGEST", 1000)
    with pytest.raises(Failure, match="was stopped"):
        inside.run(container, lambda _place: "x" * (1 << 20), as_root=False)
