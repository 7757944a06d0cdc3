"""Compare the mounts that the kernel has in the end with the mount steps.

The init program asks the kernel about each mount if it can (statmount(2), Linux 6.8): 2 microseconds each.
With older kernels it sends its mount table, and the comparison is made here. Additional restrictions are
allowed, missing ones are not. A slave whose source is not shared is private. This is the last step of the
mount tree, so it also sees the effects of the others.
"""

from __future__ import annotations

import os
from _struct import unpack_from
from errno import ENOENT

from pyrunc.apply.mounts import bind_sources
from pyrunc.files import closing
from pyrunc.linux import _linux, flags
from pyrunc.plan.mount_options import (
    ATIME_MASK,
    ATIMES,
    ATTRIBUTES,
    ID_MAPPED,
    NOATIME,
    PRIVATE,
    PROPAGATIONS,
    RDONLY,
    SHARED,
    SLAVE,
    STRICTATIME,
    UNBINDABLE,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol, TypeAlias

    from pyrunc.errors import Failure
    from pyrunc.plan.mount_options import Attributes
    from pyrunc.plan.mount_steps import Mount
    from pyrunc.plan.mount_table import Row
    from pyrunc.plan.steps import VerifyMounts

    Table: TypeAlias = dict[int, tuple[int, int]]

    class Noted(Protocol):
        """The mounts that were made: (mount id, step); ids of steps for slaves whose source is not shared."""

        noted: list[tuple[int, Mount]]
        lonely: set[int]


_SIZE = 512  # sizeof(struct statmount) without strings after it
_ATTRIBUTES = 64  # offset of mnt_attr, and then mnt_propagation (include/uapi/linux/mount.h)
_SAID = 20  # bytes: number of an operation, attributes, propagation
_AS_IT_IS = "this is what the kernel has made of it: see `pyrunc plan`"

# The words of mountinfo that stand for a bit (proc_pid_mountinfo(5)).
_WORDS = {**{word: bit for bit, word, _ in ATTRIBUTES}, "noatime": NOATIME, "idmapped": ID_MAPPED}


def compare(mounting: Noted, table: Table) -> None:
    """Compare every mount that was made with what the kernel has.

    Args:
        mounting: the mounts that were made.
        table: what placed() returned.

    Raises:
        Failure: one differs, or does not exist any more.

    """
    for mount, each in mounting.noted:
        found = table.get(mount)
        if found is None:
            raise gone(each)
        wrong = difference(each.attributes, *found, lonely=id(each) in mounting.lonely)
        if wrong:
            raise bind_sources.failure(each, wrong, 0, _AS_IT_IS)


def said(data: bytes) -> tuple[int, int]:
    """Return attributes and propagation of a mount as the init program reports them."""
    attributes, propagation = unpack_from("=QQ", data, 4) if len(data) >= _SAID else (0, 0)
    return attributes, propagation


def gone(step: Mount) -> Failure:
    """Return the Failure for a mount that does not exist at the end."""
    hint = "a later mount or a hook removed it"
    return bind_sources.failure(step, "the mount is not there any more", ENOENT, hint)


def differs(step: Mount, attributes: int, propagation: int) -> Failure:
    """Return the Failure for a mount that differs from its step."""
    wrong = difference(step.attributes, attributes, propagation, lonely=False)
    return bind_sources.failure(step, wrong or "the mount is not as it was asked to be", 0, _AS_IT_IS)


def _ask(mount: int) -> bytes:
    return _linux.statmount(mount, flags.STATMOUNT_MNT_BASIC, _SIZE)


def root_difference(step: VerifyMounts, attributes: int, propagation: int) -> tuple[str, str]:
    """Return how the root mount differs from what was asked for, and the place that asks for it.

    Args:
        step: what it must be.
        attributes: MOUNT_ATTR_* bits it has.
        propagation: MS_* bits of its propagation.

    """
    if step.readonly and not attributes & RDONLY:
        return "the root file system is not read-only", "/root/readonly"
    if step.propagation and not _propagates(step.propagation, propagation, lonely=True):
        wrong = f"the root mount is {_type(propagation)}, not {_type(step.propagation)}"
        return wrong, "/linux/rootfsPropagation"
    return "", ""


def difference(asked: Attributes, attributes: int, propagation: int, *, lonely: bool) -> str:
    """Return how a mount differs from its step, "" if it does not.

    Args:
        asked: what it is to be.
        attributes: MOUNT_ATTR_* bits it has.
        propagation: MS_* bits of its propagation.
        lonely: its source is not shared, so that it cannot be a slave.

    """
    wrong = []
    changed = (attributes ^ asked.must_be) & asked.must_mask
    if changed & ATIME_MASK:
        is_now, wanted = attributes & ATIME_MASK, asked.must_be & ATIME_MASK
        wrong.append(f"is {ATIMES.get(is_now, is_now)}, not {ATIMES.get(wanted, wanted)}")
    for bit, on, off in (*ATTRIBUTES, (ID_MAPPED, "id-mapped", "not id-mapped")):
        if changed & bit:
            wrong.append(f"is {off}, not {on}" if asked.must_be & bit else f"is {on}, not {off}")
    lonely = lonely or asked.may_be_private
    if asked.expected and not _propagates(asked.expected, propagation, lonely=lonely):
        wrong.append(f"is {_type(propagation)}, not {_type(asked.expected)}")
    return "the mount " + " and ".join(wrong) if wrong else ""


def _propagates(expected: int, found: int, *, lonely: bool) -> bool:
    if expected == SLAVE:
        return bool(found & SLAVE) or (lonely and bool(found & PRIVATE))
    return bool(found & expected)


def _type(bits: int) -> str:
    return "+".join(word for bit, word in PROPAGATIONS.items() if bits & bit)


def placed(text: str, places: dict[int, str]) -> Table:
    """Return what parse_table() does, without the mounts that have another mount point now."""
    from pyrunc.plan import mount_table

    rows = mount_table.parse(text)
    return {row.id: _bits(row) for row in rows if places.get(row.id, row.point) == row.point}


def parse_table(text: str) -> Table:
    """Return mount id -> (MOUNT_ATTR_* bits, MS_* bits of the propagation) of a mountinfo table."""
    from pyrunc.plan import mount_table

    return {row.id: _bits(row) for row in mount_table.parse(text)}


def _bits(row: Row) -> tuple[int, int]:
    attributes = STRICTATIME
    for word in row.options:
        if word in ("noatime", "relatime"):
            attributes &= ~ATIME_MASK
        attributes |= _WORDS.get(word, 0)
    propagation = SHARED if row.shared else 0
    if row.master:
        propagation |= SLAVE
    if row.unbindable:
        propagation |= UNBINDABLE
    return attributes, propagation or PRIVATE


def parse_mounts() -> dict[int, tuple[str, int]]:
    """Return mount id -> (mount point, MS_* bits of the propagation) of the caller's mount table."""
    from pyrunc.apply import mount_table

    return {row.id: (row.point, _bits(row)[1]) for row in mount_table.read()}


def is_lonely(step: Mount) -> bool:
    """Tell whether a mount is to be a slave, and is a bind of what has nothing to be a slave of.

    The copy of a private mount cannot be one.
    """
    asked = step.attributes
    if asked.expected != SLAVE or asked.may_be_private:
        return False
    return not propagation_at(step.source) & (SHARED | SLAVE)


def propagation_at(path: str) -> int:
    """Return the MS_* bits of the propagation of the mount that a path is on, 0 if unknown."""
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return 0  # the code that opens it reports the error
    with closing(fd):
        try:
            mount, _is_root = _linux.statx_mnt(fd, flags.STATX_MNT_ID_UNIQUE)
            propagation: int = unpack_from("=QQ", _ask(mount), _ATTRIBUTES)[1]
        except OSError:
            mount, _is_root = _linux.statx_mnt(fd)
            propagation = parse_mounts().get(mount, ("", 0))[1]
    return propagation
