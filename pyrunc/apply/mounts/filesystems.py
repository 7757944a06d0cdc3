"""New file systems: configured with fsopen(2), mounted detached; errors with the kernel's own messages.

Each option is one fsconfig(2) call, so options are not joined with commas and split again. An overlay's lower
and upper directories are opened as descriptors first (law 3).
"""

from __future__ import annotations

import os
from errno import E2BIG, EINVAL, ENODEV, EPERM

from pyrunc.apply.mounts import bind_sources
from pyrunc.linux import _linux, flags
from pyrunc.plan.mount_options import RDONLY
from pyrunc.plan.mount_steps import WRITABLE, Overlay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrunc.errors import Failure
    from pyrunc.plan.mount_steps import FileSystem, Mount

_EMPTY = flags.AT_EMPTY_PATH
# The options that mountLabel becomes (mount(8)).
_LABELS = ("context", "fscontext", "defcontext", "rootcontext")

# Characters in paths of overlay directories that kernels have read in different ways.
_SPECIAL = frozenset("\\:,")
_LONGEST = 255  # the longest string for fsconfig(2)


def open_new(step: FileSystem, *, lower: Sequence[int] = ()) -> int:
    """Return a detached mount of a new file system, with all its attributes set.

    Args:
        step: what to mount.
        lower: descriptors of an overlay's lower layers where those are no ordinary directories.

    Raises:
        Failure: the kernel refuses; its messages are quoted.

    """
    try:
        fs = _linux.fsopen(step.fstype, flags.FSOPEN_CLOEXEC)
    except OSError as exc:
        raise _failure(step, "", -1, exc) from None
    layers: list[int] = []
    doing = ""
    try:
        try:
            _linux.fsconfig(fs, flags.FSCONFIG_SET_STRING, "source", step.source, 0)
            for doing in step.words:
                name, equals, value = doing.partition("=")
                if equals:
                    _linux.fsconfig(fs, flags.FSCONFIG_SET_STRING, name, value, 0)
                else:
                    _linux.fsconfig(fs, flags.FSCONFIG_SET_FLAG, name, None, 0)
            doing = ""
            if isinstance(step, Overlay):
                _create_overlay(fs, step, lower, layers)
            else:
                _linux.fsconfig(fs, flags.FSCONFIG_CMD_CREATE, None, None, 0)
        except OSError as exc:
            raise _failure(step, doing, fs, exc) from None
        # A mount that stays writable until the tree is complete becomes read-only at the end.
        asked = step.attributes
        own_set = asked.own_set & ~RDONLY if step.readonly_last else asked.own_set
        try:
            fd = _linux.fsmount(fs, flags.FSMOUNT_CLOEXEC, own_set)
            if asked.deep_set or asked.deep_clear:
                own = asked.own_set | asked.own_clear
                _linux.mount_setattr(fd, "", _EMPTY, asked.deep_set & ~own, asked.deep_clear & ~own, 0, -1)
            if step.label:
                os.setxattr(f"/proc/self/fd/{fd}", "security.selinux", step.label.encode())
        except OSError as exc:
            raise _failure(step, "", fs, exc) from None
    finally:
        os.close(fs)
        for layer in layers:
            os.close(layer)
    return fd


# -- overlay ----


def _create_overlay(fs: int, step: Overlay, lower: Sequence[int], opened: list[int]) -> None:
    """Open an overlay's directories, give overlayfs the descriptors, and create it."""
    rest = [*lower]
    for name, path, _inside in step.layers:
        try:
            if rest and name == "lowerdir+":
                fd = os.dup(rest.pop(0))
            else:
                fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as exc:
            raise bind_sources.failure(step, f"open {name.rstrip('+')} {path}", exc.errno or 0) from None
        opened.append(fd)
        if step.layer_fds:
            _linux.fsconfig(fs, flags.FSCONFIG_SET_FD, name, None, fd)
    if step.layer_fds:
        _linux.fsconfig(fs, flags.FSCONFIG_CMD_CREATE, None, None, 0)
    else:
        _create_by_names(fs, step, opened)


