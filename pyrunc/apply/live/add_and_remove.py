"""Add mounts to the tree of a running container, and remove them.

The container is hostile and runs meanwhile. Sources are opened on the host, and get all their attributes and
the id mapping while they are detached. Then the init program enters the container's mount namespace with
them: it resolves mount points in the container's root to descriptors; after that no path inside is used
(law 3). The program that mounts is the same as at creation (init/mounts.c), and so is the check of what the
kernel has in the end (verify.py). If one of several mounts fails, none is left, nor any mount point that was
made for them.
"""

from __future__ import annotations

import os
from errno import EROFS

from pyrunc.apply import protocol
from pyrunc.apply.live import visit
from pyrunc.apply.live.visit import Found, Visitor
from pyrunc.apply.mounts import bind_sources, host_side, verify
from pyrunc.errors import Failure
from pyrunc.plan import mount_origins, mount_table, program_live
from pyrunc.plan.lowering import Beginning
from pyrunc.plan.mount_steps import Bind, Mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc import store
    from pyrunc.plan.mount_origins import Knowledge, Origins
    from pyrunc.plan.mount_table import Row


class _HostMounts(host_side.HostMounts):
    """The descriptors for the mounts that are added."""

    def verify(self, payload: bytes, fd: int) -> None:
        """Compare the noted mounts with the container's mount table.

        No other mounts get their ids as long as the init program holds them; but the container may rename
        their mount points.

        Raises:
            Failure: one differs, or is not there any more.

        """
        del payload  # the root's
        verify.compare(self, verify.parse_table(bind_sources.read_all(fd)))


def add(container: store.Container, wanted: list[Mount], bases: dict[int, str]) -> None:
    """Mount something in an existing container.

    Args:
        container: its record.
        wanted: the mounts, binds and tmpfs, in their order.
        bases: mount id -> directory on the host that is mounted there, if it is one.

    Raises:
        Failure: one cannot be made; then none is left.

    """
    # An ordinary user may copy a mount only if the container's user namespace owns the mount tree.
    ordinary = os.geteuid() != 0
    for step in wanted:
        # A mount on a shared mount becomes shared.
        step.attributes = step.attributes.but(after=bool(step.attributes.propagation))
        if isinstance(step, Bind) and step.copy_symlink:
            _refuse_link(step)
    visitor = Visitor(container, tuple(wanted), as_root=True)
    mounts = _HostMounts(visitor.plan, None)

    def serve(kind: bytes, payload: bytes, fd: int) -> bool:
        users = visitor.init if "user" in container.namespaces else -1
        return mounts.serve(visitor, kind, payload, fd, users=users, paths=container.cgroup)

    try:
        mounts.prepare(container.directory)
        if ordinary:
            mounts.look()
        else:
            mounts.open_all()
        given = Beginning(
            kinds=visitor.visit.kinds,
            filters={},
            opened=mounts.opened,
            later=mounts.later,
            lonely=frozenset(mounts.lonely),
        )
        program = program_live.add(visitor.visit, visitor.plan, given, bases, copies=ordinary)
        visitor.run(program, mounts.slots, serve)
    except Failure as problem:
        if problem.errno == EROFS:
            problem.hint = "no mount point can be made there: name a place that exists"
        raise
    finally:
        mounts.close()
        visitor.close()


def _refuse_link(step: Bind) -> None:
    """Refuse a copy of a symlink: that is no mount, so it could not be found or removed later."""
    if bind_sources.link(step):
        raise bind_sources.failure(
            step,
            "the source is a symlink, which would be copied and not mounted",
            0,
            "name what it points to",
        )
    # Not looked at again: it may be one by then.
    step.copy_symlink = False


