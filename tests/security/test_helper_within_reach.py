"""A process in the container's mount namespace is stopped, read, killed, or gets too much data.

`mounts` reads and changes a container's mounts with the init program, which joins its namespaces. In the
host's pid namespace a container sees that process, and may have the right to stop it; and the container
decides what the process reads.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyrunc import store
from pyrunc.apply import protocol
from pyrunc.apply.live import visit
from pyrunc.apply.live.visit import Visitor
from pyrunc.apply.mounts import bind_sources
from pyrunc.errors import Failure
from pyrunc.plan import program_live
from tests.support.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
    monkeypatch.setattr(visit, "_SECONDS", 1)
    monkeypatch.setattr(visit, "_GRACE", 0.1)


def waiting(container: Container, then: Callable[[Visitor], object]) -> None:
    """Let a process wait in the container's mount namespace, and do something meanwhile."""
    visitor = Visitor(container)
    program = program_live.remove(visitor.visit, ["/proc"], mapped=False)

    def serve(kind: bytes, _payload: bytes, fd: int) -> bool:
        assert (kind, fd) == (protocol.LOCATED, -1)
        then(visitor)
        return True

    try:
        visitor.run(program, serve=serve)
    finally:
        visitor.close()


@pytest.mark.usefixtures("quick")
def test_it_is_not_waited_for_for_ever(container: Container) -> None:
    with pytest.raises(Failure, match="was stopped, and did not go on within 1 seconds"):
        waiting(container, lambda visitor: os.kill(visitor.pid, signal.SIGSTOP))
    # Nor is it left behind.
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_signal_that_can_be_blocked_does_not_stop_it(container: Container) -> None:
    def signals(visitor: Visitor) -> None:
        for number in (signal.SIGTSTP, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(visitor.pid, number)
        visitor.tell(protocol.GO)

    before = visit.look(container, [])[0]
    waiting(container, signals)
    assert " /proc " in before
    assert " /proc " not in visit.look(container, [])[0]


@pytest.mark.usefixtures("quick")
def test_who_is_held_up_ends_by_itself(container: Container) -> None:
    with pytest.raises(Failure, match="does not answer within 1 seconds"):
        waiting(container, lambda _visitor: None)


def test_who_is_killed_is_missed(container: Container) -> None:
    with pytest.raises(Failure, match="was ended by signal 9"):
        waiting(container, lambda visitor: os.kill(visitor.pid, signal.SIGKILL))


def test_it_has_nothing_of_the_host(container: Container, tmp_path: Path) -> None:
    """It has only what it needs, joins only the mount namespace of the container, and cannot be traced."""
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    seen: list[dict[str, object]] = []

    def look(visitor: Visitor) -> None:
        process, own = f"/proc/{visitor.pid}", "/proc/self"
        spaces = {name: os.readlink(f"{process}/ns/{name}") for name in os.listdir(f"{own}/ns")}
        seen.append(
            {
                "open": [
                    os.readlink(f"{process}/fd/{fd}").split(":")[0] for fd in os.listdir(f"{process}/fd")
                ],
                "spaces": {name for name, text in spaces.items() if text != os.readlink(f"{own}/ns/{name}")},
                "environment": Path(f"{process}/environ").read_bytes(),
                "program": os.readlink(f"{process}/exe"),
                "owner": os.stat(f"{process}/mem").st_uid,
            }
        )
        visitor.tell(protocol.GO)

    try:
        waiting(container, look)
    finally:
        os.close(directory)
    # What is found, the container's root, a procfs, the way back.
    (found,) = seen
    assert sorted(found.pop("open")) == ["/", "/", "/proc", "socket"]  # type: ignore[call-overload]
    assert found == {
        "spaces": {"mnt"},
        "environment": b"",
        "program": "/memfd:pyrunc-init (deleted)",
        "owner": 0,
    }


def test_a_table_without_end_is_refused(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bind_sources, "LARGEST", 100)
    with pytest.raises(Failure, match="read the container's mount table: file too large"):
        visit.look(container, ["/"])


@pytest.mark.usefixtures("quick")
def test_messages_without_end_are_not_read(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attacker who controls the process could send messages without end."""
    monkeypatch.setattr(Visitor, "receive", lambda _self: (protocol.LOCATED, bytes(17), -1))
    with pytest.raises(Failure, match="was stopped"):
        waiting(container, lambda _visitor: None)


@pytest.mark.parametrize(
    ("kind", "payload", "said"),
    [
        (b"L", b"", "a malformed message about a path"),
        (b"L", bytes(16), "a malformed message about a path"),
        (b"L", bytes(18), "a malformed message about a path"),
        (b"L", (1 << 31).to_bytes(4, "little") + bytes(13), "an unexpected message"),
        (b"C", bytes(4), "an unexpected message"),
        (b"v", bytes(8), "an unexpected message"),
        (b"X", bytes(3), "a malformed error report"),
        (b"X", b"\xff" * 24, "a malformed error report"),
    ],
)
def test_messages_that_are_not_believed(
    container: Container, monkeypatch: pytest.MonkeyPatch, kind: bytes, payload: bytes, said: str
) -> None:
    forged = [(kind, payload, -1)]
    real = protocol.receive
    monkeypatch.setattr(protocol, "receive", lambda sock: forged.pop() if forged else real(sock))
    with pytest.raises(Failure, match=said):
        visit.look(container, ["/"])
