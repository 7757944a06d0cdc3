"""The program of a container's first process."""

from __future__ import annotations

from typing import Any

import pytest

from pyrunc.plan import program_first, steps
from tests.support.programs import beginning, created
from tests.support.specs import small, with_linux, with_process
from tests.unit.plan.test_show_program import listed

JOINED = with_linux(without=("pid",), also=({"type": "pid", "path": "/proc/7/ns/pid"},))


def operations(plan: steps.Plan, **given: Any) -> list[str]:
    return listed(program_first.lower(plan, beginning(plan, **given)))


@pytest.mark.parametrize("waits", [False, True])
def test_who_starts_it(waits: bool) -> None:
    found = operations(created(small()), waits=waits)
    at = found.index("SEND 82")
    assert found[at + 1 : at + 3] == ["WAIT 83", "AWAIT go answers" if waits else "WAIT 65"]
    assert found[2] == ("KEEP 3 7" if waits else "KEEP 3 1")


def test_joining_a_pid_namespace() -> None:
    """It is entered by a clone of a process that has nothing but the socket and the fifos."""
    found = operations(created(JOINED), joins_pid=True, waits=True, passed=1)
    assert found[2:9] == [
        "KEEP 4 15",
        "SIGNALS",
        "SETNS pidns 536870912",
        "KEEP 4 7",
        "CLONE 32768",
        "WAIT 79",
        "SETSID",
    ]
    made = created(JOINED)
    (join,) = made.namespaces.joins
    program = program_first.lower(made, beginning(made, joins_pid=True))
    assert {operation.name for operation in program.operations if operation.step is join} >= {
        "SETNS",
        "CLONE",
    }


@pytest.mark.parametrize("users", [False, True])
def test_a_procfs_for_another(users: bool) -> None:
    found = listed(program_first.proc_context(users))
    wanted = ["SETNS users 0", "BECOME_ROOT 0 0 0"] if users else []
    assert found[2:] == [
        f"KEEP 0 {0b111 if users else 0b11}",
        "SIGNALS",
        *wanted,
        "SETNS pidns 536870912",
        "ALONE",
        "KEEP 0 1",
        "CLONE 32768",
        "OPEN_PROC",
    ]


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (small(), steps.CloseDescriptors),
        (with_process(scheduler={"policy": "SCHED_BATCH"}), steps.Scheduler),
        (with_process(ioPriority={"class": "IOPRIO_CLASS_BE", "priority": 4}), steps.IoPriority),
        (with_process(apparmorProfile="x"), steps.LsmLabel),
        (with_linux(personality={"domain": "LINUX"}), steps.Personality),
        (with_linux(memoryPolicy={"mode": "MPOL_LOCAL"}), steps.MemoryPolicy),
    ],
)
def test_where_it_begins(config: dict[str, Any], kind: type[steps.Step]) -> None:
    made = created(config)
    assert type(made.child[program_first.begins_at(made)]) is kind
