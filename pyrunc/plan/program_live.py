"""Programs for the mount tree of an existing container: for `mounts`, and for the end of a restore.

Law 6: the init program joins the container's mount namespace, and the user namespace that owns it if the
host's rights are not enough, but never its pid namespace, so that the container does not see it. Law 5: the
parent decides, for example whether a mount may be removed. Pure.
"""

from __future__ import annotations

from pyrunc.linux.flags import CLONE_NEWNS, CLONE_NEWUSER, PR_SET_DUMPABLE, STATX_MNT_ID
from pyrunc.plan import program_mounts, program_tree, steps
from pyrunc.plan.lowering import Lowering
from pyrunc.plan.mount_steps import Bind, Mount
from pyrunc.plan.program import NAME, Program
from pyrunc.plan.program_mounts import MAP_IDS
from pyrunc.plan.program_process import text
from pyrunc.plan.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pyrunc.plan.lowering import Beginning

GO = ord("O")


class EnterMounts(steps.Step):
    """Enter the mount namespace of an existing container, and its root."""


class Unmount(steps.Step):
    """Unmount a mount of an existing container, with all that is mounted below it.

    Attributes:
        path: its path, as it was asked for.
        mapped: the container has a user namespace.

    """

    path: str
    mapped: bool


class Visit(Record):
    """How to reach a container's mount tree.

    Attributes:
        kinds: CLONE_NEW* flags of the namespaces to join, of the process in the slot "init"; 0 if the
            container has no mount namespace of its own: then its root is in the slot "root".
        seconds: time limit in seconds, after which a blocked program ends.

    """

    kinds: int
    seconds: int


def readonly_root(visit: Visit) -> Program:
    """Return the program that makes the root read-only."""
    program, step = _begin(visit)
    _enter(program, visit, step)
    program.add(step, "READONLY_ROOT")
    return program


def look(visit: Visit, paths: Iterable[str]) -> Program:
    """Return the program that sends the mount table, and where paths lead.

    Without a mount namespace of its own the table is that of any process of the container.
    """
    program, step = _begin(visit)
    _enter(program, visit, step)
    _tree(program, step)
    if visit.kinds:
        program.add(step, "SEND_TABLE")
    found = program.slot("found")
    for number, path in enumerate(paths):
        program.add(step, "LOCATE", text(program, step, path), number, found)
        program.add(step, "CLOSE", found)
    return program


def remove(visit: Visit, paths: Iterable[str], *, mapped: bool) -> Program:
    """Return the program that sends where paths lead, and unmounts the mounts there if it may.

    Args:
        visit: the way to the mount tree.
        paths: of the mounts, in their order.
        mapped: the container has a user namespace.

    """
    program, step = _begin(visit)
    _enter(program, visit, step)
    _tree(program, step)
    wanted = [Unmount(path=path, mapped=mapped) for path in paths]
    for number, each in enumerate(wanted):
        program.add(each, "LOCATE", text(program, each, each.path), number, program.slot(f"mount{number}"))
    program.add(step, "WAIT", GO)
    for number, each in enumerate(wanted):
        program.add(each, "DETACH", program.slot(f"mount{number}"))
    return program


def add(
    visit: Visit, plan: steps.Plan, given: Beginning, bases: Mapping[int, str], *, copies: bool = False
) -> Program:
    """Return the program that adds mounts; if one fails, none is left.

    Args:
        visit: the way to the mount tree.
        plan: one whose child's steps are these mounts.
        given: what the parent has opened.
        bases: mount id -> directory on the host that is mounted there.
        copies: the parent may copy none of the host's mounts. The user namespace that owns the container's
            tree may, in a copy of the host's.

    """
    program, step = _begin(visit)
    on = Lowering(program, plan, given)
    mounts = [each for each in plan.child if isinstance(each, Mount)]
    if copies:
        _copy(on, visit, step, mounts)
        visit = Visit(kinds=visit.kinds & ~CLONE_NEWUSER, seconds=visit.seconds)
    _enter(program, visit, step)
    _tree(program, step)
    program.add(step, "TAKE_BACK")
    _bases(program, step, bases)
    for each in mounts:
        program_mounts.LOWER[type(each)](on, each)
    program_tree.readonly_last(on)
    program_tree.again(on)
    program.add(step, "SEND_TABLE")
    return program


def mount_points(plan: steps.Plan, given: Beginning, bases: Mapping[int, str]) -> Program:
    """Return the program that makes the mount points of a restore, in the mount namespace in which it starts.

    Each bind is mounted, because a mount point may be on one, and unmounted at the end. The parent learns
    their mount points from the NOTE operations.

    Args:
        plan: one whose child's steps are these mounts.
        given: what the parent has found out.
        bases: mount id -> directory on the host that is mounted there.

    """
    program, step = _begin(Visit(kinds=0, seconds=0))
    program.add(step, "ROOT_IS", program.slot("root"))
    _tree(program, step)
    _bases(program, step, bases)
    on = Lowering(program, plan, given)
    on.keeps = True
    mounted = []
    for each in plan.child:
        if isinstance(each, Bind):
            if id(each) not in given.links:
                mounted.append((each, program_mounts.open_source(on, each)))
                on.early[id(each)] = mounted[-1][1]
            program_mounts.LOWER[Bind](on, each)
        elif isinstance(each, Mount):
            program.add(each, "PLACE", text(program, each, each.destination), 0, on.place)
            program.add(each, "CLOSE", on.place)
    for each, slot in reversed(mounted):
        program.add(Unmount(path=each.destination, mapped=False), "DETACH", slot)
    return program


def _bases(program: Program, step: steps.Step, bases: Mapping[int, str]) -> None:
    for number, directory in bases.items():
        program.add(step, "BASE", number, text(program, step, directory))


def _copy(on: Lowering, visit: Visit, step: steps.Step, mounts: list[Mount]) -> None:
    """Append what opens the sources with the rights of the container's user namespace."""
    add = on.program.add
    add(step, "SETNS", on.program.slot("init"), visit.kinds & CLONE_NEWUSER)
    add(step, "BECOME_ROOT", 0, 0, 0)
    add(step, "UNSHARE", CLONE_NEWNS)
    for each in mounts:
        if isinstance(each, Bind):
            slot = on.early[id(each)] = program_mounts.open_source(on, each)
            if each.attributes.id_mapped:
                add(each, "ASK", slot, ord(MAP_IDS), on.number(each))


def _begin(visit: Visit) -> tuple[Program, steps.Step]:
    program = Program()
    step = EnterMounts()
    program.add(step, "PRCTL", PR_SET_DUMPABLE, 0)
    program.add(step, "NAME", program.text(NAME))
    program.keep(step, 0)  # stdio is not needed
    program.add(step, "DEADLINE", visit.seconds)
    program.add(step, "UMASK", 0)
    return program, step


def _enter(program: Program, visit: Visit, step: steps.Step) -> None:
    init = program.slot("init")
    if visit.kinds:
        program.add(step, "SETNS", init, visit.kinds)
        if visit.kinds & CLONE_NEWUSER:
            program.add(step, "BECOME_ROOT", 0, 0, 0)
        program.add(step, "CLOSE", init)
        program.add(step, "ROOT_HERE")
    else:
        program.add(step, "ROOT_IS", program.slot("root"))


def _tree(program: Program, step: steps.Step) -> None:
    program.add(step, "TREE", program.slot("made"), program.slot("proc"), STATX_MNT_ID)
