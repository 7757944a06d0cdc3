"""How the container's side ends early: find out why, or kill it. Every wait has a limit.

Imported only after a failure.
"""

from __future__ import annotations

import _signal
import os
import select

from pyrunc.errors import Failure
from pyrunc.plan import steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Launch(Protocol):
        """The start of a process, seen from here: conversation.Conversation."""

        plan: steps.Plan
        pid: int
        pidfd: int


# Milliseconds. How long a child may take to end after it has closed its end of the socket: it only has to
# free its memory. And how long a killed child may take: as long as in delete.
_LAST_MOMENTS, _DEATH = 2_000, 10_000


def why(launch: Launch) -> Failure:
    """Return the Failure for a child that ended without a report.

    If it still runs, kill it: it can report nothing more.
    """
    if not _gone(launch.pidfd, _LAST_MOMENTS):
        kill(launch)
        return Failure("container init stopped answering, and was killed")
    try:
        code = os.waitstatus_to_exitcode(os.waitpid(launch.pid, 0)[1])
    except ChildProcessError:
        return Failure("container init ended before the container was ready")
    finally:
        launch.pid = 0
    if code == -_signal.SIGKILL:
        pointer = "/linux/resources/memory/limit"
        groups = [step.plan for step in launch.plan.parent if isinstance(step, steps.Cgroup)]
        limit = [write.value for group in groups for write in group.writes if write.pointer == pointer]
        # systemd keeps the limit as a property, not in a file.
        maybe = limit or any(group.manager == "systemd" for group in groups)
        return Failure(
            "container init was OOM-killed (memory limit too low?), or killed by another process",
            step="unable to start container process",
            pointer=pointer if maybe else "",
            hint=f"the limit is {limit[0]} bytes" if limit else "",
        )
    how = f"was ended by signal {-code}" if code < 0 else f"exited with status {code}"
    hint = pointer = ""
    if code == -_signal.SIGSYS:
        pointer = "/linux/seccomp"
        hint = "the seccomp filter kills it for what it needs to start, most likely execve"
    return Failure(f"container init {how} before the container was ready", pointer=pointer, hint=hint)


def kill(launch: Launch, *, frozen: bool = False) -> None:
    """Kill a child and wait for its end.

    Args:
        launch: the start it belongs to.
        frozen: a container that keeps running may have frozen it (version 1 of cgroups). It ends when it is
            thawed; that is not waited for.

    Raises:
        Failure: it does not die.

    """
    try:
        _signal.pidfd_send_signal(launch.pidfd, _signal.SIGKILL)
        if not _gone(launch.pidfd, _LAST_MOMENTS if frozen else _DEATH):
            if frozen:
                launch.pid = 0
                return
            raise Failure(f"process {launch.pid} does not die", hint=f"see /proc/{launch.pid}/stack")
        os.waitpid(launch.pid, 0)
    except OSError:
        pass  # it has been waited for already
    launch.pid = 0


def _gone(pidfd: int, milliseconds: int) -> bool:
    """Tell whether a process ends within some time. At its end its pidfd becomes readable (pidfd_open(2))."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(milliseconds))
