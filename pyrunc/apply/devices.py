"""Device nodes, /dev links and the console, all relative to descriptors.

CVE-2026-41579 and its kin: an image's /dev may be a symlink to anywhere, so every node is made relative to a
directory that target.py opened inside the root, and looked at again after it was made.
"""

from __future__ import annotations

import _stat as stat
import os

from pyrunc.apply import sources, target
from pyrunc.errors import Failure
from pyrunc.linux import _linux, flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrunc.apply.child import Child
    from pyrunc.plan.steps import Device, OwnNull, Symlink

_TYPES = {"c": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
_ENOENT = 2
_ATTACH = flags.MOVE_MOUNT_F_EMPTY_PATH | flags.MOVE_MOUNT_T_EMPTY_PATH


def open_source(step: Device) -> int:
    """Return a detached copy of the host's node, for places where nodes cannot be made.

    Raises:
        Failure: the host has no such node, or it is another device.

    """
    how = flags.OPEN_TREE_CLONE | flags.OPEN_TREE_CLOEXEC | flags.AT_SYMLINK_NOFOLLOW
    try:
        try:
            fd = sources.calls.open_tree(flags.AT_FDCWD, step.path, how)
        except FileNotFoundError:
            fd = sources.calls.open_tree(flags.AT_FDCWD, _host_path(step), how)
    except OSError as exc:
        why = "and the host has none to bind"
        if exc.errno != _ENOENT:
            why = "and the host's cannot be bound"
        raise Failure(
            f"device {step.path} cannot be made in a user namespace, {why}",
            pointer=step.pointer,
            errno=exc.errno or 0,
        ) from None
    if not _is(step, os.fstat(fd)):
        os.close(fd)
        raise Failure(f"the host's {step.path} is another device than asked for", pointer=step.pointer)
    return fd


def _host_path(step: Device) -> str:
    """Return where the host has a device that is asked for under another name (sysfs(5), uevent files)."""
    kind = "block" if step.type == "b" else "char"
    fd = os.open(f"/sys/dev/{kind}/{step.major}:{step.minor}/uevent", os.O_RDONLY | os.O_CLOEXEC)
    try:
        lines = os.read(fd, 4096).splitlines()
    finally:
        os.close(fd)
    for line in lines:
        if line.startswith(b"DEVNAME="):
            return "/dev/" + line[8:].decode()
    raise FileNotFoundError(_ENOENT, step.path)


def _is(step: Device, found: os.stat_result) -> bool:
    if stat.S_IFMT(found.st_mode) != _TYPES[step.type]:
        return False
    return step.type == "p" or found.st_rdev == os.makedev(step.major, step.minor)


def device(child: Child, step: Device) -> None:
    """Make one device node, or attach the host's."""
    try:
        if step.bind:
            _bind(child, step)
            return
        directory, name = _directory(child, step.path)
        kind, number = step.mode | _TYPES[step.type], os.makedev(step.major, step.minor)
        try:
            if _made(child, directory, name, lambda: os.mknod(name, kind, number, dir_fd=directory)):
                if step.uid or step.gid:
                    os.chown(name, step.uid, step.gid, dir_fd=directory, follow_symlinks=False)
            if not _is(step, os.stat(name, dir_fd=directory, follow_symlinks=False)):
                raise Failure(f"{step.path} exists and is something else", pointer=step.pointer)
        finally:
            _close(child, directory)
    except OSError as exc:
        raise Failure(f"make device {step.path}", pointer=step.pointer, errno=exc.errno or 0) from None


def _made(child: Child, directory: int, name: str, make: Callable[[], object]) -> bool:
    """Make something in a directory, and note it; tell whether it was not there already."""
    return child.mounting.made.make_in(directory, name, make)


def _bind(child: Child, step: Device) -> None:
    fd = child.mounts.pop(id(step), -1)
    if fd < 0:
        fd = open_source(step)
    try:
        tfd = target.make(child.root, step.path, "file", made=child.mounting.made)
        try:
            sources.calls.move_mount(fd, "", tfd, "", _ATTACH)
        finally:
            os.close(tfd)
    finally:
        os.close(fd)


def _directory(child: Child, path: str) -> tuple[int, str]:
    """Return (directory, name) of a path; /dev itself is opened once and kept until the root is entered."""
    head, _, name = path.rpartition("/")
    if head != "/dev":
        return target.parent(child.root, path, made=child.mounting.made)
    if child.dev < 0:
        child.dev = target.make(child.root, "/dev", "dir", made=child.mounting.made)
        _refuse_bound(child)
    return child.dev, name


def _refuse_bound(child: Child) -> None:
    """Refuse to fill a directory of the host's that /dev leads to, by a symlink of the image's.

    What is bound on /dev itself is left alone, so nobody has come here then. A mount that is nobody's step
    came along below another one: of the root, as somebody has prepared it, or of a bind.
    """
    mounting = child.mounting
    mask = mounting.made.mask
    mount = _linux.statx_mnt(child.dev, mask)[0]
    if mount == _linux.statx_mnt(child.root, mask)[0]:
        return
    kinds = [step.kind for number, step in mounting.noted if number == mount]
    if "bind" in kinds or (not kinds and _is_link(child.root, "dev")):
        where = mounting.made.bases.get(mount, "a directory")
        raise Failure(
            f"/dev leads to {where} of the host by a symlink in the root file system:"
            " no devices are made there",
            hint="bind it on /dev, or mount a tmpfs there",
        )


def _is_link(directory: int, name: str) -> bool:
    return stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)


