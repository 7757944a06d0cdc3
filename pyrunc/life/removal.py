"""Remove a container, with everything that was made for it.

Source: runtime-spec runtime.md "Delete". Law 4: if the kernel cannot be asked about something, it is not
assumed to be gone: it stays, with the record, and the message says what is left. Everything can be repeated,
because the record is removed last.
"""

from __future__ import annotations

import _signal
import os
from errno import ENOENT, ENOTEMPTY

from pyrunc import store
from pyrunc.errors import Failure
from pyrunc.files import closing

# What is needed to repeat a deletion.
_LAST = (store.CONFIG, store.STATE)
# Milliseconds that a killed init may take before it is thawed, because the container may have frozen it.
_AT_ONCE = 100


def kill_init(container: store.Container) -> None:
    """Kill init and wait until it has ended.

    Raises:
        Failure: it has not ended after ten seconds.

    """
    try:
        pidfd = os.pidfd_open(container.pid)
    except ProcessLookupError:
        return
    except OSError as exc:
        raise Failure(f"open process {container.pid}", step=container.id, errno=exc.errno or 0) from None
    try:
        stat = store.process_stat(container.pid)
        if stat is None or stat[2] != container.start:
            return
        if not container.cgroup and not own_pids(container):
            from pyrunc.apply import processes

            processes.signal_others(container, _signal.SIGKILL)
        _signal.pidfd_send_signal(pidfd, _signal.SIGKILL)
        # The pidfd becomes readable when the process ends, for any process that holds it (pidfd_open(2)).
        import select

        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if store.frozen(container) or not poll.poll(_AT_ONCE):
            from pyrunc.apply.cgroups import cgroup

            cgroup.thaw_all(container.cgroup)
        if not poll.poll(10_000):
            raise Failure(
                "container init still running",
                step=container.id,
                hint=f"process {container.pid} does not die: see /proc/{container.pid}/stack",
            )
    except ProcessLookupError:
        return
    except OSError as exc:
        raise Failure(f"kill process {container.pid}", step=container.id, errno=exc.errno or 0) from None
    finally:
        os.close(pidfd)


def destroy(
    container: store.Container, lock: int, *, volumes: bool = False, mount_points: str = "volumes"
) -> None:
    """Remove cgroups and state, then run the poststop hooks.

    Args:
        container: its record; its init has ended.
        lock: the descriptor that holds its lock.
        volumes: also remove the anonymous volumes that were made for it.
        mount_points: which ones to remove: "all", those on "volumes", or "none". Those that `run` in the
            foreground makes in a root file system stay: its callers look at them (runc's tests do), and the
            next container of the bundle needs them again.

    Raises:
        Failure: something is left, and the record with it; the message says what.

    """
    hooks = _poststop(container)
    if container.cgroup:
        from pyrunc.apply.cgroups import cgroup

        made = cgroup.made(container)
        if not own_pids(container):
            # Without a pid no process was ever put into the cgroups that existed before.
            cgroup.kill_all(container.cgroup if container.pid else made, _signal.SIGKILL)
        cgroup.remove(made, manager=container.cgroup_manager)
    if "volumes" in container.extra:
        from pyrunc.volumes import release

        release.leave(container, unfinished=container.pid == 0, anonymous=volumes)
    if "root_mount" in container.extra:
        from pyrunc.apply.mounts import root

        root.leave(container)
    if mount_points != "none":
        sweep(container, lock, rootfs=mount_points == "all")
    remove(container, lock)
    if hooks:
        from pyrunc import log
        from pyrunc.apply import hooks as apply_hooks

        state = store.oci_state(container, "stopped")
        for problem in apply_hooks.run_all_warn("poststop", hooks, state, cwd=container.bundle):
            log.warn(problem.text())


def destroy_ended(container: store.Container) -> None:
    """Remove a container whose program has ended in the foreground.

    A failure is only a warning, because the exit status is what counts.
    """
    try:
        with closing(store.lock(container)) as lock:
            destroy(container, lock)
    except store.AbsentError:
        pass  # another command has deleted it
    except Failure as problem:
        from pyrunc import log

        log.warn(problem.text())


