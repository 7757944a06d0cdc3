"""The program of `exec`: what is done outside the container's pid namespace, and what inside."""

from __future__ import annotations

from typing import Any

import pytest

from pyrunc.errors import Failure
from pyrunc.linux.flags import CLONE_NEWNS, CLONE_NEWUSER
from pyrunc.plan import namespaces, program_exec, steps
from pyrunc.plan.program import Program
from tests.support.programs import created, entered, entering
from tests.support.specs import small, with_linux, with_process
from tests.unit.plan.test_show_program import listed


def operations(plan: steps.Plan, **given: Any) -> list[str]:
    return listed(program_exec.lower(plan, entering(plan, **given)))


def test_nothing_but_the_socket_is_open_when_the_process_is_cloned() -> None:
    for given in ({}, {"null": True}, {"tasks": 3}, {"kinds": namespaces.FLAGS["pid"]}):
        found = operations(entered(small()), **given)
        at = found.index("CLONE 32768 nothing")
        assert found[at - 1 : at + 3] == ["KEEP 3 <01>", "CLONE 32768 nothing", "WAIT 79", "SETSID"]


def test_the_first_keep_leaves_what_is_used_outside() -> None:
    found = operations(entered(small()), null=True, tasks=2, kinds=namespaces.FLAGS["pid"])
    assert found[2] == "KEEP 3 <ff>", "all that there are"
    assert "CHROOT root" in found
    assert [line for line in found if line.startswith("WRITE")] == ["WRITE tasks0 <30>", "WRITE tasks1 <30>"]


def test_without_a_mount_namespace_to_join_the_root_is_entered_after_the_others() -> None:
    found = operations(entered(small()), kinds=namespaces.FLAGS["pid"])
    assert found.index("CHROOT root") > next(at for at, line in enumerate(found) if line.startswith("SETNS"))
    assert "CHROOT root" not in operations(entered(small()))


@pytest.mark.parametrize(("gids", "stay"), [((), 0), (None, 1)])
def test_a_user_namespace(gids: tuple[int, ...] | None, stay: int) -> None:
    """The helper becomes root there at once.

    The groups stay if setgroups(2) is denied; the keyring is readable for all.
    """
    made = entered(with_linux(also=("user",)), user={"uid": 5, "gid": 6})
    for step in made.child:
        if isinstance(step, steps.Identity):
            step.gids = gids
    kinds = CLONE_NEWNS | CLONE_NEWUSER
    found = operations(made, kinds=kinds)
    at = found.index(f"SETNS init {kinds}")
    assert found[at + 1] == f"BECOME_ROOT 5 6 {stay}"
    assert 'KEYRING "_ses.c1" 8' in found
    assert any(line.startswith("GROUPS") for line in found) == (not stay)


def test_cpus_before_and_after_the_cgroup() -> None:
    config = with_process(execCPUAffinity={"initial": "1", "final": "0,64"})
    found = operations(entered(config), tasks=1)
    at = found.index("WRITE tasks0 <30>")
    assert (found[at - 1], found[at + 1]) == (
        "AFFINITY <0200000000000000>",
        f"AFFINITY <01{'0' * 14}01{'0' * 14}>",
    )


def test_the_cgroup_is_joined_once() -> None:
    """The step that joins it a second time, inside, is not counted among those outside."""
    made = entered(small())
    made.child = (*made.child[:2], steps.EnterCgroupNamespace(new=False))
    assert program_exec._outside(Program(), made, entering(made)) == 2


def test_steps_that_are_all_outside() -> None:
    made = entered(small())
    made.child = made.child[:2]
    assert program_exec._outside(Program(), made, entering(made)) == 2


def test_limits_are_the_parent_s_and_come_before_the_program() -> None:
    found = operations(entered(small()), limits=True)
    at = found.index("SEND 82")
    assert found[at + 1] == "WAIT 65"
    assert found.index("FIND []") < at
    assert "SEND 82" not in operations(entered(small()))


def test_a_terminal() -> None:
    found = operations(entered(small(), terminal=True), size=b"12345678", clean=True)
    assert f"TERMINAL devpts slave <{b'12345678'.hex()}> 1" in found
    assert found[found.index("TAKE_TERMINAL slave 0") - 1].startswith("TERMINAL")


def test_no_process() -> None:
    made = created(small())
    made.child = ()
    with pytest.raises(Failure, match="there is no process to start") as caught:
        operations(made)
    assert caught.value.pointer == "/process"


def test_every_operation_has_the_step_it_is_reported_for() -> None:
    made = entered(small())
    every = [made.namespaces, *made.child, *made.start]
    for operation in program_exec.lower(made, entering(made, limits=True)).operations:
        assert any(operation.step is step for step in every)
