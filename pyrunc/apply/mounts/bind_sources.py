"""The mount for a bind: a detached copy of its source, with everything set before it can be seen.

The parent makes it before init exists, with the caller's rights and in the host's mount namespace. So a
source that the container's user cannot reach still works, and a shared one stays in its peer group (law 5). A
source inside the root is copied on the container's side, from a descriptor (law 3).

Recursive attributes and propagation are set first, so that the mount's own options take precedence.
"""

from __future__ import annotations

import os
from errno import EINVAL, ENOENT, EPERM

from pyrunc import files
from pyrunc.errors import Failure
from pyrunc.files import closing
from pyrunc.linux import _linux, flags
from pyrunc.plan.mount_options import (
    ATIME_MASK,
    ATTRIBUTES,
    LOCKABLE,
    NOATIME,
    NODIRATIME,
    RDONLY,
    RELATIME,
    STRICTATIME,
)
from pyrunc.plan.mount_steps import Bind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.mount_steps import CgroupBind, Mount

_EMPTY = flags.AT_EMPTY_PATH
_CLONE = flags.OPEN_TREE_CLONE | flags.OPEN_TREE_CLOEXEC
# The largest mount table that is read, in bytes. The kernel's limit is 100,000 mounts: this is enough for a
# fifth of that, with ordinary names.
LARGEST = 1 << 26

# Engines and their users know these words as the beginning of a mount's failure.
STEP = "unable to start container process: error during container init: error mounting"

# Flags of statfs(2) -> bits of mount_setattr(2); the other flags have the same number in both.
_ST_SAME = flags.ST_RDONLY | flags.ST_NOSUID | flags.ST_NODEV | flags.ST_NOEXEC


def failure(step: Mount, what: str, errno: int = 0, hint: str = "") -> Failure:
    """Return the Failure of one mount.

    Args:
        step: the mount.
        what: what could not be done.
        errno: the kernel's error number.
        hint: what may help.

    """
    place = f"{step.source} on {step.spelled or step.destination}"
    return Failure(
        f"{place}: {what}" if what else place, step=STEP, pointer=step.pointer, errno=errno, hint=hint
    )


def open_source(step: Bind | CgroupBind) -> int:
    """Return a detached copy of a bind's source, with all its attributes and its propagation set.

    Args:
        step: a bind whose source is on the host.

    Raises:
        Failure: the source is missing, or the kernel refuses an attribute.

    """
    source = step.source
    how = _CLONE | (flags.AT_RECURSIVE if step.attributes.recursive else 0)
    subpath = ""
    if isinstance(step, Bind):
        subpath = step.subpath
        if step.src_nofollow:
            how |= flags.AT_SYMLINK_NOFOLLOW
    try:
        fd = _open_inside(source, subpath, how) if subpath else _linux.open_tree(flags.AT_FDCWD, source, how)
    except OSError as exc:
        raise source_failure(step, step.full_source, exc) from None
    return _prepared(fd, step)


def link(step: Mount) -> str:
    """Return what a bind's source points to, if it is a symlink that is to be copied instead of mounted."""
    try:
        return os.readlink(step.source)
    except OSError:
        return ""


def _prepared(fd: int, step: Mount) -> int:
    try:
        set_attributes(fd, step)
    except OSError as exc:
        os.close(fd)
        raise attribute_failure(step, exc) from None
    except Failure:
        os.close(fd)
        raise
    return fd


def _open_inside(source: str, subpath: str, how: int) -> int:
    """Clone a directory inside a volume by descriptor: another container may be changing it (law 3)."""
    from pyrunc.apply import target

    volume = os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    with closing(volume), closing(target.resolve(volume, subpath)) as inside:
        return _linux.open_tree(inside, "", how | _EMPTY)


def set_attributes(fd: int, step: Mount) -> None:
    """Set all attributes and the propagation of a mount, detached or not.

    Args:
        fd: the mount.
        step: what to set.

    Raises:
        Failure: the options ask for fewer restrictions than are locked.
        OSError: the kernel refuses.

    """
    asked = step.attributes
    own_set, own_clear = asked.own_set, asked.own_clear | asked.implied_clear
    if asked.locked and own_clear:
        own_set, own_clear = _without_locked(fd, step)
    deep_set, deep_clear = asked.deep_set, asked.deep_clear
    words = asked.propagation
    flag, deep = words[0] if words else (0, False)
    if not asked.recursive:
        # One mount: one call sets all.
        own = own_set | own_clear
        own_set |= deep_set & ~own
        own_clear |= deep_clear & ~own
        if own_set or own_clear or flag:
            _linux.mount_setattr(fd, "", _EMPTY, own_set, own_clear, flag, -1)
    else:
        if deep_set or deep_clear or deep:
            everywhere = _EMPTY | flags.AT_RECURSIVE
            _linux.mount_setattr(fd, "", everywhere, deep_set, deep_clear, flag if deep else 0, -1)
        flag = 0 if deep else flag
        if own_set or own_clear or flag:
            _linux.mount_setattr(fd, "", _EMPTY, own_set, own_clear, flag, -1)
    if len(words) > 1:
        propagate(fd, words[1:])


