"""How a container's mounts differ now from its plan.

Flags and propagation are compared by the code that does it at creation (verify.py), with the same messages.
What can only change later is here: mounts that are gone, that show something else, or that are not in the
plan.
"""

from __future__ import annotations

import os

from pyrunc.apply import mount_table as own_table
from pyrunc.apply.live import visit
from pyrunc.apply.mounts import bind_sources, verify
from pyrunc.files import closing
from pyrunc.linux import _linux
from pyrunc.plan import mount_origins, mount_table, steps
from pyrunc.plan.mount_options import RDONLY
from pyrunc.plan.mount_origins import Knowledge, Origin, Origins
from pyrunc.plan.mount_steps import AttachRoot, Bind, FileSystem, Mount
from pyrunc.plan.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc import store
    from pyrunc.plan.mount_table import Row

# Kinds of drift.
MISSING, CHANGED, OTHER, EXTRA = "missing", "changed", "other", "extra"

_DELETED = "//deleted"


class Drift(Record):
    """One difference.

    Attributes:
        kind: "missing" (no mount), "changed" (other flags or propagation), "other" (another file system, or
            another part of one), "extra" (not in the plan).
        pointer: the place in config.json that asked for it, "" for none.
        target: the mount point in the container.
        text: what differs, in words.

    """

    kind: str
    pointer: str
    target: str
    text: str


def gather(container: store.Container, plan: steps.Plan) -> tuple[Knowledge, str]:
    """Collect what the kernel and the host know about a container's mounts.

    Args:
        container: its record.
        plan: its plan.

    Returns:
        The facts, and the text of the container's mount table.

    Raises:
        Failure: it has ended, or does not answer.

    """
    places = [mount_origins.place_of(step) for step in plan.child]
    text, located = visit.look(container, [place for place in places if place])
    host = own_table.read()
    found: dict[int, tuple[str, str, str]] = {}
    links = []
    for step in plan.child:
        if isinstance(step, Bind):
            if step.copy_symlink and bind_sources.link(step):
                links.append(id(step))
            source = _source(step, host)
            if source is not None:
                found[id(step)] = source
    known = Knowledge(
        rows=mount_table.parse(text), located=located, host=host, sources=found, links=frozenset(links)
    )
    return known, text


def _source(step: Bind, host: list[Row]) -> tuple[str, str, str] | None:
    """Return the source of a bind as it is on the host now, None if it cannot be looked at.

    ("", "", "") means that it does not exist.
    """
    how = os.O_PATH | os.O_CLOEXEC | (os.O_NOFOLLOW if step.src_nofollow else 0)
    try:
        fd = os.open(step.full_source, how)
    except FileNotFoundError:
        return "", "", ""
    except OSError:
        return None
    with closing(fd):
        number, _top = _linux.statx_mnt(fd)
        real = os.readlink(f"/proc/self/fd/{fd}")
    row = next((row for row in host if row.id == number), None)
    # The files of namespaces and such have a name that is no path.
    if row is None or not mount_table.within(real, row.point):
        return None
    return row.device, mount_table.part_of(row, real), real


def compare(
    plan: steps.Plan, known: Knowledge, found: Origins, bits: dict[int, tuple[int, int]]
) -> list[Drift]:
    """Return the differences, in the order of the mount tree.

    Args:
        plan: the container's.
        known: the facts from gather().
        found: where each mount comes from.
        bits: mount id -> MOUNT_ATTR_* and MS_* bits (verify.parse_table).

    """
    end = next(step for step in plan.child if isinstance(step, steps.VerifyMounts))
    drifts = []
    for row in mount_table.in_order(known.rows):
        origin = found.of[row.id]
        if origin.kind == mount_origins.CONTAINER:
            drifts.append(_extra(row))
            continue
        other = _other(row, origin, known)
        if other:
            drifts.append(Drift(kind=OTHER, pointer=origin.pointer, target=row.point, text=other))
        changed, pointer = _changed(origin, *bits[row.id], end)
        if changed:
            drifts.append(
                Drift(kind=CHANGED, pointer=pointer or origin.pointer, target=row.point, text=changed)
            )
    drifts += [_missing(step, place) for step, place in found.missing]
    return drifts


def _extra(row: Row) -> Drift:
    text = f"this mount is not configured: {_shown(row)}, mounted by the container or from the host"
    return Drift(kind=EXTRA, pointer="", target=row.point, text=text)


def _missing(step: steps.Step, place: str) -> Drift:
    text = "nothing is mounted there"
    if isinstance(step, steps.MaskedPath):
        text = "it is not masked: nothing is mounted over it"
    elif isinstance(step, steps.ReadonlyPath):
        text = "it is not read-only: nothing is mounted over it"
    return Drift(kind=MISSING, pointer=step.pointer, target=place, text=text)


def _changed(origin: Origin, attributes: int, propagation: int, end: steps.VerifyMounts) -> tuple[str, str]:
    """Return how the flags and the propagation of a mount differ, and the place that asks for them."""
    step = origin.step
    if isinstance(step, AttachRoot):
        if origin.kind == mount_origins.BELOW:
            return "", ""
        return verify.root_difference(end, attributes, propagation)
    if isinstance(step, Mount):
        step = origin.remount or step  # what is in force
        asked = step.attributes
        if origin.kind == mount_origins.BELOW:
            # Of what came along with it the mount's recursive words are all that counts.
            deep = asked.deep_set | asked.deep_clear
            asked = asked.but(must_mask=deep, must_be=asked.deep_set, expected=0)
        return verify.difference(asked, attributes, propagation, lonely=verify.is_lonely(step)), ""
    if isinstance(step, steps.ReadonlyPath) and origin.kind == mount_origins.READONLY:
        return ("" if attributes & RDONLY else "the mount is rw, not ro"), ""
    return "", ""


def _other(row: Row, origin: Origin, known: Knowledge) -> str:
    """Return what is mounted instead of what the plan has, "" if there is no difference."""
    step = origin.step
    if origin.kind == mount_origins.MASKED:
        empty = row.fstype == "tmpfs" and row.root == "/" and "ro" in row.options
        return "" if empty or row.root.endswith("/null") else f"it is not masked: {_shown(row)} covers it"
    if origin.kind not in (mount_origins.CONFIG, mount_origins.ADDED) or not isinstance(step, Mount):
        return ""
    if isinstance(step, FileSystem):
        return "" if row.fstype == step.fstype else f"it is {_shown(row)}, not a {step.fstype}"
    if not isinstance(step, Bind) or id(step) not in known.sources:
        return ""
    device, part, _path = known.sources[id(step)]
    if (row.device, row.root) == (device, part):
        return ""
    source = step.full_source
    if row.root.endswith(_DELETED):
        now = "is gone from the host" if not device else "is another one on the host by now"
        return f"{source} {now}: the container still has the old one"
    if not device:
        return f"{source} is not on the host any more: the mount shows {_shown(row)}"
    return f"it shows {_shown(row)}, not {source}"


def _shown(row: Row) -> str:
    """Return what is mounted, in words for a message."""
    what = f"{row.fstype} {row.source}" if row.source not in ("", "none", row.fstype) else row.fstype
    return f"{row.root} of {what}" if row.root != "/" else what
