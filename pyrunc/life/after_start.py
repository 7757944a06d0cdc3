"""What follows when a container's program has been started: its own word that it is ready, hooks, its end.

Shared by start, run and restore. Source: runtime-spec runtime.md "Lifecycle", steps 8 and 9.
"""

from __future__ import annotations

import _signal
import os

from pyrunc import store
from pyrunc.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.apply.notify import Relay


def relay(container: store.Container, main_pid: int, *, once: bool) -> Relay | None:
    """Pass on what the container's program says to its notify socket, if somebody listens to ours.

    Args:
        container: its record.
        main_pid: whom a service manager takes for the main process.
        once: only until it is ready.

    """
    host = os.environ.get("NOTIFY_SOCKET")
    if not host or not os.path.isdir(container.directory + "/notify"):
        return None
    from pyrunc.apply import notify

    return notify.serve(container.directory, host, main_pid, once=once)


def poststart(container: store.Container) -> None:
    """Run the poststart hooks; when one fails the container is killed (runtime-spec 1.3), all of it.

    Raises:
        Failure: the hook's.

    """
    from pyrunc.apply import hooks as apply_hooks
    from pyrunc.plan import hooks as plan_hooks

    hooks = plan_hooks.of(store.load_config(container), "poststart")  # type: ignore[arg-type]
    try:
        apply_hooks.run("poststart", hooks, store.oci_state(container, "running"), cwd=container.bundle)
    except Failure as problem:
        from pyrunc.life import removal

        removal.kill_init(container)
        if container.cgroup and not removal.own_pids(container):
            from pyrunc.apply.cgroups import cgroup

            cgroup.kill_all(container.cgroup, int(_signal.SIGKILL))
        problem.hint += "; the container was killed" if problem.hint else "the container was killed"
        raise


def stay(
    container: store.Container,
    pidfd: int,
    master: int,
    *,
    subreaper: bool,
    notify: Relay | None = None,
    keep: bool = False,
) -> int:
    """Stay in front of a container until its program has ended, then delete it; return the exit status.

    Args:
        container: its record.
        pidfd: of its init.
        master: the master of its terminal, -1 without one.
        subreaper: become the reaper of orphaned processes.
        notify: what relay() returned.
        keep: leave it there, with its exit status.

    """
    from pyrunc.apply import foreground

    status = foreground.wait(
        container.pid, pidfd, master=master if master >= 0 else None, subreaper=subreaper, notify=notify
    )
    if keep:
        from pyrunc.apply import exit_status

        exit_status.write(container, status)
    else:
        from pyrunc.life import removal

        removal.destroy_ended(container)
    return status
