"""Error messages for a failed operation of the init program: what, where, and the kernel's answer.

Law 2: imported only after a failure. Law 5: the init program reports numbers. Their meaning is looked up
here, on the host. For some messages the parent also looks at the container's files, while the init waits.
"""

from __future__ import annotations

import _struct
import os
import sys
from errno import EACCES, EDQUOT, EINVAL, ENOSPC, EPERM

from pyrunc import store
from pyrunc.apply import identity, unstarted
from pyrunc.errors import Failure
from pyrunc.files import closing
from pyrunc.plan import program, steps
from pyrunc.plan.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from pyrunc.store import Container

    Words = tuple[str, str]
    Why = Callable[[str, int], str]

_START = "unable to start container process"
_PTS = (
    "",
    "open /dev/pts in the container",
    "/dev/pts in the container is not a devpts",
    "open /dev/pts/ptmx in the container",
    "/dev/pts/ptmx in the container is covered by another file",
    "unlock the terminal",
    "open the other side of /dev/pts/{}",
    "set up /dev/pts/{}",
    "hand over the terminal",
    "make the terminal the controlling one",
)
_NOT_DEVPTS, _COVERED = 2, 4


_HEAD = _struct.Struct("=IIIiQ")


class Report(Record):
    """A failed operation, as the init program reports it.

    Attributes:
        operation: index of the operation in the program.
        name: its name.
        tag: the number that plan/ gave the operation.
        errno: the kernel's answer.
        detail: more about the failure; its meaning depends on the operation (see pyrunc/init).
        said: more about the failure, as bytes.
        classic: mounts are made with mount(2).

    """

    operation: int
    name: str
    tag: int
    errno: int
    detail: int
    said: bytes
    classic: bool = False

    @classmethod
    def read(cls, payload: bytes) -> Report | None:
        """Read a report; None if it is malformed. A container may have sent it."""
        if len(payload) < _HEAD.size:
            return None
        operation, code, tag, errno, detail = _HEAD.unpack_from(payload)
        if code >= len(program.NAMES):
            return None
        return cls(
            operation=operation,
            name=program.NAMES[code],
            tag=tag,
            errno=errno,
            detail=detail,
            said=payload[_HEAD.size :],
        )


def failure(step: steps.Step, report: Report, why: Why = lambda _path, _errno: "") -> Failure:
    """Return the Failure for a report of the init program.

    Args:
        step: the step that the operation belongs to.
        report: the report.
        why: a function that finds out why a program cannot be started: path and error number -> a clause, ""
            if it finds nothing.

    """
    errno, detail = report.errno, report.detail
    if report.name == "FIND":
        return _not_found(step, errno, detail, why)
    if report.name == "EXEC":
        return _not_executed(step, errno, detail, why)
    if report.name == "HOOK" and isinstance(step, (steps.Hooks, steps.ContainerHooks)):
        return _hook(step, report, why)
    if report.name in ("SETNS", "TRY_SETNS") and isinstance(step, steps.Join):
        from pyrunc.apply import namespaces

        return namespaces.refused(step, errno)
    pointer = step.pointer
    if report.name in ("TERMINAL", "TAKE_TERMINAL"):
        kind = detail & 0xFFFFFFFF
        hint = ""
        if kind == _NOT_DEVPTS:
            hint = "a terminal needs an entry of type devpts with destination /dev/pts in /mounts"
        elif errno == ENOSPC:
            hint = "see /proc/sys/kernel/pty/max and the option max= of the devpts"
        found = 0 if kind in (_NOT_DEVPTS, _COVERED) else errno
        text = _PTS[kind] if 0 < kind < len(_PTS) else "make the process's terminal"
        return Failure(text.format(detail >> 32), pointer=pointer, errno=found, hint=hint)
    if report.name in ("CWD", "CWD_AGAIN") and isinstance(step, steps.Cwd):
        if detail:
            return Failure("the working directory is outside the root file system", pointer=pointer)
        return identity.cwd_failure(step.path, errno)
    if report.name == "RLIMIT" and isinstance(step, steps.Rlimit):
        return identity.rlimit_failure(step, errno, detail)
    if report.name == "CLOCKS":
        pointer = "/linux/timeOffsets"
    elif report.name == "CLONE" and report.tag:
        return Failure("make the container's namespaces", pointer="/linux/namespaces", errno=errno)
    text, hint = _WORDS.get(report.name, _enter)(step, errno)
    return Failure(text, pointer=pointer, errno=errno, hint=hint)


def waits(payload: bytes) -> bool:
    """Tell whether the sender of a report to `start` waits until its root is looked at: execve failed."""
    report = Report.read(payload)
    return report is not None and report.name == "EXEC"


