"""The time each step of a plan took: `--trace`.

Law 1: the list that is timed is the list that is carried out. Functions that carry out steps are wrapped, so
without --trace nothing has to be checked for each step. Imported by the parent, and only with --trace (law
6).
"""

from __future__ import annotations

import os
from time import monotonic_ns

from pyrunc import jsonio, log
from pyrunc.errors import failing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from pyrunc.plan.show import Row
    from pyrunc.plan.steps import Plan, Step

    Result = TypeVar("Result")

_RECORD = 24  # bytes: id of the step, begin and end in nanoseconds


class Trace:
    """The times of one plan, in nanoseconds of CLOCK_MONOTONIC.

    Attributes:
        began: the start of this command.
        parent, child: id of a step -> its first start, and its time in all.

    """

    def __init__(self, target: str) -> None:
        """Start the clock and open the target.

        Args:
            target: where to print the times at the end: a file, which is appended to, or "-" for stderr.

        Raises:
            Failure: the file cannot be opened.

        """
        self.began = monotonic_ns()
        self.parent: dict[int, tuple[int, int]] = {}
        self.child: dict[int, tuple[int, int]] = {}
        self._file = 2
        if target != "-":
            with failing(f"open {target} for --trace"):
                how = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY
                self._file = os.open(target, how, 0o644)

    # -- the parent ----

    def measure(self, step: Step, do: Callable[..., Result], *arguments: Any, **named: Any) -> Result:
        """Call a function for a step, and measure its time."""
        begin = monotonic_ns()
        try:
            return do(*arguments, **named)
        finally:
            _add(self.parent, id(step), begin, monotonic_ns())

    def opener(self, do: Callable[[Any], Result]) -> Callable[[Any], Result]:
        """Return a function of a step that measures its time."""
        return lambda step: self.measure(step, do, step)

    def take(self, payload: bytes, by_number: list[int] | None = None) -> None:
        """Add the times of a message from the container's side.

        Args:
            payload: records of three 8-byte numbers: operation or step, begin, end.
            by_number: what is the number of an operation; the id of the step each belongs to.

        """
        for at in range(0, len(payload) - _RECORD + 1, _RECORD):
            step, begin, end = (int.from_bytes(payload[at + k : at + k + 8], "little") for k in (0, 8, 16))
            if by_number is not None:
                if step >= len(by_number):
                    continue
                step = by_number[step]
            _add(self.child, step, begin, end)

    def pass_over(self, done: set[int], plan: Plan) -> None:
        """Add a time of 0 for the steps for which there was nothing to do.

        Args:
            done: ids of the steps that have operations.
            plan: the plan.

        """
        reached = [number for number, step in enumerate(plan.child) if id(step) in self.child]
        at = self.began
        for step in plan.child[: max(reached, default=0)]:
            if id(step) in self.child:
                at = self.child[id(step)][0]
            elif id(step) not in done:
                self.child[id(step)] = (at, 0)

    # -- the end ----

    def report(self, plan: Plan) -> None:
        """Print what every step took, as far as the plan was carried out."""
        whole = monotonic_ns() - self.began
        from pyrunc.plan import show

        rows = show.rows(plan)
        text = (
            jsonio.dumps(self._document(plan, rows, whole)) + "\n"
            if log.as_json
            else self._table(rows, whole)
        )
        data = text.encode("utf-8", "backslashreplace")
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as exc:
            log.warn(f"write what --trace found: {exc.strerror}")
        if self._file > 2:
            os.close(self._file)

    def _table(self, rows: list[Row], whole: int) -> str:
        from pyrunc.plan import show

        cells = [
            (
                _shown(self._begin(row), 1_000_000),
                _shown(self._spent(self.parent, row), 1000),
                _shown(self._spent(self.child, row), 1000),
            )
            for row in rows
        ]
        sums = [sum(spent for _, spent in times.values()) for times in (self.parent, self.child)]
        from pyrunc import screen

        width, paint = screen.width(self._file), screen.painter(self._file)
        titles = ("AT ms", "PARENT us", "CHILD us")
        said = (
            f"{whole / 1e6:.1f} ms from reading the bundle to the end,"
            f" {sums[0] / 1e6:.1f} of them in steps of the parent and {sums[1] / 1e6:.1f} of the child"
        )
        if width:
            from pyrunc import text_tables

            said = "\n".join(text_tables.fold(said, width))
        return show.table(rows, titles, cells, width=width, paint=paint) + said + "\n"

    def _document(self, plan: Plan, rows: list[Row], whole: int) -> dict[str, object]:
        from pyrunc.plan import show

        return {
            "id": plan.id,
            "took": whole,
            "steps": [
                {
                    **show.entry(row),
                    "at": self._begin(row),
                    "parent": self._spent(self.parent, row),
                    "child": self._spent(self.child, row),
                }
                for row in rows
            ],
        }

    def _begin(self, row: Row) -> int | None:
        """Return when a step began, in nanoseconds since the start of the command; None if it did not."""
        begins = [times[id(row.step)][0] for times in (self.parent, self.child) if id(row.step) in times]
        return min(begins) - self.began if begins else None

    @staticmethod
    def _spent(times: dict[int, tuple[int, int]], row: Row) -> int | None:
        return times[id(row.step)][1] if id(row.step) in times else None


def _add(times: dict[int, tuple[int, int]], step: int, begin: int, end: int) -> None:
    first, spent = times.get(step, (begin, 0))
    times[step] = first, spent + end - begin


def _shown(nanoseconds: int | None, unit: int) -> str:
    return "" if nanoseconds is None else f"{nanoseconds / unit:.{2 if unit > 1000 else 0}f}"
