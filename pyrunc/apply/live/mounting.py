"""Put mounts into the tree of a container that runs, and take them out.

The container is hostile and awake. Sources are opened on the host and get all their attributes while they are
attached nowhere, id mapping included; mount points are resolved in the container's root by target.py, to a
descriptor, and nothing inside is named by a path after that (law 3). It is the same code that mounts when a
container is made (mounts.py), and what the kernel has in the end is compared with what was asked (verify.py).
When one of several cannot be had, none is left, nor anything that was made for them.
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
    """The list of mount points that were made, which can also take them away again."""

    def __init__(self) -> None:
        super().__init__()
        self.mask = flags.STATX_MNT_ID  # the ids of the mount table, by which the bases are known
        self._undo: list[tuple[int, str, int]] = []

    def intend(self, stack: list[int], names: list[str], name: str) -> None:
        """Note what is about to be made, and where."""
        super().intend(stack, names, name)
        self._undo.append((os.dup(stack[-1]), name, self.noted))

    def retract(self) -> None:
        """Take the last note back: somebody else was faster."""
        super().retract()
        os.close(self._undo.pop()[0])

    def undo(self) -> None:
        """Remove what was made, as far as it is still empty, and take the notes of it back."""
        for directory, name, noted in reversed(self._undo):
            try:
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode):
                    os.rmdir(name, dir_fd=directory)
                elif stat.S_ISREG(found.st_mode) and not found.st_size:
                    os.unlink(name, dir_fd=directory)
            except OSError:
                continue  # the container has got something of its own there by now
            self.noted = noted
            super().retract()


class _Tree:
    """What mounts.py wants of the container's side."""

    def __init__(self, plan: steps.Plan, made: _Made) -> None:
        self.plan = plan
        self.root = self.procfs = -1
        self.mounts: dict[int, int] = {}
        self.devpts = -1
        self.mounting = Mounting()
        self.mounting.made = made


def add(container: store.Container, wanted: list[Mount], plan: steps.Plan, bases: dict[int, str]) -> None:
    """Mount something in a container that is there.

    Args:
        container: its record.
        wanted: the mounts, binds and tmpfs, in their order.
        plan: the container's.
        bases: mount id -> directory on the host that is mounted there, as far as it is one.

    Raises:
        Failure: one cannot be had; then there is none.

    """
    made = _Made()
    made.bases = dict(bases)
    tree = _Tree(plan, made)
    spaces = id_mapped.Spaces()
    made.open(container.directory)
    lock, _held = mount_points.hold(container.root, container.rootfs)
    for step in wanted:
        # What is put on a shared mount becomes shared by that.
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
        # An ordinary user may copy a mount only where the container's user namespace owns the mount tree.
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
    """Refuse what would be a copy of a symlink: no mount, so nothing that could be found or removed again."""
    if bind_sources.link(step):
        raise bind_sources.failure(
            step,
            "the source is a symlink, which would be copied and not mounted",
            0,
            "name what it points to",
        )
    # Not looked at again by the helper, to whom the path means something else.
    step.copy_symlink = False


def _attach_all(tree: _Tree, wanted: list[Mount], place: Place) -> None:
    """Be the helper's part of add()."""
    tree.root, tree.procfs = place.root, place.procfs
    attached: list[int] = []
    try:
        for step in wanted:
            _attach(tree, step, attached)
        mounts.propagate_again(tree)
        # Their ids are nobody else's as long as we hold them; their places the container may rename.
        verify.compare(tree.mounting, verify.read_table(place.procfs, {}))
    except BaseException:
        for fd in reversed(attached):
            try:
                _detach(fd, place)
            except OSError as exc:
                if exc.errno != _EINVAL:  # the last one may not have been mounted yet
                    raise
        tree.mounting.made.undo()  # type: ignore[attr-defined]  # _Tree gives it one of ours
        raise


def _attach(tree: _Tree, step: Mount, attached: list[int]) -> None:
    """Attach one mount, and add a descriptor of it to those that are."""
    fd = tree.mounts.get(id(step), -1)
    if fd < 0 and isinstance(step, InnerBind):
        fd = bind_sources.open_inner(tree.root, step)
    elif fd < 0 and isinstance(step, FileSystem):
        fd = filesystems.open_new(step)
    attached.append(os.dup(fd))  # it may be when something of it fails: its propagation is changed last
    tree.mounts[id(step)] = fd
    try:
        mounts.mount(tree, step)
    except Failure as problem:
        if problem.errno == _EROFS:
            problem.hint = "no mount point can be made there: name a place that exists"
        raise


def _detach(fd: int, place: Place) -> None:
    """Unmount what a descriptor is the root of: no path inside the container is walked.

    By our own procfs, because the last component of such a name cannot be kept from being followed: it is
    the descriptor itself.
    """
    os.fchdir(place.procfs)
    _linux.umount2(f"self/fd/{fd}", flags.MNT_DETACH)


def remove(
    container: store.Container, wanted: list[str], known: Knowledge, found: Origins, *, force: bool
) -> list[int]:
    """Unmount something in a container that is there, with all that is mounted below it.

    Args:
        container: its record.
        wanted: paths inside it; each must be a mount point.
        known: its mounts.
        found: where they come from.
        force: also what neither its configuration nor add() has mounted.

    Returns:
        The ids of the mounts that were unmounted.

    Raises:
        Failure: one of them is none, or may not be removed; then nothing has been done.

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
    """Return which mount point was probably meant, or what the path lies in."""
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
        # A symlink in the place of something else must not cost the container's keeper another mount.
        raise Failure(f"{path} leads to the mount on {row.point}", hint="name that to remove it")
    if force:
        return
    whose = {
        mount_origins.CONTAINER: "is none of config.json's and was not added",
        mount_origins.BELOW: f"came with a recursive bind, {origin.pointer}",
    }.get(origin.kind, f"is pyrunc's own: {origin.kind}, which keeps the container from what is under it")
    raise Failure(f"the mount on {path} {whose}", hint="--force removes it all the same")


def _goes_by(path: str, row: Row, found: Origins) -> bool:
    """Tell whether a path that is not where a mount is can be nothing but its name in the configuration."""
    own = found.of[row.id].step
    known = [origin.step for origin in found.of.values() if origin.step is not None]
    known += [step for step, _place in found.missing]
    return (
        own is not None
        and mount_origins.place_of(own) == path
        and not any(step is not own and mount_origins.place_of(step) == row.point for step in known)
    )
