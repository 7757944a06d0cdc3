"""The program of `exec`: one more process in a container.

Law 6: the first half runs in a process that is in the container's cgroups but not in its pid namespace, so
that no process of the container sees it. It joins all other namespaces, enters the container's root and
closes its descriptors. Then it clones the process for the second half, which is complete when it can be seen.
"""

from __future__ import annotations

import _struct

from pyrunc.errors import Failure
from pyrunc.linux.flags import CLONE_NEWNS, CLONE_NEWUSER, CLONE_PARENT, PR_SET_DUMPABLE
from pyrunc.plan import program_process, steps
from pyrunc.plan.program import NAME, ONLY_SOCKET, Program
from pyrunc.plan.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.program_process import Filters


class Entering(Record):
    """What the parent has found out and opened for one process.

    Attributes:
        kinds: CLONE_NEW* flags of the namespaces to join.
        tasks: how many `tasks` files of version 1 cgroups it opened, in slots "tasks0", "tasks1", ...
        null: it opened a null device to replace the host's on stdio, in the slot "null".
        passed: how many descriptors from 3 on go to the program.
        limits: the parent will set limits before the program is started, and waits for a request.
        size: struct winsize of the terminal, b"" for the kernel's default.
        clean: the terminal leaves newlines as they are.
        filters: id of a Seccomp step -> its compiled filter.
        state: unused: the hooks of `start` are the first process's.

    """

    kinds: int
    tasks: int = 0
    null: bool = False
    passed: int = 0
    limits: bool = False
    size: bytes = b""
    clean: bool = False
    filters: Filters
    state: str = ""


def lower(plan: steps.Plan, entering: Entering) -> Program:
    """Return the program that makes a process of a container.

    Args:
        plan: what build_exec() returned.
        entering: what the parent knows.

    Raises:
        Failure: a step cannot be carried out, as far as is known before.

    """
    program = Program()
    space = plan.namespaces
    first = 3 + entering.passed
    program.add(space, "PRCTL", PR_SET_DUMPABLE, 0)
    program.add(space, "NAME", program.text(NAME))
    program.keep(space, first)
    program.add(space, "SIGNALS")
    if entering.null:
        program.add(space, "STDIO_NULL", program.slot("null"))
    joined = _outside(program, plan, entering)
    program.add(space, "SETNS", program.slot("init"), entering.kinds)
    who = program_process.identity(plan)
    if who is None:
        raise Failure("there is no process to start", pointer="/process")
    if entering.kinds & CLONE_NEWUSER:
        program.add(space, "BECOME_ROOT", who.uid, who.gid, who.gids is None)
    if not entering.kinds & CLONE_NEWNS:
        program.add(space, "CHROOT", program.slot("root"))
    program.keep(space, first, ONLY_SOCKET)
    program.add(space, "CLONE", CLONE_PARENT, program.slot("nothing"))
    program.add(space, "WAIT", ord("O"))
    program.add(space, "SETSID")
    program_process.lower(program, plan.child[joined:], plan, entering)
    if entering.limits:
        program.add(space, "SEND", ord("R"))
        program.add(space, "WAIT", ord("A"))
    program_process.lower(program, plan.start, plan, entering)
    program_process.execute(program, plan)
    return program


def _outside(program: Program, plan: steps.Plan, entering: Entering) -> int:
    """Append what comes before the namespaces are joined; return how many steps that were.

    These set the process's CPUs, before and after it has joined the container's cgroups, whose cpuset limits
    them.
    """
    joined = False
    for number, step in enumerate(plan.child):
        if isinstance(step, steps.AllCpus):
            program.add(step, "ALL_CPUS")
        elif isinstance(step, steps.Affinity):
            program.add(step, "AFFINITY", program.blob(_cpu_set(step.cpus)))
        elif isinstance(step, steps.EnterCgroupNamespace) and not joined:
            joined = True
            for task in range(entering.tasks):
                program.add(step, "WRITE", program.slot(f"tasks{task}"), program.blob(b"0"))
        else:
            return number
    return len(plan.child)


def _cpu_set(cpus: tuple[int, ...]) -> bytes:
    """Return a cpu_set_t, in words of 64 bits (sched_setaffinity(2))."""
    words = [0] * (max(cpus) // 64 + 1)
    for cpu in cpus:
        words[cpu // 64] |= 1 << cpu % 64
    return _struct.pack(f"={len(words)}Q", *words)
