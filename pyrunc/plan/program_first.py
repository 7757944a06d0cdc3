"""The program of a container's first process: from its start in new namespaces to its program.

Law 6: another container's processes see it from the moment it joins their pid namespace. So that is joined
last, by the clone of a process that has the container's root and nothing of the host. The process that waits
for `start` is the init program.
"""

from __future__ import annotations

from pyrunc.linux.flags import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    CLONE_PARENT,
    PR_SET_DUMPABLE,
)
from pyrunc.plan import namespaces, program_process, program_tree, steps
from pyrunc.plan.lowering import Lowering
from pyrunc.plan.program import NAME, ONLY_SOCKET, SOCKET, Program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.lowering import Beginning
    from pyrunc.plan.steps import Join, Namespaces

_MAPPED, _GO = ord("M"), ord("O")
DUMPABLE = ord("m")
# At the first of these steps the mount tree is complete.
_OWN = (
    steps.Scheduler,
    steps.IoPriority,
    steps.Personality,
    steps.MemoryPolicy,
    steps.LsmLabel,
    steps.CloseDescriptors,
)
NAMESPACES = 1  # tag of the operation that makes the container's namespaces


# Ways to make init: at once in its namespaces; by a process that joins others first; by one that is the first
# in the new user namespace of an ordinary user, and must be dumpable while its id mappings are written.
DIRECT, HELPED, MAPPED_FIRST = "", "helped", "mapped-first"


def way(spaces: Namespaces, *, ordinary: bool, classic: bool = False) -> str:
    """Return the way to make init.

    Args:
        spaces: the namespaces.
        ordinary: the caller is not root.
        classic: mounts are made with mount(2), which mounts procfs only for the own pid namespace: a pid
            namespace is joined at the beginning.

    """
    if spaces.flags & CLONE_NEWUSER and ordinary:
        return MAPPED_FIRST
    early = [join for join in spaces.joins if join.kind not in late(spaces)]
    if any(join.kind == "user" or (join.kind == "pid" and classic) for join in early):
        return HELPED
    # Inside a new user namespace there is no right to enter a namespace that the host owns.
    if spaces.flags & CLONE_NEWUSER and [join for join in early if join.kind != "pid"]:
        return HELPED
    return HELPED if spaces.flags & CLONE_NEWTIME else DIRECT


def late(spaces: Namespaces) -> tuple[str, ...]:
    """Return the kinds of namespaces that are entered when init is in its cgroups.

    In a user namespace it has no right to enter a cgroup namespace of the host: then that is entered before.
    """
    if spaces.flags & CLONE_NEWUSER or any(join.kind == "user" for join in spaces.joins):
        if any(join.kind == "cgroup" for join in spaces.joins):
            return ("mount",)
    return ("mount", "cgroup")


def new_at_once(spaces: Namespaces, given: str) -> int:
    """Return the CLONE_NEW* flags of the namespaces in which the first process starts."""
    if given == MAPPED_FIRST:
        return CLONE_NEWUSER
    return 0 if given == HELPED else spaces.flags & ~CLONE_NEWCGROUP & ~_as_root(spaces)


def _as_root(spaces: Namespaces) -> int:
    """Return the CLONE_NEW* flags of what is made once the process is root of its user namespace.

    The files of message queues are made with an ipc namespace, and belong to who makes it.
    """
    inside = spaces.flags & CLONE_NEWUSER or any(join.kind == "user" for join in spaces.joins)
    return spaces.flags & CLONE_NEWIPC if inside else 0


def begins_at(plan: steps.Plan) -> int:
    """Return the index of the first step that is carried out after the mount tree."""
    return next(number for number, step in enumerate(plan.child) if isinstance(step, _OWN))


def lower(plan: steps.Plan, given: Beginning) -> Program:
    """Return the program.

    Args:
        plan: what build() returned.
        given: what the parent knows.

    Raises:
        Failure: a step cannot be carried out, as far as is known before.

    """
    program = Program()
    space = plan.namespaces
    first = 3 + given.passed
    stay = [SOCKET]
    if given.waits:
        stay += [program.slot("go"), program.slot("answers")]
    program.add(space, "PRCTL", PR_SET_DUMPABLE, given.way == MAPPED_FIRST)
    program.add(space, "NAME", program.text(NAME))
    program.keep(space, first)
    program.add(space, "SIGNALS")
    _namespaces(program, plan, given)
    on = Lowering(program, plan, given)
    before = begins_at(plan)
    for step in plan.child[:before]:
        do = program_tree.LOWER.get(type(step))
        if do is not None:
            do(on, step)
        else:
            program_process.lower(program, (step,), plan, given)
    # Nothing of the host must be readable in a process that waits for `start`, or can be seen now.
    program.wipe(space)
    if given.joins_pid:
        _join_pid(program, plan, first, [*stay, *([program.slot("slave")] if plan.terminal else [])])
    for step in plan.child:
        if isinstance(step, steps.Terminal):
            program.add(step, "TAKE_TERMINAL", program.slot("slave"), program_process.uid_of(plan))
    program_process.lower(program, plan.child[before:], plan, given, stay=tuple(stay))
    program.add(space, "SEND", ord("R"))
    program.add(space, "WAIT", ord("S"))
    if given.waits:
        program.add(space, "AWAIT", program.slot("go"), program.slot("answers"))
    else:
        program.add(space, "WAIT", ord("A"))
    program_process.lower(program, plan.start, plan, given)
    program_process.execute(program, plan)
    return program


