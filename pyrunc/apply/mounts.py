"""Mounts: built detached, everything set, attached last.

A mount is never visible with fewer restrictions than asked: attributes and propagation are set on the detached mount,
then move_mount(2) puts it on a target that target.py opened. The mount descriptor is the mount: no re-open, no path.
Needs Linux 5.12 (mount_setattr).
"""

from __future__ import annotations

import os
import stat

from pyrunc.apply import target
from pyrunc.errors import Failure
from pyrunc.linux import _linux, flags
from pyrunc.plan import mount_options
from pyrunc.plan.mounts import PSEUDO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.apply.child import Child
    from pyrunc.plan.steps import Mount

_EMPTY = flags.AT_EMPTY_PATH
_ATTACH = flags.MOVE_MOUNT_F_EMPTY_PATH | flags.MOVE_MOUNT_T_EMPTY_PATH
_ENOENT, _ELOOP, _ENOTDIR, _EPERM, _EINVAL = 2, 40, 20, 1, 22
_PROC_ROOT_INODE = 1  # include/linux/proc_ns.h PROC_ROOT_INO

# What may be mounted below /proc besides a procfs: files that resource views replace, as lxcfs does.
_PROC_FILES = frozenset(
    (
        "/proc/cpuinfo",
        "/proc/diskstats",
        "/proc/meminfo",
        "/proc/stat",
        "/proc/swaps",
        "/proc/uptime",
        "/proc/loadavg",
        "/proc/slabinfo",
        "/proc/net/dev",
        "/proc/sys/kernel/ns_last_pid",
        "/proc/sys/crypto/fips_enabled",
    )
)


def open_source(step: Mount, bundle: str) -> int:
    """Return a detached copy of a bind's source with all its attributes and propagation set.

    Args:
        step: a bind.
        bundle: where a relative source begins.

    Raises:
        Failure: the source is missing, or the kernel refuses an attribute.

    """
    options = step.options
    source = step.source if step.source.startswith("/") else f"{bundle}/{step.source}"
    recursive = flags.AT_RECURSIVE if options.bind == "rbind" else 0
    how = flags.OPEN_TREE_CLONE | flags.OPEN_TREE_CLOEXEC | recursive
    if "src-nofollow" in options.ext or "copy-symlink" in options.ext:
        how |= flags.AT_SYMLINK_NOFOLLOW
    try:
        try:
            if step.subpath:
                fd = _open_inside(source, step.subpath, how)
            else:
                fd = _linux.open_tree(flags.AT_FDCWD, source, how)
        except FileNotFoundError:
            if step.kind != "late-bind":
                raise
            # Without the right to make a cgroup the container stays in the runtime's, one level up.
            fd = _linux.open_tree(flags.AT_FDCWD, source.rpartition("/")[0], how)
    except OSError as exc:
        raise _source_failure(step, f"{source}/{step.subpath}" if step.subpath else source, exc) from None
    try:
        set_attributes(fd, step, recursive)
    except OSError as exc:
        os.close(fd)
        raise _attribute_failure(step, exc) from None
    return fd


def _open_inside(source: str, subpath: str, how: int) -> int:
    """Clone a directory inside a volume: another container may be changing it, so not by path (law 3)."""
    volume = os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        inside = target.resolve(volume, subpath)
        try:
            return _linux.open_tree(inside, "", how | flags.AT_EMPTY_PATH)
        finally:
            os.close(inside)
    finally:
        os.close(volume)


def open_overlay(step: Mount) -> int:
    """Return a detached overlay: its layers are directories of the host, which only the parent may reach.

    Raises:
        Failure: it cannot be made.

    """
    try:
        return _new(step, -1, fresh=False)
    except OSError as exc:
        raise Failure(
            f"mount {step.fstype} on {step.destination}", pointer=step.pointer, errno=exc.errno or 0
        ) from None


