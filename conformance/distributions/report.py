"""The results of a distribution's tests, and the table of all distributions."""

from __future__ import annotations

import json
import re
import time
import xml.etree.ElementTree as ET
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from conformance.suites.results import host

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

RESULTS = Path(__file__).parents[1] / "results/distributions"
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
    runtimes: dict[str, str] = field(default_factory=dict)  # of the ratios: "runc" -> "1.3.6"


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


def runtimes(said: str) -> dict[str, str]:
    """Return the versions that bench compares with: "runc" -> "1.3.6", without what a distribution adds."""
    return dict(re.findall(rf"\b({'|'.join(PEERS)}) version (\d[\d.]*)", said))


def markdown(rows: Sequence[Row], measured: Sequence[str]) -> str:
    """Return the page."""
    heads = ["on", "system", "Python", "command", "tests", *PEERS, *measured]
    lines = [
        "# Distributions and Pythons",
        "",
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, {host()}.",
        "",
        "Each is a fresh root file system of debootstrap's, entered in namespaces of its own: `make run`,",
        "then `make test`. The command is what `make install` made there: an image of the interpreter, a",
        "program with the interpreter in it, or a script. Ratios are those of `bench` to that distribution's",
        "runc and crun, of the versions named, on cgroup v1 and v2.",
        "",
        f"| {' | '.join(heads)} |",
        f"|{' --- |' * len(heads)}",
    ]
    for row in rows:
        cells = [row.name, row.system, row.python, row.command, row.tests]
        cells += [row.runtimes.get(peer, "") for peer in PEERS]
        cells += [row.ratios.get(name, "") for name in measured]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def rows(path: Path) -> dict[str, Row]:
    """Return what `path`.json has, by names."""
    file = path.with_suffix(".json")
    if not file.exists():
        return {}
    return {row["name"]: Row(**row) for row in json.loads(file.read_text())["rows"]}


def write(path: Path, new: Iterable[Row]) -> None:
    """Write `path`.md and `path`.json; rows of earlier runs stay unless there are new ones of that name."""
    found = rows(path) | {row.name: row for row in new}
    measured = list(dict.fromkeys(name for row in found.values() for name in row.ratios))
    path.with_suffix(".md").write_text(markdown(list(found.values()), measured))
    data = {"date": time.strftime("%Y-%m-%d", time.gmtime()), "host": host()}
    listed = [asdict(row) for row in found.values()]
    path.with_suffix(".json").write_text(json.dumps({**data, "rows": listed}, indent=1) + "\n")
