"""The operations that make a process: its properties, and its program.

Used for every process that the init program makes in a container. Source: runtime-spec config.md "Process",
capabilities(7), credentials(7). Within Identity the order is such that no right is kept longer than needed or
dropped too early.
"""

from __future__ import annotations

import _struct

from pyrunc.errors import Failure
from pyrunc.linux.flags import (
    CLONE_NEWUSER,
    KEY_OTH_SEARCH,
    KEY_USR_SEARCH,
    PR_SET_KEEPCAPS,
    PR_SET_NO_NEW_PRIVS,
    SECCOMP_FILTER_FLAG_NEW_LISTENER,
)
from pyrunc.plan import steps
from pyrunc.plan.program import ONLY_SOCKET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, Protocol, TypeAlias

    from pyrunc.plan.program import Program

    class Filter(Protocol):
        """A compiled filter (apply/seccomp/filters)."""

        bpf: bytes
        flags: int
        sendmsg: bool
        clock: bool

    Filters: TypeAlias = Mapping[int, Filter]

    class Given(Protocol):
        """What the parent passes: see program_exec.Entering."""

        kinds: int
        passed: int
        size: bytes
        clean: bool
        filters: Filters
        state: str


_SCHED_ATTR = 48  # sched_setattr(2): struct sched_attr as of Linux 3.14
_LIMIT = (1 << 64) - 1


class _Lowering:
    """What the lowering of one step needs besides the step."""

    def __init__(self, program: Program, plan: steps.Plan, given: Given, stay: tuple[int, ...]) -> None:
        self.stay = stay
        self.program = program
        self.plan = plan
        self.given = given
        self.first = 3 + given.passed  # the lowest descriptor that the program does not get
        self.uid = uid_of(plan)


def identity(plan: steps.Plan) -> steps.Identity | None:
    """Return the identity step; None if the configuration has no process."""
    # It is among the last, and before it are all the mounts.
    return next((step for step in reversed(plan.child) if isinstance(step, steps.Identity)), None)


def _names_home(plan: steps.Plan) -> bool:
    """Tell whether the configuration says what HOME is."""
    return any(
        word.startswith("HOME=") and word != "HOME="
        for step in plan.child
        if isinstance(step, steps.Program)
        for word in step.env
    )


def uid_of(plan: steps.Plan) -> int:
    """Return the process's user."""
    who = identity(plan)
    return 0 if who is None else who.uid


def lower(
    program: Program,
    todo: Iterable[steps.Step],
    plan: steps.Plan,
    given: Given,
    *,
    stay: tuple[int, ...] = ONLY_SOCKET,
) -> None:
    """Append the operations of steps.

    Args:
        program: the program to append to.
        todo: the steps.
        plan: the plan that they belong to.
        given: what the parent has prepared.
        stay: the slots that stay open up to the program's execution.

    Raises:
        Failure: a step cannot be carried out, as far as is known before.

    """
    lowering = _Lowering(program, plan, given, stay)
    for step in todo:
        _LOWER[type(step)](lowering, step)


def _keyring(on: _Lowering, step: steps.Keyring) -> None:
    # The users of a user namespace do not own the keyring.
    search = KEY_OTH_SEARCH if on.given.kinds & CLONE_NEWUSER else KEY_USR_SEARCH
    on.program.add(step, "KEYRING", on.program.text(step.name), search)


def _scheduler(on: _Lowering, step: steps.Scheduler) -> None:
    attributes = _struct.pack(
        "=IIQiIQQQ",
        _SCHED_ATTR,
        step.policy,
        step.flags,
        step.nice,
        step.priority,
        step.runtime,
        step.deadline,
        step.period,
    )
    on.program.add(step, "SCHEDULER", on.program.blob(attributes))


