"""The results of a distribution's tests, and the table of all distributions."""

from __future__ import annotations

import json
import re
import time
import xml.etree.ElementTree as ET
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from conformance.suites.results import host

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

# As bench calls them.
MEASURES = ("state", "run")
PEERS = ("runc", "crun")


@dataclass
class Tests:
    """How a run of pytest ended."""

    passed: int = 0
    failed: dict[str, str] = field(default_factory=dict)  # test -> its message
    skipped: dict[str, str] = field(default_factory=dict)  # test -> its reason

    @property
    def count(self) -> int:
        """How many there were."""
        return self.passed + len(self.failed) + len(self.skipped)

    def unwanted(self, allowed: Iterable[str]) -> dict[str, str]:
        """Return what was skipped for another reason than these, which are parts of what it says."""
        return {
            name: why for name, why in self.skipped.items() if not any(reason in why for reason in allowed)
        }


def read(path: Path) -> Tests:
    """Return what pytest has written with --junit-xml."""
    tests = Tests()
    for case in ET.parse(path).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        bad = [*case.findall("failure"), *case.findall("error")]
        skip = case.find("skipped")
        if bad:
            tests.failed[name] = str(bad[0].get("message"))
        elif skip is not None:
            tests.skipped[name] = str(skip.get("message"))
        else:
            tests.passed += 1
    return tests


@dataclass
class Row:
    """One distribution with one Python."""

    name: str
    system: str = ""
    python: str = ""
    command: str = ""  # "image", "program" or "script", as `pyrunc --version` says
    tests: str = ""
    ratios: dict[str, str] = field(default_factory=dict)  # "state / runc" -> "0.60"


def ratios(markdown: str) -> dict[str, str]:
    """Return the ratios of a table of bench's: "state / runc (v2)" -> "0.60"."""
    found = {}
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")]
        for line in markdown.splitlines()
        if line.startswith("|")
    ]
    if not rows:
        return {}
    heads = rows[0]
    for row in rows[2:]:
        for head, cell in zip(heads, row, strict=True):
            if match := re.fullmatch(r"pyrunc / (\w+) \((v\d)\)", head):
                found[f"{row[0]} / {match[1]} ({match[2]})"] = cell
    return found


def markdown(rows: Sequence[Row], measured: Sequence[str]) -> str:
    """Return the page."""
    heads = ["on", "system", "Python", "command", "tests", *measured]
    lines = [
        "# Distributions and Pythons",
        "",
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, {host()}.",
        "",
        "Each is a fresh root file system of debootstrap's, entered in namespaces of its own: `make run`,",
        "then `make test`. The command is what `make install` made there: an image of the interpreter, a",
        "program with the interpreter in it, or a script. Ratios are those of `bench` to that distribution's",
        "runc and crun.",
        "",
        f"| {' | '.join(heads)} |",
        f"|{' --- |' * len(heads)}",
    ]
    for row in rows:
        cells = [row.name, row.system, row.python, row.command, row.tests]
        cells += [row.ratios.get(name, "") for name in measured]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write(path: Path, new: Iterable[Row]) -> None:
    """Write `path`.md and `path`.json; rows of earlier runs stay unless there are new ones of that name."""
    file = path.with_suffix(".json")
    rows: dict[str, Row] = {}
    if file.exists():
        rows = {row["name"]: Row(**row) for row in json.loads(file.read_text())["rows"]}
    rows.update({row.name: row for row in new})
    measured = list(dict.fromkeys(name for row in rows.values() for name in row.ratios))
    path.with_suffix(".md").write_text(markdown(list(rows.values()), measured))
    data = {"date": time.strftime("%Y-%m-%d", time.gmtime()), "host": host()}
    file.write_text(json.dumps({**data, "rows": [asdict(row) for row in rows.values()]}, indent=1) + "\n")
