"""How the container's side ends before its time: asked why, or killed, and never waited for without a limit.

Cold: a conversation imports it when it has failed.
"""

from __future__ import annotations

import _signal
import os
import select

from pyrunc.errors import Failure
from pyrunc.plan import steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.apply.conversation import Conversation

# Milliseconds. How long a child that has closed its end of the socket may take to end: it only has to give
# its memory back. And one that was killed: as long as delete gives it.
_LAST_MOMENTS, _DEATH = 2_000, 10_000


def why(launch: Conversation) -> Failure:
    """Say why a child is gone without a word. One that is not gone is killed: it has had its say."""
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
        # systemd has the limit as a property, not as a file.
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


def kill(launch: Conversation, *, frozen: bool = False) -> None:
    """Kill and collect a child.

    Args:
        launch: whose.
        frozen: it may be frozen from within a container that goes on (version 1 of cgroups): it ends when it
            is let go on, and nobody waits for that.

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
        pass  # it has been collected
    launch.pid = 0


def _gone(pidfd: int, milliseconds: int) -> bool:
    """Tell whether a process ends within some time: its pidfd can be read then (pidfd_open(2))."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(milliseconds))
