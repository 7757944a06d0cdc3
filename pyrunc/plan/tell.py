"""A container in sentences: what it is, what it may do and not do, its limits: `pyrunc explain ID`.

Law 1: from the configuration and the container's plan, in the words of plan/show.py. Slow path: it may take
its time.
"""

from __future__ import annotations

from pyrunc.plan import mount_steps, namespaces, process, show, steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.spec.types import Config

    # A title, and sentences.
    Section = tuple[str, list[str]]

# capabilities(7), in a few words: a process that has it may ...
CAPABILITIES = {
    "CAP_AUDIT_CONTROL": "change what the kernel audits",
    "CAP_AUDIT_READ": "read the audit log",
    "CAP_AUDIT_WRITE": "write to the audit log",
    "CAP_BLOCK_SUSPEND": "keep the machine from sleeping",
    "CAP_BPF": "load BPF programs",
    "CAP_CHECKPOINT_RESTORE": "checkpoint and restore processes",
    "CAP_CHOWN": "change owners of files",
    "CAP_DAC_OVERRIDE": "pass over the modes of files",
    "CAP_DAC_READ_SEARCH": "read all files, whatever their modes",
    "CAP_FOWNER": "do what only a file's owner may",
    "CAP_FSETID": "keep set-user-ID bits of files it changes",
    "CAP_IPC_LOCK": "keep memory from being swapped",
    "CAP_IPC_OWNER": "pass over the modes of System V IPC",
    "CAP_KILL": "signal processes of other users",
    "CAP_LEASE": "take leases on files of others",
    "CAP_LINUX_IMMUTABLE": "make files immutable, and undo it",
    "CAP_MAC_ADMIN": "configure SELinux or Smack",
    "CAP_MAC_OVERRIDE": "pass over SELinux or Smack",
    "CAP_MKNOD": "make device nodes",
    "CAP_NET_ADMIN": "configure its network",
    "CAP_NET_BIND_SERVICE": "listen on ports below 1024",
    "CAP_NET_BROADCAST": "broadcast, and listen to multicasts",
    "CAP_NET_RAW": "send any packet, and see those of others",
    "CAP_PERFMON": "measure the whole machine",
    "CAP_SETFCAP": "give capabilities to files",
    "CAP_SETGID": "change its groups",
    "CAP_SETPCAP": "change its sets of capabilities",
    "CAP_SETUID": "become any user",
    "CAP_SYSLOG": "read the kernel's messages, with addresses",
    "CAP_SYS_ADMIN": "mount file systems, and much else: close to the host's root",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "load kernel modules: the host's root",
    "CAP_SYS_NICE": "raise priorities",
    "CAP_SYS_PACCT": "switch process accounting",
    "CAP_SYS_PTRACE": "look into other processes, and change them",
    "CAP_SYS_RAWIO": "speak to devices directly: the host's root",
    "CAP_SYS_RESOURCE": "raise limits",
    "CAP_SYS_TIME": "set the clock",
    "CAP_SYS_TTY_CONFIG": "configure terminals of others",
    "CAP_WAKE_ALARM": "wake the machine",
}

_SHARED = {
    "mount": "its mounts are the host's",
    "pid": "it sees the host's processes",
    "network": "its network is the host's",
    "ipc": "System V IPC and message queues are the host's",
    "uts": "its host name is the host's",
    "user": "its users are the host's: root in it is root",
    "cgroup": "it sees the host's tree of cgroups",
    "time": "its clocks are the host's",
}

_ACTIONS = {
    "SCMP_ACT_ALLOW": "are allowed",
    "SCMP_ACT_ERRNO": "fail",
    "SCMP_ACT_KILL": "end the thread",
    "SCMP_ACT_KILL_PROCESS": "end the program",
    "SCMP_ACT_KILL_THREAD": "end the thread",
    "SCMP_ACT_LOG": "are allowed, and logged",
    "SCMP_ACT_NOTIFY": "are put to an agent",
    "SCMP_ACT_TRACE": "are put to a debugger",
    "SCMP_ACT_TRAP": "send the program SIGSYS",
}


def tell(config: Config, plan: steps.Plan) -> list[Section]:
    """Return the sentences about a container.

    Args:
        config: its configuration.
        plan: the plan made from it.

    """
    return [
        ("It runs", _runs(config, plan)),
        ("It may", _may(config, plan)),
        ("It may not", _may_not(config, plan)),
        ("It has of its own", _own(config)),
        ("Its limits", _limits(config)),
        ("It sees", _sees(config, plan)),
        ("Around it", _around(config)),
    ]


def _runs(config: Config, plan: steps.Plan) -> list[str]:
    command: Any = config.get("process") or {}
    if not command:
        return ["nothing: there is no process in its configuration, so it cannot be started"]
    who = next(step for step in plan.child if isinstance(step, steps.Identity))
    groups = f", and groups {', '.join(map(str, who.gids))}" if who.gids else ""
    said = [
        "the program " + " ".join(command.get("args") or ["(none)"]),
        f"in the directory {command['cwd']}",
        f"as user {who.uid} and group {who.gid}{groups}; files it makes have umask {who.umask:04o}",
    ]
    if plan.terminal:
        said.append("with a terminal")
    said += [show.describe(step) for step in plan.child if isinstance(step, steps.LsmLabel)]
    return said


