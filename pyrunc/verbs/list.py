"""list: the containers under a state root; one that cannot be read is a warning on stderr."""

from __future__ import annotations

import os
import sys
from errno import ENOENT

from pyrunc import jsonio, listing, log, screen, store
from pyrunc.errors import Failure, printable, strerror

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cli.match import Command

_COLUMNS = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")


def main(cmd: Command) -> int:
    """Print the containers as a table, as JSON, or only their ids."""
    found = containers(cmd.root)
    if cmd.quiet:
        text = "".join(values["id"] + "\n" for values in found)
    elif cmd.json or cmd.format == "json":
        text = jsonio.dumps(found) if found else "null"
    else:
        rows = [_COLUMNS, *(tuple(str(values[name.lower()]) for name in _COLUMNS) for values in found)]
        text = _fitted(rows) if os.isatty(1) or screen.color == "always" else table(rows)
    sys.stdout.write(text)
    return 0


def containers(root: str | None) -> list[dict[str, str]]:
    """Return the state of every container under a state root.

    Raises:
        Failure: the state root that --root names does not exist. A missing default one is empty.

    """
    directory = root or store.default_root()
    try:
        names = listing.ids(directory)
    except FileNotFoundError:
        if root is None:
            return []
        raise Failure(f"open {root}", errno=ENOENT) from None
    except OSError as exc:
        raise Failure(f"open {directory}", errno=exc.errno or 0) from None
    found = []
    for name in names:
        try:
            container = store.open_container(directory, name)
            values = store.describe(container)
            values["owner"] = owner(container.directory)
        except (store.AbsentError, FileNotFoundError):
            continue  # deleted meanwhile
        except Failure as problem:
            log.warn(f"load container {name}: {problem.text()}")
        except OSError as exc:
            log.warn(f"load container {name}: {strerror(exc.errno or 0)}")
        else:
            found.append(values)
    return found  # type: ignore[return-value]


def owner(directory: str) -> str:
    """Return the name of the user who owns a state directory, #UID if there is no name."""
    import pwd  # on the host, in the parent: no container is involved

    uid = os.stat(directory).st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def table(rows: list[tuple[str, ...]]) -> str:
    """Return rows aligned as runc does: cells at least 12 wide, 3 spaces between."""
    rows = [tuple(map(printable, row)) for row in rows]
    widths = [max(12, max(len(row[at]) for row in rows) + 3) for at in range(len(rows[0]) - 1)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append("".join(cells) + row[-1])
    return "\n".join(lines) + "\n"


_STYLES = {"running": "good", "paused": "warning", "stopped": "dim"}


def _fitted(rows: list[tuple[str, ...]]) -> str:
    """Return rows as a table for a terminal. Ids and numbers are not shortened, because they are copied."""
    from pyrunc import text_tables

    rows = [tuple(map(printable, row)) for row in rows]
    paint = screen.painter()

    def painted(text: str, row: int, column: int) -> str:
        assert paint is not None
        return paint(text, "title" if not row else _STYLES.get(text.strip(), "") if column == 2 else "")

    whole, middle, end = text_tables.WHOLE, text_tables.MIDDLE, text_tables.END
    return text_tables.table(
        rows,
        (whole, whole, whole, middle, end, whole),
        screen.width() or text_tables.ENDLESS,
        drop=(5, 4, 3, 1),
        paint=painted if paint else None,
    )
