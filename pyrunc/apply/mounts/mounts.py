"""Mounts: built detached, everything set, attached last.

A mount is never visible with fewer restrictions than asked for. Attributes and propagation are set on the
detached mount (bind_sources.py, filesystems.py), then move_mount(2) attaches it to a mount point that
target.py has opened. Everything is done with the descriptor of the mount, never with a path. Every mount is
remembered, and checked at the end (verify.py).
"""

from __future__ import annotations

import _stat as stat
import os
from errno import EAGAIN, EEXIST, EINVAL, ELOOP, ENOENT, ENOTDIR

from pyrunc.apply import target
from pyrunc.apply.mounts import bind_sources, filesystems
from pyrunc.errors import Failure
from pyrunc.linux import _linux, flags
from pyrunc.plan.mount_options import RDONLY
from pyrunc.plan.mount_steps import Bind, CgroupBind, FileSystem, InnerBind, Reconfigure, Remount
from pyrunc.plan.program_mounts import PROC_FILES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.apply.mounts.mounting import Tree
    from pyrunc.plan.mount_steps import Mount

_EMPTY = flags.AT_EMPTY_PATH
_ATTACH = flags.MOVE_MOUNT_F_EMPTY_PATH | flags.MOVE_MOUNT_T_EMPTY_PATH
# Error numbers for a mount point that was not found at once: it does not exist, a symlink is on the way, or
# something was moved at the same time.
_LATER = (ENOENT, ELOOP, EAGAIN)
_PROC_ROOT_INODE = 1  # include/linux/proc_ns.h PROC_ROOT_INO
# How often a mount point may disappear between its making and the mount: a container of the same root file
# system removes its own when it is deleted.
_TRIES = 8


def mount(child: Tree, step: Mount) -> None:
    """Carry out one mount step inside the container's mount namespace.

    Raises:
        Failure: it cannot be done; the pointer is that of the entry.

    """
    if isinstance(step, FileSystem):
        _mount_new(child, step)
    elif isinstance(step, Remount):
        _remount(child, step)
    elif isinstance(step, (Bind, InnerBind, CgroupBind)):
        _mount_bind(child, step)


def _mount_bind(child: Tree, step: Bind | InnerBind | CgroupBind) -> None:
    asked = step.attributes
    if isinstance(step, Bind) and step.copy_symlink and _copied_link(child, step):
        return
    mounting = child.mounting
    fd = mounting.source(child, step)
    if fd < 0:
        fd = (
            bind_sources.open_inner(child.root, step)
            if isinstance(step, InnerBind)
            else bind_sources.open_source(step)
        )
    try:
        _attach(child, step, fd)
        if asked.after:
            # A mount on a shared mount becomes shared.
            bind_sources.propagate(fd, asked.propagation)
        if asked.below:
            bind_sources.propagate_below(fd, asked.below, child.procfs)
        mounting.note(child, fd, step)
    except OSError as exc:
        raise bind_sources.attribute_failure(step, exc) from None
    finally:
        os.close(fd)


def _mount_new(child: Tree, step: FileSystem) -> None:
    mounting = child.mounting
    before = mounting.made.count
    place, plain = _mount_point(child, step, "dir")
    fd = child.mounts.pop(id(step), -1)
    if fd < 0:
        cover = -1 if mounting.made.count > before else place
        fd = filesystems.open_new(step, cover=cover, root=child.root)
    if step.copy_up and mounting.copy is not None:
        mounting.copy(step, place, fd)
    try:
        _attach(child, step, fd, place, plain=plain)
        bind_sources.propagate(fd, step.attributes.propagation)
    except OSError as exc:
        raise bind_sources.attribute_failure(step, exc) from None
    mounting.note(child, fd, step)
    if step.readonly_last:
        mounting.readonly_last.append((os.dup(fd), step))
    os.close(fd)