def _close(child: Child, directory: int) -> None:
    if directory != child.dev:
        os.close(directory)


def symlink(child: Child, step: Symlink) -> None:
    """Make one symlink; an existing one with the same target is as good."""
    directory, name = _directory(child, step.path)
    try:
        if step.replace and not target.is_link(directory, name, step.target):
            try:
                os.unlink(name, dir_fd=directory)
            except FileNotFoundError:
                pass
        # An image may bring the link, or something else under that name: that is the image's affair.
        _made(child, directory, name, lambda: os.symlink(step.target, name, dir_fd=directory))
    except OSError as exc:
        raise Failure(
            f"link {step.path} to {step.target}", pointer=step.pointer, errno=exc.errno or 0
        ) from None
    finally:
        _close(child, directory)


def own_null(child: Child, _step: OwnNull) -> None:
    """Open the container's /dev/null in the place of the host's as stdin, stdout and stderr.

    Without a null device in the container they stay what they are.
    """
    null = os.makedev(1, 3)
    stdio = [fd for fd in range(3) if _device_of(fd) == null]
    if not stdio:
        return
    try:
        place = target.resolve(child.root, "/dev/null")
    except OSError:
        return
    try:
        if _device_of(place) == null:
            # What was looked at is what is opened: the path is not walked again.
            own = os.open(f"/proc/self/fd/{place}", os.O_RDWR | os.O_CLOEXEC)
            for fd in stdio:
                os.dup2(own, fd)
            os.close(own)
    except OSError:
        return  # on a mount where devices do not work
    finally:
        os.close(place)


def _device_of(fd: int) -> int:
    """Return the number of a character device, 0 for anything else."""
    try:
        found = os.fstat(fd)
    except OSError:
        return 0  # closed
    return found.st_rdev if stat.S_ISCHR(found.st_mode) else 0


def console(child: Child, devpts: int, number: int) -> None:
    """Put the terminal's slave on /dev/console.

    CVE-2025-52565: the source is taken from the devpts we mounted, the target is opened without following
    anything.
    """
    directory, name = _directory(child, "/dev/console")
    try:
        how = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        _made(child, directory, name, lambda: os.close(os.open(name, how, 0o666, dir_fd=directory)))
        tfd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            mode = os.fstat(tfd).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode)):
                raise Failure("/dev/console in the root file system is neither a file nor a device")
            how = flags.OPEN_TREE_CLONE | flags.OPEN_TREE_CLOEXEC | flags.AT_SYMLINK_NOFOLLOW
            source = sources.calls.open_tree(devpts, str(number), how)
            try:
                sources.calls.move_mount(source, "", tfd, "", _ATTACH)
            finally:
                os.close(source)
        finally:
            os.close(tfd)
    except OSError as exc:
        raise Failure(
            "put the terminal on /dev/console", pointer="/process/terminal", errno=exc.errno or 0
        ) from None
    finally:
        _close(child, directory)
