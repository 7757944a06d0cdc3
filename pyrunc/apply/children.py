"""Make child processes, and give another program the signals it expects.

Law 5: such a child does one piece of work on the host and ends, whatever happens to it. (What enters a
container is the init program: init_program.py.)
"""

from __future__ import annotations

import _signal
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def fork(work: Callable[[], object], clone: Callable[[], tuple[int, int]] | None = None) -> tuple[int, int]:
    """Make a child that does some work and ends.

    No exception may leave the child: it would run the parent's error handling, and remove what the parent is
    making. (SIGINT can raise one, or a lack of memory.) So all signals are blocked across the fork, the child
    keeps them blocked, and it always ends here.

    Args:
        work: the child's; when it returns or fails, the child ends with status 1.
        clone: makes the child. It returns (pid, pidfd) in the parent and (0, any number) in the child. None:
            fork(2), which makes no pidfd.

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


def default_signals() -> set[int]:
    """Return the signals to reset to their defaults before another program is executed: all that can be.

    What the caller ignores or blocks (nohup, a service manager) is meant for pyrunc, and the interpreter
    ignores two signals for itself. But execve keeps ignored signals ignored, and blocked ones blocked.
    """
    return {int(number) for number in _signal.valid_signals()} - {int(_signal.SIGKILL), int(_signal.SIGSTOP)}


def restore_signals() -> None:
    """Reset the signals to their defaults; to be called in the child, just before execve."""
    # Reset the handlers before unblocking: otherwise Python's handler would raise an exception before execve.
    for number in default_signals():
        _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
