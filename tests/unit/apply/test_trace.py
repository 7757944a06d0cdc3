"""--trace: which time belongs to which step, what a message may contain, where the trace is written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pyrunc import log
from pyrunc.apply import trace
from pyrunc.errors import Failure
from pyrunc.plan import steps
from tests.support.specs import small
from tests.unit.plan.test_build import plan

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def made() -> steps.Plan:
    return plan(small(hostname="h"))


def at(whole: steps.Plan, kind: type[steps.Step]) -> steps.Step:
    return next(step for step in (*whole.parent, *whole.child) if type(step) is kind)


def times(*found: tuple[int, int, int]) -> bytes:
    """Return a message of the init program: number of an operation, begin and end."""
    return b"".join(number.to_bytes(8, "little") for entry in found for number in entry)


def test_operations_are_the_time_of_their_step(made: steps.Plan, tmp_path: Path) -> None:
    target = tmp_path / "trace"
    traced = trace.Trace(str(target))
    name, cgroup = at(made, steps.Hostname), at(made, steps.Cgroup)
    traced.take(times((0, 10, 20), (1, 20, 25), (9, 0, 1)), [id(name), id(name)])
    assert traced.child == {id(name): (10, 15)}, "a number that there is no operation of is left out"
    assert traced.measure(cgroup, lambda one, *, two: one + two, 1, two=2) == 3
    traced.report(made)
    lines = target.read_text().splitlines()
    assert lines[0].split() == ["STEP", "BY", "AT", "ms", "PARENT", "us", "CHILD", "us", "WHAT", "WHY"]
    (host,) = [line.split() for line in lines if " hostname h" in line]
    assert host[1] == "child"
    assert len(host) == len([*"12", "at", "child us", "hostname", "h", "/hostname"])
    assert lines[-1].endswith("of the child")


def test_what_was_not_reached_has_no_time(
    made: steps.Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "as_json", True)
    target = tmp_path / "trace"
    traced = trace.Trace(str(target))
    reached = made.child[:3]
    traced.take(times(*((n, n, n + 1) for n in range(3))), [id(step) for step in reached])
    traced.report(made)
    found = json.loads(target.read_text())
    child = [step for step in found["steps"] if step["by"] == "child"]
    assert [step["kind"] for step in child if step["child"] is not None] == [
        type(step).__name__ for step in reached
    ]
    assert found["id"] == "c1"
    assert found["took"] > 0


def test_a_message_that_is_cut_off_is_taken_as_far_as_it_goes(tmp_path: Path) -> None:
    traced = trace.Trace(str(tmp_path / "trace"))
    record = b"".join(number.to_bytes(8, "little") for number in (7, 100, 130))
    traced.take(record + record[:-1])
    assert traced.child == {7: (100, 30)}
    traced.take(record)
    assert traced.child == {7: (100, 60)}


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="for --trace: no such file or directory"):
        trace.Trace(str(tmp_path / "no" / "trace"))


def test_a_full_disk_is_no_reason_to_fail(made: steps.Plan, capfd: pytest.CaptureFixture[str]) -> None:
    trace.Trace("/dev/full").report(made)
    assert "warning: write what --trace found: " in capfd.readouterr().err


def test_a_step_with_nothing_to_do_takes_nothing(made: steps.Plan, tmp_path: Path) -> None:
    """If a later step has a time, this one was reached. It took 0, at the time of the step before it."""
    traced = trace.Trace(str(tmp_path / "trace"))
    first, second, third, fourth = made.child[:4]
    traced.take(times((0, 10, 20), (1, 30, 31)), [id(first), id(third)])
    traced.pass_over({id(first), id(third)}, made)
    assert traced.child == {id(first): (10, 10), id(second): (10, 0), id(third): (30, 1)}
    assert id(fourth) not in traced.child, "that was not reached"