def at_start(container: Container, payload: bytes) -> Failure:
    """Return the Failure for a report that `start` receives. Its step is in the container's configuration."""
    from pyrunc.plan import hooks, process

    report = Report.read(payload)
    if report is None:
        return Failure("the container's side sent a malformed error report")
    config: Any = store.load_config(container)
    step = steps.Step()
    if report.name == "EXEC" and config.get("process"):
        own = config["process"]
        step = process.program(own)
        every = (
            process.identity(own, available=process.ALL_CAPABILITIES),
            steps.Cwd(path=own["cwd"], pointer="/process/cwd"),
        )
        filtered = bool((config.get("linux") or {}).get("seccomp"))
        mapped = "user" in container.namespaces
        return failure(step, report, looking(every, container.pid, mapped=mapped, filtered=filtered))
    if report.name == "HOOK":
        step = next(iter(hooks.lower(config, "startContainer")), step)
    elif report.name == "SECCOMP":
        step = steps.Step(pointer="/linux/seccomp")
    return failure(step, report)


def _enter(_step: steps.Step, _errno: int) -> Words:
    return "enter the container", ""


def _plain(text: str) -> Callable[[steps.Step, int], Words]:
    return lambda _step, _errno: (text, "")


def _keyring(step: steps.Step, errno: int) -> Words:
    name = step.name if isinstance(step, steps.Keyring) else ""
    return f"unable to join session keyring {name}", keyring_hint(errno)


def keyring_hint(errno: int) -> str:
    """Return a hint for a keyring that cannot be joined; "" if the cause is not certain."""
    if errno == EDQUOT:
        return "raise /proc/sys/kernel/keys/maxkeys (root_maxkeys for root), or pass --no-new-keyring"
    if errno in {EPERM, EACCES}:
        return "pass --no-new-keyring where keyctl is forbidden, or where another user owns the keyring"
    return ""


def _scheduler(step: steps.Step, errno: int) -> Words:
    if isinstance(step, steps.Scheduler) and step.cpuset and errno == EPERM:
        # sched(7): a deadline task may not be confined to a part of its scheduling domain.
        return "process scheduler can't be used together with AllowedCPUs", ""
    return "set the process's scheduler", ""


def _affinity(step: steps.Step, _errno: int) -> Words:
    return f"run on CPUs {step.cpus if isinstance(step, steps.Affinity) else ''}", ""


def _label(step: steps.Step, _errno: int) -> Words:
    return label_words(step) if isinstance(step, steps.LsmLabel) else ("set the label", "")


def label_words(step: steps.LsmLabel) -> Words:
    """Return the name of the label that could not be set, and a hint."""
    name, loads = {"selinux": ("SELinux", "load_policy"), "apparmor": ("AppArmor", "apparmor_parser -r")}[
        step.lsm
    ]
    return (
        f"set {name} label {step.label!r}",
        f"is {name} enabled on this host, and is the label loaded ({loads})?",
    )


def _seccomp(_step: steps.Step, errno: int) -> Words:
    from pyrunc.apply.seccomp import filters

    return "loading the seccomp filter", filters.HINTS.get(errno, "")


def _groups(_step: steps.Step, errno: int) -> Words:
    if errno == EPERM:
        return identity.NO_GROUPS
    return "set the process's groups", ""


def _group(step: steps.Step, errno: int) -> Words:
    hint = "the id has no mapping in /linux/gidMappings" if errno == EINVAL else ""
    return f"set the process's group to {step.gid if isinstance(step, steps.Identity) else ''}", hint


def _user(step: steps.Step, errno: int) -> Words:
    hint = "the id has no mapping in /linux/uidMappings" if errno == EINVAL else ""
    return f"set the process's user to {step.uid if isinstance(step, steps.Identity) else ''}", hint


def _prctl(step: steps.Step, _errno: int) -> Words:
    return ("set no_new_privs" if isinstance(step, steps.Identity) else "enter the container"), ""


_WORDS: dict[str, Callable[[steps.Step, int], Words]] = {
    "PRCTL": _prctl,
    "AFFINITY": _affinity,
    "WRITE": _plain("join the container's cgroup"),
    "SETNS": _plain("join the container's namespaces"),
    "CHROOT": _plain("enter the container's root file system"),
    "CLONE": _plain("make a process in the container's pid namespace"),
    "UNSHARE": _plain("make a time or an ipc namespace"),
    "CLOCKS": _plain("set the clock offsets"),
    "KEYRING": _keyring,
    "SCHEDULER": _scheduler,
    "IO_PRIORITY": _plain("set the process's I/O priority"),
    "PERSONALITY": _plain("set the personality"),
    "MEMORY_POLICY": _plain("set the memory policy"),
    "PROCFS": _label,
    "WRITE_BELOW": _label,
    "SECCOMP": _seccomp,
    "BOUNDING": _plain("drop capabilities from the bounding set"),
    "GROUPS": _groups,
    "GROUP": _group,
    "USER": _user,
    "CAPABILITIES": _plain("set the process's capabilities"),
    "AMBIENT": _plain("set the process's capabilities"),
}

