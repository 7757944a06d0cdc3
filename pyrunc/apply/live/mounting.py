"""Add mounts to the tree of a running container, and remove them.

The container is hostile and runs meanwhile. Sources are opened on the host, and get all their attributes and
the id mapping while they are detached. Mount points are resolved in the container's root by target.py, to a
descriptor; after that no path inside is used (law 3). The code that mounts is the same as at creation
(mounts.py), and so is the check of what the kernel has in the end (verify.py). If one of several mounts
fails, none is left, nor any mount point that was made for them.
"""

from __future__ import annotations

import _stat as stat
import os

from pyrunc.apply import target
from pyrunc.apply.live import inside
from pyrunc.apply.mounts import bind_sources, filesystems, id_mapped, mount_points, mounts, verify
from pyrunc.apply.mounts.mounting import Mounting
from pyrunc.errors import Failure
from pyrunc.linux import _linux, flags
from pyrunc.plan import mount_origins, mount_table, steps
from pyrunc.plan.mount_steps import Bind, FileSystem, InnerBind, Mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc import store
    from pyrunc.apply.live.inside import Place
    from pyrunc.plan.mount_origins import Knowledge, Origins
    from pyrunc.plan.mount_table import Row

_EINVAL, _EROFS = 22, 30


class _Made(mount_points.Made):
    """The list of mount points that were made, which can also remove them again."""

    def __init__(self) -> None:
        super().__init__()
        self.mask = flags.STATX_MNT_ID  # the kind of ids in the mount table, in which the bases are looked up
        self._undo: list[tuple[int, str, int]] = []

    def intend(self, stack: list[int], names: list[str], name: str) -> None:
        """Note what is about to be made, and where."""
        super().intend(stack, names, name)
        self._undo.append((os.dup(stack[-1]), name, self.noted))

    def retract(self) -> None:
        """Remove the last note: another process was faster."""
        super().retract()
        os.close(self._undo.pop()[0])

    def undo(self) -> None:
        """Remove what was made, if it is still empty, and its notes."""
        for directory, name, noted in reversed(self._undo):
            try:
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode):
                    os.rmdir(name, dir_fd=directory)
                elif stat.S_ISREG(found.st_mode) and not found.st_size:
                    os.unlink(name, dir_fd=directory)
            except OSError:
                continue  # the container has put something there meanwhile
            self.noted = noted
            super().retract()


class _Tree:
    """The container's side, as mounts.py needs it."""

    def __init__(self, plan: steps.Plan, made: _Made) -> None:
        self.plan = plan
        self.root = self.procfs = -1
        self.mounts: dict[int, int] = {}
        self.devpts = -1
        self.mounting = Mounting()
        self.mounting.made = made


def add(container: store.Container, wanted: list[Mount], plan: steps.Plan, bases: dict[int, str]) -> None:
    """Mount something in an existing container.

    Args:
        container: its record.
        wanted: the mounts, binds and tmpfs, in their order.
        plan: the container's.
        bases: mount id -> directory on the host that is mounted there, if it is one.

    Raises:
        Failure: one cannot be made; then none is left.

    """
    made = _Made()
    made.bases = dict(bases)
    tree = _Tree(plan, made)
    spaces = id_mapped.Spaces()
    made.open(container.directory)
    lock, _held = mount_points.hold(container.root, container.rootfs)
    for step in wanted:
        # A mount on a shared mount becomes shared.
        step.attributes = step.attributes.but(after=bool(step.attributes.propagation))
        if verify.is_lonely(step):
            tree.mounting.lonely.add(id(step))
        if isinstance(step, FileSystem) and step.copy_up:
            from pyrunc.apply.mounts import tmpcopyup

            tree.mounting.copy = tmpcopyup.fill
        if isinstance(step, Bind) and step.copy_symlink:
            _refuse_link(step)

    def open_all() -> None:
        for step in wanted:
            if isinstance(step, Bind):
                fd = tree.mounts[id(step)] = bind_sources.open_source(step)
                if step.attributes.id_mapped:
                    spaces.map(fd, step)

    try:
        if not os.geteuid():
            open_all()
        # An ordinary user may copy a mount only if the container's user namespace owns the mount tree.
        before = open_all if os.geteuid() else None
        inside.run(
            container,
            lambda place: _attach_all(tree, wanted, place),
            as_root=True,
            before=before,
            keep=(made.file, *tree.mounts.values()),
        )
    finally:
        spaces.close()
        for fd in (*tree.mounts.values(), made.file, *([lock] if lock >= 0 else [])):
            os.close(fd)


