"""linux.seccomp as data: names become the kernel's numbers; mistakes become a Failure with their place.

Law 1: all is decided here (which action for which call); apply/seccomp lets libseccomp compile it. Sources:
runtime-spec config-linux.md "Seccomp" (1.3), seccomp(2), linux/seccomp.h of Linux 6.18. Only the tables below
have the names of the section: `features` reads them from here.
"""

from __future__ import annotations

from errno import EPERM

from pyrunc.errors import Failure
from pyrunc.linux.flags import (
    SECCOMP_FILTER_FLAG_LOG,
    SECCOMP_FILTER_FLAG_NEW_LISTENER,
    SECCOMP_FILTER_FLAG_SPEC_ALLOW,
    SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
    SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO,
    SECCOMP_RET_KILL_PROCESS,
    SECCOMP_RET_KILL_THREAD,
    SECCOMP_RET_LOG,
    SECCOMP_RET_TRACE,
    SECCOMP_RET_TRAP,
    SECCOMP_RET_USER_NOTIF,
)
from pyrunc.plan.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    # (argument index, operator as in COMPARISONS, value, second value: what to compare with after masking)
    Condition: TypeAlias = tuple[int, int, int, int]
    # (action, names of the calls, alternatives of conditions: one is enough, index in linux.seccomp.syscalls)
    Rule: TypeAlias = tuple[int, list[str], tuple[tuple[Condition, ...], ...], int]

ACTIONS = {
    "SCMP_ACT_ALLOW": SECCOMP_RET_ALLOW,
    "SCMP_ACT_ERRNO": SECCOMP_RET_ERRNO,
    "SCMP_ACT_KILL": SECCOMP_RET_KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": SECCOMP_RET_KILL_PROCESS,
    "SCMP_ACT_KILL_THREAD": SECCOMP_RET_KILL_THREAD,
    "SCMP_ACT_LOG": SECCOMP_RET_LOG,
    "SCMP_ACT_NOTIFY": SECCOMP_RET_USER_NOTIF,
    "SCMP_ACT_TRACE": SECCOMP_RET_TRACE,
    "SCMP_ACT_TRAP": SECCOMP_RET_TRAP,
}

# The numbers are libseccomp's enum scmp_compare.
COMPARISONS = {
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_MASKED_EQ": 7,
    "SCMP_CMP_NE": 1,
}

# The second word is the name libseccomp knows the architecture by (seccomp_arch_resolve_name).
ARCHITECTURES = {
    "SCMP_ARCH_AARCH64": "aarch64",
    "SCMP_ARCH_ARM": "arm",
    "SCMP_ARCH_LOONGARCH64": "loongarch64",
    "SCMP_ARCH_M68K": "m68k",
    "SCMP_ARCH_MIPS": "mips",
    "SCMP_ARCH_MIPS64": "mips64",
    "SCMP_ARCH_MIPS64N32": "mips64n32",
    "SCMP_ARCH_MIPSEL": "mipsel",
    "SCMP_ARCH_MIPSEL64": "mipsel64",
    "SCMP_ARCH_MIPSEL64N32": "mipsel64n32",
    "SCMP_ARCH_PARISC": "parisc",
    "SCMP_ARCH_PARISC64": "parisc64",
    "SCMP_ARCH_PPC": "ppc",
    "SCMP_ARCH_PPC64": "ppc64",
    "SCMP_ARCH_PPC64LE": "ppc64le",
    "SCMP_ARCH_RISCV64": "riscv64",
    "SCMP_ARCH_S390": "s390",
    "SCMP_ARCH_S390X": "s390x",
    "SCMP_ARCH_SH": "sh",
    "SCMP_ARCH_SHEB": "sheb",
    "SCMP_ARCH_X32": "x32",
    "SCMP_ARCH_X86": "x86",
    "SCMP_ARCH_X86_64": "x86_64",
}

# Flags of seccomp(2). TSYNC changes nothing: the process that loads the filter has one thread.
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": SECCOMP_FILTER_FLAG_SPEC_ALLOW,
    "SECCOMP_FILTER_FLAG_LOG": SECCOMP_FILTER_FLAG_LOG,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
}

# linux/bpf_common.h, linux/err.h: the kernel silently reduces a larger errno to this.
MAX_ERRNO = 4095
MAX_ARGUMENT = 5


