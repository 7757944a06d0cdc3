"""A container's external mounts: their mount points for a dump, and the preparation of a restore.

Law 3: mount points are opened inside the root by descriptor, and identified by the id of the mount there, so
symlinks on the way do not matter.

CRIU mounts a file system only if its mount point exists, and a mount point may be on a bind mount. So before
a restore all binds are mounted once, in order, in a mount namespace that ends with CRIU, and then unmounted.
That makes the missing mount points, as `create` makes them.
"""

from __future__ import annotations

import _signal
import os
from errno import EINVAL, EPERM

from pyrunc.apply import children, idmaps, protocol
from pyrunc.apply.errand import Errand
from pyrunc.apply.live import visit
from pyrunc.apply.mounts.host_side import HostMounts
from pyrunc.errors import failing
from pyrunc.files import closing
from pyrunc.linux import _linux, flags
from pyrunc.plan import criu, program_live
from pyrunc.plan.lowering import Beginning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan import steps
    from pyrunc.plan.mount_table import Row
    from pyrunc.store import Container

# Names that CRIU uses: the link to the images of an earlier dump, and the file with the clocks.
_PARENT = "parent"
_CLOCKS = "timens-"
_ATTACH = flags.MOVE_MOUNT_F_EMPTY_PATH | flags.MOVE_MOUNT_T_EMPTY_PATH


def locate(container: Container, plan: steps.Plan, rows: list[Row]) -> dict[str, str]:
    """Return destination -> mount point of the external, masked and read-only mounts of a running container.

    Args:
        container: its record.
        plan: its plan.
        rows: its mount table.

    Raises:
        Failure: it has ended.

    """
    wanted = [
        *(external.destination for external in criu.externals(plan)),
        *criu.masks(plan),
        *criu.covers(plan),
    ]
    by_id = {row.id: row.point for row in rows}
    _text, found = visit.locate(container, wanted)
    return {
        path: by_id[where.mount]
        for path, where in found.items()
        if not where.errno and where.top and where.mount in by_id
    }


def enter(rootfs: str, place: str) -> int:
    """Enter a new mount namespace in which the root file system is mounted at a place; return its descriptor.

    CRIU needs a root that is a mount point, and whose parent is not hidden by another mount.

    Raises:
        Failure: the kernel refuses.

    """
    with failing(f"mount the root file system {rootfs} for CRIU"):
        _linux.unshare(flags.CLONE_NEWNS)
        _linux.mount(None, "/", None, flags.MS_SLAVE | flags.MS_REC, None)
        tree = _linux.open_tree(
            flags.AT_FDCWD, rootfs, flags.OPEN_TREE_CLONE | flags.OPEN_TREE_CLOEXEC | flags.AT_RECURSIVE
        )
        here = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        _linux.move_mount(tree, "", here, "", _ATTACH)
        os.close(here)
    return tree


def prepare(container: Container, plan: steps.Plan, root: int) -> dict[str, str]:
    """Make the mount points in the root file system, by the init program in this mount namespace.

    Args:
        container: its record.
        plan: its plan.
        root: descriptor of enter().

    Returns:
        destination -> mount point inside the root, without symlinks, of the binds.

    Raises:
        Failure: one cannot be made, or a bind's source is missing.

    """
    errand = Errand(container, tuple(criu.points(plan)))
    mounts = HostMounts(errand.plan, None)
    # The host's procfs: no process of the container exists yet.
    procfs = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    found: dict[str, str] = {}

    def serve(kind: bytes, payload: bytes, fd: int) -> bool:
        if kind != protocol.MOUNTED or fd >= 0:
            return False
        step, place = mounts.note(program.operations, payload)
        found[step.destination] = place
        return True

    try:
        mounts.prepare(container.directory)
        mounts.look()
        given = Beginning(
            kinds=0, filters={}, links=mounts.links, lonely=frozenset(mounts.lonely), directory=plan.rootfs
        )
        top = _linux.statx_mnt(root, flags.STATX_MNT_ID)[0]
        program = program_live.mount_points(errand.plan, given, {top: plan.rootfs})
        errand.run(program, {**mounts.slots, "root": root, "proc": procfs}, serve)
    finally:
        mounts.close()
        errand.close()
        os.close(procfs)
    return found


