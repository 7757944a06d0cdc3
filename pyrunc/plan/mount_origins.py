"""Which step of its plan each mount of a container comes from, and which steps have no mount.

Law 4: nothing about it is stored: it follows from the plan, the kernel's mount table, and the places of the
sources on the host. Steps and mounts are matched by mount point; several at one mount point in the order in
which they are made. A mount without a step either came with a recursive bind or was mounted by the container
itself.
"""

from __future__ import annotations

from pyrunc.plan import mount_table, paths, steps
from pyrunc.plan.mount_steps import AttachRoot, Bind, InnerBind, Mount, Remount
from pyrunc.plan.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyrunc.plan.mount_table import Row
    from pyrunc.plan.steps import Step

# Kinds of origin. All but the last were made by pyrunc, or came with what it made.
ROOT, CONFIG, ADDED, BELOW = "rootfs", "config", "added", "below"
MASKED, READONLY, DEVICE, CONSOLE, NOTIFY = "masked path", "read-only path", "device", "console", "sd_notify"
CONTAINER = "container"

_CONSOLE = "/dev/console"


class Origin(Record):
    """Where a mount comes from.

    Attributes:
        kind: one of the words above.
        pointer: the place in config.json, "" when there is none.
        step: the step that made it, or that of the mount with which it came.
        remount: the last step that changed it later, None for none.

    """

    kind: str
    pointer: str = ""
    step: Step | None = None
    remount: Remount | None = None


class Knowledge(Record):
    """What the kernel and the host say about a container's mounts.

    Attributes:
        rows: its mount table.
        located: path of a step -> its mount point, which differs if symlinks are on the way; "" when it is
            there and nothing is mounted on it. Missing: it is not there, or is a mount point by that name.
        host: the host's mount table.
        sources: id of a bind step -> (device, part of the file system, path without symlinks) of its source
            on the host, as it is now; not for what cannot be looked at.
        links: ids of the steps whose source is a symlink that was copied, so that there is no mount.

    """

    rows: list[Row]
    located: dict[str, str]
    host: list[Row]
    sources: dict[int, tuple[str, str, str]]
    links: frozenset[int] = frozenset()


class Origins(Record):
    """The result of find().

    Attributes:
        of: mount id -> origin.
        missing: steps whose mount does not exist, with its mount point.

    """

    of: dict[int, Origin]
    missing: list[tuple[Step, str]]


def place_of(step: Step) -> str:
    """Return the path at which a step mounts something, "" if it mounts nothing."""
    if isinstance(step, AttachRoot):
        return "/"
    if isinstance(step, Mount):
        return paths.clean(step.destination)
    if isinstance(step, (steps.ReadonlyPath, steps.MaskedPath)):
        return paths.clean(step.path)
    if isinstance(step, steps.Device):
        return step.path if step.bind else ""
    if isinstance(step, steps.Terminal):
        return _CONSOLE if step.console else ""
    return ""


def find(
    plan: steps.Plan, known: Knowledge, *, configured: int, removed: Iterable[tuple[str, str]] = ()
) -> Origins:
    """Find out where the mounts of a container come from.

    Args:
        plan: the container's, with the mounts that were added to it later behind those of its configuration.
        known: the facts from the kernel and the host.
        configured: how many entries the configuration has; those behind were added.
        removed: (pointer, path) of what was removed later.

    """
    ordered = mount_table.in_order(known.rows)
    at: dict[str, list[Row]] = {}
    for row in ordered:
        at.setdefault(row.point, []).append(row)
    found = Origins(of={}, missing=[])
    gone = set(removed)
    for step in _in_order(plan, configured):
        place = place_of(step)
        if not place or (step.pointer, place) in gone or id(step) in known.links:
            continue
        point = place if place in at else known.located.get(place)
        here = at.get(point, []) if point else []
        if isinstance(step, Remount):
            _remounted(step, here, found)
            continue
        free = [row for row in here if row.id not in found.of]
        if free:
            found.of[free[0].id] = Origin(kind=_kind(step, configured), pointer=step.pointer, step=step)
        elif point is not None or not isinstance(step, (steps.MaskedPath, steps.ReadonlyPath)):
            # A path that is not in the image needs no mask.
            found.missing.append((step, point or place))
    tables = _Tables(by_id={row.id: row for row in known.rows}, own=at, host={}, sources=known.sources)
    for row in known.host:
        tables.host.setdefault(row.point, []).append(row)
    for row in ordered:
        if row.id not in found.of:
            found.of[row.id] = _unasked(row, found, tables, plan)
    return found


