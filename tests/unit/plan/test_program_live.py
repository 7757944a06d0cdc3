"""The programs for the mount tree of a container that exists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pyrunc.errors import Failure
from pyrunc.linux.flags import CLONE_NEWNS, CLONE_NEWUSER
from pyrunc.plan import mount_options as mo
from pyrunc.plan import program_live, steps
from pyrunc.plan.program_live import Visit
from tests.support.mount_kinds import mount
from tests.support.programs import beginning, created
from tests.unit.plan.test_show_program import listed

if TYPE_CHECKING:
    from pyrunc.plan.mount_steps import Mount
    from pyrunc.plan.program import Program

OWN = Visit(kinds=CLONE_NEWNS, seconds=10)
MAPPED = Visit(kinds=CLONE_NEWNS | CLONE_NEWUSER, seconds=10)
NONE = Visit(kinds=0, seconds=3)
BEGIN = ["PRCTL 4 0", 'NAME "pyrunc:[init]"', "KEEP 0 <ff>", "DEADLINE 10", "UMASK 0"]
ENTER = ["SETNS init 131072", "CLOSE init", "ROOT_HERE"]
ENTER_MAPPED = ["SETNS init 268566528", "BECOME_ROOT 0 0 0", "CLOSE init", "ROOT_HERE"]
TREE = "TREE made proc 4096"


def added(visit: Visit, *found: Mount, copies: bool = False, **given: Any) -> Program:
    plan = created()
    plan.child = found
    bases = given.pop("bases", {})
    return program_live.add(visit, plan, beginning(plan, **given), bases, copies=copies)


@pytest.mark.parametrize(
    ("visit", "enter"),
    [(OWN, ENTER), (MAPPED, ENTER_MAPPED), (NONE, ["ROOT_IS root"])],
    ids=["own", "mapped", "none"],
)
def test_how_it_gets_there(visit: Visit, enter: list[str]) -> None:
    """It joins no pid namespace, and keeps only the descriptors that it was given."""
    begin = [*BEGIN[:3], f"DEADLINE {visit.seconds}", *BEGIN[4:]]
    assert listed(program_live.readonly_root(visit)) == [*begin, *enter, "READONLY_ROOT"]


def test_looking() -> None:
    tail = [
        'LOCATE "/a" 0 found',
        "CLOSE found",
        'LOCATE "/b" 1 found',
        "CLOSE found",
    ]
    assert listed(program_live.look(OWN, ["/a", "/b"])) == [*BEGIN, *ENTER, TREE, "SEND_TABLE", *tail]
    # Of a tree that is not its own the program could only send the table of the runtime's.
    assert listed(program_live.look(NONE, ["/a", "/b"]))[-5:] == [TREE, *tail]


def test_nothing_is_removed_before_all_are_known() -> None:
    made = program_live.remove(OWN, ["/a", "/b"], mapped=True)
    assert listed(made) == [
        *BEGIN,
        *ENTER,
        TREE,
        'LOCATE "/a" 0 mount0',
        'LOCATE "/b" 1 mount1',
        "WAIT 79",
        "DETACH mount0",
        "DETACH mount1",
    ]
    found = [each.step for each in made.operations if each.name == "DETACH"]
    assert found == [program_live.Unmount(path=path, mapped=True) for path in ("/a", "/b")]
    assert [str(step.describe()) for step in (found[0], made.operations[0].step)] == [
        "unmount /a",
        "enter the container's mount namespace",
    ]


def test_adding() -> None:
    """From the first mount on, the program can undo what it has done.

    The parent compares the mounts at the end.
    """
    bind = mount(again=((mo.SHARED, False),))
    tmpfs = mount("new", destination="/t", own_set=mo.RDONLY, readonly_last=True, must_mask=1, must_be=1)
    made = added(OWN, bind, tmpfs, opened={id(bind): "given"}, bases={7: "/r"})
    found = listed(made)
    assert found[2] == "KEEP 0 <ffff>", "all that there are"
    assert found[3:] == [
        *BEGIN[3:],
        *ENTER,
        TREE,
        "TAKE_BACK",
        'BASE 7 "/r"',
        'ATTACH given "/d" 32 place',
        'NOTE given 0 0 2 "/s"',
        'PLACE "/t" 0 place',
        'FSOPEN "tmpfs" context1',
        'FSCONFIG context1 ["source=tmpfs"]',
        "FSMODE context1 place",
        "FSCREATE context1 0",
        "FSMOUNT context1 0 mount1",
        'ATTACH mount1 "/t" 0 place',
        'NOTE mount1 0x100000001 0 2 ""',
        "ATTRIBUTES mount1 1 0 0 0",
        "CLOSE mount1",
        "ATTRIBUTES given 0 0 1048576 0",
        "CLOSE given",
        "SEND_TABLE",
    ]


def test_an_ordinary_user_s_sources() -> None:
    """They are copied where the user has rights: in the container's user namespace."""
    plain, mapped = mount(), mount(destination="/m", id_maps=(((0, 1, 1),), ((0, 1, 1),)))
    inner = mount("inner-bind", destination="/i", source="/in")
    found = listed(added(MAPPED, plain, mapped, inner, copies=True))
    at = len(BEGIN)
    assert found[at : at + 6] == [
        "SETNS init 268435456",
        "BECOME_ROOT 0 0 0",
        "UNSHARE 131072",
        'CLONE_PATH "/s" 1 mount0',
        'CLONE_PATH "/s" 1 mount1',
        "ASK mount1 73 1",
    ]
    assert found[at + 6 : at + 9] == ENTER
    assert 'CLONE_BELOW nothing "/in" 1 mount2' in found[at + 9 :]
    assert sum(line.startswith("CLONE_") for line in found) == 3


def test_a_path_that_is_none() -> None:
    with pytest.raises(Failure, match="NUL"):
        program_live.look(OWN, ["/a\0b"])


def test_mount_points_for_a_restore() -> None:
    """Each bind is mounted, because later mount points may lie on it.

    All are unmounted at the end, the last one first.
    """
    one, other = mount(), mount("new", destination="/run")
    two, link = mount(destination="/d/e", again=((mo.SHARED, False),)), mount(destination="/l")
    plan = created()
    plan.child = (one, other, two, link)
    given = beginning(plan, links={id(link): "text"})
    found = listed(program_live.mount_points(plan, given, {7: "/r"}))
    assert found[:2] == BEGIN[:2]
    assert found[3:] == [
        "DEADLINE 0",
        "UMASK 0",
        "ROOT_IS root",
        TREE,
        'BASE 7 "/r"',
        'CLONE_PATH "/s" 1 mount0',
        'ATTACH mount0 "/d" 32 place',
        'NOTE mount0 0 0 2 "/s"',
        'PLACE "/run" 0 place',
        "CLOSE place",
        'CLONE_PATH "/s" 1 mount2',
        'ATTACH mount2 "/d/e" 32 place',
        'NOTE mount2 0 0 2 "/s"',
        'SYMLINK "/l" "text" 2',
        "DETACH mount2",
        "DETACH mount0",
    ]
    plan.child = (steps.AllCpus(),)
    assert listed(program_live.mount_points(plan, beginning(plan), {}))[-1] == TREE
