"""Stay in front of a container: pass on signals and terminal, collect children, return its exit status.

Law 5: one process, no threads, no handlers. Every signal is blocked before the container's process is made
and read from a descriptor afterwards, so none can be lost between the two and none interrupts a system call.

On the hot path of run and exec: what only a terminal or a notify socket needs is in proxy.py and notify.py.
"""

from __future__ import annotations

import _signal
import os
import sys

from pyrunc.errors import Failure
from pyrunc.linux import _linux, flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Protocol

    class Watcher(Protocol):
        """Something with descriptors that wants a turn while the container runs."""

        def wants(self) -> dict[int, int]:
            """Return the descriptors to watch now, each with its poll events."""

        def ready(self, fd: int, events: int) -> None:
            """Do what can be done without waiting on one of them."""

        def signal(self, number: int) -> bool:
            """Look at a signal of ours; True when the container must not get it."""

        def finish(self, signals: int) -> None:
            """Complete what is under way now that the process has ended."""

        def close(self) -> None:
            """Put everything back as it was found; called on every way out."""


# signalfd(2): struct signalfd_siginfo is 128 bytes; ssi_signo is its first word, ssi_pid its fourth.
_RECORD = 128


def _ours() -> set[int]:
    # SIGTTIN and SIGTTOU keep their effect: they are how the kernel stops a background job that touches its
    # terminal. SIGURG is ignored by default, and by default is how a container would treat it too.
    left_alone = {_signal.SIGKILL, _signal.SIGSTOP, _signal.SIGTTIN, _signal.SIGTTOU, _signal.SIGURG}
    return {int(number) for number in _signal.valid_signals()} - left_alone


def block_signals() -> None:
    """Hold back every signal that wait() will read; to be called before the container's process is made."""
    # A caller that ignores SIGCHLD passes that on through execve, and the kernel then throws exit statuses
    # away (waitpid(2), NOTES).
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _ours())


def default_signals() -> set[int]:
    """Return the signals that a program of somebody else is to find as they are by default: all that can be.

    What our caller ignores or holds back (nohup, a service manager) is meant for us, and the interpreter
    ignores two for itself; but an ignored signal stays ignored through execve, a blocked one blocked.
    """
    return {int(number) for number in _signal.valid_signals()} - {int(_signal.SIGKILL), int(_signal.SIGSTOP)}


def restore_signals() -> None:
    """Give a program the signals as they are by default; to be called in the child, just before execve."""
    # First the handlers: unblocked while Python's stand, a signal would become an exception before execve.
    for number in default_signals():
        _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def fork(work: Callable[[], object], clone: Callable[[], tuple[int, int]] | None = None) -> tuple[int, int]:
    """Make a child that does some work and ends.

    Whatever happens in the child, nothing ever leaves it: an exception (SIGINT's, or no memory) would go on
    to what the parent does when it fails, and undo in the child's name what the parent is making. So every
    signal is blocked across the fork, the child keeps them so, and whoever begins as it ends as it.

    Args:
        work: the child's; when it returns or fails, the child ends with status 1.
        clone: makes the child and returns its pid and a pidfd, in the child 0 and anything; fork(2) if
            None, which makes no pidfd.

    Returns:
        The child's pid and pidfd.

    Raises:
        OSError: no child can be made.

    """
    pid, pidfd = -1, -1
    mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
    try:
        if clone is None:
            pid = os.fork()
        else:
            pid, pidfd = clone()
        if pid == 0:
            work()
    finally:
        if pid == 0:
            os._exit(1)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
    return pid, pidfd


def wait(
    pid: int,
    pidfd: int,
    *,
    master: int | None = None,
    subreaper: bool = False,
    notify: Watcher | None = None,
) -> int:
    """Wait for a process of ours and serve it meanwhile.

    block_signals() must have been called before it was made. Every signal is forwarded to the process, except
    SIGCHLD, SIGURG and, with a terminal, SIGWINCH. Every child that ends is collected.

    Args:
        pid: our child.
        pidfd: its pidfd: a signal cannot hit another process that got the same number.
        master: the master of its terminal, joined to our stdin and stdout until the end; closed then.
        subreaper: also collect orphans of the container (prctl(2), PR_SET_CHILD_SUBREAPER).
        notify: a notify socket to serve (notify.Relay).

    Returns:
        Its exit status, or 128 + n when signal n ended it.

    Raises:
        Failure: the process is not our child.

    """
    if subreaper:
        _linux.prctl(flags.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    watchers: list[Watcher] = []
    busy = master is not None or notify is not None
    signals = _linux.signalfd(_ours(), os.O_NONBLOCK if busy else 0)
    try:
        if notify is not None:
            watchers.append(notify)
        if master is not None:
            from pyrunc.apply.proxy import Proxy

            watchers.append(Proxy(master))
        return _serve(pid, pidfd, signals, watchers) if watchers else _listen(pid, pidfd, signals)
    finally:
        for watcher in watchers:
            watcher.close()
        os.close(signals)


def _listen(pid: int, pidfd: int, signals: int) -> int:
    # SIGCHLD has been blocked since before the process was made: if it has ended already, the signal is
    # pending.
    while True:
        if _signal.SIGCHLD in forward(signals, pidfd):
            status = reap(pid)
            if status is not None:
                return status


def _serve(pid: int, pidfd: int, signals: int, watchers: list[Watcher]) -> int:
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
    """Read the signals that wait in a signalfd: number and sender's pid (0 for the kernel) of each."""
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
    """Pass on the signals that wait in a signalfd.

    Returns:
        The numbers of all that were read, also those that are not passed on.

    """
    seen = set()
    for number, sender in numbers(signals):
        seen.add(number)
        # Our own writes to a closed pipe give us SIGPIPE; that is no message to the container.
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
    """Collect every child that has ended.

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
