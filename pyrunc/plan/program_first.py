"""The program of a container's first process, from the moment its mount tree stands.

Law 6: another container's processes see it from its beginning where it joins their pid namespace. So that
is joined here, last of all, by the clone of a process that has the container's root and nothing of the
host. What waits for `start` is the init program and nothing else.
"""

from __future__ import annotations

from pyrunc.plan import process_program, steps
from pyrunc.plan.program import NAME, SOCKET, Program
from pyrunc.plan.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.process_program import Filters

_CLONE_PARENT, _NEWPID = 0x8000, 0x20000000
_PR_SET_DUMPABLE = 4
# The first of these is where the program begins: what comes before needs the mount tree.
_OWN = (
    steps.Scheduler,
    steps.IoPriority,
    steps.Personality,
    steps.MemoryPolicy,
    steps.LsmLabel,
    steps.CloseDescriptors,
)


class Beginning(Record):
    """What the parent has prepared.

    Attributes:
        kinds: CLONE_NEW* flags of the container's namespaces.
        joins_pid: the slot "pidns" has a pid namespace to join.
        waits: the slots "go" and "answers" have the fifos of `start`; else the parent starts the program.
        terminal: the slot "slave" has the container's side of a terminal.
        passed: how many descriptors from 3 on go to the program.
        filters: id of a Seccomp step -> its compiled filter.
        state: the container's state for startContainer hooks, process_program.STATE_PID in the place of the
            pid.
        stay, size, clean: as in program_exec.Entering.

    """

    kinds: int
    joins_pid: bool = False
    waits: bool = False
    terminal: bool = False
    passed: int = 0
    filters: Filters
    state: str = ""
    stay: int = 1 << SOCKET
    size: bytes = b""
    clean: bool = False


def begins_at(plan: steps.Plan) -> int:
    """Return the place of the first step of a plan's child that is carried out by the program."""
    return next(number for number, step in enumerate(plan.child) if isinstance(step, _OWN))


def lower(plan: steps.Plan, beginning: Beginning) -> Program:
    """Return the program.

    Args:
        plan: what build() returned.
        beginning: what the parent knows.

    Raises:
        Failure: what is asked for can be seen to be impossible.

    """
    program = Program()
    space = plan.namespaces
    first = 3 + beginning.passed
    if beginning.waits:
        beginning.stay |= 1 << program.slot("go") | 1 << program.slot("answers")
    stay = beginning.stay
    if beginning.terminal:
        stay |= 1 << program.slot("slave")
    program.add(space, "PRCTL", _PR_SET_DUMPABLE, 0)
    program.add(space, "NAME", program.text(NAME))
    if beginning.joins_pid:
        pid = program.slot("pidns")
        join = next(join for join in space.joins if join.kind == "pid")
        program.add(join, "KEEP", first, stay | 1 << pid)
        program.add(join, "SIGNALS")
        program.add(join, "SETNS", pid, _NEWPID)
        program.add(join, "KEEP", first, stay)
        program.add(join, "CLONE", _CLONE_PARENT)
        program.add(join, "WAIT", ord("O"))
        program.add(join, "SETSID")
    else:
        program.add(space, "KEEP", first, stay)
        program.add(space, "SIGNALS")
    for step in plan.child:
        if isinstance(step, steps.Terminal):
            program.add(step, "TAKE_TERMINAL", program.slot("slave"), process_program.uid_of(plan))
    process_program.lower(program, plan.child[begins_at(plan) :], plan, beginning)
    program.add(space, "SEND", ord("R"))
    program.add(space, "WAIT", ord("S"))
    if beginning.waits:
        program.add(space, "AWAIT", program.slot("go"), program.slot("answers"))
    else:
        program.add(space, "WAIT", ord("A"))
    process_program.lower(program, plan.start, plan, beginning)
    process_program.execute(program, plan)
    return program


def proc_context(users: bool) -> Program:  # noqa: FBT001
    """Return the program of a process that opens a procfs of a pid namespace for somebody who is not in it.

    Args:
        users: the slot "users" has a user namespace with the rights for it.

    """
    program = Program()
    step = steps.Step()
    pid = program.slot("pidns")
    user = program.slot("users")
    program.add(step, "PRCTL", _PR_SET_DUMPABLE, 0)
    program.add(step, "NAME", program.text(NAME))
    program.add(step, "KEEP", 0, 1 << SOCKET | 1 << pid | (1 << user if users else 0))
    program.add(step, "SIGNALS")
    if users:
        program.add(step, "SETNS", user, 0)
        program.add(step, "BECOME_ROOT", 0, 0, 0)
    program.add(step, "SETNS", pid, _NEWPID)
    program.add(step, "ALONE")
    program.add(step, "KEEP", 0, 1 << SOCKET)
    program.add(step, "CLONE", _CLONE_PARENT)
    program.add(step, "OPEN_PROC")
    return program
