"""Mount steps -> operations: how a mount is built, where it goes, what it must be in the end.

Law 3: nothing inside the root is named by a path but in the operations that resolve one in it. What the
parent has opened on the host is in a slot. The rest, for which the init has the rights and its caller has
not, the operations open.
"""

from __future__ import annotations

import _struct

from pyrunc.plan.mount_options import RDONLY
from pyrunc.plan.mounts import PSEUDO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.program_tree import Lowering
    from pyrunc.plan.steps import Mount, Step

# What may be mounted below /proc besides a procfs: files that resource views replace, as lxcfs does.
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
# Messages to the parent, see apply/protocol: it maps ids, and copies what a tmpfs covers.
MAP_IDS, COVERED, COPY_UP = b"I", b"U", b"u"
# What kernels have read in different ways over time, in paths of layers.
_SPECIAL = frozenset("\\:,")
# The longest string fsconfig(2) takes, and what the page of mount(2) has room for beside other words.
LONGEST, LONGEST_OF_MOUNT = 255, 3500
_KINDS = {"lowerdir": 0, "lowerdir+": 0, "datadir+": 1, "upperdir": 2, "workdir": 3}
WRITABLE = ("upperdir", "workdir")


def lower(on: Lowering, step: Mount) -> None:
    """Append the operations of one mount step."""
    if step.kind == "new":
        _new(on, step)
    elif step.kind == "remount":
        _remount(on, step)
    else:
        _bind(on, step)


def destination(step: Mount) -> int:
    """Return how a mount point is looked for, and what may be mounted there."""
    how = BIND_OF_HOST if step.kind == "bind" else 0
    if step.no_symlink:
        how |= NO_SYMLINK
    if step.options.ext and "dest-nofollow" in step.options.ext:
        how |= DEST_NOFOLLOW
    if step.fstype == "proc":
        how |= PROCFS_ITSELF
    if step.destination == "/proc":
        how |= PROC_ITSELF
    if step.destination in PROC_FILES and step.kind != "new":
        how |= PROC_FILE
    return how


# -- binds ---------------------------------------------------------------------------------------------------


def _bind(on: Lowering, step: Mount) -> None:
    add, text = on.program.add, on.text
    link = on.given.links.get(id(step))
    if link:
        add(step, "SYMLINK", text(step, step.destination), text(step, link), EXACT_LINK)
        return
    slot = on.opened(step)
    if slot < 0:
        slot = open_source(on, step)
        if step.id_maps or step.id_space:
            add(step, "ASK", slot, ord(MAP_IDS), on.number(step))
    add(step, "ATTACH", slot, text(step, step.destination), destination(step), on.place)
    if step.after:
        # What is put on a shared mount becomes shared by that.
        propagate(on, step, slot, step.propagation)
    if step.below:
        add(step, "BELOW", slot, step.below)
    _note(on, step, slot)
    _close(on, step, slot)


def open_source(on: Lowering, step: Mount) -> int:
    """Open a source that the parent has not: one inside the root, or an ordinary user's."""
    add, text = on.program.add, on.text
    slot = on.slot("mount", step)
    how = (RECURSIVE if step.options.bind == "rbind" else 0) | (
        NOFOLLOW if "src-nofollow" in step.options.ext else 0
    )
    if step.kind == "inner-bind":
        add(step, "CLONE_BELOW", on.nothing, text(step, step.source), how, slot)
    elif step.subpath:
        # Another container may be changing the volume, so its directories are not found by the whole path.
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

    With mount(2) it is looked for in init's own mount namespace, so it must be what the parent has seen at
    its place, or has opened there.
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
    """Append what sets all attributes and the propagation of a mount: first what is recursive."""
    add = on.program.add
    words = step.propagation
    flag, deep = words[0] if words else (0, False)
    own_set, own_clear = step.own_set, step.own_clear | step.implied_clear
    locked = step.locked and own_clear
    recursive = step.options.bind == "rbind"
    if recursive:
        if step.deep_set or step.deep_clear or deep:
            below = flag if deep else 0
            add(step, "ATTRIBUTES", slot, step.deep_set, step.deep_clear, below, EVERYWHERE)
        flag = 0 if deep else flag
    else:
        own = own_set | own_clear
        if locked:
            if step.deep_set & ~own or step.deep_clear & ~own:
                add(step, "ATTRIBUTES", slot, step.deep_set & ~own, step.deep_clear & ~own, 0, 0)
        else:
            own_set |= step.deep_set & ~own
            own_clear |= step.deep_clear & ~own
    if locked:
        times = _EVERY_BIT if step.options.atime is None else step.options.atime
        add(step, "UNLOCKED_ATTRIBUTES", slot, step.own_set, step.own_clear, step.implied_clear, times)
        own_set = own_clear = 0
    if own_set or own_clear or flag:
        add(step, "ATTRIBUTES", slot, own_set, own_clear, flag, 0)
    propagate(on, step, slot, words[1:])


def propagate(on: Lowering, step: Mount, slot: int, words: tuple[tuple[int, bool], ...]) -> None:
    """Append what sets propagation types one after the other."""
    for flag, deep in words:
        on.program.add(step, "ATTRIBUTES", slot, 0, 0, flag, EVERYWHERE if deep else 0)


# -- new file systems ----------------------------------------------------------------------------------------


