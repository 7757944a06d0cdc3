"""A container's mounts as a tree and as JSON: the output of `pyrunc mounts`.

plan/show.py prints what will be done, this module what exists. Slow path: it may take its time.
"""

from __future__ import annotations

from pyrunc import text_tables
from pyrunc.errors import printable
from pyrunc.plan import mount_origins, mount_table
from pyrunc.plan.mount_steps import AttachRoot, Bind, FileSystem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrunc.plan.mount_origins import Origin, Origins
    from pyrunc.plan.mount_table import Row

# The longest text of an overlay's options; --json has all of it.
_WIDEST = 60
_LONGEST_SOURCE = 40
# The largest width of columns and of the lines that lead to a mount, whatever a container does.
_WIDEST_COLUMN = 120
_DEEPEST = 60


def propagation(row: Row) -> str:
    """Return a mount's propagation with its peer groups, in the kernel's words."""
    words = []
    if row.shared:
        words.append(f"shared:{row.shared}")
    if row.master:
        words.append(f"master:{row.master}")
    if row.unbindable:
        words.append("unbindable")
    return ",".join(words) or "private"


def origin_text(origin: Origin, volume: str = "") -> str:
    """Return in a few words where a mount comes from.

    Args:
        origin: the origin of the mount.
        volume: name of the volume that it shows.

    """
    kind, pointer = origin.kind, origin.pointer
    if kind == mount_origins.BELOW:
        return f"below {pointer if pointer.startswith('/mounts') else 'rootfs'}"
    if kind == mount_origins.CONFIG:
        return f"{pointer} volume {volume}" if volume else pointer
    if kind == mount_origins.CONTAINER:
        return "(nobody)"
    if kind in (mount_origins.ROOT, mount_origins.ADDED):
        return kind
    return f"pyrunc: {kind}"


def table(
    rows: list[Row],
    found: Origins,
    volumes: dict[str, str],
    *,
    width: int = 0,
    paint: Callable[[str, str], str] | None = None,
) -> str:
    """Return the mounts as a tree of mount points, with columns.

    Args:
        rows: the container's mount table.
        found: where each comes from.
        volumes: mount point -> name of the volume there.
        width: width of the terminal in columns, which the lines fit; 0: no terminal.
        paint: a function that colours a text in a style.

    """
    cells: list[tuple[str, ...]] = [("TARGET", "SOURCE", "TYPE", "PROPAGATION", "FROM", "OPTIONS")]
    covered = _covered(rows)
    leads = [""]
    for row, branch in _branches(rows):
        leads.append(branch.replace("├─", "│ ").replace("└─", "  "))
        origin = found.of[row.id]
        come = origin_text(origin, volumes.get(row.point, ""))
        cells.append(
            (
                branch + printable(row.point),
                _short(printable(_source(row, origin)), _LONGEST_SOURCE),
                printable(row.fstype),
                propagation(row),
                printable(come) + (", covered" if row.id in covered else ""),
                printable(_options(row, origin)),
            )
        )
    if width or paint:
        return _fitted(cells, leads, width, paint)
    widths = [min(_WIDEST_COLUMN, max(len(line[column]) for line in cells)) for column in range(5)]
    lines = (
        "  ".join((*(f"{cell:{width}}" for cell, width in zip(line, widths, strict=False)), line[5])).rstrip()
        for line in cells
    )
    return "\n".join(lines) + "\n"


def _fitted(
    cells: list[tuple[str, ...]], leads: list[str], width: int, paint: Callable[[str, str], str] | None
) -> str:
    def painted(text: str, row: int, column: int) -> str:
        assert paint is not None
        if not row:
            return paint(text, "title")
        if column == 0:
            lead = len(text) - len(text.lstrip("│├└─ "))
            return paint(text[:lead], "dim") + text[lead:]
        odd = column == 4 and ("nobody" in text or "covered" in text)
        return paint(text, "warning" if odd else "place" if column == 4 else "dim" if column != 1 else "")

    kinds = (
        text_tables.MIDDLE,
        text_tables.MIDDLE,
        text_tables.WHOLE,
        text_tables.WHOLE,
        text_tables.FOLD,
        text_tables.FOLD,
    )
    return text_tables.table(
        cells,
        kinds,
        width or text_tables.ENDLESS,
        drop=(3, 2, 5, 1),
        least={0: 20, 1: 14, 4: 12, 5: 18},
        below=leads,
        paint=painted if paint else None,
    )


