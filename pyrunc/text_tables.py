"""Lay out rows of words for a width: tables for people on a terminal.

Pure, and imported only for a terminal. Into a pipe tables are as wide as they need, so that programs find
every cell whole. What does not fit is folded first, then paths lose their middle, and only then are columns
left out.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    # (text with its blanks, number of the row, number of the column) -> the same, with colours.
    Paint = Callable[[str, int, int], str]

# What may be done to a column: nothing; continue in the next line; remove the middle (of paths, whose ends
# say most); remove the end.
WHOLE, FOLD, MIDDLE, END = range(4)

ENDLESS = 1 << 30  # characters: the width if there is no terminal

_GAP = 2
_LEAST = {FOLD: 24, MIDDLE: 16, END: 10}
# What is narrowed, and how far, one after the other: no column is at its minimum while another has room.
_STAGES = ((FOLD, 40), (MIDDLE, 28), (END, 0), (FOLD, 0), (MIDDLE, 0))
_INDENTED = 30  # in narrower cells no room is spent on showing that a line goes on


def table(
    rows: Sequence[tuple[str, ...]],
    kinds: Sequence[int],
    width: int,
    *,
    drop: Sequence[int] = (),
    right: Sequence[int] = (),
    below: Sequence[str] = (),
    least: Mapping[int, int] | None = None,
    paint: Paint | None = None,
) -> str:
    """Return rows as lines that are at most so wide, as far as that can be had.

    Args:
        rows: cells of one line each; the first row are the titles.
        kinds: what may be done to each column.
        width: characters of a line.
        drop: columns that may be left out, the first one first.
        right: columns that are set to the right.
        below: for each row, what stands in the first column of the lines a cell goes on in (a tree's lines).
        least: how narrow a column may become, where it is not as its kind has it.
        paint: colours a cell.

    """
    floors = {
        at: max(len(rows[0][at]), (least or {}).get(at, _LEAST.get(kind, 0))) for at, kind in enumerate(kinds)
    }
    kept = list(range(len(kinds)))
    widths = _widths(rows, kinds, kept, floors, width)
    for column in drop:
        if _whole(widths, kept) <= width:
            break
        kept.remove(column)
        widths = _widths(rows, kinds, kept, floors, width)
    lines = []
    for number, row in enumerate(rows):
        cells = [_cell(row[at], kinds[at], widths[at]) for at in kept]
        for line in range(max(map(len, cells))):
            words = []
            for at, cell in zip(kept, cells, strict=True):
                text = cell[line] if line < len(cell) else ""
                if line and at == kept[0] and below and len(cell) <= line:
                    text = below[number]
                # What follows the last column are only blanks.
                text = (
                    text.rjust(widths[at]) if at in right else text.ljust(widths[at] if at != kept[-1] else 0)
                )
                words.append(paint(text, number, at) if paint else text)
            lines.append((" " * _GAP).join(words).rstrip() + "\n")
    return "".join(lines)


def _whole(widths: dict[int, int], kept: list[int]) -> int:
    return sum(widths[at] for at in kept) + _GAP * (len(kept) - 1)


def _widths(
    rows: Sequence[tuple[str, ...]],
    kinds: Sequence[int],
    kept: list[int],
    floors: dict[int, int],
    width: int,
) -> dict[int, int]:
    """Return the width of each column, of each kind the widest narrowed first."""
    widths = {at: max(len(row[at]) for row in rows) for at in kept}
    for kind, comfort in _STAGES:
        able = [at for at in kept if kinds[at] == kind]
        while (excess := _whole(widths, kept) - width) > 0:
            able = [at for at in able if widths[at] > max(comfort, floors[at])]
            if not able:
                break
            at = max(able, key=lambda column: widths[column])
            second = max((widths[other] for other in able if other != at), default=0)
            room = widths[at] - max(comfort, floors[at])
            widths[at] -= min(excess, room, max(1, widths[at] - second))
    return widths


def _cell(text: str, kind: int, width: int) -> list[str]:
    if len(text) <= width or kind == WHOLE:
        return [text]
    if kind == FOLD:
        return fold(text, width)
    return [middle(text, width) if kind == MIDDLE else text[: width - 3] + "..."]


def middle(text: str, width: int) -> str:
    """Return a text without its middle; more is left of its end, which says most of a path."""
    if len(text) <= width:
        return text
    head = (width - 3) // 3
    return f"{text[:head]}...{text[len(text) - (width - 3 - head) :]}"


def fold(text: str, width: int) -> list[str]:
    """Return a text in lines: broken at blanks, else behind a comma or slash, else anywhere."""
    indent = len(text) - len(text.lstrip(" ")) + 2 if width >= _INDENTED else 0
    if indent > width // 2:
        indent = 0
    lines = []
    lead = ""
    while len(lead) + len(text) > width:
        room = width - len(lead)
        at = text.rfind(" ", 1, room + 1)
        if at < room // 2:
            at = max(text.rfind(sign, 0, room) for sign in ",/:") + 1
        if at < room // 3:
            at = room
        lines.append((lead + text[:at]).rstrip())
        text = text[at:].lstrip(" ")
        lead = " " * indent
    return [*lines, lead + text] if text or not lines else lines
