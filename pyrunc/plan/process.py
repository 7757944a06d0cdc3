"""The process: user, capabilities, limits, scheduling, and the program itself.

Used for the container's init and for `exec` alike. Source: runtime-spec config.md "Process", capabilities(7).
"""

from __future__ import annotations

from pyrunc.errors import Failure
from pyrunc.linux.flags import IOPRIO_CLASS_SHIFT
from pyrunc.plan import steps
from pyrunc.spec import meaning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Literal

    from pyrunc.spec.types import Process

CAPABILITIES = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_FOWNER": 3,
    "CAP_FSETID": 4,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
    "CAP_LINUX_IMMUTABLE": 9,
    "CAP_NET_BIND_SERVICE": 10,
    "CAP_NET_BROADCAST": 11,
    "CAP_NET_ADMIN": 12,
    "CAP_NET_RAW": 13,
    "CAP_IPC_LOCK": 14,
    "CAP_IPC_OWNER": 15,
    "CAP_SYS_MODULE": 16,
    "CAP_SYS_RAWIO": 17,
    "CAP_SYS_CHROOT": 18,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_PACCT": 20,
    "CAP_SYS_ADMIN": 21,
    "CAP_SYS_BOOT": 22,
    "CAP_SYS_NICE": 23,
    "CAP_SYS_RESOURCE": 24,
    "CAP_SYS_TIME": 25,
    "CAP_SYS_TTY_CONFIG": 26,
    "CAP_MKNOD": 27,
    "CAP_LEASE": 28,
    "CAP_AUDIT_WRITE": 29,
    "CAP_AUDIT_CONTROL": 30,
    "CAP_SETFCAP": 31,
    "CAP_MAC_OVERRIDE": 32,
    "CAP_MAC_ADMIN": 33,
    "CAP_SYSLOG": 34,
    "CAP_WAKE_ALARM": 35,
    "CAP_BLOCK_SUSPEND": 36,
    "CAP_AUDIT_READ": 37,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
    "CAP_CHECKPOINT_RESTORE": 40,
}
ALL_CAPABILITIES = (1 << len(CAPABILITIES)) - 1

# asm-generic/resource.h; the numbers are the same on all architectures of pyrunc except alpha, mips and
# sparc.
RLIMITS = {
    "RLIMIT_CPU": 0,
    "RLIMIT_FSIZE": 1,
    "RLIMIT_DATA": 2,
    "RLIMIT_STACK": 3,
    "RLIMIT_CORE": 4,
    "RLIMIT_RSS": 5,
    "RLIMIT_NPROC": 6,
    "RLIMIT_NOFILE": 7,
    "RLIMIT_MEMLOCK": 8,
    "RLIMIT_AS": 9,
    "RLIMIT_LOCKS": 10,
    "RLIMIT_SIGPENDING": 11,
    "RLIMIT_MSGQUEUE": 12,
    "RLIMIT_NICE": 13,
    "RLIMIT_RTPRIO": 14,
    "RLIMIT_RTTIME": 15,
}

POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
SCHED_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
MAX_GROUPS = 65536  # NGROUPS_MAX
PERSONALITIES = {"LINUX": 0x0000, "LINUX32": 0x0008}
MEMORY_MODES = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
MEMORY_FLAGS = {
    "MPOL_F_STATIC_NODES": 1 << 15,
    "MPOL_F_RELATIVE_NODES": 1 << 14,
    "MPOL_F_NUMA_BALANCING": 1 << 13,
}


def capability_mask(names: object, available: int) -> int:
    """Return the bits of the named capabilities that can be granted.

    The specification wants no failure for one that is unknown or cannot be granted.
    """
    mask = 0
    for name in names if isinstance(names, (list, tuple)) else ():
        number = CAPABILITIES.get(name)
        if number is not None:
            mask |= 1 << number
    return mask & available


def _meant(name: str) -> str:
    """Return a guess at a name without its prefix, capital letters or an underscore."""
    bare = name.upper().removeprefix("CAP_").replace("_", "")
    near = [known for known in CAPABILITIES if known[4:].replace("_", "") == bare and known != name]
    return f' (did you mean "{near[0]}"?)' if near else ""