def show_images(images: str, place: str, maps: steps.IdMaps) -> None:
    """Mount the image files so that the root of a user namespace, who reads them in a restore, can read them.

    They contain the memory of processes, so other users must not be able to read them. They are bound,
    id-mapped, into the directory of a tmpfs in this process's mount namespace. On a file system that cannot
    be id-mapped they are bound as they are, and CRIU reports what it cannot read.

    Args:
        images: their directory.
        place: a directory.
        maps: the user namespace's.

    Raises:
        Failure: the kernel refuses anything but the id-mapping.

    """
    with failing(f"mount the image files {images} for CRIU"), closing(_user_namespace(maps)) as owner:
        top = _tmpfs(place)
        _show(images, top, owner)
        os.close(top)


def _tmpfs(place: str) -> int:
    """Mount a tmpfs whose root everybody may search, and return the root."""
    with closing(_linux.fsopen("tmpfs", flags.FSOPEN_CLOEXEC)) as fs:
        _linux.fsconfig(fs, flags.FSCONFIG_SET_STRING, "mode", "755", 0)
        _linux.fsconfig(fs, flags.FSCONFIG_CMD_CREATE, None, None, 0)
        top = _linux.fsmount(fs, flags.FSMOUNT_CLOEXEC, flags.MOUNT_ATTR_NOSUID | flags.MOUNT_ATTR_NODEV)
    here = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    _linux.move_mount(top, "", here, "", _ATTACH)
    os.close(here)
    return top


def _show(images: str, directory: int, owner: int) -> None:
    """Bind each file of a directory into another one; those of its link `parent` into a subdirectory."""
    for entry in os.scandir(images):
        if entry.name == _PARENT and entry.is_dir():
            os.mkdir(_PARENT, 0o755, dir_fd=directory)
            below = os.open(_PARENT, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
            _show(entry.path, below, owner)
            os.close(below)
        elif entry.is_file(follow_symlinks=False):
            tree = _linux.open_tree(
                flags.AT_FDCWD, entry.path, flags.OPEN_TREE_CLONE | flags.OPEN_TREE_CLOEXEC
            )
            # CRIU's first process in the new user namespace reads it while its user is still the host's root,
            # sometimes before there are mappings.
            if not entry.name.startswith(_CLOCKS):
                _map(tree, owner)
            how = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            os.close(os.open(entry.name, how, 0o600, dir_fd=directory))
            here = os.open(entry.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            _linux.move_mount(tree, "", here, "", _ATTACH)
            os.close(here)
            os.close(tree)


def _map(tree: int, owner: int) -> None:
    try:
        _linux.mount_setattr(tree, "", flags.AT_EMPTY_PATH, flags.MOUNT_ATTR_IDMAP, 0, 0, owner)
    except OSError as exc:
        if exc.errno not in (EINVAL, EPERM):
            raise


def _user_namespace(maps: steps.IdMaps) -> int:
    """Return a user namespace with these mappings; a process in it waits until it is killed."""
    pid, pidfd = children.fork(_wait, lambda: _linux.clone3(flags.CLONE_NEWUSER, int(_signal.SIGCHLD), -1))
    try:
        idmaps.write(pid, maps)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        _signal.pidfd_send_signal(pidfd, _signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(pidfd)


def _wait() -> None:
    """Wait until this process is killed; it ends with its parent."""
    _linux.prctl(flags.PR_SET_PDEATHSIG, _signal.SIGKILL, 0, 0, 0)
    while True:
        _signal.pause()
