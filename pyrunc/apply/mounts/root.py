"""The root file system as a mount: a copy of its tree or an overlay of it, opened and unmounted again.

The init program attaches it over the root file system's path, because hooks expect it there, and enters it. A
container without a mount namespace of its own has it in the host's: delete unmounts it.
"""

from __future__ import annotations

import os

from pyrunc import store
from pyrunc.errors import Failure
from pyrunc.files import closing
from pyrunc.linux import _linux, flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.plan.mount_steps import AttachRoot, Overlay
    from pyrunc.store import Container

_EMPTY = flags.AT_EMPTY_PATH
# Bits that have the same numbers in fstatfs(2) and mount_setattr(2).
_RESTRICTIONS = flags.ST_NOSUID | flags.ST_NODEV | flags.ST_NOEXEC


def open_root(step: AttachRoot) -> int:
    """Return a detached copy of the root file system's tree that exchanges no mount events with the host."""
    if step.overlay is not None:
        return _open_overlay(step, step.overlay)
    how = flags.OPEN_TREE_CLONE | flags.OPEN_TREE_CLOEXEC | flags.AT_RECURSIVE
    tree = _linux.open_tree(flags.AT_FDCWD, step.path, how)
    _linux.mount_setattr(tree, "", _EMPTY | flags.AT_RECURSIVE, 0, 0, step.propagation, -1)
    return tree


def _open_overlay(step: AttachRoot, overlay: Overlay) -> int:
    """Return a detached overlay of the root file system, with the restrictions of what is below it."""
    from pyrunc.apply.mounts import filesystems

    how = flags.OPEN_TREE_CLONE | flags.OPEN_TREE_CLOEXEC
    lowers = [path for name, path, _ in overlay.layers if name == "lowerdir+"] if step.layer_ids else []
    below: list[int] = []
    try:
        below += (_linux.open_tree(flags.AT_FDCWD, path, how) for path in lowers or [step.path])
        if step.layer_ids:
            from pyrunc.apply.mounts import (
                id_mapped,  # only the parent, on the host, carries out such a step
            )

            id_mapped.map_all(below, overlay, step.layer_ids)
        restricted = _linux.fstatfs(below[0])[1] & _RESTRICTIONS
        tree = filesystems.open_new(overlay, lower=below if step.layer_ids else ())
    finally:
        for fd in below:
            os.close(fd)
    _linux.mount_setattr(tree, "", _EMPTY, restricted, 0, step.propagation, -1)
    return tree


def leave(container: Container) -> None:
    """Unmount the root of a container without a mount namespace of its own, with all mounts in it.

    It was attached in the host's mount namespace. Mounts that were made on top of it later, or existed
    before, stay.

    Args:
        container: its record; its processes have ended.

    Raises:
        Failure: it cannot be unmounted, or its mount cannot be looked up.

    """
    kept: Any = container.extra["root_mount"]  # written by parent.py
    match kept:
        case [str(place), int(mask), int(number)]:
            pass
        case _:
            raise store.GarbledError(f"{container.directory}/{store.STATE} is not a state record: root_mount")
    try:
        with closing(os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as top:
            if _linux.statx_mnt(top, mask) == (number, True):
                _linux.umount2(f"/proc/self/fd/{top}", flags.MNT_DETACH)
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, OverflowError, ValueError) as exc:
        raise Failure(f"unmount {place}", errno=getattr(exc, "errno", 0) or 0) from None
