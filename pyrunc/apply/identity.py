"""Root of a user namespace, resource limits, the OOM score; messages for what the init program cannot set.

Sources: credentials(7), capabilities(7), user_namespaces(7).
"""

from __future__ import annotations

import os
from errno import EACCES, EINVAL, EPERM, EROFS

from pyrunc import files, log
from pyrunc.errors import Failure
from pyrunc.linux import _linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.steps import OomScore, Rlimit

NO_GROUPS = (
    "cannot set any additional groups in a rootless container",
    "this user namespace denies setgroups: give it groups of /etc/subgid in /linux/gidMappings",
)
_INFINITY = (1 << 64) - 1  # RLIM_INFINITY


def become_root() -> None:
    """Become user and group 0 of the user namespace that was just entered; drop the caller's groups.

    If the namespace denies setgroups (user_namespaces(7)), the groups stay, without names inside. If it does
    not map 0, so do user and group: such a process keeps its capabilities, but can make no files (EOVERFLOW).
    """
    try:
        os.setgroups([])
    except OSError as exc:
        if exc.errno != EPERM:
            raise
    for change in (os.setresgid, os.setresuid):
        try:
            change(0, 0, 0)
        except OSError as exc:
            if exc.errno != EINVAL:
                raise


def cwd_failure(path: str, errno: int) -> Failure:
    """Return the Failure for a working directory that cannot be entered."""
    hint = "it is not there, and cannot be made in a read-only file system" if errno == EROFS else ""
    message = f'chdir to cwd ("{path}") set in config.json failed'
    return Failure(message, pointer="/process/cwd", errno=errno, hint=hint)


def set_rlimit(pid: int, step: Rlimit) -> None:
    """Set one limit of a process, 0 for ourselves (prlimit(2)).

    Raises:
        Failure: naming the limit and why the kernel refuses it.

    """
    try:
        _linux.prlimit(pid, step.number, (step.soft, step.hard))
    except OSError as exc:
        hard = _linux.prlimit(pid, step.number, None)[1]
        raise rlimit_failure(step, exc.errno or 0, hard) from None


def rlimit_failure(step: Rlimit, errno: int, hard: int) -> Failure:
    """Return the Failure for a refused limit; hard is the present hard limit, -1 or 2**64 - 1 for none."""
    if step.soft > step.hard:
        hint, errno = "the soft limit is above the hard one", EINVAL
    else:
        shown = "unlimited" if hard in (-1, _INFINITY) else str(hard)
        hint = f"the hard limit here is {shown}, raising it needs CAP_SYS_RESOURCE"
    message = f"set {step.name} to {step.soft}:{step.hard}"
    return Failure(message, pointer=step.pointer, errno=errno, hint=hint)


def set_oom_score(pid: int, step: OomScore) -> None:
    """Write a process's oom_score_adj.

    If a caller without the host's rights cannot lower it, that is a warning and no failure.

    Raises:
        Failure: the kernel refuses.

    """
    try:
        files.write(f"/proc/{pid}/oom_score_adj", str(step.value).encode())
    except OSError as exc:
        from pyrunc.apply import facts

        if exc.errno in (EPERM, EACCES) and not facts.host_root():
            log.warn(f"{step.pointer}: not applied, lowering it to {step.value} needs CAP_SYS_RESOURCE")
            return
        raise Failure(
            f"set oom_score_adj to {step.value}",
            pointer=step.pointer,
            errno=exc.errno or 0,
            hint="lowering it needs CAP_SYS_RESOURCE",
        ) from None


def not_in_path(name: str, env: tuple[str, ...], denied: str, why: str) -> Failure:
    """Return the Failure for a program that is not in PATH; denied: a file that is, but is refused."""
    path = ""
    for word in env:
        if word.startswith("PATH="):
            path = word[5:]
    hint = f"PATH is {path}" if path else "the process's env sets no PATH"
    if denied:
        hint = why or f"{denied} is there, but it is not executable"
    elif " " in name:
        hint = "each word of a command is an argument of its own"
    message = f'exec: "{name}": executable file not found in $PATH'
    return Failure(message, step="unable to start container process", hint=hint)