def propagate(fd: int, words: tuple[tuple[int, bool], ...]) -> None:
    """Set propagation types one after the other.

    Args:
        fd: a mount.
        words: pairs of an MS_* flag and whether it is also for all mounts below.

    Raises:
        OSError: as mount_setattr(2).

    """
    for flag, deep in words:
        _linux.mount_setattr(fd, "", _EMPTY | (flags.AT_RECURSIVE if deep else 0), 0, 0, flag, -1)


def read_all(fd: int) -> str:
    """Return all text that can be read from a descriptor, and close the descriptor.

    Raises:
        OSError: EFBIG, it is more than LARGEST bytes. A container chooses how long its mount table is.

    """
    return files.read_whole(fd, LARGEST).decode("utf-8", "surrogateescape")


def _without_locked(fd: int, step: Mount) -> tuple[int, int]:
    """Return the bits to set and to clear, without those that are locked on the source.

    The kernel locks them when a mount is copied into another user namespace, so that they cannot be removed
    there (mount_namespaces(7)). pyrunc has the rights to remove them, and follows the same rule.
    """
    now = _linux.fstatfs(fd)[1]
    here = now & _ST_SAME
    wish = step.attributes
    if wish.own_clear & here & RDONLY and not _is_locked_readonly(fd):
        here &= ~RDONLY
    refused = wish.own_clear & here & LOCKABLE
    atime = NOATIME if now & flags.ST_NOATIME else RELATIME if now & flags.ST_RELATIME else STRICTATIME
    other_time = wish.atime is not None and wish.atime != atime
    if wish.own_set & NODIRATIME and not now & flags.ST_NODIRATIME:
        other_time = True
    if refused or other_time:
        words = [name for bit, name, _ in ATTRIBUTES if refused & bit]
        if other_time:
            words.append("access times")
        raise failure(
            step,
            f"the source is locked in {' '.join(words)}, and {step.pointer}/options asks for something else",
            EPERM,
            "what restricts a mount outside a user namespace stays in force inside; leave out these options",
        )
    # Access times are as asked for, or nothing was asked for: both ways they stay.
    own_clear = wish.own_clear & ~(ATIME_MASK | NODIRATIME)
    return wish.own_set & ~(ATIME_MASK | NODIRATIME), own_clear | (wish.implied_clear & ~(here | NODIRATIME))


def _is_locked_readonly(fd: int) -> bool:
    """Tell a read-only mount from a mount of a read-only file system; statfs(2) does not tell them apart."""
    try:
        _linux.mount_setattr(fd, "", _EMPTY, 0, RDONLY, 0, -1)
    except PermissionError:
        return True
    return not _linux.fstatfs(fd)[1] & flags.ST_RDONLY


# -- messages: only used after a failure ----


def deleted_failure(step: Mount) -> Failure:
    """Return the Failure for mounting a deleted file, which a mount point may still show."""
    return failure(
        step,
        f"bind source {step.source} shows a file or directory that has been deleted",
        ENOENT,
        "what is mounted there (findmnt shows it) has to be unmounted, or to be made anew and mounted again",
    )


def source_failure(step: Mount, source: str, exc: OSError, *, classic: bool = False) -> Failure:
    """Return the Failure for a bind's source that cannot be opened."""
    if exc.errno == ENOENT:
        hint = ""
        if not getattr(step, "subpath", "") and os.path.islink(source):
            hint = f"it is a symlink to {os.readlink(source)}, and that is missing"
        return failure(step, f"bind source {source} does not exist", ENOENT, hint)
    hint = ""
    if exc.errno == EINVAL:
        hint = "an unbindable mount cannot be bound"
        if classic:
            hint += "; in a user namespace mount(2) leaves nothing out that is mounted below: use rbind"
    return failure(step, f"open bind source {source}", exc.errno or 0, hint)


def attribute_failure(step: Mount, exc: OSError) -> Failure:
    """Return the Failure for attributes of a mount that cannot be set."""
    hint = ""
    if exc.errno == EPERM:
        hint = "the source's own mount flags may be locked by the user namespace they come from"
    return failure(step, "set the mount options", exc.errno or 0, hint)
