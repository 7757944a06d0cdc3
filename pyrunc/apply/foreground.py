"""Wait for a container in the foreground: forward signals and terminal, return the exit status.

Law 5: one process, no threads, no signal handlers. Every signal is blocked before the container's process is
made, and read from a descriptor afterwards. So no signal is lost in between, and none interrupts a system
call. This module is on the hot path of run and exec; the callers bring what serves a terminal or a notify
socket (proxy.py, notify.py).
"""

from __future__ import annotations

import _signal
import os
import sys

from pyrunc.errors import Failure
from pyrunc.files import closing
from pyrunc.linux import _linux, flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Protocol

    class Watcher(Protocol):
        """Something with descriptors that has to be served while the container runs."""

        def wants(self) -> dict[int, int]:
            """Return the descriptors to watch now, each with its poll events."""

        def ready(self, fd: int, events: int) -> None:
            """Serve one of these descriptors, without waiting."""

        def signal(self, number: int) -> bool:
            """Handle a signal; return True if the container must not get it."""

        def finish(self, signals: int) -> None:
            """Complete what is unfinished, after the process has ended."""

        def close(self) -> None:
            """Restore what was changed; always called at the end."""


# signalfd(2): struct signalfd_siginfo has 128 bytes; ssi_signo is the first word, ssi_pid the fourth.
_RECORD = 128


def _ours() -> set[int]:
    # SIGTTIN and SIGTTOU are not blocked: with them the kernel stops a background job that uses its terminal.
    # SIGURG is ignored by default, and a container would ignore it, too.
    left_alone = {_signal.SIGKILL, _signal.SIGSTOP, _signal.SIGTTIN, _signal.SIGTTOU, _signal.SIGURG}
    return {int(number) for number in _signal.valid_signals()} - left_alone


def block_signals() -> None:
    """Block every signal that wait() will read; to be called before the container's process is made."""
    # A caller's ignored SIGCHLD stays ignored across execve, and then the kernel keeps no exit statuses
    # (waitpid(2), NOTES).
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _ours())


def wait(
    pid: int,
    pidfd: int,
    watchers: Sequence[Watcher] = (),
    *,
    subreaper: bool = False,
) -> int:
    """Wait for a child, and serve it meanwhile.

    Call block_signals() before the child is made. Every signal is forwarded to it, except SIGCHLD, SIGURG
    and, with a terminal, SIGWINCH. Every child that ends is waited for.

    Args:
        pid: our child.
        pidfd: its pidfd, so that a signal cannot reach another process with the same pid.
        watchers: what else is to be served until then: a terminal (proxy.Proxy), a notify socket
            (notify.Relay). They are closed at the end.
        subreaper: also wait for orphans of the container (prctl(2), PR_SET_CHILD_SUBREAPER).

    Returns:
        Its exit status, or 128 + n when signal n ended it.

    Raises:
        Failure: the process is not our child.

    """
    try:
        if subreaper:
            _linux.prctl(flags.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        with closing(_linux.signalfd(_ours(), os.O_NONBLOCK if watchers else 0)) as signals:
            return _serve(pid, pidfd, signals, watchers) if watchers else _listen(pid, pidfd, signals)
    finally:
        for watcher in watchers:
            watcher.close()


def _listen(pid: int, pidfd: int, signals: int) -> int:
    # SIGCHLD was blocked before the process was made: if it has ended already, the signal is pending.
    while True:
        if _signal.SIGCHLD in forward(signals, pidfd):
            status = reap(pid)
            if status is not None:
                return status


def _serve(pid: int, pidfd: int, signals: int, watchers: Sequence[Watcher]) -> int:
    import select

    while True:
        poll = select.poll()
        poll.register(signals, select.POLLIN)
        owners: dict[int, Watcher] = {}
        for watcher in watchers:
            for fd, events in watcher.wants().items():
                poll.register(fd, events)
                owners[fd] = watcher
        for fd, events in poll.poll():
            if fd in owners:
                owners[fd].ready(fd, events)
            elif _signal.SIGCHLD in forward(signals, pidfd, watchers):
                status = reap(pid)
                if status is not None:
                    for watcher in watchers:
                        watcher.finish(signals)
                    return status


def numbers(signals: int) -> list[tuple[int, int]]:
    """Read the pending signals from a signalfd: number and sender's pid (0 for the kernel) of each."""
    try:
        data = os.read(signals, 16 * _RECORD)
    except BlockingIOError:
        return []
    order = sys.byteorder
    return [
        (int.from_bytes(data[at : at + 4], order), int.from_bytes(data[at + 12 : at + 16], order))
        for at in range(0, len(data), _RECORD)
    ]


def forward(signals: int, pidfd: int, watchers: Iterable[Watcher] = ()) -> set[int]:
    """Forward the pending signals from a signalfd.

    Returns:
        The numbers of all that were read, also those that are not passed on.

    """
    seen = set()
    for number, sender in numbers(signals):
        seen.add(number)
        # A write of pyrunc to a closed pipe causes SIGPIPE; it is not for the container.
        mine = number == _signal.SIGCHLD or sender == os.getpid()
        for watcher in watchers:
            mine |= watcher.signal(number)
        if not mine:
            try:
                _signal.pidfd_send_signal(pidfd, number)
            except ProcessLookupError:
                pass  # it has ended; SIGCHLD follows
    return seen


def reap(pid: int) -> int | None:
    """Wait for every child that has ended, without blocking.

    Returns:
        The exit status of the child pid, 128 + n for signal n, or None while it runs.

    Raises:
        Failure: there is no such child.

    """
    result = None
    while True:
        try:
            ended, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            if result is None:
                raise Failure(f"process {pid} is not our child, its exit status is lost") from None
            return result
        if ended == 0:
            return result
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            result = code if code >= 0 else 128 - code
