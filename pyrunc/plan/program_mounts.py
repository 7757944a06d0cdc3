"""Mount steps -> operations: how a mount is built, where it is attached, what it must be in the end.

Law 3: only operations that resolve a path inside the root use one. What the parent has opened on the host is
in a slot. What init has the rights for, and its caller has not, the operations open.
"""

from __future__ import annotations

import _struct

from pyrunc.plan.mount_options import RDONLY
from pyrunc.plan.mount_steps import (
    WRITABLE,
    Bind,
    CgroupBind,
    FileSystem,
    InnerBind,
    Overlay,
    Reconfigure,
    Remount,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyrunc.plan.lowering import Lowering
    from pyrunc.plan.mount_steps import Mount
    from pyrunc.plan.steps import Step

# What may be mounted below /proc besides a procfs: files that show a container's resources, as of lxcfs.
PROC_FILES = frozenset(
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
# Arguments of PLACE, ATTACH, CLONE_*, NOTE and ATTRIBUTES; pyrunc/init/mounts.c has the same.
NO_SYMLINK, DEST_NOFOLLOW, PROCFS_ITSELF, PROC_ITSELF, PROC_FILE, BIND_OF_HOST, UNCHECKED = (
    1 << n for n in range(7)
)
RECURSIVE, NOFOLLOW = 1, 2
AGAIN, MAY_BE_PRIVATE = 1, 2
EVERYWHERE = 1
EXACT_LINK = 2
_EVERY_BIT = (1 << 64) - 1
# Messages to the parent, see apply/protocol.py: it id-maps, and copies what a tmpfs covers.
MAP_IDS, COVERED, COPY_UP = b"I", b"U", b"u"
# Characters in paths of overlay directories that kernels have read in different ways.
_SPECIAL = frozenset("\\:,")
# The longest string for fsconfig(2), and the room in the page of mount(2) beside other options.
LONGEST, LONGEST_OF_MOUNT = 255, 3500
_KINDS = {"lowerdir": 0, "lowerdir+": 0, "datadir+": 1, "upperdir": 2, "workdir": 3}


def destination(step: Mount) -> int:
    """Return how a mount point is opened, and what may be mounted there."""
    how = BIND_OF_HOST if isinstance(step, Bind) else 0
    if step.no_symlink:
        how |= NO_SYMLINK
    if step.dest_nofollow:
        how |= DEST_NOFOLLOW
    if step.fstype == "proc":
        how |= PROCFS_ITSELF
    if step.destination == "/proc":
        how |= PROC_ITSELF
    if step.destination in PROC_FILES and not isinstance(step, FileSystem):
        how |= PROC_FILE
    return how


# -- binds ---------------------------------------------------------------------------------------------------


def _bind(on: Lowering, step: Bind | InnerBind | CgroupBind) -> None:
    add, text = on.program.add, on.text
    asked = step.attributes
    link = on.given.links.get(id(step))
    if link:
        add(step, "SYMLINK", text(step, step.destination), text(step, link), EXACT_LINK)
        return
    slot = on.opened(step)
    if slot < 0:
        slot = open_source(on, step)
        if asked.id_mapped:
            add(step, "ASK", slot, ord(MAP_IDS), on.number(step))
    add(step, "ATTACH", slot, text(step, step.destination), destination(step), on.place)
    if asked.after:
        # A mount on a shared mount becomes shared.
        propagate(on, step, slot, asked.propagation)
    if asked.below:
        add(step, "BELOW", slot, asked.below)
    if isinstance(step, Bind):
        # Its source has been looked at, and may not be shared.
        private = asked.may_be_private or id(step) in on.given.lonely
        _note(on, step, slot, MAY_BE_PRIVATE if private else 0, step.full_source)
    else:
        _note(on, step, slot, MAY_BE_PRIVATE)
    if not asked.again and not on.keeps:
        add(step, "CLOSE", slot)


def open_source(on: Lowering, step: Bind | InnerBind | CgroupBind) -> int:
    """Open a source that the parent has not opened: one inside the root, or an ordinary user's."""
    add, text = on.program.add, on.text
    slot = on.slot("mount", step)
    how = RECURSIVE if step.attributes.recursive else 0
    if not isinstance(step, CgroupBind) and step.src_nofollow:
        how |= NOFOLLOW
    if isinstance(step, InnerBind):
        add(step, "CLONE_BELOW", on.nothing, text(step, step.source), how, slot)
    elif isinstance(step, Bind) and step.subpath:
        # Another container may be changing the volume, so its directories are opened one by one.
        volume = on.slot("volume", step)
        add(step, "OPEN_DIRECTORY", text(step, step.source), volume)
        add(step, "CLONE_BELOW", volume, text(step, step.subpath), how & RECURSIVE, slot)
        add(step, "CLOSE", volume)
    else:
        clone(on, step, step.source, how, slot)
    attributes(on, step, slot)
    return slot


def clone(on: Lowering, step: Step, path: str, how: int, slot: int) -> None:
    """Append what makes a detached copy of something on the host.

    mount(2) resolves it in init's own mount namespace, so it must be the file that the parent has seen at its
    path, or has opened there.
    """
    add = on.program.add
    if not on.given.classic:
        add(step, "CLONE_PATH", on.text(step, path), how, slot)
        return
    found = on.handed.get(path)
    if found is not None:
        add(step, "CLONE_SLOT", found, how & RECURSIVE, slot)
        return
    found = on.slot("found", step)
    add(step, "OPEN_PATH", on.text(step, path), how & NOFOLLOW, found)
    seen = on.given.seen.get(path)
    if seen is not None:
        add(step, "IS_SAME", found, *seen)
    add(step, "CLONE_SLOT", found, how & RECURSIVE, slot)
    add(step, "CLOSE", found)


def attributes(on: Lowering, step: Mount, slot: int) -> None:
    """Append what sets all attributes and the propagation of a mount: recursive ones first."""
    add = on.program.add
    asked = step.attributes
    words = asked.propagation
    flag, deep = words[0] if words else (0, False)
    own_set, own_clear = asked.own_set, asked.own_clear | asked.implied_clear
    locked = asked.locked and own_clear
    if asked.recursive:
        if asked.deep_set or asked.deep_clear or deep:
            below = flag if deep else 0
            add(step, "ATTRIBUTES", slot, asked.deep_set, asked.deep_clear, below, EVERYWHERE)
        flag = 0 if deep else flag
    else:
        own = own_set | own_clear
        if locked:
            if asked.deep_set & ~own or asked.deep_clear & ~own:
                add(step, "ATTRIBUTES", slot, asked.deep_set & ~own, asked.deep_clear & ~own, 0, 0)
        else:
            own_set |= asked.deep_set & ~own
            own_clear |= asked.deep_clear & ~own
    if locked:
        times = _EVERY_BIT if asked.atime is None else asked.atime
        add(step, "UNLOCKED_ATTRIBUTES", slot, asked.own_set, asked.own_clear, asked.implied_clear, times)
        own_set = own_clear = 0
    if own_set or own_clear or flag:
        add(step, "ATTRIBUTES", slot, own_set, own_clear, flag, 0)
    propagate(on, step, slot, words[1:])


def propagate(on: Lowering, step: Mount, slot: int, words: tuple[tuple[int, bool], ...]) -> None:
    """Append what sets propagation types one after the other."""
    for flag, deep in words:
        on.program.add(step, "ATTRIBUTES", slot, 0, 0, flag, EVERYWHERE if deep else 0)


# -- new file systems ----------------------------------------------------------------------------------------


def _new(on: Lowering, step: FileSystem) -> None:
    add = on.program.add
    asked = step.attributes
    place = on.place
    add(step, "PLACE", on.text(step, step.destination), destination(step), place)
    slot = on.opened(step)
    if slot < 0:
        slot = on.slot("mount", step)
        file_system(on, step, slot)
        if asked.id_mapped:
            add(step, "ASK", slot, ord(MAP_IDS), on.number(step))
    if step.copy_up:
        add(step, "ASK", place, ord(COVERED), on.number(step))
        add(step, "ASK", slot, ord(COPY_UP), on.number(step))
    add(step, "ATTACH", slot, on.text(step, step.destination), destination(step), place)
    propagate(on, step, slot, asked.propagation)
    _note(on, step, slot, MAY_BE_PRIVATE)
    if step.readonly_last:
        on.readonly_last.append((slot, step))
    if step.fstype == "devpts" and step.destination == "/dev/pts" and on.devpts < 0:
        on.devpts = slot
    elif not asked.again and not step.readonly_last:
        add(step, "CLOSE", slot)


def file_system(on: Lowering, step: FileSystem, slot: int) -> None:
    """Append what makes a new file system, mounted detached with all its attributes.

    A tmpfs takes the mode of the directory that it covers, unless it has an option for that.

    Args:
        on: the lowering.
        step: what to mount.
        slot: slot for the mount.

    """
    add, text = on.program.add, on.text
    asked = step.attributes
    context = on.slot("context", step)
    if step.fstype == "proc":
        context = on.proc_context(step, context)
    add(step, "FSOPEN", text(step, step.fstype), context)
    add(step, "FSCONFIG", context, on.list(step, (f"source={step.source}", *step.words)))
    if step.fstype == "tmpfs" and not any(word.startswith("mode=") for word in step.data):
        add(step, "FSMODE", context, on.place)
    layers: list[int] = []
    if isinstance(step, Overlay):
        layers = _layers(on, step, context)
    else:
        add(step, "FSCREATE", context, 0)
    # A mount that stays writable until the tree is complete becomes read-only at the end.
    own_set = asked.own_set & ~RDONLY if step.readonly_last else asked.own_set
    add(step, "FSMOUNT", context, own_set, slot)
    for layer in layers:
        add(step, "CLOSE", layer)
    if asked.deep_set or asked.deep_clear:
        own = asked.own_set | asked.own_clear
        add(step, "ATTRIBUTES", slot, asked.deep_set & ~own, asked.deep_clear & ~own, 0, 0)
    if step.label:
        add(step, "LABEL_MOUNT", slot, on.program.blob(step.label.encode()))


def _layers(on: Lowering, step: Overlay, context: int) -> list[int]:
    """Append what gives overlayfs its directories by descriptor, and makes it; return their slots."""
    add, text = on.program.add, on.text
    slots = []
    for number, (_name, path, inside) in enumerate(step.layers):
        slot = on.slot(f"layer{number}", step)
        if inside:
            add(step, "OPEN_BELOW", on.nothing, text(step, path), 0, slot, tag=number)
        else:
            add(step, "OPEN_DIRECTORY", text(step, path), slot, tag=number)
        slots.append(slot)
    if step.layer_fds:
        for (name, _path, _inside), slot in zip(step.layers, slots, strict=True):
            add(step, "FSLAYER", context, text(step, name), slot)
        add(step, "FSCREATE", context, 0)
    else:
        _layers_by_name(on, step, context, slots)
    return slots


def _layers_by_name(on: Lowering, step: Overlay, context: int, slots: list[int]) -> None:
    """Name an overlay's directories as kernels before 6.13 need it: all lower ones in one string.

    Their paths are used, which people read in the mount table, if every kernel reads them the same way and
    they fit. Otherwise, and always inside the root, the numbers of their descriptors are used: enough for
    some sixty lower directories, and for some seven hundred with mount(2).
    """
    longest = LONGEST_OF_MOUNT if on.given.classic else LONGEST
    paths = [path for _, path, _ in step.layers]
    below = step.lowerdir(paths)
    if (
        any(inside or set(path) & _SPECIAL for _, path, inside in step.layers)
        or len(max(below, *paths, key=len).encode("utf-8", "surrogateescape")) > longest
    ):
        kinds = [_KINDS[name] for name, _, _ in step.layers]
        pairs = [number for pair in zip(kinds, slots, strict=True) for number in pair]
        data = _struct.pack(f"={len(pairs)}I", *pairs)
        on.program.add(step, "FSLAYERS", context, on.program.blob(data), longest)
        return
    words = [f"lowerdir={below}"]
    words += [f"{name}={path}" for name, path, _ in step.layers if name in WRITABLE]
    on.program.add(step, "FSCONFIG", context, on.list(step, words), tag=1)
    on.program.add(step, "FSCREATE", context, 0)


# -- remounts ------------------------------------------------------------------------------------------------


def _remount(on: Lowering, step: Remount) -> None:
    """Append what changes the mount at the destination."""
    add = on.program.add
    slot = on.slot("mount", step)
    add(step, "OPEN_BELOW", on.nothing, on.text(step, step.destination), 0, slot)
    add(step, "IS_MOUNTED", slot)
    if isinstance(step, Reconfigure):
        context = on.slot("context", step)
        add(step, "FSPICK", slot, context)
        add(step, "FSCONFIG", context, on.list(step, step.words))
        add(step, "FSCREATE", context, 1)
        add(step, "CLOSE", context)
    attributes(on, step, slot)
    _note(on, step, slot, MAY_BE_PRIVATE | AGAIN)
    if not step.attributes.again:
        add(step, "CLOSE", slot)


# -- the end -------------------------------------------------------------------------------------------------


def _note(on: Lowering, step: Mount, slot: int, how: int, base: str = "") -> None:
    """Append what notes a mount for the check at the end.

    Args:
        on: the lowering.
        step: the mount's step.
        slot: the mount.
        how: what is known about it.
        base: the path of its source on the host, "" for none.

    """
    asked = step.attributes
    bits = asked.must_mask | asked.must_be << 32
    on.program.add(step, "NOTE", slot, bits, asked.expected, how, on.text(step, base))
    if asked.again:
        on.again.append((slot, step))


LOWER: dict[type[Step], Callable[[Lowering, Any], None]] = {
    Bind: _bind,
    InnerBind: _bind,
    CgroupBind: _bind,
    FileSystem: _new,
    Overlay: _new,
    Remount: _remount,
    Reconfigure: _remount,
}
