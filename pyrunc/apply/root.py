"""The root file system: attached over itself as a private copy, filled by the other steps, then entered.

Law 3: the copy's mount descriptor is the root from then on; the path on the host is only used to attach it,
because hooks look for it there.
"""

from __future__ import annotations

import os

from pyrunc import store
from pyrunc.apply import filesystems, mounts, sources
from pyrunc.errors import Failure
from pyrunc.linux import _linux, flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.apply.child import Child
    from pyrunc.plan import steps
    from pyrunc.store import Container

_EMPTY = flags.AT_EMPTY_PATH
# What fstatfs(2) and mount_setattr(2) have the same numbers for.
_RESTRICTIONS = flags.ST_NOSUID | flags.ST_NODEV | flags.ST_NOEXEC
_ATTACH = flags.MOVE_MOUNT_F_EMPTY_PATH | flags.MOVE_MOUNT_T_EMPTY_PATH


def tree_propagation(_child: Child, step: steps.TreePropagation) -> None:
    """Keep mount events from flowing to the host."""
    _linux.mount(None, "/", None, step.flag | flags.MS_REC, None)


def attach_root(child: Child, step: steps.AttachRoot) -> None:
    """Attach the copy of the root file system where hooks expect it."""
    try:
        tree = child.root_tree
        if tree < 0:
            tree = open_root(step)
        try:
            here = os.open(step.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except PermissionError:
            # The root of a user namespace cannot walk there, and no hook could: the copy, which the parent
            # took, is as good on top of everything.
            here = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        sources.calls.move_mount(tree, "", here, "", _ATTACH)
        os.close(here)
    except OSError as exc:
        raise Failure(
            f"attach the root file system {step.path}", pointer=step.pointer, errno=exc.errno or 0
        ) from None
    child.root = tree
    if step.overlay is None:
        child.mounting.made.bases[_linux.statx_mnt(tree, child.mounting.made.mask)[0]] = step.path


def open_root(step: steps.AttachRoot) -> int:
    """Return a detached copy of the root file system's tree that shares no mount events with the host."""
    if step.overlay is not None:
        return _open_overlay(step, step.overlay)
    how = flags.OPEN_TREE_CLONE | flags.OPEN_TREE_CLOEXEC | flags.AT_RECURSIVE
    tree = sources.calls.open_tree(flags.AT_FDCWD, step.path, how)
    sources.calls.mount_setattr(tree, "", _EMPTY | flags.AT_RECURSIVE, 0, 0, step.propagation, -1)
    return tree


def _open_overlay(step: steps.AttachRoot, overlay: steps.Mount) -> int:
    """Return a detached overlay of the root file system, restricted as what it lies on."""
    below = sources.calls.open_tree(
        flags.AT_FDCWD, step.path, flags.OPEN_TREE_CLONE | flags.OPEN_TREE_CLOEXEC
    )
    try:
        if step.layer_ids:
            from pyrunc.apply import idmapped  # only the parent, on the host, has such a step to carry out

            idmapped.map_one(below, overlay, step.layer_ids)
        restricted = _linux.fstatfs(below)[1] & _RESTRICTIONS
        tree = filesystems.open_new(overlay, lower=below if step.layer_ids else -1)
    finally:
        os.close(below)
    sources.calls.mount_setattr(tree, "", _EMPTY, restricted, 0, step.propagation, -1)
    return tree


def enter_root(child: Child, step: steps.EnterRoot) -> None:
    """Make the root file system the root."""
    child.mounting.settle()
    os.fchdir(child.root)
    if step.method == "pivot":
        # pivot_root(2), "pivot_root(".", ".")": the old root ends up under the new one and is then detached.
        _linux.pivot_root(".", ".")
        _linux.umount2(".", flags.MNT_DETACH)
    elif step.method == "move":
        _move_root(child)
    else:
        os.chroot(".")
    os.chdir("/")


def _move_root(child: Child) -> None:
    """MS_MOVE the root over /, for hosts whose / cannot be pivoted (an initramfs).

    Unlike pivot_root this leaves the host's tree mounted underneath, so its procfs and sysfs are removed
    first: as long as a full one is in the namespace, the kernel lets a user namespace mount another.
    """
    # We are in it: the kernel's name for it, whatever symlinks the configured one goes through.
    here = os.fsdecode(_linux.getcwd())
    place = here if here.startswith("/") else child.plan.rootfs
    for row in reversed(_mount_table()):
        kind, point = row[row.index("-") + 1], sources.unescape(row[4])
        if kind in ("proc", "sysfs") and point != place and not point.startswith(place + "/"):
            try:
                _linux.umount2(point, flags.MNT_DETACH)
            except FileNotFoundError:
                continue  # it lay on one that has just gone
            except OSError:
                # Locked to its parent by a user namespace: covered instead.
                _linux.mount("tmpfs", point, "tmpfs", flags.MS_RDONLY, "nr_blocks=1,nr_inodes=1")
    _linux.mount(".", "/", None, flags.MS_MOVE, None)
    os.chroot(".")


def leave(container: Container) -> None:
    """Unmount the root of a container without a mount namespace of its own, with all that is mounted there.

    It was attached where everybody sees it. Whatever was put on top of it since, or was there before, stays.

    Args:
        container: its record; its processes have ended.

    Raises:
        Failure: it cannot be unmounted, or not be asked for.

    """
    kept: Any = container.extra["root_mount"]  # parent.py wrote it
    match kept:
        case [str(place), int(mask), int(number)]:
            pass
        case _:
            raise store.GarbledError(f"{container.directory}/{store.STATE} is not a state record: root_mount")
    try:
        top = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if _linux.statx_mnt(top, mask) == (number, True):
                _linux.umount2(f"/proc/self/fd/{top}", flags.MNT_DETACH)
        finally:
            os.close(top)
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, OverflowError, ValueError) as exc:
        raise Failure(f"unmount {place}", errno=getattr(exc, "errno", 0) or 0) from None


def root_propagation(child: Child, step: steps.RootPropagation) -> None:
    """Set linux.rootfsPropagation; mounts with words about it of their own keep what they say.

    A shared root begins a peer group of its own: of the host's mount that it is a copy of it was a slave
    until now, and would stay one.
    """
    if step.flag == flags.MS_SHARED:
        _linux.mount(None, "/", None, flags.MS_PRIVATE, None)
    _linux.mount(None, "/", None, step.flag | (flags.MS_REC if step.recursive else 0), None)
    mounts.propagate_again(child)


def readonly_last(child: Child, _step: steps.ReadonlyLast) -> None:
    """Make the mounts read-only that had to wait for it."""
    mounts.set_readonly_last(child)


def readonly_root(child: Child, step: steps.ReadonlyRoot) -> None:
    """Make the root mount read-only."""
    try:
        sources.calls.mount_setattr(child.root, "", _EMPTY, flags.MOUNT_ATTR_RDONLY, 0, 0, -1)
    except OSError as exc:
        raise Failure(
            "make the root file system read-only", pointer=step.pointer, errno=exc.errno or 0
        ) from None


def _mount_table() -> list[list[str]]:
    """Return the rows of our mount table, paths escaped; read without a text file's decoder.

    That may not be loaded yet.
    """
    table = sources.read_all(os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC))
    # Only a space ends a field, as only a newline ends a line: a path may hold all else.
    return [line.split(" ") for line in sources.lines(table)]