class Filter(Record):
    """A lowered seccomp section.

    default and the first member of a rule are what the kernel is answered (action and errno in one number),
    flags is the argument of seccomp(2), rules leaves out what only repeats the default. mentioned has the
    names of the rules left out: they still tell which calls the profile's author knew. strict refuses names
    that libseccomp does not know, instead of leaving them out.
    """

    default: int
    architectures: tuple[str, ...]
    flags: int
    rules: tuple[Rule, ...]
    mentioned: tuple[str, ...]
    listener: str
    metadata: str
    pointer: str
    strict: bool = False

    def describe(self) -> str:
        """Return the filter as one line for `pyrunc plan`."""
        calls = sum(len(names) for _action, names, _conditions, _errno in self.rules)
        words = [f"default {action_name(self.default)}", f"{len(self.rules)} rules for {calls} system calls"]
        words.append("for " + ", ".join(self.architectures or ("the native architecture",)))
        flags = [name for name, bit in FLAGS.items() if bit & self.flags]
        if flags:
            words.append("with " + ", ".join(flags))
        if self.flags & SECCOMP_FILTER_FLAG_NEW_LISTENER:
            words.append(f"listener {self.listener}")
        return "seccomp filter: " + "; ".join(words)

    def text(self) -> str:
        """Return all that the compiled filter depends on: one text for one filter, for the cache's key.

        repr runs in C and quotes each string, so two different filters cannot have one text.
        """
        return repr((self.default, self.architectures, self.rules, self.mentioned))

    def always_allows(self, name: str) -> bool:
        """Tell whether a call is allowed whatever its arguments are."""
        allowed = self.default in (SECCOMP_RET_ALLOW, SECCOMP_RET_LOG)
        for action, names, alternatives, _index in self.rules:
            if name in names:
                if action not in (SECCOMP_RET_ALLOW, SECCOMP_RET_LOG):
                    return False
                allowed = allowed or not alternatives
        return allowed


def action_name(action: int) -> str:
    """Return the word for an action, with its errno: "SCMP_ACT_ERRNO(38)"."""
    kind = action & ~0xFFFF
    for name, value in ACTIONS.items():
        if value == kind and name != "SCMP_ACT_KILL":
            return f"{name}({action & 0xFFFF})" if kind in (SECCOMP_RET_ERRNO, SECCOMP_RET_TRACE) else name
    return hex(action)


def lower(section: dict[str, Any] | None, pointer: str = "/linux/seccomp") -> Filter | None:
    """Translate a linux.seccomp section whose types have been checked (spec/accept.py).

    Args:
        section: the section, or None.
        pointer: its place in config.json.

    Returns:
        The filter, or None if seccomp is off: no section, or one with neither default action nor rules, with
            which engines mean "unconfined".

    Raises:
        Failure: an unknown name, an errno for an action without one, or a notification that no agent
            receives.

    """
    if not section or not (section.get("defaultAction") or section.get("syscalls")):
        return None
    default = _action(section.get("defaultAction", ""), section.get("defaultErrnoRet"), pointer, "default")
    if default == SECCOMP_RET_USER_NOTIF:
        raise Failure("SCMP_ACT_NOTIFY cannot be used as default action", pointer=pointer + "/defaultAction")
    flags = _flags(section.get("flags"), pointer + "/flags")
    rules: list[Rule] = []
    mentioned: list[str] = []
    for index, entry in enumerate(section.get("syscalls") or ()):
        place = f"{pointer}/syscalls/{index}"
        action = _action(entry["action"], entry.get("errnoRet"), place, "")
        names = entry["names"]
        if action == default:
            # libseccomp refuses such a rule with EACCES or EEXIST, which reads like missing rights.
            mentioned += names
            continue
        if action == SECCOMP_RET_USER_NOTIF:
            if "write" in names:
                # The child tells the parent about the listener with write(2): that call could not be
                # answered.
                text = "SCMP_ACT_NOTIFY cannot be used for the write syscall"
                raise Failure(text, pointer=f"{place}/names/{names.index('write')}")
            flags |= SECCOMP_FILTER_FLAG_NEW_LISTENER
        rules.append((action, names, _alternatives(entry.get("args"), place), index))
    listener = section.get("listenerPath") or ""
    metadata = section.get("listenerMetadata") or ""
    _check_listener(flags, listener, metadata, pointer)
    return Filter(
        default=default,
        architectures=_architectures(section.get("architectures"), pointer),
        flags=flags,
        rules=tuple(rules),
        mentioned=tuple(mentioned),
        listener=listener,
        metadata=metadata,
        pointer=pointer,
    )