def _attach(child: Tree, step: Mount, fd: int, place: int = -1, *, plain: bool = False) -> None:
    """Attach a mount to its mount point, and close the mount point.

    Args:
        child: the container's side.
        step: the mount.
        fd: its descriptor.
        place: descriptor of the mount point, if it is open already.
        plain: the mount point was opened without symlinks.

    """
    for attempt in range(_TRIES):
        if place < 0:
            place, plain = _mount_point(child, step, "", fd)
        try:
            _check_place(child, step, place, fd, plain=plain)
            _linux.move_mount(fd, "", place, "", _ATTACH)
        except FileNotFoundError:
            if bind_sources.deleted(fd):
                raise bind_sources.deleted_failure(step) from None
            # A container with the same root file system has removed it meanwhile: make it again.
            if attempt + 1 < _TRIES:
                continue
            raise bind_sources.failure(step, "its mount point keeps vanishing", ENOENT) from None
        except OSError as exc:
            raise _attach_failure(step, fd_kind(fd), fd_kind(place), exc) from None
        else:
            return
        finally:
            os.close(place)
            place = -1


def _mount_point(child: Tree, step: Mount, kind: str, fd: int = -1) -> tuple[int, bool]:
    """Open the mount point, and make it if it is missing.

    Args:
        child: the container's side.
        step: the mount.
        kind: what to make: "dir", "file", or "" for the same as what is mounted.
        fd: descriptor of what is mounted.

    Returns:
        Its descriptor, and whether the destination has no symlinks and dots, so that it is the real path.

    """
    root, path = child.root, step.destination
    if not step.no_symlink and not step.dest_nofollow:
        try:
            return target.plain(root, path), "/." not in path and "//" not in path
        except OSError as exc:
            if exc.errno not in _LATER:
                raise _place_failure(step, exc) from None
    try:
        if step.no_symlink:
            try:
                return _literal(root, path), True
            except FileNotFoundError:
                os.close(target.make(root, path, "dir", made=child.mounting.made))
                return _literal(root, path), True
        if not kind:
            kind = "dir" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"
        follow = not step.dest_nofollow
        return target.make(root, path, kind, follow=follow, made=child.mounting.made), False
    except OSError as exc:
        raise _place_failure(step, exc) from None


