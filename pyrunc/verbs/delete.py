"""delete: remove a container and everything that was made for it.

Source: runtime-spec runtime.md "Delete". Law 4: with --force it works whatever part of the container exists.
It can be repeated if it fails.
"""

from __future__ import annotations

from pyrunc import store
from pyrunc.errors import Failure
from pyrunc.files import closing
from pyrunc.life import removal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cli.match import Command

# How long to wait for another command that holds the container's lock. It may be a `delete --force`, which
# waits ten seconds for init and ten for the cgroups.
_PATIENCE = 30.0


def main(cmd: Command) -> int:
    """Delete a container that does not run; with --force any."""
    root = cmd.root or store.default_root()
    if not cmd.regex:
        delete(root, cmd.id, force=cmd.force, volumes=cmd.volumes)
        return 0
    from pyrunc import listing

    for name in listing.matching(root, cmd.id):
        try:
            delete(root, name, force=cmd.force, volumes=cmd.volumes)
        except store.AbsentError:
            continue  # another command has deleted it
    return 0


def delete(
    root: str, name: str, *, force: bool = False, volumes: bool = False, seconds: float = _PATIENCE
) -> None:
    """Delete one container.

    Args:
        root: the state root.
        name: its id.
        force: kill it first if it runs; a missing container is no error.
        volumes: also remove the anonymous volumes that were made for it.
        seconds: how long to wait for another command that holds its lock.

    Raises:
        AbsentError: there is none.
        Failure: it runs, or a part of it cannot be removed or found out.

    """
    # Before anything else: a word that is no id must not become a directory to remove ("../..").
    store.check_id(name)
    try:
        lock = store.hold(root, name, seconds=seconds)
    except store.AbsentError:
        if not force:
            raise
        return
    with closing(lock):
        container = _record(root, name, lock, force=force)
        if container is None:
            return
        # Without a pid its creation was killed. This command has the lock, so no other one continues it.
        state = store.status(container) if container.pid else "stopped"
        # A created container is deleted without --force, too, as in runc and crun: its program does not run
        # yet.
        if state in ("running", "paused") and not force:
            raise Failure(
                f"cannot delete container {name} that is not stopped: {state}",
                hint=f"kill it, or use: pyrunc delete --force {name}",
            )
        if state != "stopped":
            removal.kill_init(container)
        try:
            removal.destroy(container, lock, volumes=volumes, mount_points="all")
        except store.GarbledError as problem:
            if not force:
                raise
            from pyrunc import log

            log.warn(f"{problem.message}; processes, mounts and cgroups of the container may be left")
            container.extra.clear()
            removal.destroy(container, lock, mount_points="all")


def _record(root: str, name: str, lock: int, *, force: bool) -> store.Container | None:
    """Return the record; without a good one only the directory is known, and is removed."""
    try:
        return store.open_container(root, name)
    except store.AbsentError:
        if not force:
            raise
    except store.GarbledError as problem:
        if not force:
            raise
        from pyrunc import log
        from pyrunc.apply import remains

        remains.refuse_members(store.Container(root, name))
        log.warn(f"{problem.message}; processes, mounts and cgroups of the container may be left")
    removal.remove(store.Container(root, name), lock)
    return None