_SETS: tuple[Literal["bounding", "effective", "permitted", "inheritable", "ambient"], ...] = (
    "bounding",
    "effective",
    "permitted",
    "inheritable",
    "ambient",
)


# Also used by `validate` (spec/slips.py).
USER_BY_NAME = f"/process/user/username: {meaning.USER_BY_NAME}"


def warnings(process: Process, available: int) -> tuple[str, ...]:
    """Return warnings about what a process asks for and does not get.

    These are capabilities that are unknown or cannot be granted, where config.md wants a warning, and a user
    given only by name. One line for all of a kind: engines that give ten ambient capabilities and no
    inheritable ones (buildah) would print ten lines before the output of each RUN.
    """
    sets = process.get("capabilities") or {}
    named = {name for kind in _SETS for name in sets.get(kind) or ()}
    lost = sorted(name for name in named if not capability_mask((name,), available))
    warnings = [USER_BY_NAME] if meaning.only_named(process) else []
    if lost:
        words = " ".join(name + _meant(name) for name in lost)
        warnings.append("ignoring unknown or unavailable capabilities: " + words)
    inheritable = set(sets.get("inheritable") or ())
    ambient = [name for name in sets.get("ambient") or () if name not in inheritable and name not in lost]
    if len(ambient) == 1:
        warnings.append(f"can't raise ambient capability {ambient[0]}: it is not in the inheritable set")
    elif ambient:
        names = " ".join(ambient)
        warnings.append(f"can't raise ambient capabilities {names}: they are not in the inheritable set")
    return tuple(warnings)


# What a process of `exec --process` takes from the container's own one if it is absent: its restrictions. For
# the others to be absent has a meaning: no variables, user 0, no terminal. runc has the same list
# (libcontainer's newInitConfig), except noNewPrivileges: its decoder cannot tell false from absent, so that
# an absent one gives new privileges in a container that has none.
_FROM_CONTAINER: tuple[str, ...] = (
    "capabilities",
    "noNewPrivileges",
    "apparmorProfile",
    "selinuxLabel",
    "rlimits",
    "scheduler",
    "ioPriority",
    "oomScoreAdj",
    "execCPUAffinity",
)
# For these an empty value is as an absent one.
_OR_EMPTY = ("apparmorProfile", "selinuxLabel", "rlimits")


def over(given: Process, own: Process) -> Process:
    """Complete the process of a file with the container's own: an absent property never gives more rights.

    Args:
        given: the process object of `exec --process`, without nulls.
        own: the process object of the container's configuration.

    """
    found: dict[str, Any] = {**given}
    container: Mapping[str, Any] = own
    for name in _FROM_CONTAINER:
        if name in container and (name not in found or (name in _OR_EMPTY and not found[name])):
            found[name] = container[name]
    umask = (own.get("user") or {}).get("umask")
    if umask is not None:
        found["user"] = {"umask": umask, **(found.get("user") or {})}
    return found  # type: ignore[return-value]


# The umask of a process whose configuration has none, whatever the caller's is: a service manager's 0 must
# not make its files writable for everybody, and `exec` uses the same as the container's first process.
_UMASK = 0o022


def identity(process: Process, *, available: int) -> steps.Identity:
    """Return the step with user, groups and capabilities of the process.

    Args:
        process: config.json's process object.
        available: the capabilities that pyrunc can grant.

    """
    user = process.get("user") or {}
    capabilities = process.get("capabilities")
    bounding: int | None = None
    effective = permitted = inheritable = ambient = 0
    if capabilities is not None:
        bounding = capability_mask(capabilities.get("bounding"), available)
        named: Mapping[str, Any] = capabilities
        effective, permitted, inheritable, ambient = (
            capability_mask(named.get(name), available)
            for name in ("effective", "permitted", "inheritable", "ambient")
        )
        # The kernel refuses effective bits that are not permitted, and raises ambient bits only if they are
        # inheritable and permitted.
        effective &= permitted
        ambient &= permitted & inheritable
    given = user.get("umask")
    groups = tuple(user.get("additionalGids") or ())
    if len(groups) > MAX_GROUPS:
        text = f"{len(groups)} groups, where Linux takes {MAX_GROUPS} (setgroups(2))"
        raise Failure(text, pointer="/process/user/additionalGids")
    return steps.Identity(
        uid=user.get("uid") or 0,
        gid=user.get("gid") or 0,
        gids=groups,
        umask=_UMASK if given is None else given & 0o777,  # as umask(2) reads it
        bounding=bounding,
        effective=effective,
        permitted=permitted,
        inheritable=inheritable,
        ambient=ambient,
        no_new_privileges=bool(process.get("noNewPrivileges")),
        pointer="/process",
    )