# What people ask about first, if a container does not have all capabilities.
_ASKED = ("CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_PTRACE", "CAP_SYS_MODULE", "CAP_MKNOD")


def _capabilities(plan: steps.Plan) -> list[str] | None:
    """Return the capabilities of the program after execve, None if they are the caller's."""
    who = next((step for step in plan.child if isinstance(step, steps.Identity)), None)
    if who is None or who.bounding is None:
        return None
    # capabilities(7), "Transformation of capabilities during execve()": a user other than root keeps the
    # ambient ones; root gets the bounding set, and with no_new_privs nothing that was not permitted before.
    mask = who.ambient if who.uid else who.bounding | who.inheritable
    if not who.uid and who.no_new_privileges:
        mask &= who.permitted
    return [name for name, number in process.CAPABILITIES.items() if mask >> number & 1]


def _may(config: Config, plan: steps.Plan) -> list[str]:
    had = _capabilities(plan)
    if had is None:
        said = ["what its caller may: no capabilities are configured"]
    elif len(had) == len(process.CAPABILITIES):
        said = ["everything: it has all capabilities"]
    else:
        said = [f"{CAPABILITIES[name]} ({name})" for name in had]
    command: Any = config.get("process") or {}
    if not command.get("noNewPrivileges"):
        said.append("get rights from set-user-ID programs, within its bounding set of capabilities")
    section: Any = (config.get("linux") or {}).get("seccomp")
    if not section or not section.get("defaultAction"):
        return [*said, "make every system call: there is no seccomp filter"]
    counted: dict[str, int] = {}
    for rule in section.get("syscalls") or ():
        counted[rule["action"]] = counted.get(rule["action"], 0) + len(rule["names"])
    rules = [f"{count} {_ACTIONS[action]}" for action, count in counted.items()]
    rules.append(f"all others {_ACTIONS[section['defaultAction']]}")
    return [*said, f"make system calls as its filter says: {', '.join(rules)}"]


def _may_not(config: Config, plan: steps.Plan) -> list[str]:
    had = _capabilities(plan)
    said = [] if had is None else [f"{CAPABILITIES[name]} ({name})" for name in _ASKED if name not in had]
    command: Any = config.get("process") or {}
    if command.get("noNewPrivileges"):
        said.append("get rights from set-user-ID programs")
    section: Any = config.get("root") or {}
    if section.get("readonly"):
        said.append("write to its root file system")
    masked = [step.path for step in plan.child if isinstance(step, steps.MaskedPath)]
    if masked:
        said.append("see what is at " + " ".join(masked))
    fixed = [step.path for step in plan.child if isinstance(step, steps.ReadonlyPath)]
    if fixed:
        said.append("write to " + " ".join(fixed))
    return said


def _own(config: Config) -> list[str]:
    paths = namespaces.paths(config)
    said = []
    new = [kind for kind, path in paths.items() if not path]
    if new:
        said.append("namespaces: " + ", ".join(new))
    said += [f"the {kind} namespace of {path}, which it joins" for kind, path in paths.items() if path]
    said += [
        f"no {kind} namespace: {text}"
        for kind, text in _SHARED.items()
        if kind not in paths and kind != "time"
    ]
    return said


def _limits(config: Config) -> list[str]:
    resources: Any = (config.get("linux") or {}).get("resources") or {}
    memory, cpu = resources.get("memory") or {}, resources.get("cpu") or {}
    said = [_amount("memory", memory.get("limit")), _amount("memory and swap", memory.get("swap"))]
    tasks = (resources.get("pids") or {}).get("limit")
    said.append(f"{tasks} tasks" if tasks is not None and tasks >= 0 else "any number of tasks")
    quota = cpu.get("quota") or 0
    if quota > 0:
        said.append(f"{quota / (cpu.get('period') or 100000):g} CPUs' time")
    else:
        said.append("all the CPU time it gets")
    if cpu.get("cpus"):
        said.append(f"on CPUs {cpu['cpus']}")
    command: Any = config.get("process") or {}
    said += [
        f"{limit['type']} {limit['soft']}, which it may raise to {limit['hard']}"
        for limit in command.get("rlimits") or ()
    ]
    return said


def _amount(what: str, number: int | None) -> str:
    if number is None or number < 0:
        return f"no limit of {what}"
    size, units = float(number), ["bytes", "KiB", "MiB", "GiB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{size:g} {units[0]} of {what}"


def _sees(config: Config, plan: steps.Plan) -> list[str]:
    said = []
    section: Any = config.get("root") or {}
    layered = any(
        isinstance(step, mount_steps.AttachRoot) and step.overlay is not None for step in plan.child
    )
    how = ", read-only" if section.get("readonly") else ", and may write to it"
    said.append(f"{plan.rootfs} as /{', through a writable layer of its own' if layered else how}")
    said += [show.describe(step) for step in plan.child if isinstance(step, mount_steps.Mount)]
    return said


def _around(config: Config) -> list[str]:
    hooks: Any = config.get("hooks") or {}
    said = [
        f"{kind} hooks run {' '.join(hook['path'] for hook in found)}"
        for kind, found in hooks.items()
        if found
    ]
    return said or ["no hooks run"]