def _branches(rows: list[Row]) -> list[tuple[Row, str]]:
    """Return each row with the lines that lead to it."""
    known = {row.id for row in rows}
    below: dict[int, list[Row]] = {}
    tops = []
    for row in rows:
        if row.parent in known and row.parent != row.id:
            below.setdefault(row.parent, []).append(row)
        else:
            tops.append(row)
    found: list[tuple[Row, str]] = []
    # No recursion: a container can stack any number of mounts.
    todo = [(row, "", "") for row in reversed(tops)]
    while todo:
        row, lead, indent = todo.pop()
        found.append((row, lead))
        inner = sorted(below.get(row.id, ()), key=lambda other: other.point)
        deep = len(indent) >= _DEEPEST
        for number, other in enumerate(reversed(inner)):
            branch = "└─" if not number else "├─"
            more = "" if deep else "│ " if number else "  "
            todo.append((other, indent + branch, indent + more))
    return found


def _covered(rows: list[Row]) -> set[int]:
    """Return the ids of the mounts that cannot be reached, because another one is on them or above them."""
    by_id = {row.id: row for row in rows}
    taken = {(row.parent, row.point) for row in rows if row.parent != row.id}
    out_of_reach: set[int] = set()
    for row in mount_table.in_order(rows):
        parent = by_id.get(row.parent)
        if parent is None or parent is row:
            continue
        # On the same mount, nearer to its top: that came later, or ours would be mounted on it.
        place = row.point.rpartition("/")[0]
        while len(place) > len(parent.point) and (row.parent, place) not in taken:
            place = place.rpartition("/")[0]
        below = len(place) > len(parent.point)
        beside_its_cover = (parent.id, parent.point) in taken and row.point != parent.point
        if parent.id in out_of_reach or beside_its_cover or below:
            out_of_reach.add(row.id)
    return out_of_reach | {row.id for row in rows if (row.id, row.point) in taken}


def _source(row: Row, origin: Origin) -> str:
    """Return what is mounted: for a bind of ours the path on the host, else what the kernel says."""
    step = origin.step
    if isinstance(step, Bind) and origin.kind != mount_origins.BELOW:
        return step.full_source
    if isinstance(step, AttachRoot) and origin.kind == mount_origins.ROOT and step.overlay is None:
        return step.path
    return row.source if row.root == "/" else f"{row.source}[{row.root}]"


def _options(row: Row, origin: Origin) -> str:
    """Return the words of the mount, and in brackets what else its file system has, if that is its own."""
    step = origin.step
    if origin.kind != mount_origins.CONTAINER and not isinstance(step, FileSystem):
        return ",".join(row.options)
    more = [word for word in row.data if word not in ("rw", *row.options)]
    own = ",".join(row.options)
    return f"{own} ({_short(','.join(more), _WIDEST)})" if more else own


def _short(text: str, longest: int) -> str:
    """Cut what is too long: of a path the end says most."""
    if len(text) <= longest:
        return text
    return "..." + text[3 - longest :] if text.startswith("/") else text[: longest - 3] + "..."


def document(rows: list[Row], found: Origins, volumes: dict[str, str]) -> list[dict[str, object]]:
    """Return the mounts as JSON-able data, in the order of the tree; docs/mounts.md explains the keys."""
    covered = _covered(rows)
    result: list[dict[str, object]] = []
    for row, _branch in _branches(rows):
        origin = found.of[row.id]
        step = origin.step
        host = _source(row, origin) if isinstance(step, Bind) else None
        result.append(
            {
                "id": row.id,
                "parent": row.parent,
                "target": row.point,
                "type": row.fstype,
                "source": row.source,
                "root": row.root,
                "device": row.device,
                "hostPath": None if origin.kind == mount_origins.BELOW else host,
                "options": list(row.options),
                "fsOptions": list(row.data),
                "propagation": _kinds(row),
                "peerGroup": row.shared or None,
                "master": row.master or None,
                "covered": row.id in covered,
                "from": origin.kind,
                "pointer": origin.pointer or None,
                "volume": volumes.get(row.point) if origin.kind == mount_origins.CONFIG else None,
            }
        )
    return result


def _kinds(row: Row) -> list[str]:
    words = [
        word
        for word, given in (("shared", row.shared), ("slave", row.master), ("unbindable", row.unbindable))
        if given
    ]
    return words or ["private"]


def line(pointer: str, target: str, text: str) -> str:
    """Return one difference as a line for people."""
    return printable(f"{pointer or '-'} {target}: {text}")