class _Tables(Record):
    """The mount tables, prepared for look-ups: a container may have very many mounts.

    Attributes:
        by_id: mount id -> its row in the container.
        own, host: mount point -> what is mounted there, in the container and on the host.
        sources: as in Knowledge.

    """

    by_id: dict[int, Row]
    own: dict[str, list[Row]]
    host: dict[str, list[Row]]
    sources: dict[int, tuple[str, str, str]]


def _in_order(plan: steps.Plan, configured: int) -> list[Step]:
    """Return the steps in the order in which they were carried out: added ones came last."""
    early: list[Step] = []
    late: list[Step] = []
    for step in plan.child:
        added = isinstance(step, Mount) and step.index >= configured
        (late if added else early).append(step)
    return early + late


def _kind(step: Step, configured: int) -> str:
    if isinstance(step, Mount):
        return ADDED if step.index >= configured else CONFIG
    for kind, name in (
        (AttachRoot, ROOT),
        (steps.MaskedPath, MASKED),
        (steps.ReadonlyPath, READONLY),
        (steps.Device, DEVICE),
    ):
        if isinstance(step, kind):
            return name
    return CONSOLE


def _remounted(step: Remount, here: list[Row], found: Origins) -> None:
    """After a remount a mount must have the remount's options."""
    for row in reversed(here):
        if row.id in found.of:
            found.of[row.id].remount = step
            return
    found.missing.append((step, step.destination))


def _unasked(row: Row, found: Origins, tables: _Tables, plan: steps.Plan) -> Origin:
    """Return the origin of a mount without a step."""
    if row.point == "/run/notify" and row.root.endswith(f"/{plan.id}/notify"):
        return Origin(kind=NOTIFY)
    above = tables.by_id.get(row.parent)
    while above is not None and above.id in found.of and found.of[above.id].kind == BELOW:
        above = tables.by_id.get(above.parent)
    origin = found.of.get(above.id) if above is not None and above is not row else None
    if origin is None or above is None or not _came_along(row, above, origin, tables):
        return Origin(kind=CONTAINER)
    again = origin.remount
    if again is not None and not again.attributes.recursive:
        again = None
    return Origin(kind=BELOW, pointer=origin.pointer, step=origin.step, remount=again)


def _came_along(row: Row, top: Row, origin: Origin, tables: _Tables) -> bool:
    """Tell whether a mount below a recursive bind is one that its source has, too."""
    step = origin.step
    rest = row.point[len(top.point.rstrip("/")) :]
    if isinstance(step, steps.ReadonlyPath):
        # It covers itself, and what is mounted in it is copied as well.
        return any(_same(row, other) for other in tables.own[row.point] if other is not row)
    if isinstance(step, AttachRoot):
        wanted, table = step.path + rest, tables.host
    elif isinstance(step, InnerBind) and step.attributes.recursive:
        wanted, table = paths.clean(step.source) + rest, tables.own
    elif isinstance(step, Bind) and step.attributes.recursive:
        _device, _part, path = tables.sources.get(id(step), ("", "", ""))
        wanted, table = path + rest, tables.host
    else:
        return False
    return any(_same(row, other) for other in table.get(wanted, ()))


def _same(one: Row, other: Row) -> bool:
    return one.device == other.device and one.root == other.root