def process_state(lowered: Filter, *, version: str, pid: int, state: dict[str, object]) -> dict[str, object]:
    """Return the container process state that the seccomp agent gets with the listener's descriptor.

    Source: config-linux.md "The Container Process State".

    Args:
        lowered: the filter.
        version: the version of the specification the message complies with.
        pid: the process that carries the filter, as the runtime sees it.
        state: the container's state (runtime.md "State"); its status is "creating" for the init process.

    """
    message: dict[str, object] = {"ociVersion": version, "fds": ["seccompFd"], "pid": pid}
    if lowered.metadata:
        message["metadata"] = lowered.metadata
    message["state"] = state
    return message


def _action(word: str, errno: int | None, pointer: str, prefix: str) -> int:
    action = ACTIONS.get(word)
    if action is None:
        place = "/defaultAction" if prefix else "/action"
        raise Failure(f"string {word} is not a valid action for seccomp", pointer=pointer + place)
    if action in (SECCOMP_RET_ERRNO, SECCOMP_RET_TRACE):
        limit = MAX_ERRNO if action == SECCOMP_RET_ERRNO else 0xFFFF
        if errno is None:
            return action | EPERM
        if errno <= limit:
            return action | errno
        text = f"{errno} does not fit into the answer of {word}: at most {limit}"
    elif errno is None:
        return action
    else:
        text = f"{word} has no errno to return"
    raise Failure(text, pointer=pointer + ("/defaultErrnoRet" if prefix else "/errnoRet"))


def _flags(words: list[str] | None, pointer: str) -> int:
    if words is None:
        # As in runc: without `flags` a process is not slowed down by speculation barriers; [] asks for them.
        return FLAGS["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]
    flags = 0
    for index, word in enumerate(words):
        if word not in FLAGS:
            raise Failure(f"seccomp flag {word} is not known to pyrunc", pointer=f"{pointer}/{index}")
        flags |= FLAGS[word]
    return flags


def _architectures(words: list[str] | None, pointer: str) -> tuple[str, ...]:
    for index, word in enumerate(words or ()):
        if word not in ARCHITECTURES:
            place = f"{pointer}/architectures/{index}"
            raise Failure(f"string {word} is not a valid arch for seccomp", pointer=place)
    # dict keeps the order and drops repetitions, which libseccomp refuses with EEXIST.
    return tuple(dict.fromkeys(words or ()))


def _alternatives(args: list[dict[str, Any]] | None, pointer: str) -> tuple[tuple[Condition, ...], ...]:
    """Return the alternatives of a rule's conditions; () means always.

    Conditions on different arguments must all be true. libseccomp cannot combine two on the same argument; as
    in runc each condition is then a rule of its own, so that one of them is enough.
    """
    if not args:
        return ()
    conditions: list[Condition] = []
    for index, arg in enumerate(args):
        operator = COMPARISONS.get(arg["op"])
        if operator is None:
            text = f"string {arg['op']} is not a valid operator for seccomp"
            raise Failure(text, pointer=f"{pointer}/args/{index}/op")
        if not 0 <= arg["index"] <= MAX_ARGUMENT:
            text = f"a system call has no argument {arg['index']}: they are numbered 0 to {MAX_ARGUMENT}"
            raise Failure(text, pointer=f"{pointer}/args/{index}/index")
        conditions.append((arg["index"], operator, arg["value"], arg.get("valueTwo") or 0))
    if len({arg["index"] for arg in args}) < len(args):
        return tuple((condition,) for condition in conditions)
    return (tuple(conditions),)


def _check_listener(flags: int, listener: str, metadata: str, pointer: str) -> None:
    if metadata and not listener:
        raise Failure("listenerMetadata needs a listenerPath", pointer=pointer + "/listenerMetadata")
    if flags & SECCOMP_FILTER_FLAG_NEW_LISTENER and not listener:
        text = "SCMP_ACT_NOTIFY needs listenerPath, the socket of the agent that answers"
        raise Failure(text, pointer=pointer + "/listenerPath")
    if flags & SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV and not flags & SECCOMP_FILTER_FLAG_NEW_LISTENER:
        # seccomp(2) would return EINVAL.
        text = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs a rule with SCMP_ACT_NOTIFY"
        raise Failure(text, pointer=pointer + "/flags")