def _literal(root: int, path: str) -> int:
    fd = target.resolve(root, path, follow=False, symlinks=False)
    if not stat.S_ISDIR(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(ENOTDIR, os.strerror(ENOTDIR), path)
    return fd


# -- where nothing may be mounted ----


def _check_place(child: Tree, step: Mount, place: int, fd: int, *, plain: bool) -> None:
    """Refuse to cover the root itself, /proc, or parts of a procfs.

    CVE-2019-16884: a volume of an image could keep writes to /proc from reaching it, and a check for "below
    /proc" did not include /proc itself. So the file system of the mount point is checked. A destination
    without symlinks is the real path.
    """
    if not plain and _linux.statx_mnt(place) == _linux.statx_mnt(child.root):
        raise bind_sources.failure(
            step, f"{step.destination} is the root of the file system, nothing can be mounted on it"
        )
    if step.fstype == "proc":
        return
    inside = _linux.fstatfs(place)[0] == flags.PROC_SUPER_MAGIC
    if not inside and step.destination != "/proc" and (plain or not _is_proc(child, place)):
        return
    here = os.fstat(place)
    if (
        isinstance(step, Bind)
        and _linux.fstatfs(fd)[0] == flags.PROC_SUPER_MAGIC
        and os.fstat(fd).st_ino == _PROC_ROOT_INODE
        and (not inside or here.st_ino == _PROC_ROOT_INODE)
    ):
        return  # another procfs as a whole: engines bind the host's for a shared pid namespace
    pointer = step.pointer + "/destination"
    if not inside or here.st_ino == _PROC_ROOT_INODE:
        raise Failure(
            f"{step.destination} cannot be mounted on: it is /proc, where only a procfs may be",
            pointer=pointer,
        )
    if step.destination in PROC_FILES and not isinstance(step, FileSystem):
        return
    raise Failure(
        f"{step.destination} is inside /proc and cannot be mounted on",
        pointer=pointer,
        hint="only " + ", ".join(sorted(PROC_FILES)) + " can be",
    )


def _is_proc(child: Tree, place: int) -> bool:
    """Tell whether a mount point is /proc in the root."""
    try:
        proc = os.stat("proc", dir_fd=child.root, follow_symlinks=False)
    except OSError:
        return False
    here = os.fstat(place)
    return (proc.st_dev, proc.st_ino) == (here.st_dev, here.st_ino)


# -- remounts, links ----


def _remount(child: Tree, step: Remount) -> None:
    """Change the mount at the destination."""
    try:
        place = target.resolve(child.root, step.destination)
    except OSError as exc:
        raise bind_sources.failure(step, "open what is to be remounted", exc.errno or 0) from None
    try:
        if not _linux.statx_mnt(place)[1]:
            raise bind_sources.failure(
                step,
                "nothing is mounted there that could be remounted",
                EINVAL,
                "leave out the option remount, or mount something first",
            )
        if isinstance(step, Reconfigure):
            filesystems.reconfigure(step, place)
        bind_sources.set_attributes(place, step)
        child.mounting.note(child, place, step)
    except OSError as exc:
        raise bind_sources.attribute_failure(step, exc) from None
    finally:
        os.close(place)


def _copied_link(child: Tree, step: Mount) -> bool:
    """Copy a source that is a symlink (the option copy-symlink); tell whether it is one."""
    text = child.mounting.links.get(id(step)) or bind_sources.link(step)
    if not text:
        return False
    try:
        directory, name = target.parent(child.root, step.destination, made=child.mounting.made)
        try:
            make = child.mounting.made.make_in
            if not make(directory, name, lambda: os.symlink(text, name, dir_fd=directory)):
                if not target.is_link(directory, name, text):
                    raise FileExistsError(EEXIST, os.strerror(EEXIST), name)
        finally:
            os.close(directory)
    except OSError as exc:
        raise bind_sources.failure(step, f"make it a symlink to {text}", exc.errno or 0) from None
    return True


# -- at the end ----


def set_readonly_last(child: Tree) -> None:
    """Set read-only on the mounts that had to be writable while the tree was built."""
    for fd, step in child.mounting.readonly_last:
        try:
            _linux.mount_setattr(fd, "", _EMPTY, RDONLY, 0, 0, -1)
        except OSError as exc:
            raise bind_sources.attribute_failure(step, exc) from None
        os.close(fd)
    child.mounting.readonly_last.clear()


def propagate_again(child: Tree) -> None:
    """Set the propagation of mounts that have options for it again, after rootfsPropagation."""
    for fd, step in child.mounting.again:
        try:
            bind_sources.propagate(fd, step.attributes.again)
        except OSError as exc:
            raise bind_sources.attribute_failure(step, exc) from None
        os.close(fd)
    child.mounting.again.clear()


# -- messages: only used after a failure ----


def fd_kind(fd: int) -> str:
    """Return the kind of file of a descriptor, in words."""
    mode = os.fstat(fd).st_mode
    for test, word in (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISREG, "a file"),
        (stat.S_ISLNK, "a symlink"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISFIFO, "a fifo"),
    ):
        if test(mode):
            return word
    return "a device"


def _place_failure(step: Mount, exc: OSError) -> Failure:
    if exc.errno in (ELOOP, ENOTDIR) and step.no_symlink:
        return Failure(
            f"{step.fstype} must be mounted on ordinary directory, not on a symlink or file:"
            f" {step.destination}",
            step=bind_sources.STEP,
            pointer=step.pointer,
        )
    what = f"make mount point {step.destination} in the root file system"
    hint = ""
    if exc.errno == ELOOP:
        hint = "symlinks on its way go round in a circle, or one is a door of /proc, as /proc/self/cwd is"
    return bind_sources.failure(step, what, exc.errno or 0, hint)


def _attach_failure(step: Mount, source: str, found: str, exc: OSError) -> Failure:
    # move_mount(2) returns EINVAL where mount(2) returns ENOTDIR, which engines explain to their users.
    directory = "a directory"
    if exc.errno in (ENOTDIR, EINVAL) and (source == directory) is not (found == directory):
        return bind_sources.failure(
            step,
            f"the source is {source}, the target {found}",
            ENOTDIR,
            "mount a directory on a directory, a file on a file",
        )
    return bind_sources.failure(step, "", exc.errno or 0)