_NOT_THERE, _DIRECTORY, _NO_MODE = 1, 2, 3
_DAC_OVERRIDE = 1 << 1  # CAP_DAC_OVERRIDE


def looking(every: Sequence[steps.Step], pid: int, *, mapped: bool, filtered: bool) -> Why:
    """Return a function that finds out why a program cannot be started, from a waiting process's root.

    Args:
        every: all steps of the plan.
        pid: the process.
        mapped: it is in a user namespace: file owners have other ids here, so modes are not checked.
        filtered: a seccomp filter is in force.

    """
    who = next((step for step in every if isinstance(step, steps.Identity)), None)

    def why(path: str, errno: int) -> str:
        if who is None:
            return ""
        unbounded = who.uid == 0 if who.bounding is None else bool(who.effective & _DAC_OVERRIDE)
        try:
            root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return ""
        with closing(root):
            return unstarted.why(
                root,
                path,
                errno,
                uid=who.uid,
                gids={who.gid, *(who.gids or ())},
                override=mapped or unbounded,
                cwd=next((step.path for step in every if isinstance(step, steps.Cwd)), "/"),
                filtered=filtered,
            )

    return why


def _not_found(step: steps.Step, errno: int, detail: int, why: Why) -> Failure:
    from pyrunc.plan import program_process

    if not isinstance(step, steps.Program):
        return Failure("find the program", step=_START, errno=errno)
    name = step.args[0]
    problem, place = detail & 0xFFFFFFFF, (detail >> 32) - 1
    if "/" in name:
        if problem == _NOT_THERE:
            return Failure(f'exec: "{name}": stat {name}', step=_START, errno=errno, hint=why(name, errno))
        if problem == _DIRECTORY:  # with execve(2)'s own words after it, for engines look for them
            return Failure(f'exec: "{name}": is a directory', step=_START, errno=EACCES)
        return Failure(f'exec: "{name}": permission denied', step=_START, hint=why(name, EACCES))
    tried = program_process.candidates(step)
    denied = tried[place] if problem in (_NO_MODE, _NO_MODE + 1) and 0 <= place < len(tried) else ""
    return identity.not_in_path(name, step.env, denied, why(denied, EACCES) if denied else "")


def _not_executed(step: steps.Step, errno: int, detail: int, why: Why) -> Failure:
    from pyrunc.plan import program_process

    if isinstance(step, steps.Program):
        tried = program_process.candidates(step)
        path = tried[detail - 1] if 0 < detail <= len(tried) else step.args[0]
        return Failure(f"exec {path}", errno=errno, hint=why(path, errno))
    return Failure(
        "there is no process to start", pointer="/process", hint="config.json has no process section"
    )


_UNSTARTED, _EXITED, _SIGNALLED, _LATE = 1, 2, 3, 4
_LAST_SIGNAL = 64


def _hook(step: steps.Hooks | steps.ContainerHooks, report: Report, why: Why) -> Failure:
    from pyrunc.apply import hooks

    kind, value, took = report.detail & 0xFF, report.detail >> 8 & 0xFF, report.detail >> 32
    hook = step.hooks[report.tag] if report.tag < len(step.hooks) else {}
    which = step.kind if isinstance(step, steps.Hooks) else "createContainer"
    name, pointer = f"{which} hook #{report.tag}", f"/hooks/{which}/{report.tag}"
    if kind == _UNSTARTED:
        return hooks.not_started(name, pointer, hook, report.errno, why(str(hook.get("path")), report.errno))
    if kind not in (_EXITED, _SIGNALLED, _LATE) or (kind == _SIGNALLED and not 0 < value <= _LAST_SIGNAL):
        return Failure(f"error running {name}", pointer=pointer, errno=report.errno)
    size = int.from_bytes(report.said[:4], sys.byteorder)
    outputs = report.said[4 : 4 + size], report.said[8 + size :]
    problem = hooks.late(hook)
    if kind != _LATE:
        problem = hooks.ended_by(-value if kind == _SIGNALLED else value)
    return hooks.failed(name, pointer, hook, problem, outputs, took=took / 1000)