def rlimits(process: Process) -> list[steps.Step]:
    """Return the resource limits, which the parent sets because the child may have no right to."""
    found: list[steps.Step] = []
    for index, limit in enumerate(process.get("rlimits") or ()):
        pointer = f"/process/rlimits/{index}"
        name = limit["type"]
        if name not in RLIMITS:
            raise Failure(f"wrong rlimit value: {name}", pointer=pointer + "/type")
        found.append(
            steps.Rlimit(
                name=name, number=RLIMITS[name], soft=limit["soft"], hard=limit["hard"], pointer=pointer
            )
        )
    return found


def attributes(process: Process, *, cpuset: bool = False) -> list[steps.Step]:
    """Return the steps that may be done in any order: scheduler, I/O priority."""
    found: list[steps.Step] = []
    scheduler = process.get("scheduler")
    if scheduler:
        found.append(
            steps.Scheduler(
                policy=POLICIES[scheduler["policy"]],
                flags=_either(scheduler.get("flags"), SCHED_FLAGS),
                nice=scheduler.get("nice") or 0,
                priority=scheduler.get("priority") or 0,
                runtime=scheduler.get("runtime") or 0,
                deadline=scheduler.get("deadline") or 0,
                period=scheduler.get("period") or 0,
                cpuset=cpuset,
                pointer="/process/scheduler",
            )
        )
    priority = process.get("ioPriority")
    if priority:
        value = IO_CLASSES[priority["class"]] << IOPRIO_CLASS_SHIFT | (priority.get("priority") or 0)
        found.append(steps.IoPriority(value=value, pointer="/process/ioPriority"))
    return found


def labels(process: Process) -> list[steps.Step]:
    """Return the LSM labels of the process."""
    found: list[steps.Step] = []
    if process.get("apparmorProfile"):
        found.append(
            steps.LsmLabel(
                lsm="apparmor", label=process["apparmorProfile"], pointer="/process/apparmorProfile"
            )
        )
    if process.get("selinuxLabel"):
        found.append(
            steps.LsmLabel(lsm="selinux", label=process["selinuxLabel"], pointer="/process/selinuxLabel")
        )
    return found


def terminal(process: Process, *, console: bool) -> list[steps.Step]:
    """Return the terminal step if the process has a terminal."""
    if not process.get("terminal"):
        return []
    size: Mapping[str, Any] = process.get("consoleSize") or {}
    return [
        steps.Terminal(
            width=size.get("width") or 0,
            height=size.get("height") or 0,
            console=console,
            pointer="/process/terminal",
        )
    ]


def program(process: Process) -> steps.Program:
    """Return the program; the last value of a variable counts."""
    env: dict[str, str] = {}
    for word in process.get("env") or ():
        name, _, value = word.partition("=")
        env[name] = value
    return steps.Program(
        args=tuple(process.get("args") or ()),
        env=tuple(f"{name}={value}" for name, value in env.items()),
        pointer="/process/args",
    )


def _either(names: object, table: dict[str, int]) -> int:
    bits = 0
    for name in names if isinstance(names, (list, tuple)) else ():
        bits |= table[name]
    return bits


def memory_policy(policy: object) -> list[steps.Step]:
    """Return the NUMA memory policy step (linux.memoryPolicy, runtime-spec 1.3; set_mempolicy(2))."""
    if not isinstance(policy, dict) or not policy.get("mode"):
        return []
    mode = MEMORY_MODES[policy["mode"]] | _either(policy.get("flags"), MEMORY_FLAGS)
    nodes = tuple(sorted(meaning.cpu_list(policy.get("nodes") or "")))
    return [steps.MemoryPolicy(mode=mode, nodes=nodes, pointer="/linux/memoryPolicy")]