def _create_by_names(fs: int, step: Overlay, opened: list[int]) -> None:
    """Name an overlay's directories as kernels before 6.13 need it: all lower ones in one string.

    Their paths are used, which people read in the mount table, if every kernel reads them the same way and
    they fit. Otherwise, and always inside the root (law 3), the numbers of their descriptors are used,
    through /proc/self/fd: enough for some sixty lower directories, and for some seven hundred with mount(2).
    """
    paths = [path for _, path, _ in step.layers]
    lower = step.lowerdir(paths)
    if (
        any(inside or set(path) & _SPECIAL for _, path, inside in step.layers)
        or len(max(lower, *paths, key=len).encode()) > _LONGEST
    ):
        paths = [str(fd) for fd in opened]
        lower = step.lowerdir(paths)
    if len(lower) > _LONGEST:
        raise bind_sources.failure(
            step,
            f"{len(opened)} layers",
            E2BIG,
            "before Linux 6.13, and with mount(2), an overlay cannot have as many: put some of them together",
        )
    back = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir("/proc/self/fd")
        _linux.fsconfig(fs, flags.FSCONFIG_SET_STRING, "lowerdir", lower, 0)
        for (name, _, _), path in zip(step.layers, paths, strict=True):
            if name in WRITABLE:
                _linux.fsconfig(fs, flags.FSCONFIG_SET_STRING, name, path, 0)
        # Kernels before 6.5 look the names up only here.
        _linux.fsconfig(fs, flags.FSCONFIG_CMD_CREATE, None, None, 0)
    finally:
        os.fchdir(back)
        os.close(back)


# -- messages: only used after a failure ----


def _failure(step: Mount, word: str, fs: int, exc: OSError) -> Failure:
    said = []
    while True:
        try:
            said.append(os.read(fs, 4096).decode("utf-8", "replace").strip()[2:])
        except OSError:
            break
    return refused(step, word, said, exc.errno or 0)


def refused(step: Mount, word: str, said: list[str], errno: int, *, classic: bool = False) -> Failure:
    """Return the Failure for a refused file system, with the kernel's messages (read(2) on its context).

    Args:
        step: the mount.
        word: the refused option, "" if the failure is not about one.
        said: the kernel's messages.
        errno: the kernel's error number.
        classic: it was mounted with mount(2).

    """
    parts = [f'option "{word}"'] if word else []
    if said:
        parts.append("; ".join(said))
    hint = ""
    if errno == ENODEV:
        hint = f"{step.fstype} is no file system this kernel knows (see /proc/filesystems)"
    elif errno == EPERM and step.fstype == "proc":
        # Two rules of the kernel: proc_fs_context_init() and mount_too_revealing().
        hint = (
            "in a user namespace it takes a pid namespace of its own, and a /proc outside that nothing covers"
            " in part: otherwise bind the host's"
        )
    elif errno == EPERM and step.fstype == "sysfs":
        hint = "it takes a network namespace that the container's user namespace owns: otherwise bind /sys"
    elif step.fstype == "overlay" and any("upper" in text for text in said):
        hint = "not every file system can hold an upper layer: ext4, xfs, btrfs and tmpfs can, and no overlay"
        if step.index < 0:
            hint += "; name a directory on one with --overlay-dir"
    elif errno == EINVAL and word.partition("=")[0] in _LABELS:
        hint = "this label comes from /linux/mountLabel: is SELinux enabled on this host?"
    elif errno == EINVAL and step.fstype == "devpts":
        hint = "its uid= and gid= must be mapped in the user namespace (see /linux/gidMappings)"
    elif errno == EINVAL and not said and classic:
        hint = "mount(2) does not say which option it means, but the kernel's log may (dmesg)"
    return bind_sources.failure(step, " ".join(parts), errno, hint)