def _memory_policy(on: _Lowering, step: steps.MemoryPolicy) -> None:
    words = [0] * (max(step.nodes, default=0) // 64 + 1) if step.nodes else []
    for node in step.nodes:
        words[node // 64] |= 1 << node % 64
    mask = on.program.blob(_struct.pack(f"={len(words)}Q", *words))
    on.program.add(step, "MEMORY_POLICY", step.mode, mask, len(words) * 64 + 1 if words else 0)


def _label(on: _Lowering, step: steps.LsmLabel) -> None:
    program = on.program
    label = step.label.encode("utf-8", "surrogateescape")
    plain = program.text("thread-self/attr/exec")
    place = plain
    if step.lsm == "apparmor":
        # Since Linux 5.8 AppArmor has its own directory; before that, and without other modules, it is this
        # one.
        place = program.text("thread-self/attr/apparmor/exec")
        label = b"exec " + label
    slot = program.slot("procfs")
    program.add(step, "PROCFS", slot)
    program.add(step, "WRITE_BELOW", slot, place, plain, program.blob(label))


def _terminal(on: _Lowering, step: steps.Terminal) -> None:
    program = on.program
    slave = program.slot("slave")
    program.add(step, "TERMINAL", program.slot("devpts"), slave, program.blob(on.given.size), on.given.clean)
    program.add(step, "TAKE_TERMINAL", slave, on.uid)


def _close(on: _Lowering, step: steps.CloseDescriptors) -> None:
    # This is the last use of a file of the container: a filter may refuse openat2 later.
    if not _names_home(on.plan):
        on.program.add(step, "HOME", on.uid)
    on.program.keep(step, on.first, on.stay)


def _cwd(on: _Lowering, step: steps.Cwd) -> None:
    on.program.add(step, "CWD", cwd(on.program, step, step.path))


def cwd(program: Program, step: steps.Step, path: str) -> int:
    """Return the working directory as an argument.

    Raises:
        Failure: it is not absolute.

    """
    if not path.startswith("/"):
        raise Failure("Cwd must be an absolute path", pointer=step.pointer)
    return text(program, step, path)


def _seccomp(on: _Lowering, step: steps.Seccomp) -> None:
    found = on.given.filters[id(step)]
    listener = 0
    if found.flags & SECCOMP_FILTER_FLAG_NEW_LISTENER:
        listener = 1 if found.sendmsg else 2
    on.program.add(step, "SECCOMP", found.flags, on.program.blob(found.bpf), listener, found.clock)


def _rlimit(on: _Lowering, step: steps.Rlimit) -> None:
    on.program.add(step, "RLIMIT", step.number, min(step.soft, _LIMIT), min(step.hard, _LIMIT))


def _identity(on: _Lowering, step: steps.Identity) -> None:
    add = on.program.add
    keep_capabilities = step.bounding is not None and step.uid != 0
    add(step, "STDIO_OWNER", step.uid)
    if step.bounding is not None:
        add(step, "BOUNDING", step.bounding)
    if keep_capabilities:
        add(step, "PRCTL", PR_SET_KEEPCAPS, 1)
    if step.gids is not None:
        add(step, "GROUPS", on.program.blob(_struct.pack(f"={len(step.gids)}I", *step.gids)))
    add(step, "GROUP", step.gid)
    add(step, "USER", step.uid)
    if step.bounding is not None:
        add(step, "CAPABILITIES", step.effective, step.permitted, step.inheritable)
    if keep_capabilities:
        add(step, "PRCTL", PR_SET_KEEPCAPS, 0)
    # What the configuration does not have stays unchanged, except what may come from the caller.
    add(step, "AMBIENT", step.ambient)
    if step.no_new_privileges:
        add(step, "PRCTL", PR_SET_NO_NEW_PRIVS, 1)
    add(step, "UMASK", step.umask)


def _program(on: _Lowering, step: steps.Program) -> None:
    if not step.args:
        raise Failure("args must not be empty", pointer=step.pointer)
    if not step.args[0]:  # engines look for these words: there is no such command
        message = 'exec: "": executable file not found in $PATH'
        raise Failure(message, pointer=step.pointer, hint="the first word, the program's name, is empty")
    for each in on.plan.child:
        if isinstance(each, steps.Cwd):  # by now the process has its user, who alone may be able to go there
            on.program.add(each, "CWD_AGAIN", text(on.program, each, each.path))
    on.program.add(step, "FIND", words(on.program, step, candidates(step)))


def execute(program: Program, plan: steps.Plan) -> None:
    """Append the end of a program: the execve."""
    step = next((step for step in plan.child if isinstance(step, steps.Program)), None)
    if step is None:  # there is nothing to execute; only `start` reports that
        program.add(plan.namespaces, "EXEC", program.list(()), program.list(()))
        return
    # The user's home directory is used if the environment has none.
    env = [word for word in step.env if word != "HOME="]
    program.add(step, "EXEC", words(program, step, step.args), words(program, step, env))


def candidates(step: steps.Program) -> list[str]:
    """Return the paths to try for the program, as execvp(3) does with the process's PATH."""
    name = step.args[0]
    if "/" in name:
        return [name]
    path = ""
    for word in step.env:
        if word.startswith("PATH="):
            path = word[5:]
    return [f"{directory or '.'}/{name}" for directory in path.split(":")] if path else []


def text(program: Program, step: steps.Step, word: str) -> int:
    """Return a string as an argument.

    Raises:
        Failure: it has a NUL inside.

    """
    try:
        return program.text(word)
    except ValueError:
        raise Failure(f"{word!r} has a NUL inside", pointer=step.pointer) from None


def words(program: Program, step: steps.Step, given: Iterable[str]) -> int:
    """Return a list of strings as an argument.

    Raises:
        Failure: as text().

    """
    found = list(given)
    for word in found:
        text(program, step, word)
    return program.list(found)


STATE_PID = 1 << 62  # replaced by the pid in a state that is written before there is one
_SECOND = 1_000_000_000
_LONGEST = (1 << 63) // _SECOND  # seconds that fit into nanoseconds


def _hooks(on: _Lowering, step: steps.Hooks) -> None:
    """Lower hooks that run in the process's namespaces; those without an environment get the process's."""
    own = next((each.env for each in on.plan.child if isinstance(each, steps.Program)), ())
    hooks(on.program, step, [word for word in own if word != "HOME="], on.given.state, home=True)


def hooks(
    program: Program,
    step: steps.Hooks | steps.ContainerHooks,
    default: Iterable[str],
    state: str,
    *,
    home: bool = False,
    here: bool = False,
) -> None:
    """Append the operations of hooks that run in the container.

    Args:
        program: the program to append to.
        step: the hooks.
        default: the environment of hooks without one.
        state: the state for their stdin, with STATE_PID instead of the pid.
        home: hooks without an environment also get the home directory of the process's user.
        here: they run in the working directory, and not in /.

    Raises:
        Failure: a string has a NUL inside.

    """
    before, _, after = state.partition(str(STATE_PID))
    default = list(default)
    for index, hook in enumerate(step.hooks):
        found: Mapping[str, Any] = hook
        path = found["path"]
        env = found.get("env")
        timeout = found.get("timeout")
        limit = 0 if timeout is None else int(min(timeout, _LONGEST) * _SECOND)
        program.add(
            step,
            "HOOK",
            words(program, step, [path, *(found.get("args") or [path])]),
            words(program, step, default if env is None else env),
            program.list([before, after]),
            program.blob(_struct.pack("=QQQ", limit, home and env is None, here)),
            tag=index,
        )


def _simple(name: str, field: str = "") -> Callable[[_Lowering, Any], None]:
    def lowered(on: _Lowering, step: Any) -> None:
        on.program.add(step, name, *([getattr(step, field)] if field else []))

    return lowered


_LOWER: dict[type[steps.Step], Callable[[_Lowering, Any], None]] = {
    steps.OwnNull: _simple("OWN_NULL"),
    steps.Keyring: _keyring,
    steps.Scheduler: _scheduler,
    steps.IoPriority: _simple("IO_PRIORITY", "value"),
    steps.Personality: _simple("PERSONALITY", "domain"),
    steps.MemoryPolicy: _memory_policy,
    steps.LsmLabel: _label,
    steps.Terminal: _terminal,
    steps.CloseDescriptors: _close,
    steps.Cwd: _cwd,
    steps.Seccomp: _seccomp,
    steps.Hooks: _hooks,
    steps.Rlimit: _rlimit,
    steps.Identity: _identity,
    steps.Program: _program,
}