def _inner_source(child: Child, step: Mount) -> int:
    """Return a detached copy of something inside the root, as the mounts before this one have left it (law 3)."""
    recursive = flags.AT_RECURSIVE if step.options.bind == "rbind" else 0
    how = flags.OPEN_TREE_CLONE | flags.OPEN_TREE_CLOEXEC | flags.AT_EMPTY_PATH | recursive
    try:
        inside = target.resolve(child.root, step.source, follow="src-nofollow" not in step.options.ext)
        try:
            fd = _linux.open_tree(inside, "", how)
        finally:
            os.close(inside)
    except OSError as exc:
        raise _source_failure(step, step.source, exc) from None
    try:
        set_attributes(fd, step, recursive)
    except OSError as exc:
        os.close(fd)
        raise _attribute_failure(step, exc) from None
    return fd


def set_attributes(fd: int, step: Mount, recursive: int) -> None:
    """Set a detached bind's attributes and propagation: recursive ones first, so that the mount's own words win."""
    options = step.options
    rclear = options.rattr_clear
    rset = options.rattr_set
    if options.ratime is not None:
        rset |= options.ratime
        rclear |= flags.MOUNT_ATTR__ATIME
    own_set, own_clear = _own(options)
    default = step.default_propagation
    if any(flag == mount_options.SHARED for flag, _ in options.propagation):
        default = 0  # a shared mount must stay in its peer group, or nothing could flow
    if not recursive and default and not (rset or rclear):
        # The common case of a plain bind: one call does it all.
        _linux.mount_setattr(fd, "", _EMPTY, own_set, own_clear, default, -1)
    else:
        if rset or rclear or default:
            _linux.mount_setattr(fd, "", _EMPTY | flags.AT_RECURSIVE, rset, rclear, default, -1)
        if own_set or own_clear:
            _linux.mount_setattr(fd, "", _EMPTY, own_set, own_clear, 0, -1)
    for flag, deep in options.propagation:
        _linux.mount_setattr(fd, "", _EMPTY | (flags.AT_RECURSIVE if deep else 0), 0, 0, flag, -1)


def _own(options: mount_options.Options) -> tuple[int, int]:
    own_set, own_clear = options.attr_set, options.attr_clear
    if options.atime is not None:
        own_set |= options.atime
        own_clear |= flags.MOUNT_ATTR__ATIME
    return own_set, own_clear


def mount(child: Child, step: Mount) -> None:
    """Carry out one mount step inside the container's mount namespace."""
    root = child.root
    if step.kind == "new":
        before = len(child.made)
        tfd = _target(root, step, "dir", child.made)
        try:
            fd = child.mounts.pop(id(step), -1)
            if fd < 0:
                fd = _new(step, tfd, fresh=len(child.made) > before)
        except OSError as exc:
            os.close(tfd)
            raise Failure(
                f"mount {step.fstype} on {step.destination}", pointer=step.pointer, errno=exc.errno or 0
            ) from None
    else:
        fd = child.mounts.pop(id(step), -1)
        if fd < 0:
            fd = _inner_source(child, step) if step.kind == "inner-bind" else open_source(step, child.plan.bundle)
        kind = "dir" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"
        tfd = _target(root, step, kind, child.made)
    try:
        _check_proc(root, step, tfd, fd)
        _linux.move_mount(fd, "", tfd, "", _ATTACH)
    except OSError as exc:
        problem = _attach_failure(step, fd_kind(fd), fd_kind(tfd), exc)
        os.close(fd)
        raise problem from None
    finally:
        os.close(tfd)
    if step.kind == "new":
        _after_new(child, step, fd)
    else:
        os.close(fd)


def _after_new(child: Child, step: Mount, fd: int) -> None:
    for flag, deep in step.options.propagation:
        _linux.mount_setattr(fd, "", _EMPTY | (flags.AT_RECURSIVE if deep else 0), 0, 0, flag, -1)
    if step.fstype == "devpts" and step.destination == "/dev/pts":
        child.devpts = fd
    elif step.readonly_last:
        child.readonly_last.append((fd, step))
    else:
        os.close(fd)