def _refuse_link(step: Bind) -> None:
    """Refuse a copy of a symlink: that is no mount, so it could not be found or removed later."""
    if bind_sources.link(step):
        raise bind_sources.failure(
            step,
            "the source is a symlink, which would be copied and not mounted",
            0,
            "name what it points to",
        )
    # The helper must not look at it again: in its mount namespace the path means something else.
    step.copy_symlink = False


def _attach_all(tree: _Tree, wanted: list[Mount], place: Place) -> None:
    """Do the helper's part of add()."""
    tree.root, tree.procfs = place.root, place.procfs
    attached: list[int] = []
    try:
        for step in wanted:
            _attach(tree, step, attached)
        mounts.propagate_again(tree)
        # Their ids stay unique while they are held open; the container may rename their mount points.
        verify.compare(tree.mounting, verify.read_table(place.procfs, {}))
    except BaseException:
        for fd in reversed(attached):
            try:
                _detach(fd, place)
            except OSError as exc:
                if exc.errno != _EINVAL:  # the last one may not be mounted yet
                    raise
        tree.mounting.made.undo()  # type: ignore[attr-defined]  # _Tree gives it one of ours
        raise


def _attach(tree: _Tree, step: Mount, attached: list[int]) -> None:
    """Attach one mount, and append a descriptor of it to `attached`."""
    fd = tree.mounts.get(id(step), -1)
    if fd < 0 and isinstance(step, InnerBind):
        fd = bind_sources.open_inner(tree.root, step)
    elif fd < 0 and isinstance(step, FileSystem):
        fd = filesystems.open_new(step)
    attached.append(os.dup(fd))  # it may be attached when a part of it fails: the propagation is changed last
    tree.mounts[id(step)] = fd
    try:
        mounts.mount(tree, step)
    except Failure as problem:
        if problem.errno == _EROFS:
            problem.hint = "no mount point can be made there: name a place that exists"
        raise


def _detach(fd: int, place: Place) -> None:
    """Unmount the mount whose root a descriptor is; no path inside the container is resolved.

    It is named through our own procfs. The last component of such a name is always followed; here it is the
    descriptor itself.
    """
    os.fchdir(place.procfs)
    _linux.umount2(f"self/fd/{fd}", flags.MNT_DETACH)


def remove(
    container: store.Container, wanted: list[str], known: Knowledge, found: Origins, *, force: bool
) -> list[int]:
    """Unmount something in an existing container, with all that is mounted below it.

    Args:
        container: its record.
        wanted: paths inside it; each must be a mount point.
        known: its mounts.
        found: where they come from.
        force: also what is neither in its configuration nor mounted by add().

    Returns:
        The ids of the mounts that were unmounted.

    Raises:
        Failure: one is no mount point, or may not be removed; then nothing has been done.

    """
    rows = {row.id: row for row in known.rows}
    points = {row.point for row in known.rows}
    hints = {path: _nearest(path, known.rows) for path in wanted if path not in points}

    def work(place: Place) -> object:
        opened = []
        for path in wanted:
            fd = _mounted_at(place.root, path, hints.get(path, ""))
            number = _linux.statx_mnt(fd)[0]
            row = rows.get(number)
            if row is None:
                raise Failure(f"{path} has just been mounted over", hint="look again: pyrunc mounts ID")
            _check_removable(path, row, found, force=force)
            opened.append((number, fd))
        for number, fd in opened:
            try:
                _detach(fd, place)
            except OSError as exc:
                raise Failure(
                    f"unmount {rows[number].point}",
                    errno=exc.errno or 0,
                    hint="a mount that came with a user namespace's tree cannot be taken out of it"
                    if "user" in container.namespaces
                    else "",
                ) from None
        return [number for number, _fd in opened]

    numbers = inside.run(container, work, as_root=False)
    return [number for number in numbers if isinstance(number, int)]  # type: ignore[attr-defined]


def _mounted_at(root: int, path: str, hint: str) -> int:
    """Open what is mounted at a path."""
    try:
        fd = target.resolve(root, path)
    except OSError as exc:
        raise Failure(f"open {path} in the container", errno=exc.errno or 0, hint=hint) from None
    if not _linux.statx_mnt(fd)[1]:
        os.close(fd)
        raise Failure(f"nothing is mounted on {path}", hint=hint)
    return fd


def _nearest(path: str, rows: list[Row]) -> str:
    """Return the mount point that was probably meant, or the one that the path is in."""
    from pyrunc.near import nearest  # before the helper is made: law 6

    points = [row.point for row in rows]
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
        mount_origins.CONTAINER: "is none of config.json's and was not added",
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
