"""The host's device nodes, for places where nodes cannot be made: user namespaces.

The parent opens them for binding, and checks that each is the device that was asked for. All others are made
by the init program (init/root.c). Imported with the first one that is bound.
"""

from __future__ import annotations

import _stat as stat
import os
from errno import ENOENT

from pyrunc import files
from pyrunc.errors import Failure
from pyrunc.linux import _linux, flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.steps import Device

_TYPES = {"c": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


def open_source(step: Device) -> int:
    """Return a detached copy of the host's device node, for places where nodes cannot be made.

    Raises:
        Failure: the host has no such node, or it is another device.

    """
    how = flags.OPEN_TREE_CLONE | flags.OPEN_TREE_CLOEXEC | flags.AT_SYMLINK_NOFOLLOW
    try:
        try:
            fd = _linux.open_tree(flags.AT_FDCWD, step.path, how)
        except FileNotFoundError:
            fd = _linux.open_tree(flags.AT_FDCWD, _host_path(step), how)
    except OSError as exc:
        why = "and the host has none to bind"
        if exc.errno != ENOENT:
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


def host_place(step: Device) -> str:
    """Return the host's path of a device: the same name, another name, or the same name if there is none."""
    if not os.path.lexists(step.path):
        try:
            return _host_path(step)
        except OSError:
            pass
    return step.path


def _host_path(step: Device) -> str:
    """Return the host's path of a device that is wanted under another name (sysfs(5), uevent files)."""
    kind = "block" if step.type == "b" else "char"
    lines = files.read(f"/sys/dev/{kind}/{step.major}:{step.minor}/uevent").splitlines()
    for line in lines:
        if line.startswith(b"DEVNAME="):
            return "/dev/" + line[8:].decode()
    raise FileNotFoundError(ENOENT, step.path)


def _is(step: Device, found: os.stat_result) -> bool:
    if stat.S_IFMT(found.st_mode) != _TYPES[step.type]:
        return False
    return step.type == "p" or found.st_rdev == os.makedev(step.major, step.minor)