def remove(
    container: store.Container, wanted: list[str], known: Knowledge, found: Origins, *, force: bool
) -> list[int]:
    """Unmount something in an existing container, with all that is mounted below it.

    Args:
        container: its record.
        wanted: paths inside it; each must be a mount point. What is mounted below another one of them
            goes first.
        known: its mounts.
        found: where they come from.
        force: also what is neither in its configuration nor mounted by add().

    Returns:
        The ids of the mounts that were unmounted.

    Raises:
        Failure: one is no mount point, or may not be removed; then nothing has been done.

    """
    rows = {row.id: row for row in known.rows}
    wanted = _upper_first(wanted, known)
    visitor = Visitor(container)
    numbers: list[int] = []

    def serve(kind: bytes, payload: bytes, fd: int) -> bool:
        if kind != protocol.LOCATED or fd >= 0:
            return False
        number, where = visit.located(payload)
        if number != len(numbers) or number >= len(wanted):
            return False
        mount = _removable(wanted[number], where, rows, found, force=force)
        if mount in numbers:
            raise Failure(
                f"{wanted[number]} is to be removed twice",
                hint="name it once; another call removes a mount that is under it",
            )
        numbers.append(mount)
        if len(numbers) == len(wanted):
            visitor.tell(protocol.GO)
        return True

    try:
        visitor.run(
            program_live.remove(visitor.visit, wanted, mapped="user" in container.namespaces), serve=serve
        )
    finally:
        visitor.close()
    return numbers


def _upper_first(wanted: list[str], known: Knowledge) -> list[str]:
    """Return paths so that a mount comes before what it is mounted on, with which it would go."""
    order = {row.point: number for number, row in enumerate(mount_table.in_order(known.rows))}
    return sorted(wanted, key=lambda path: order.get(known.located.get(path) or path, -1), reverse=True)


def _removable(path: str, where: Found, rows: dict[int, Row], found: Origins, *, force: bool) -> int:
    """Return the id of the mount that a path leads to, if it may be removed."""
    if where.errno:
        raise Failure(f"open {path} in the container", errno=where.errno, hint=_nearest(path, rows))
    if not where.top:
        raise Failure(f"nothing is mounted on {path}", hint=_nearest(path, rows))
    row = rows.get(where.mount)
    if row is None:
        raise Failure(f"{path} has just been mounted over", hint="look again: pyrunc mounts ID")
    _check_removable(path, row, found, force=force)
    return where.mount


def _nearest(path: str, rows: dict[int, Row]) -> str:
    """Return the mount point that was probably meant, or the one that the path is in."""
    from pyrunc.near import nearest

    points = [row.point for row in rows.values()]
    if path in points:
        return ""
    near = nearest(path, points)
    if near:
        return f'did you mean "{near}"?'
    best = max((point for point in points if mount_table.within(path, point)), key=len, default="/")
    return f"it lies on the mount of {best}" if best != "/" else "see: pyrunc mounts ID"


def _check_removable(path: str, row: Row, found: Origins, *, force: bool) -> None:
    origin = found.of[row.id]
    if origin.kind == mount_origins.ROOT or row.point == "/":
        raise Failure("the root file system cannot be taken out of its container")
    wished = origin.kind in (mount_origins.CONFIG, mount_origins.ADDED)
    if wished and (path == row.point or _goes_by(path, row, found)):
        return
    if (wished or force) and path != row.point:
        # A symlink in place of something else must not make the user unmount another mount.
        raise Failure(f"{path} leads to the mount on {row.point}", hint="name that to remove it")
    if force:
        return
    whose = {
        mount_origins.CONTAINER: "is not in config.json and was not added",
        mount_origins.BELOW: f"came with a recursive bind, {origin.pointer}",
    }.get(origin.kind, f"is pyrunc's own: {origin.kind}, which keeps the container from what is under it")
    raise Failure(f"the mount on {path} {whose}", hint="--force removes it all the same")


def _goes_by(path: str, row: Row, found: Origins) -> bool:
    """Tell whether a path that is no mount point can only be its name in the configuration."""
    own = found.of[row.id].step
    known = [origin.step for origin in found.of.values() if origin.step is not None]
    known += [step for step, _place in found.missing]
    return (
        own is not None
        and mount_origins.place_of(own) == path
        and not any(step is not own and mount_origins.place_of(step) == row.point for step in known)
    )
