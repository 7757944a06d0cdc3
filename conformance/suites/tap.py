"""Read TAP as suites really write it: without a plan, several streams in one output, or only YAML.

Source: testanything.org, TAP 13. The reader accepts the following, all of it seen in OCI's runtime-tools:
the plan comes last, or is `1..0` for "I did not count", or is missing; a second `TAP version 13` starts
counting again; a test without a single test line reports its failure as a YAML block with an "error" in it,
or by its exit status.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

_POINT = re.compile(r"^(not )?ok\b(?: +(\d+))?(?: *- ?| +)?(.*)$")
_PLAN = re.compile(r"^1\.\.(\d+)\s*(?:#.*)?$")
_DIRECTIVE = re.compile(r"(?:^|\s)#\s*(skip|todo)\b[:\s]*(.*)$", re.IGNORECASE)
_VERSION = re.compile(r"^TAP version \d+\s*$")


@dataclass(frozen=True)
class Point:
    """One test line.

    Attributes:
        ok: its first word; a skipped or expected failure ("todo") is not `failed`.
        name: what stands after the number, without the directive.
        directive: "skip", "todo" or "".
        reason: what stands after the directive.
        comments: the lines after it, without "#".

    """

    ok: bool
    name: str
    directive: str = ""
    reason: str = ""
    comments: list[str] = field(default_factory=list, compare=False)

    @property
    def failed(self) -> bool:
        """Whether it counts as a failure."""
        return not self.ok and not self.directive


@dataclass
class Stream:
    """What stands between two `TAP version` lines.

    Attributes:
        points: its test lines.
        plan: how many were promised; None if none or 0, which is how AutoPlan says that it saw none.
        errors: the "error" of each YAML block that has one.
        bail: the reason after "Bail out!", None if it did not.

    """

    points: list[Point] = field(default_factory=list)
    plan: int | None = None
    errors: list[str] = field(default_factory=list)
    bail: str | None = None


@dataclass
class Report:
    """A whole output."""

    streams: list[Stream]

    @property
    def points(self) -> list[Point]:
        """All test lines."""
        return [point for stream in self.streams for point in stream.points]

    @property
    def passed(self) -> int:
        """How many were ok and not skipped."""
        return sum(point.ok and point.directive != "skip" for point in self.points)

    @property
    def failed(self) -> int:
        """How many failed."""
        return sum(point.failed for point in self.points)

    @property
    def skipped(self) -> int:
        """How many were skipped."""
        return sum(point.directive == "skip" for point in self.points)

    def problems(self) -> list[str]:
        """Say why this is no clean run; nothing if it is."""
        found: list[str] = []
        for stream in self.streams:
            found += [f"not ok: {point.name}" for point in stream.points if point.failed]
            if stream.bail is not None:
                found.append(f"bailed out: {stream.bail}".rstrip(": "))
            if stream.plan is not None and stream.plan != len(stream.points):
                found.append(f"{stream.plan} tests planned, {len(stream.points)} reported")
            if not stream.points:
                found += stream.errors
        return found


def read(text: str) -> Report:
    """Read an output; lines that are not TAP's are left out."""
    reader = _Reader()
    for line in text.splitlines():
        reader.line(line.rstrip())
    return Report([stream for stream in reader.streams if stream != Stream()])


class _Reader:
    def __init__(self) -> None:
        self.streams = [Stream()]
        self.yaml: list[str] | None = None

    def line(self, line: str) -> None:
        """Take one line."""
        stream = self.streams[-1]
        if self.yaml is not None:
            if line.strip() == "...":
                stream.errors += _error("\n".join(self.yaml))
                self.yaml = None
            else:
                self.yaml.append(line)
        elif line[:1] == " " and line.strip() == "---":
            self.yaml = []
        elif _VERSION.match(line):
            self.streams.append(Stream())
        elif plan := _PLAN.match(line):
            stream.plan = int(plan[1]) or None
        elif line.startswith("Bail out!"):
            stream.bail = line[9:].strip()
        elif line.startswith("#"):
            if stream.points:
                stream.points[-1].comments.append(line[1:].strip())
        elif point := _POINT.match(line):
            stream.points.append(_point(bool(point[1]), point[3]))


def _point(not_ok: bool, rest: str) -> Point:  # noqa: FBT001 - a group of the expression above
    directive = _DIRECTIVE.search(rest)
    if directive is None:
        return Point(not not_ok, rest.strip())
    return Point(not not_ok, rest[: directive.start()].strip(), directive[1].lower(), directive[2].strip())


def _error(block: str) -> list[str]:
    """Return the "error" of a YAML block, which runtime-tools writes as JSON; an empty one is none."""
    try:
        value = json.loads(block)
    except ValueError:
        return []
    error = value.get("error") if isinstance(value, dict) else None
    return [error.strip().splitlines()[0]] if isinstance(error, str) and error.strip() else []