def _poststop(container: store.Container) -> tuple[dict[str, object], ...]:
    """Return the poststop hooks; none if the configuration is missing, a Failure if it cannot be read."""
    if "poststop" not in container.extra:
        return ()
    from pyrunc.plan import hooks as plan_hooks

    try:
        return plan_hooks.of(store.load_config(container), "poststop")  # type: ignore[arg-type]
    except Failure as problem:
        if not isinstance(problem, store.GarbledError) and problem.errno != ENOENT:
            raise
        from pyrunc import log

        log.warn(f"poststop hooks are not run: {problem.text()}")
        return ()


def sweep(container: store.Container, lock: int, *, rootfs: bool, undo: bool = False) -> None:
    """Remove the mount points that were made for a container and are empty.

    Without a pid its creation was killed, and its init may still run.

    Args:
        container: its record.
        lock: the descriptor that holds its lock.
        rootfs: also remove those in its root file system.
        undo: its creation failed or was killed: also remove what else was made in it.

    Raises:
        Failure: it cannot be found out what was made or is in use; the list is kept.

    """
    try:
        file = os.open("made", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=lock)
    except FileNotFoundError:
        return
    except OSError as exc:
        raise Failure(f"read {container.directory}/made", errno=exc.errno or 0) from None
    try:
        if container.pid and not os.fstat(file).st_size:
            os.unlink("made", dir_fd=lock)
            # Other commands may have added entries until that moment.
            if not os.fstat(file).st_size:
                return
        from pyrunc.apply.mounts import mount_point_removal as apply_sweep

        apply_sweep.take_away(container, file, rootfs=rootfs, undo=undo or not container.pid)
    except OSError as exc:
        name = f" {exc.filename}" if isinstance(exc.filename, str) else ""
        raise Failure(f"remove the mount points of {container.id}:{name}", errno=exc.errno or 0) from None
    finally:
        os.close(file)


def remove(container: store.Container, lock: int) -> None:
    """Remove the state directory and what is in it; missing files are no error.

    The record is removed last: as long as anything is left, the container exists and can be deleted again.

    Args:
        container: the container.
        lock: the descriptor that holds its lock. Everything is removed through it, so that nothing else can
            be removed by mistake.

    Raises:
        Failure: something in it cannot be removed.

    """
    try:
        if _remove_empty(container, lock):
            return
        names = os.listdir(lock)
        if "overlay" in names:
            # First: those of an ordinary user can be removed only while the configuration exists.
            from pyrunc.apply.mounts import writable_layers

            writable_layers.remove(container, lock)
        for name in (*(name for name in names if name not in _LAST), *_LAST):
            _remove_entry(container, lock, name)
        _remove_empty(container, lock)
    except OSError as exc:
        name = f"/{exc.filename}" if exc.filename and exc.filename != container.directory else ""
        raise Failure(f"remove {container.directory}{name}", errno=exc.errno or 0) from None


def _remove_empty(container: store.Container, lock: int) -> bool:
    """Remove the directory if it is empty, which needs no descriptor, and still is the one with its name.

    Returns:
        True if nothing is left to remove.

    """
    if store.is_at(lock, container.directory):
        try:
            os.rmdir(container.directory)
        except OSError as exc:
            if exc.errno != ENOTEMPTY:
                raise
            return False
        return True
    return not os.listdir(lock)


def _remove_entry(container: store.Container, lock: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=lock)
    except FileNotFoundError:
        return
    except IsADirectoryError:
        try:
            os.rmdir(name, dir_fd=lock)
        except OSError as exc:
            if exc.errno != ENOTEMPTY:
                raise
            from pyrunc.apply import directory_trees

            directory_trees.remove(lock, name, f"{container.directory}/{name}")


def own_pids(container: store.Container) -> bool:
    """Tell whether all processes end with init, because it is the first of their pid namespace.

    Not after a restore: CRIU runs in the container's cgroups, and would stay there if pyrunc were killed.
    """
    return container.pid > 0 and container.namespaces.get("pid") == "" and not container.restored