def _target(root: int, step: Mount, kind: str, made: list[str]) -> int:
    """Open (and where missing make) the mount point."""
    try:
        if step.no_symlink:
            try:
                return _literal(root, step.destination)
            except FileNotFoundError:
                os.close(target.make(root, step.destination, kind, made=made))
                return _literal(root, step.destination)
        if "dest-nofollow" in step.options.ext:
            return target.resolve(root, step.destination, follow=False)
        return target.make(root, step.destination, kind, made=made)
    except OSError as exc:
        if exc.errno in (_ELOOP, _ENOTDIR) and step.no_symlink:
            raise Failure(
                f"{step.fstype} must be mounted on ordinary directory, not on a symlink or file: {step.destination}",
                pointer=step.pointer,
            ) from None
        raise Failure(
            f"make mount point {step.destination} in the root file system",
            pointer=step.pointer,
            errno=exc.errno or 0,
        ) from None


def _literal(root: int, path: str) -> int:
    fd = target.resolve(root, path, follow=False, symlinks=False)
    if not stat.S_ISDIR(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(_ENOTDIR, os.strerror(_ENOTDIR), path)
    return fd


def _check_proc(root: int, step: Mount, tfd: int, fd: int) -> None:
    """Refuse to cover /proc or parts of a procfs: an image's volume could neutralise what is written there.

    CVE-2019-16884: a check for "below /proc" that forgot /proc itself. So what counts is what the target is.
    """
    if step.fstype == "proc":
        return
    inside = _is_procfs(tfd)
    if not inside and not _is_proc_directory(root, step, tfd):
        return
    if step.kind == "bind" and _is_procfs(fd):
        # Another procfs, whole: engines bind the host's for a shared pid namespace.
        if os.fstat(fd).st_ino == _PROC_ROOT_INODE and (
            not inside or os.fstat(tfd).st_ino == _PROC_ROOT_INODE
        ):
            return
    if not inside or os.fstat(tfd).st_ino == _PROC_ROOT_INODE:
        raise Failure(
            f"{step.destination} cannot be mounted on: it is /proc, where only a procfs may be",
            pointer=step.pointer + "/destination",
        )
    if step.destination in _PROC_FILES and step.kind != "new":
        return
    raise Failure(
        f"{step.destination} is inside /proc and cannot be mounted on",
        pointer=step.pointer + "/destination",
        hint="only " + ", ".join(sorted(_PROC_FILES)) + " can be",
    )


def _is_procfs(fd: int) -> bool:
    return _linux.fstatfs(fd)[0] == flags.PROC_SUPER_MAGIC


def _is_proc_directory(root: int, step: Mount, tfd: int) -> bool:
    """Tell whether a mount point is the root's /proc, by whatever name it was reached."""
    if step.destination == "/proc":
        return True
    try:
        proc = os.stat("proc", dir_fd=root, follow_symlinks=False)
    except OSError:
        return False
    here = os.fstat(tfd)
    return (proc.st_dev, proc.st_ino) == (here.st_dev, here.st_ino)


def _new(step: Mount, tfd: int, *, fresh: bool) -> int:
    """Make a new file system of the step's type and return its detached mount."""
    options = step.options
    fs = _linux.fsopen(step.fstype, flags.FSOPEN_CLOEXEC)
    try:
        word = "source"
        try:
            _linux.fsconfig(fs, flags.FSCONFIG_SET_STRING, "source", step.source, 0)
            for word in options.superblock:
                _linux.fsconfig(fs, flags.FSCONFIG_SET_FLAG, word, None, 0)
            if options.attr_set & mount_options.RDONLY and step.fstype not in PSEUDO:
                _linux.fsconfig(fs, flags.FSCONFIG_SET_FLAG, "ro", None, 0)
            for word in _data(step, tfd, fresh=fresh):
                name, equals, value = word.partition("=")
                if equals:
                    _linux.fsconfig(fs, flags.FSCONFIG_SET_STRING, name, value, 0)
                else:
                    _linux.fsconfig(fs, flags.FSCONFIG_SET_FLAG, name, None, 0)
            word = ""
            _linux.fsconfig(fs, flags.FSCONFIG_CMD_CREATE, None, None, 0)
        except OSError as exc:
            raise _new_failure(step, word, fs, exc) from None
        own_set, _ = _own(options)
        if step.readonly_last:
            own_set &= ~mount_options.RDONLY
        fd = _linux.fsmount(fs, flags.FSMOUNT_CLOEXEC, own_set)
    finally:
        os.close(fs)
    if options.rattr_set or options.rattr_clear or options.ratime is not None:
        rset, rclear = options.rattr_set, options.rattr_clear
        if options.ratime is not None:
            rset, rclear = rset | options.ratime, rclear | flags.MOUNT_ATTR__ATIME
        _linux.mount_setattr(fd, "", _EMPTY | flags.AT_RECURSIVE, rset, rclear, 0, -1)
    return fd


def _data(step: Mount, tfd: int, *, fresh: bool) -> tuple[str, ...]:
    """Return the file system's options; a tmpfs takes the mode of the directory it covers, unless we just made that."""
    words = step.options.data
    if step.fstype == "tmpfs" and not fresh and not any(word.startswith("mode=") for word in words):
        return (*words, f"mode={stat.S_IMODE(os.fstat(tfd).st_mode):o}")
    return words


def set_readonly_last(child: Child) -> None:
    """Set read-only on the mounts that had to be written to while the tree was built."""
    for fd, step in child.readonly_last:
        try:
            _linux.mount_setattr(fd, "", _EMPTY, flags.MOUNT_ATTR_RDONLY, 0, 0, -1)
        except OSError as exc:
            raise _attribute_failure(step, exc) from None
        os.close(fd)
    child.readonly_last.clear()


def fd_kind(fd: int) -> str:
    """Return what a descriptor refers to, in words."""
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


# -- wording: only reached when something failed ------------------------------------------------------------------


def _source_failure(step: Mount, source: str, exc: OSError) -> Failure:
    where = f"mount {step.source} on {step.destination}"
    if exc.errno == _ENOENT:
        return Failure(f"{where}: bind source {source} does not exist", pointer=step.pointer, errno=_ENOENT)
    return Failure(f"{where}: open bind source {source}", pointer=step.pointer, errno=exc.errno or 0)


def _attribute_failure(step: Mount, exc: OSError) -> Failure:
    hint = ""
    if exc.errno == _EPERM:
        hint = "the source's own mount flags may be locked by the user namespace they come from"
    return Failure(
        f"set the mount options of {step.destination}", pointer=step.pointer, errno=exc.errno or 0, hint=hint
    )


def _attach_failure(step: Mount, source: str, found: str, exc: OSError) -> Failure:
    # move_mount(2) answers EINVAL where mount(2) said ENOTDIR, which engines explain to their users.
    directory = "a directory"
    if exc.errno in (_ENOTDIR, _EINVAL) and (source == directory) is not (found == directory):
        return Failure(
            f"mount {step.source} on {step.destination}: the source is {source}, the target {found}",
            pointer=step.pointer,
            errno=_ENOTDIR,
            hint="mount a directory on a directory, a file on a file",
        )
    return Failure(f"mount {step.source} on {step.destination}", pointer=step.pointer, errno=exc.errno or 0)


def _new_failure(step: Mount, word: str, fs: int, exc: OSError) -> Failure:
    """Word a refused file system with the kernel's own messages (read(2) on a file system context)."""
    said = []
    while True:
        try:
            said.append(os.read(fs, 4096).decode("utf-8", "replace").strip()[2:])
        except OSError:
            break
    message = f"mount {step.fstype} on {step.destination}"
    if word and word != "source":
        message += f': option "{word}"'
    if said:
        message += " (" + "; ".join(said) + ")"
    hint = ""
    if exc.errno == _EPERM and step.fstype == "proc":
        # fs/proc/root.c and mount_too_revealing() in fs/namespace.c
        hint = (
            "in a user namespace it takes a pid namespace of its own, and a /proc outside that nothing covers"
            " in part: otherwise bind the host's"
        )
    return Failure(message, pointer=step.pointer, errno=exc.errno or 0, hint=hint)