def _new(on: Lowering, step: Mount) -> None:
    add = on.program.add
    place = on.place
    add(step, "PLACE", on.text(step, step.destination), destination(step), place)
    slot = on.opened(step)
    if slot < 0:
        slot = on.slot("mount", step)
        file_system(on, step, slot, covers=step.fstype == "tmpfs")
        if step.id_maps or step.id_space:
            add(step, "ASK", slot, ord(MAP_IDS), on.number(step))
    if step.copy_up:
        add(step, "ASK", place, ord(COVERED), on.number(step))
        add(step, "ASK", slot, ord(COPY_UP), on.number(step))
    add(step, "ATTACH", slot, on.text(step, step.destination), destination(step), place)
    propagate(on, step, slot, step.propagation)
    _note(on, step, slot)
    if step.readonly_last:
        on.readonly_last.append((slot, step))
    if step.fstype == "devpts" and step.destination == "/dev/pts" and on.devpts < 0:
        on.devpts = slot
    else:
        _close(on, step, slot)


def file_system(on: Lowering, step: Mount, slot: int, *, covers: bool = False, lower: int = -1) -> None:
    """Append what makes a new file system, mounted detached with all its attributes.

    Args:
        on: the lowering.
        step: what to mount.
        slot: for the mount.
        covers: it takes the mode of what it covers, if it says none.
        lower: slot of an overlay's lower layer where that is no ordinary directory.

    """
    add, text = on.program.add, on.text
    context = on.slot("context", step)
    if step.fstype == "proc":
        context = on.proc_context(step, context)
    add(step, "FSOPEN", text(step, step.fstype), context)
    words = step.data
    if step.own_set & RDONLY and step.fstype not in PSEUDO:
        words = ("ro", *words)
    add(step, "FSCONFIG", context, on.list(step, (f"source={step.source}", *words)))
    if covers and not any(word.startswith("mode=") for word in words):
        add(step, "FSMODE", context, on.place)
    layers: list[int] = []
    if not step.layers:
        add(step, "FSCREATE", context, 0)
    else:
        layers = _layers(on, step, context, lower)
    # What stays writable until the tree is built gets its last bit at the end.
    own_set = step.own_set & ~RDONLY if step.readonly_last else step.own_set
    add(step, "FSMOUNT", context, own_set, slot)
    for layer in layers:
        if layer != lower:
            add(step, "CLOSE", layer)
    if step.deep_set or step.deep_clear:
        own = step.own_set | step.own_clear
        add(step, "ATTRIBUTES", slot, step.deep_set & ~own, step.deep_clear & ~own, 0, 0)
    if step.label:
        add(step, "LABEL_MOUNT", slot, on.program.blob(step.label.encode()))


def _layers(on: Lowering, step: Mount, context: int, lower: int) -> list[int]:
    """Append what tells overlayfs its layers, by descriptors, and makes it; return their slots."""
    add, text = on.program.add, on.text
    slots = []
    for number, (name, path, inside) in enumerate(step.layers):
        if lower >= 0 and name == "lowerdir+":
            slots.append(lower)
            continue
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


def _layers_by_name(on: Lowering, step: Mount, context: int, slots: list[int]) -> None:
    """Name the layers as kernels before 6.13 want them: all the lower ones in one string.

    By their paths, which people read in the mount table, where each means the same to every kernel and all of
    them fit. Otherwise, and always inside the root, by the numbers of their descriptors: enough for some
    sixty layers, and for some seven hundred with mount(2).
    """
    longest = LONGEST_OF_MOUNT if on.given.classic else LONGEST
    paths = [path for _, path, _ in step.layers]
    below = _lower_layers(step, paths)
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


def _lower_layers(step: Mount, names: list[str]) -> str:
    text = ""
    for (name, _, _), each in zip(step.layers, names, strict=True):
        if name not in WRITABLE:
            text += (("::" if name == "datadir+" else ":") if text else "") + each
    return text


# -- remounts ------------------------------------------------------------------------------------------------


def _remount(on: Lowering, step: Mount) -> None:
    """Append what changes what is mounted at the destination."""
    add = on.program.add
    slot = on.slot("mount", step)
    add(step, "OPEN_BELOW", on.nothing, on.text(step, step.destination), 0, slot)
    add(step, "IS_MOUNTED", slot)
    if not step.options.bind:
        context = on.slot("context", step)
        add(step, "FSPICK", slot, context)
        add(step, "FSCONFIG", context, on.list(step, remount_words(step)))
        add(step, "FSCREATE", context, 1)
        add(step, "CLOSE", context)
    attributes(on, step, slot)
    _note(on, step, slot)
    _close(on, step, slot)


def remount_words(step: Mount) -> tuple[str, ...]:
    """Return the words for the file system that is changed."""
    if step.fstype in PSEUDO:
        return step.data
    readonly = ("ro",) if step.own_set & RDONLY else ("rw",) if step.own_clear & RDONLY else ()
    return (*readonly, *step.data)


def config_words(step: Mount) -> tuple[str, ...]:
    """Return the words of a step's first FSCONFIG, for the failure that names one."""
    if step.kind == "remount":
        return remount_words(step)
    readonly = ("ro",) if step.own_set & RDONLY and step.fstype not in PSEUDO else ()
    return ("", *readonly, *step.data)


# -- the end -------------------------------------------------------------------------------------------------


def _note(on: Lowering, step: Mount, slot: int) -> None:
    how = AGAIN if step.kind == "remount" else 0
    # Only of a bind of the host's is it known whether there is anything it could be a slave of.
    if id(step) in on.given.lonely or step.kind != "bind" or not step.options.propagation:
        how |= MAY_BE_PRIVATE
    base = ""
    if step.kind == "bind":
        base = f"{step.source}/{step.subpath}" if step.subpath else step.source
    bits = step.must_mask | step.must_be << 32
    on.program.add(step, "NOTE", slot, bits, step.expected, how, on.text(step, base))
    if step.again:
        on.again.append((slot, step))


def _close(on: Lowering, step: Mount, slot: int) -> None:
    """Close a mount, unless something is still to be done with it."""
    if not step.again and not step.readonly_last:
        on.program.add(step, "CLOSE", slot)