def _namespaces(program: Program, plan: steps.Plan, given: Beginning) -> None:
    """Append what makes and joins namespaces, up to init's start."""
    space = plan.namespaces
    who = program_process.identity(plan)
    uid, gid, keep = (0, 0, True) if who is None else (who.uid, who.gid, who.gids is None)
    user = next((join for join in space.joins if join.kind == "user"), None)
    joins = [
        join
        for join in space.joins
        if join.kind not in (*given.joins_late, "user") and not (join.kind == "pid" and given.joins_pid)
    ]
    if given.way == MAPPED_FIRST:
        program.add(space, "SEND", DUMPABLE)
        program.add(space, "WAIT", _MAPPED)
        program.add(space, "PRCTL", PR_SET_DUMPABLE, 0)
    _join(program, joins, user is None)
    if user is not None:
        # The user stays the same, who may move it to the cgroup, and it has all capabilities inside.
        program.add(user, "SETNS", program.slot("join-user"), CLONE_NEWUSER)
        _join(program, joins, last=True)
    if space.flags & CLONE_NEWTIME:
        program.add(space, "UNSHARE", CLONE_NEWTIME)
        if space.time_offsets:
            text = "".join(f"{clock} {sec} {nano}\n" for clock, sec, nano in space.time_offsets)
            # Files in /proc of an ordinary user's process belong to root unless it is dumpable. It is still
            # in pyrunc's pid namespace, where no container sees it.
            if given.ordinary:
                program.add(space, "PRCTL", PR_SET_DUMPABLE, 1)
            program.add(space, "CLOCKS", program.blob(text.encode()))
            if given.ordinary:
                program.add(space, "PRCTL", PR_SET_DUMPABLE, 0)
    if given.way:
        new = space.flags & ~(CLONE_NEWTIME | CLONE_NEWCGROUP) & ~_as_root(space)
        if given.way == MAPPED_FIRST:
            new &= ~CLONE_NEWUSER
        program.add(space, "CLONE", new | CLONE_PARENT, program.slot("cgroup"), tag=NAMESPACES)
        program.add(space, "WAIT", _GO)
    program.add(space, "CLOSE", program.slot("cgroup"))
    program.add(space, "SETSID")
    program.add(space, "UMASK", 0)  # nodes and mount points get exactly their modes
    if space.flags & CLONE_NEWUSER or user is not None:
        if given.way != MAPPED_FIRST:
            program.add(space, "WAIT", _MAPPED)
        program.add(space, "BECOME_ROOT", uid, gid, keep)
    if _as_root(space):
        program.add(space, "UNSHARE", _as_root(space))
    for join in space.joins:
        if join.kind == "mount":
            program.add(join, "SETNS", program.slot("join-mount"), CLONE_NEWNS)


def _join(program: Program, joins: list[Join], last: bool) -> None:  # noqa: FBT001
    for join in joins:
        program.add(join, "TRY_SETNS", program.slot("join-" + join.kind), namespaces.FLAGS[join.kind], last)


def _join_pid(program: Program, plan: steps.Plan, first: int, stay: list[int]) -> None:
    """Append what moves the process into the pid namespace that it joins."""
    join = next(join for join in plan.namespaces.joins if join.kind == "pid")
    pid = program.slot("join-pid")
    program.keep(join, first, [*stay, pid])
    program.add(join, "SETNS", pid, CLONE_NEWPID)
    program.keep(join, first, stay)
    program.add(join, "CLONE", CLONE_PARENT, program.slot("nothing"))
    program.add(join, "WAIT", _GO)
    program.add(join, "SETSID")


def proc_context(users: bool) -> Program:  # noqa: FBT001
    """Return the program of a process that opens a procfs of another pid namespace for its parent.

    Args:
        users: the slot "users" has a user namespace with the rights for it.

    """
    program = Program()
    step = steps.Step()
    pid = program.slot("pidns")
    user = program.slot("users")
    program.add(step, "PRCTL", PR_SET_DUMPABLE, 0)
    program.add(step, "NAME", program.text(NAME))
    program.keep(step, 0)
    program.add(step, "SIGNALS")
    if users:
        program.add(step, "SETNS", user, 0)
        program.add(step, "BECOME_ROOT", 0, 0, 0)
    program.add(step, "SETNS", pid, CLONE_NEWPID)
    program.add(step, "ALONE")
    program.keep(step, 0, ONLY_SOCKET)
    program.add(step, "CLONE", CLONE_PARENT, program.slot("nothing"))
    program.add(step, "OPEN_PROC")
    return program
