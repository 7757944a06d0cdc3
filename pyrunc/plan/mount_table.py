"""The kernel's mount table as data. Law 1: pure; the caller reads the file and passes its text.

Source: proc_pid_mountinfo(5).
"""

from __future__ import annotations

from pyrunc.plan.record import Record


class Row(Record):
    """One mount.

    Attributes:
        id, parent: mount ids; reused after an unmount.
        device: major:minor of the file system.
        root: the part of the file system that is mounted; "//deleted" follows the name of a deleted file.
        point: the mount point, as seen from the reader's root.
        options: the words of the mount.
        data: the words of the file system.
        shared, master: peer groups: its own and that of its master; 0 for none.
        unbindable: it cannot be bound.
        fstype, source: of the file system.

    """

    id: int
    root: str
    point: str
    fstype: str
    parent: int = 0
    device: str = ""
    options: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    shared: int = 0
    master: int = 0
    unbindable: bool = False
    source: str = ""


def parse(text: str) -> list[Row]:
    """Return the rows of a mountinfo file."""
    rows = []
    # Only a newline ends a line: a path may have all other characters.
    for line in filter(None, text.split("\n")):
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        fstype, source, data = after.split(" ", 2)
        tags = dict(tag.partition(":")[::2] for tag in fields[6:]) if len(fields) > 6 else {}
        rows.append(
            Row(
                id=int(fields[0]),
                parent=int(fields[1]),
                device=fields[2],
                root=unescape(fields[3]),
                point=unescape(fields[4]),
                options=tuple(fields[5].split(",")),
                shared=int(tags.get("shared", 0)),
                master=int(tags.get("master", 0)),
                unbindable="unbindable" in tags,
                fstype=fstype,
                source=unescape(source),
                data=tuple(map(unescape, data.split(","))),
            )
        )
    return rows


def unescape(text: str) -> str:
    """Undo the kernel's escapes: space, tab, newline and backslash are written as octal numbers."""
    if "\\" not in text:
        return text
    head, *rest = text.split("\\")
    return head + "".join(
        chr(int(part[:3], 8)) + part[3:] if part[:3].isdigit() and len(part) > 2 else "\\" + part
        for part in rest
    )


def in_order(rows: list[Row]) -> list[Row]:
    """Return rows so that each comes after what it is mounted on: of two at one place the lower one first."""
    known = {row.id for row in rows}
    below: dict[int, list[Row]] = {}
    todo = []
    for row in reversed(rows):
        if row.parent in known and row.parent != row.id:
            below.setdefault(row.parent, []).append(row)
        else:
            todo.append(row)
    found = []
    while todo:
        row = todo.pop()
        found.append(row)
        todo += below.get(row.id, ())
    return found


def within(path: str, place: str) -> bool:
    """Tell whether a path is a place, or below it."""
    return place in (path, "/") or path.startswith(place + "/")


def part_of(row: Row, path: str) -> str:
    """Return the part of its file system that a path on a mount is: the `root` of a bind of it."""
    rest = path[len(row.point.rstrip("/")) :]
    return (row.root.rstrip("/") + rest).rstrip("/") or "/"
