"""Masked and read-only paths, by descriptor.

CVE-2025-31133: what covers a file is a clone of the host's /dev/null, taken before the container's root is
entered and verified to be the null device; nothing of the container's tree is ever a source.
"""

from __future__ import annotations

import _stat as stat
import os

from pyrunc.apply import sources, target
from pyrunc.errors import Failure
from pyrunc.linux import _linux, flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.apply.child import Child
    from pyrunc.plan.steps import MaskedPath, ReadonlyPath

_ENOENT, _ENOTDIR = 2, 20
_ATTACH = flags.MOVE_MOUNT_F_EMPTY_PATH | flags.MOVE_MOUNT_T_EMPTY_PATH
_CLONE = flags.OPEN_TREE_CLONE | flags.OPEN_TREE_CLOEXEC


def _open(child: Child, path: str, pointer: str) -> int:
    """Open what is to be covered, -1 when it does not exist.

    Raises:
        Failure: it cannot be opened, or is the root, which nothing can cover for those who are in it.

    """
    try:
        fd = target.resolve(child.root, path)
    except OSError as exc:
        if exc.errno in (_ENOENT, _ENOTDIR):
            return -1
        raise Failure(f"open {path}", pointer=pointer, errno=exc.errno or 0) from None
    if _linux.statx_mnt(fd) == _linux.statx_mnt(child.root) and _linux.statx_mnt(fd)[1]:
        os.close(fd)
        raise Failure(
            f"{path} leads to the root of the file system, which nothing can cover",
            pointer=pointer,
            hint="a read-only root is asked for with /root/readonly",
        )
    return fd


def readonly(child: Child, step: ReadonlyPath) -> None:
    """Cover a path with a read-only copy of what is there, submounts and flags kept."""
    fd = _open(child, step.path, step.pointer)
    if fd < 0:
        return
    try:
        tree = sources.calls.open_tree(fd, "", _CLONE | flags.AT_EMPTY_PATH | flags.AT_RECURSIVE)
        try:
            sources.calls.mount_setattr(tree, "", flags.AT_EMPTY_PATH, flags.MOUNT_ATTR_RDONLY, 0, 0, -1)
            sources.calls.move_mount(tree, "", fd, "", _ATTACH)
        finally:
            os.close(tree)
    except OSError as exc:
        raise Failure(f"make {step.path} read-only", pointer=step.pointer, errno=exc.errno or 0) from None
    finally:
        os.close(fd)


def mask(child: Child, step: MaskedPath) -> None:
    """Hide a path: an empty read-only tmpfs over a directory, /dev/null over anything else."""
    fd = _open(child, step.path, step.pointer)
    if fd < 0:
        return
    try:
        cover = _empty_directory(child) if stat.S_ISDIR(os.fstat(fd).st_mode) else _null()
        try:
            sources.calls.move_mount(cover, "", fd, "", _ATTACH)
        except OSError:
            os.close(cover)
            raise
        if child.mask < 0 and stat.S_ISDIR(os.fstat(fd).st_mode):
            child.mask = cover
        else:
            os.close(cover)
    except OSError as exc:
        raise Failure(f"mask {step.path}", pointer=step.pointer, errno=exc.errno or 0) from None
    finally:
        os.close(fd)


def _null() -> int:
    """Return a detached copy of the host's /dev/null."""
    fd = sources.calls.open_tree(flags.AT_FDCWD, "/dev/null", _CLONE | flags.AT_SYMLINK_NOFOLLOW)
    found = os.fstat(fd)
    if not stat.S_ISCHR(found.st_mode) or found.st_rdev != os.makedev(1, 3):
        os.close(fd)
        raise Failure("the host's /dev/null is not the null device")
    return fd


def _empty_directory(child: Child) -> int:
    """Return a detached mount of one empty read-only tmpfs, the same for every masked directory.

    One superblock for all: with one each, hosts that mask a directory per CPU met contention on kernel locks.
    """
    if child.mask >= 0:
        return sources.calls.open_tree(child.mask, "", _CLONE | flags.AT_EMPTY_PATH)
    fs = sources.calls.fsopen("tmpfs", flags.FSOPEN_CLOEXEC)
    try:
        for name, value in (("source", "tmpfs"), ("nr_blocks", "1"), ("nr_inodes", "1"), ("mode", "555")):
            sources.calls.fsconfig(fs, flags.FSCONFIG_SET_STRING, name, value, 0)
        sources.calls.fsconfig(fs, flags.FSCONFIG_CMD_CREATE, None, None, 0)
        attributes = mask_attributes()
        return sources.calls.fsmount(fs, flags.FSMOUNT_CLOEXEC, attributes)
    finally:
        os.close(fs)


def mask_attributes() -> int:
    """Return the attributes of the tmpfs over masked directories."""
    return (
        flags.MOUNT_ATTR_RDONLY | flags.MOUNT_ATTR_NOSUID | flags.MOUNT_ATTR_NODEV | flags.MOUNT_ATTR_NOEXEC
    )
