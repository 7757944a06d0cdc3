"""The page of what was tried in guests: results/guests.md, a row for each table of selection.toml."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from conformance.vm import results

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PATH = Path(__file__).resolve().parents[1] / "results/guests"


@dataclass
class Row:
    """How the tests of one table ended.

    Attributes:
        name: of the table.
        date: when that was.
        system: what the guest says of itself: kernel, architecture, cgroups, python, command.
        passed: how many passed.
        skipped: how many were skipped for a reason that the table allows.
        failed: the tests that failed.
        not_run: how many were not run to their end, because the guest was switched off before.
        minutes: how long the guest took.

    """

    name: str
    date: str = ""
    system: dict[str, str] = field(default_factory=dict)
    passed: int = 0
    skipped: int = 0
    failed: list[str] = field(default_factory=list)
    not_run: int = 0
    minutes: int = 0


def row(
    name: str,
    asked: Iterable[str],
    ends: Mapping[str, results.End],
    allowed: Sequence[str],
    *,
    system: dict[str, str],
    seconds: float,
) -> Row:
    """Return a table's row.

    Args:
        name: of the table.
        asked: the ids of its tests.
        ends: how those ended that began.
        allowed: reasons for which a test may be skipped; for any other it has failed.
        system: what the guest says of itself.
        seconds: how long the guest took.

    """
    made = Row(name, time.strftime("%Y-%m-%d", time.gmtime()), system, minutes=round(seconds / 60))
    for test in asked:
        end = ends.get(test)
        if end is None or end.text.startswith(results.UNENDED):
            made.not_run += 1
        elif end.outcome == "failed" or results.unwanted_skip(end, allowed):
            made.failed.append(test)
        elif end.outcome == "skipped":
            made.skipped += 1
        else:
            made.passed += 1
    return made


SYSTEM = ("kernel", "architecture", "cgroups", "python", "command")


def markdown(rows: Sequence[Row]) -> str:
    """Return the page."""
    heads = ["table", "date", *SYSTEM, "passed", "failed", "skipped", "not run", "minutes"]
    lines = [
        "# Guests: other kernels, other architectures",
        "",
        "Each row is one boot of an emulated machine (QEMU, no KVM) with a kernel of Debian's. The tests are",
        "that table's in [../vm/selection.toml](../vm/selection.toml). The command is what the tests call:",
        "an image or a program that `make install` made, or the script. `make conformance` writes a row when",
        "all tests of its table were asked for, with PYRUNC_VM=all. The minutes say as much about what else",
        "the machine was doing; what was not run by then was switched off with it.",
        "",
        f"| {' | '.join(heads)} |",
        f"|{' --- |' * len(heads)}",
    ]
    for each in rows:
        counts = map(str, (each.passed, len(each.failed), each.skipped, each.not_run, each.minutes))
        cells = [f"`{each.name}`", each.date, *(each.system.get(name, "") for name in SYSTEM), *counts]
        lines.append(f"| {' | '.join(cells)} |")
    for each in rows:
        if each.failed:
            lines += ["", f"Failed in `{each.name}`:", "", *(f"- `{test}`" for test in each.failed)]
    return "\n".join(lines) + "\n"


def write(path: Path, new: Row) -> None:
    """Write `path`.md and `path`.json; the rows of other tables stay."""
    file = path.with_suffix(".json")
    rows: dict[str, Row] = {}
    if file.exists():
        rows = {each["name"]: Row(**each) for each in json.loads(file.read_text())["rows"]}
    rows[new.name] = new
    path.with_suffix(".md").write_text(markdown(list(rows.values())))
    file.write_text(json.dumps({"rows": [asdict(each) for each in rows.values()]}, indent=1) + "\n")
