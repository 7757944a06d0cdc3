"""A container's side that does not answer any more: the reason is found, it is killed, no endless waiting."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from pyrunc import store
from pyrunc.apply import ending, parent, protocol
from pyrunc.errors import Failure
from pyrunc.plan import steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[parent.Launch]:
    spaces = steps.Namespaces(flags=0, joins=())
    plan = steps.Plan(id="c1", bundle="/", rootfs="", namespaces=spaces, parent=(), child=(), start=())
    made = parent.Launch(store.Container(str(tmp_path), "c1"), plan)
    yield made
    made.abort()
    made.sock.close()
    os.close(made.pidfd)


def fork(launch: parent.Launch, act: Callable[[Any], object]) -> None:
    """Make a child that stands for the container's side.

    It does one thing with its end of the socket, and ends.
    """
    launch.pid = os.fork()
    if not launch.pid:
        try:
            launch.sock.close()
            act(launch.far)
        finally:
            os._exit(3)
    launch.far.close()
    launch.pidfd = os.pidfd_open(launch.pid)


def silent(far: Any) -> None:
    far.close()
    signal.pause()


def last_words(far: Any) -> None:
    protocol.report(far, Failure("its own reason"))


def test_one_that_lives_on_is_killed(launch: parent.Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "_LAST_MOMENTS", 10)
    fork(launch, silent)
    pid = launch.pid
    with pytest.raises(Failure, match="stopped answering, and was killed"):
        launch.until_ready()
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)


def test_one_that_ends_says_how(launch: parent.Launch) -> None:
    fork(launch, lambda _far: None)
    with pytest.raises(Failure, match="exited with status 3 before the container was ready"):
        launch.until_ready()


def clone_and_say_nothing(far: Any) -> None:
    """Make a process that keeps the socket open until our end of it is closed."""
    if not os.fork():
        far.recv(1)
        os._exit(0)


def test_one_that_ends_and_leaves_the_socket_open(launch: parent.Launch) -> None:
    """A helper is killed after it has cloned the container's process, but before it has told so."""
    launch.sock.settimeout(0.01)
    fork(launch, clone_and_say_nothing)
    with pytest.raises(Failure, match="exited with status 3 before the container was ready"):
        launch.until_ready()


def test_one_that_takes_its_time_is_waited_for(
    launch: parent.Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch.sock.settimeout(0.001)
    looks = []
    gate, opened = os.pipe()

    def act(far: Any) -> None:
        os.read(gate, 1)
        last_words(far)

    def look() -> bool:
        looks.append(parent.Launch.look(launch))
        if len(looks) == 3:
            os.write(opened, b"x")
        return looks[-1]

    monkeypatch.setattr(launch, "look", look, raising=False)
    fork(launch, act)
    with pytest.raises(Failure, match=r"^its own reason$"):
        launch.until_ready()
    os.close(gate)
    os.close(opened)
    assert looks[:3] == [False] * 3


@pytest.mark.parametrize(
    ("act", "reason"),
    [(last_words, "^its own reason$"), (lambda _far: None, "exited with status 3")],
    ids=["last-words", "none"],
)
def test_a_message_to_one_that_is_gone(
    launch: parent.Launch, act: Callable[[Any], object], reason: str
) -> None:
    """EPIPE means here that the container's side has ended.

    The message must tell why, and not speak of standard output.
    """
    fork(launch, act)
    os.waitid(os.P_PIDFD, launch.pidfd, os.WEXITED | os.WNOWAIT)
    with pytest.raises(Failure, match=reason):
        launch.start()


def test_one_failed_look_at_it_is_no_end(launch: parent.Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process still lives, although /proc cannot be read: pyrunc must not wait for its end."""
    fork(launch, lambda far: far.recv(1))

    def fail(pid: int) -> None:
        raise Failure(f"read /proc/{pid}/stat", errno=24)

    with monkeypatch.context() as within:
        within.setattr(store, "process_stat", fail)
        with pytest.raises(Failure, match="too many open files"):
            launch.stored()
    assert launch.pid


def test_descriptors_are_given_back_once(launch: parent.Launch) -> None:
    """abort() closes the descriptors that only the child needed, and a second call closes nothing else."""
    fork(launch, lambda far: far.recv(1))
    launch._slots["proc"] = os.open("/", os.O_PATH)
    launch.abort()
    again = os.open("/", os.O_PATH)
    launch.abort()
    os.fstat(again)
    os.close(again)
    assert (launch.pid, launch._slots) == (0, {})
