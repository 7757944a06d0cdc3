"""--trace: whose time is whose, what a message may hold, where it is written."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from pyrunc import cli
from pyrunc.apply import protocol, trace
from pyrunc.apply.child import Child, Tools
from pyrunc.errors import Failure
from pyrunc.plan import steps
from tests.support.specs import small
from tests.unit.plan.test_build import plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def made() -> steps.Plan:
    return plan(small(hostname="h"))


def at(whole: steps.Plan, kind: type[steps.Step]) -> steps.Step:
    return next(step for step in (*whole.parent, *whole.child) if type(step) is kind)


def carried_out(whole: steps.Plan, do: Callable[[Child, Any], None], traced: trace.Trace) -> trace.Trace:
    """Carry out the container's steps with one function for all, and let the parent know."""
    near, far = protocol.pair()
    child = Child(whole, far, Tools())
    table = traced.wrap(dict.fromkeys({type(step) for step in whole.child}, do))
    try:
        for step in whole.child:
            table[type(step)](child, step)
        traced.send(child)
    finally:
        far.close()
        while (message := protocol.receive(near))[0] == protocol.TIMES:
            traced.take(message[1])
        near.close()
    return traced


def test_every_step_of_the_child_has_its_time(made: steps.Plan, tmp_path: Path) -> None:
    target = tmp_path / "trace"
    traced = carried_out(made, lambda _child, _step: None, trace.Trace(str(target)))
    cgroup = at(made, steps.Cgroup)
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
    monkeypatch.setattr(cli, "log_json", True)

    def stop_at_the_name(_child: Child, step: steps.Step) -> None:
        if isinstance(step, steps.Hostname):
            raise Failure("no")

    target = tmp_path / "trace"
    traced = trace.Trace(str(target))
    with pytest.raises(Failure):
        carried_out(made, stop_at_the_name, traced)
    traced.report(made)
    found = json.loads(target.read_text())
    child = [step for step in found["steps"] if step["by"] == "child"]
    reached = [step["kind"] for step in child if step["child"] is not None]
    assert reached[-1] == "Hostname", "what failed has taken time, too"
    assert reached == [step["kind"] for step in child[: len(reached)]]
    assert all(step["at"] is None for step in child[len(reached) :])
    assert found["id"] == "c1"
    assert found["took"] > 0


def test_more_steps_than_a_message_holds(tmp_path: Path) -> None:
    mounts = [{"destination": f"/{n}", "type": "tmpfs"} for n in range(6000)]
    whole = plan(small(mounts=mounts))
    traced = carried_out(whole, lambda _child, _step: None, trace.Trace(str(tmp_path / "trace")))
    assert len(traced.child) == len(whole.child)


def test_a_message_that_is_cut_off_is_taken_as_far_as_it_goes(tmp_path: Path) -> None:
    traced = trace.Trace(str(tmp_path / "trace"))
    record = b"".join(number.to_bytes(8, "little") for number in (7, 100, 130))
    traced.take(record + record[:-1])
    assert traced.child == {7: (100, 30)}
    traced.take(record)
    assert traced.child == {7: (100, 60)}


def test_start_is_told_nothing(made: steps.Plan, tmp_path: Path) -> None:
    """At the end of a fifo is the verb start, which has not asked."""
    read, write = os.pipe()
    traced = trace.Trace(str(tmp_path / "trace"))
    child = Child(made, None, Tools())  # type: ignore[arg-type]
    child.sock = protocol.Pipe(write)
    traced.wrap({steps.Hostname: lambda _child, _step: None})[steps.Hostname](child, at(made, steps.Hostname))
    traced.send(child)
    child.sock.close()
    assert os.read(read, 100) == b""
    os.close(read)


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="for --trace: no such file or directory"):
        trace.Trace(str(tmp_path / "no" / "trace"))


def test_a_full_disk_is_no_reason_to_fail(made: steps.Plan, capfd: pytest.CaptureFixture[str]) -> None:
    trace.Trace("/dev/full").report(made)
    assert "warning: write what --trace found: " in capfd.readouterr().err
