"""A child of ours: it does its work and ends, and nothing of the parent's is run or changed in it."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from pyrunc.apply import children
from tests.support.containers import TOP

if TYPE_CHECKING:
    from pathlib import Path


class AttemptError(Exception):
    """An exception that is raised in the child."""


@pytest.mark.parametrize("kind", [KeyboardInterrupt, MemoryError, AttemptError, SystemExit])
@pytest.mark.parametrize("moment", ["in clone", "in work", "in work, after Ctrl-C"])
def test_nothing_leaves_a_child(tmp_path: Path, kind: type[BaseException], moment: str) -> None:
    """An exception in the child must not run the parent's error handling.

    The file shows whether that has happened.
    """
    undone = tmp_path / "undone"
    parent = os.getpid()

    def clone() -> tuple[int, int]:
        # A signal that arrives just now, to parent and child, with Python's own handler for it.
        pid = os.fork()
        if moment == "in clone":
            os.kill(os.getpid(), signal.SIGUSR1)
        return pid, -1

    def work() -> None:
        if moment == "in work, after Ctrl-C":
            os.kill(os.getpid(), signal.SIGINT)
        raise kind

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    pid = 0
    try:
        pid, _pidfd = children.fork(work, clone)
    except BaseException as exc:  # noqa: BLE001 - whatever it is must not get here
        undone.write_text(f"{os.getpid() == parent} {exc!r}")
    if os.getpid() != parent:
        os._exit(0)
    signal.signal(signal.SIGUSR1, before)
    if moment == "in clone":
        assert undone.read_text() == "True KeyboardInterrupt()", "the parent got it, when all was in order"
        _pid, status = os.wait()
    else:
        assert not undone.exists()
        _pid, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 1


def test_a_child_keeps_signals_blocked_and_the_parent_does_not() -> None:
    reader, writer = os.pipe()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    pid, _pidfd = children.fork(
        lambda: os.write(writer, b"%d" % len(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
    )
    os.close(writer)
    os.waitpid(pid, 0)
    # All but SIGKILL and SIGSTOP, which cannot be blocked.
    assert int(os.read(reader, 99)) == len(signal.valid_signals()) - 2
    os.close(reader)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_a_child_that_cannot_be_made() -> None:
    def clone() -> tuple[int, int]:
        raise OSError(11, "no more processes")

    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with pytest.raises(OSError, match="no more processes"):
        children.fork(lambda: None, clone)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_nobody_forks_in_another_way() -> None:
    """After another kind of fork, an exception in the child would run the parent's error handling."""
    allowed = {"apply/children.py": 1, "api/worker.py": 2}
    found: dict[str, int] = {}
    for path in (TOP / "pyrunc").rglob("*.py"):
        text = path.read_text()
        forks = text.count("os.fork(")
        clones = text.count("_linux.clone(") + text.count("_linux.clone3(")
        assert clones <= text.count("lambda: _linux.clone"), f"{path}: clone only by children.fork"
        if forks:
            found[str(path.relative_to(TOP / "pyrunc"))] = forks
    assert found == allowed
