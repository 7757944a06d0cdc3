"""After a container's program has been started: its notify messages, hooks, its end.

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
    """Forward the messages of the container's program to the service manager, if one listens.

    Args:
        container: its record.
        main_pid: the process that the service manager takes for the main one.
        once: stop when it is ready.

    """
    host = os.environ.get("NOTIFY_SOCKET")
    if not host or not os.path.isdir(container.directory + "/notify"):
        return None
    from pyrunc.apply import notify

    return notify.serve(container.directory, host, main_pid, once=once)


def poststart(container: store.Container) -> None:
    """Run the poststart hooks; if one fails, the whole container is killed (runtime-spec 1.3).

    Raises:
        Failure: a hook failed.

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
    """Wait in the foreground until a container's program has ended, then delete it; return the exit status.

    Args:
        container: its record.
        pidfd: of its init.
        master: the master of its terminal, -1 without one.
        subreaper: become the reaper of orphaned processes.
        notify: the return value of relay().
        keep: do not delete it; its exit status is written into the record.

    """
    from pyrunc.apply import foreground

    watchers: list[foreground.Watcher] = [notify] if notify else []
    if master >= 0:
        from pyrunc.apply.proxy import Proxy

        watchers.append(Proxy(master))
    status = foreground.wait(container.pid, pidfd, watchers, subreaper=subreaper)
    if keep:
        from pyrunc.apply import exit_status

        exit_status.write(container, status)
    else:
        from pyrunc.life import removal

        removal.destroy_ended(container)
    return status
