"""delete: take away everything a container was.

Source: runtime-spec runtime.md "Delete". Law 4: with --force this converges from any half-made state.
"""

from __future__ import annotations

import _signal
import os

from pyrunc import store
from pyrunc.errors import Failure

_ABSENT = "container does not exist"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cli.match import Command

_SIGKILL = 9
# Milliseconds that a killed init may take, before it is supposed to be frozen from within the container.
_AT_ONCE = 100


def main(cmd: Command) -> int:
    """Delete a container that has stopped; with --force any."""
    root = cmd.root or store.default_root()
    for name in store.matching(root, cmd.id) if cmd.regex else (cmd.id,):
        delete(root, name, force=cmd.force, volumes=cmd.volumes)
    return 0


def delete(root: str, name: str, *, force: bool = False, volumes: bool = False) -> None:
    """Delete one container.

    Args:
        root: the state root.
        name: its id.
        force: kill it first if it runs, and be content if there is none.
        volumes: remove the anonymous volumes that were made for it, too.

    Raises:
        Failure: there is none, it has not stopped, or something of it cannot be removed.

    """
    # Before anything else: what is no id must not become a directory to be removed ("../..").
    store.check_id(name)
    try:
        container = store.open_container(root, name)
    except Failure as problem:
        if not force:
            raise
        if problem.message != _ABSENT:
            # A record that cannot be read: nothing is known but its directory.
            store.remove(store.Container(root, name))
        return
    try:
        lock = store.lock(container)
    except Failure as problem:
        if force and problem.message == _ABSENT:
            return
        raise
    container = store.open_container(root, name)
    state = store.status(container)
    # runc and crun delete a created one all the same; the specification has only a stopped one deleted, and
    # whoever lost track of what was started is told so instead of losing it.
    if state in ("running", "paused", "created") and not force:
        raise Failure(
            f"cannot delete container {name} that is not stopped: {state}",
            hint=f"kill it, or use: pyrunc delete --force {name}",
        )
    if state in ("running", "paused", "created"):
        kill_init(container)
    destroy(container, volumes=volumes, mount_points="all")
    os.close(lock)


def kill_init(container: store.Container) -> None:
    """Kill init and wait until it is gone.

    Raises:
        Failure: it does not go within ten seconds.

    """
    try:
        pidfd = os.pidfd_open(container.pid)
    except ProcessLookupError:
        return
    try:
        stat = store.process_stat(container.pid)
        if stat is None or stat[2] != container.start:
            return
        if not container.cgroup and not _own_pids(container):
            from pyrunc.apply import processes

            processes.signal_others(container, _SIGKILL)
        _signal.pidfd_send_signal(pidfd, _SIGKILL)
        # The pidfd becomes readable when the process has ended, whoever its parent is (pidfd_open(2)).
        import select

        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if store.frozen(container) or not poll.poll(_AT_ONCE):
            from pyrunc.apply import cgroup

            cgroup.thaw_all(container.cgroup)
        if not poll.poll(10_000):
            raise Failure(
                "container init still running",
                step=container.id,
                hint=f"process {container.pid} does not die: see /proc/{container.pid}/stack",
            )
    except ProcessLookupError:
        return
    finally:
        os.close(pidfd)


def destroy(container: store.Container, *, volumes: bool = False, mount_points: str = "volumes") -> None:
    """Remove cgroups and state, then run the poststop hooks.

    Args:
        container: its record; its init has ended.
        volumes: remove the anonymous volumes that were made for it, too.
        mount_points: which of those that were made for it are removed: "all", those on "volumes", or "none".
            What `run` in the foreground makes in a root file system stays: its callers look at it (runc's
            tests do), and the next container of the bundle will want it again.

    Raises:
        Failure: something is left; it says what.

    """
    hooks: tuple[dict[str, object], ...] = ()
    if "poststop" in container.extra:
        from pyrunc.plan import hooks as plan_hooks

        hooks = plan_hooks.of(store.load_config(container), "poststop")  # type: ignore[arg-type]
    if container.cgroup:
        from pyrunc.apply import cgroup

        if not _own_pids(container):
            cgroup.kill_all(container.cgroup, _SIGKILL)
        cgroup.remove(container.cgroup, manager=container.cgroup_manager)
    if "volumes" in container.extra:
        from pyrunc.volumes import release

        release.leave(container, unfinished=container.pid == 0, anonymous=volumes)
    if "root_mount" in container.extra:
        from pyrunc.apply import root

        root.leave(container)
    if mount_points != "none":
        sweep(container, rootfs=mount_points == "all")
    store.remove(container)
    if hooks:
        from pyrunc import cli
        from pyrunc.apply import hooks as apply_hooks

        state = store.oci_state(container, "stopped")
        for problem in apply_hooks.run_all_warn("poststop", hooks, state, cwd=container.bundle):
            cli.warn(problem.text())


def sweep(container: store.Container, *, rootfs: bool, undo: bool = False) -> None:
    """Take away the mount points that were made for a container and are empty.

    Without a pid its creation was killed, and may only just begin to notice.

    Args:
        container: its record.
        rootfs: also those in its root file system.
        undo: its creation failed, and what else was made in it goes as well; true of what was killed, too.

    """
    path = f"{container.directory}/made"
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if container.pid and not os.fstat(file).st_size:
            os.unlink(path)
            # Others may have left us something until that moment.
            if not os.fstat(file).st_size:
                return
        from pyrunc.apply import sweep as apply_sweep

        apply_sweep.take_away(container, file, rootfs=rootfs, undo=undo or not container.pid)
    except OSError as exc:
        from pyrunc import cli

        cli.warn(f"mount points of {container.id} may be left: {exc}")
    finally:
        os.close(file)


def _own_pids(container: store.Container) -> bool:
    """Tell whether all processes died with init, because it was the first of their pid namespace.

    Not after a restore: CRIU works in the container's cgroups, and would stay there if we were killed.
    """
    return container.pid > 0 and container.namespaces.get("pid") == "" and not container.restored


def poststart(container: store.Container) -> None:
    """Run the poststart hooks; when one fails the container is stopped (runtime-spec 1.3).

    Raises:
        Failure: the hook's.

    """
    from pyrunc.apply import hooks as apply_hooks
    from pyrunc.plan import hooks as plan_hooks

    hooks = plan_hooks.of(store.load_config(container), "poststart")  # type: ignore[arg-type]
    try:
        apply_hooks.run("poststart", hooks, store.oci_state(container, "running"), cwd=container.bundle)
    except Failure:
        kill_init(container)
        raise
