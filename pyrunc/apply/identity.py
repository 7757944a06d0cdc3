"""Become the process: working directory, user, groups, capabilities, program.

The order inside become() is the one in which nothing is ever held longer than needed nor dropped too early
(credentials(7), capabilities(7)): bounding set, keepcaps, groups, gid, uid, capability sets, ambient set,
no_new_privs.
"""

from __future__ import annotations

import _stat as stat
import os

import _prctl

from pyrunc import cli
from pyrunc.apply import target
from pyrunc.errors import Failure, strerror
from pyrunc.linux import _linux, flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

    from pyrunc.apply.child import Child
    from pyrunc.plan.steps import Cwd, Identity, OomScore, Program, Rlimit

_ENOENT, _EACCES, _EPERM, _EINVAL, _ENOEXEC, _ENOTDIR, _EROFS = 2, 13, 1, 22, 8, 20, 30
_PASSWD_LIMIT = 1 << 20
_EXECUTABLE = 0o111
NO_GROUPS = (
    "cannot set any additional groups in a rootless container",
    "this user namespace denies setgroups: give it groups of /etc/subgid in /linux/gidMappings",
)
_INFINITY = (1 << 64) - 1  # RLIM_INFINITY
_LAST = 63  # the kernel's capability sets have 64 bits


def become_root(uid: int, gid: int, *, keep_groups: bool = False) -> None:
    """Take user and group 0 of a user namespace just entered, and let go of the caller's other groups.

    One that denies setgroups (user_namespaces(7)) keeps the groups, which then have no names inside.

    Args:
        uid: whom to be in a namespace that maps no 0: who has no name there can make no file (EOVERFLOW).
            Capabilities stay: only leaving the namespace's root drops them (capabilities(7)).
        gid: the same for the group.
        keep_groups: keep the groups, although the namespace would let them go.

    """
    try:
        if not keep_groups:
            os.setgroups([])
    except OSError as exc:
        if exc.errno != _EPERM:
            raise
    for change, own in ((os.setresgid, gid), (os.setresuid, uid)):
        for number in (0, own):
            try:
                change(number, number, number)
            except OSError as exc:
                if exc.errno != _EINVAL:
                    raise
            else:
                break


def cwd(child: Child, step: Cwd) -> None:
    """Go to the working directory, made if missing; one only the process's user may enter is tried later."""
    child.cwd = step.path
    child.cwd_pending = True
    if not step.path.startswith("/"):
        raise Failure("Cwd must be an absolute path", pointer=step.pointer)
    try:
        try:
            os.chdir(step.path)
        except FileNotFoundError:
            _make_cwd(step.path)
    except OSError as exc:
        if exc.errno not in (_EACCES, _EPERM):
            raise cwd_failure(step.path, exc.errno or 0) from None
        return
    _check_cwd()
    child.cwd_pending = False


def _make_cwd(path: str) -> None:
    """Make the working directory and go there.

    An image chooses this path and what lies on the way: in a container that sees the host's processes,
    /proc/1/root leads to the host's tree, so it is made in-root and without magic links (CVE-2024-45310).
    """
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        made = target.make(root, path, "dir")
    finally:
        os.close(root)
    os.fchdir(made)
    os.close(made)


def _check_cwd() -> None:
    """Refuse a directory outside the root, of which the kernel says "(unreachable)/..." (CVE-2024-21626)."""
    if not _linux.getcwd().startswith(b"/"):
        raise Failure("the working directory is outside the root file system", pointer="/process/cwd")


def cwd_failure(path: str, errno: int) -> Failure:
    """Word a working directory that cannot be entered."""
    hint = "it is not there, and cannot be made in a read-only file system" if errno == _EROFS else ""
    message = f'chdir to cwd ("{path}") set in config.json failed'
    return Failure(message, pointer="/process/cwd", errno=errno, hint=hint)


def become(_child: Child, step: Identity) -> None:
    """Take on the process's user with its groups and capabilities."""
    own_stdio(step.uid)
    what = "drop capabilities from the bounding set"
    try:
        if step.bounding is not None:
            _drop_bounding(step.bounding)
            if step.uid != 0:
                _prctl.prctl(_prctl.PR_SET_KEEPCAPS, 1)
        what = "set the process's groups"
        _set_groups(step.gids)
        what = f"set the process's group to {step.gid}"
        os.setresgid(step.gid, step.gid, step.gid)
        what = f"set the process's user to {step.uid}"
        os.setresuid(step.uid, step.uid, step.uid)
        what = "set the process's capabilities"
        if step.bounding is not None:
            _linux.capset(step.effective, step.permitted, step.inheritable)
            if step.uid != 0:
                _prctl.prctl(_prctl.PR_SET_KEEPCAPS, 0)
            _linux.prctl(flags.PR_CAP_AMBIENT, flags.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
            for number in range(_LAST + 1):
                if step.ambient >> number & 1:
                    _linux.prctl(flags.PR_CAP_AMBIENT, flags.PR_CAP_AMBIENT_RAISE, number, 0, 0)
        what = "set no_new_privs"
        if step.no_new_privileges:
            _prctl.prctl(_prctl.PR_SET_NO_NEW_PRIVS, 1)
    except OSError as exc:
        hint = ""
        if exc.errno == _EPERM and what == "set the process's groups":
            what, hint = NO_GROUPS
        if exc.errno == _EINVAL and what.startswith("set the process's user"):
            hint = "the id has no mapping in /linux/uidMappings"
        elif exc.errno == _EINVAL and what.startswith("set the process's group"):
            hint = "the id has no mapping in /linux/gidMappings"
        raise Failure(what, pointer=step.pointer, errno=exc.errno or 0, hint=hint) from None
    if step.umask is not None:
        os.umask(step.umask)


_resource: ModuleType | None = None


def prepare_rlimits() -> None:
    """Import what limits need; by the parent, before the fork (law 6)."""
    global _resource  # noqa: PLW0603 - set once, in the parent
    import resource

    dir(resource)  # the installed command loads it only when it is asked for something
    _resource = resource


def rlimit(_child: Child, step: Rlimit) -> None:
    """Set one of our own limits."""
    set_rlimit(0, step)


def set_rlimit(pid: int, step: Rlimit) -> None:
    """Set one limit of a process, 0 for ourselves (prlimit(2)).

    Raises:
        Failure: naming the limit and why the kernel refuses it.

    """
    resource = _resource
    if resource is None:
        raise Failure("limits were not prepared for")
    try:
        resource.prlimit(pid, step.number, (_rlim(step.soft), _rlim(step.hard)))
    except (OSError, ValueError) as exc:
        # Python words a refused hard limit, EPERM, as a ValueError of its own.
        hard = resource.prlimit(pid, step.number)[1]
        raise rlimit_failure(step, getattr(exc, "errno", 0) or _EPERM, hard) from None


def rlimit_failure(step: Rlimit, errno: int, hard: int) -> Failure:
    """Word a refused limit; hard is the hard limit that is in force, -1 or 2**64 - 1 for none."""
    if step.soft > step.hard:
        hint, errno = "the soft limit is above the hard one", _EINVAL
    else:
        shown = "unlimited" if hard in (-1, _INFINITY) else str(hard)
        hint = f"the hard limit here is {shown}, raising it needs CAP_SYS_RESOURCE"
    message = f"set {step.name} to {step.soft}:{step.hard}"
    return Failure(message, pointer=step.pointer, errno=errno, hint=hint)


def set_oom_score(pid: int, step: OomScore) -> None:
    """Write a process's oom_score_adj; whoever is not the host's root is told that it could not be lowered.

    Raises:
        Failure: the kernel refuses.

    """
    try:
        fd = os.open(f"/proc/{pid}/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, str(step.value).encode())
        finally:
            os.close(fd)
    except OSError as exc:
        from pyrunc.apply import facts

        if exc.errno in (_EPERM, _EACCES) and not facts.host_root():
            cli.warn(f"{step.pointer}: not applied, lowering it to {step.value} needs CAP_SYS_RESOURCE")
            return
        raise Failure(
            f"set oom_score_adj to {step.value}",
            pointer=step.pointer,
            errno=exc.errno or 0,
            hint="lowering it needs CAP_SYS_RESOURCE",
        ) from None


def _rlim(value: int) -> int:
    """Return a limit as the resource module takes it: it calls infinity (2**64-1, unsigned) -1."""
    return -1 if value >= _INFINITY else value


def _drop_bounding(kept: int) -> None:
    for number in range(_LAST + 1):
        if kept >> number & 1:
            continue
        try:
            _linux.prctl(flags.PR_CAPBSET_DROP, number, 0, 0, 0)
        except OSError as exc:
            if exc.errno == _EINVAL:
                break  # beyond the last capability of this kernel
            raise


def _set_groups(gids: tuple[int, ...] | None) -> None:
    if gids is None:
        return
    try:
        os.setgroups(list(gids))
    except OSError as exc:
        if exc.errno != _EPERM or gids:
            raise


def own_stdio(uid: int) -> None:
    """Give the process's user the pipes and sockets that are its stdio, so that /dev/stdout can be opened.

    Devices (the host's terminal or null device) and files of the host stay whose they are.
    """
    for fd in (0, 1, 2):
        try:
            found = os.fstat(fd)
            if found.st_uid != uid and (stat.S_ISFIFO(found.st_mode) or stat.S_ISSOCK(found.st_mode)):
                os.fchown(fd, uid, -1)
        except OSError:
            continue  # closed, or from outside our user namespace: it works as it is


def home(child: Child, uid: int) -> str:
    """Return the user's home from the container's /etc/passwd, "/" without one.

    No NSS: it would load the container's libraries (CVE-2019-14271).
    """
    if any(word.startswith("HOME=") and word != "HOME=" for word in child.env):
        return ""
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        text = target.read(root, "/etc/passwd", _PASSWD_LIMIT)
    finally:
        os.close(root)
    wanted = str(uid).encode()
    for line in text.split(b"\n"):
        fields = line.split(b":")
        if len(fields) > 5 and fields[2] == wanted and fields[5]:
            return fields[5].decode("utf-8", "surrogateescape")
    return "/"


def program(child: Child, step: Program) -> None:
    """Look the program up as execvp would, with the container's PATH, now that all else about it is set."""
    if child.cwd_pending:
        try:
            os.chdir(child.cwd)
        except OSError as exc:
            raise cwd_failure(child.cwd, exc.errno or 0) from None
        _check_cwd()
    if not step.args or not step.args[0]:
        raise Failure("args must not be empty", pointer=step.pointer)
    child.program = find(step.args[0], step.env)
    child.args = step.args
    child.exec_env = [word for word in step.env if word != "HOME="]
    if child.home:
        child.exec_env.append("HOME=" + child.home)


def find(name: str, env: tuple[str, ...]) -> str:
    """Return the path to execute.

    Raises:
        Failure: in the words engines match on.

    """
    step = "unable to start container process"
    if "/" in name:
        try:
            mode = os.stat(name).st_mode
        except OSError as exc:
            raise Failure(f'exec: "{name}": stat {name}', step=step, errno=exc.errno or 0) from None
        problem = _executable(name, mode)
        if problem:
            plain = stat.S_ISREG(mode) and not mode & _EXECUTABLE
            hint = "the file has no x in its mode; chmod +x" if plain else ""
            raise Failure(f'exec: "{name}": {problem}', step=step, hint=hint)
        return name
    path = ""
    for word in env:
        if word.startswith("PATH="):
            path = word[5:]
    denied = ""
    for directory in path.split(":") if path else ():
        candidate = f"{directory or '.'}/{name}"
        try:
            mode = os.stat(candidate).st_mode
        except OSError:
            continue
        problem = _executable(candidate, mode)
        if not problem:
            return candidate
        if problem.startswith("perm"):
            denied = candidate
    raise not_in_path(name, env, denied)


def not_in_path(name: str, env: tuple[str, ...], denied: str) -> Failure:
    """Word a program that is nowhere in the process's PATH; denied is where it is, but not executable."""
    path = ""
    for word in env:
        if word.startswith("PATH="):
            path = word[5:]
    hint = f"PATH is {path}" if path else "the process's env sets no PATH"
    if denied:
        hint = f"{denied} is there, but it is not executable"
    elif " " in name:
        hint = "each word of a command is an argument of its own"
    message = f'exec: "{name}": executable file not found in $PATH'
    return Failure(message, step="unable to start container process", hint=hint)


def _executable(path: str, mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "is a directory"
    if not stat.S_ISREG(mode) or not mode & _EXECUTABLE:
        return "permission denied"
    if os.access(path, os.X_OK, effective_ids=True):
        return ""
    # The seccomp filter may be in force and not know faccessat2(2) (Linux 5.8): then even "/" is not there,
    # and the answer is left to execve.
    return "permission denied" if os.access("/", os.F_OK, effective_ids=True) else ""


def exec_failure(path: str, errno: int) -> Failure:
    """Word a refused execve: most often the file is there and what it needs is not."""
    hint = ""
    if errno in (_ENOENT, _ENOEXEC, _EACCES):
        hint = _explain(path, errno)
    return Failure(f"exec {path}: {strerror(errno)}", hint=hint, bare=True)


def _explain(path: str, errno: int) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            head = os.read(fd, 256)
        finally:
            os.close(fd)
    except OSError:
        return ""
    if head.startswith(b"#!"):
        words = head[2:].split(b"\n", 1)[0]
        interpreter = words.strip(b" \t").split(b" ")[0].decode("utf-8", "replace")
        ending = " (the line ends as on Windows)" if interpreter.endswith("\r") else ""
        return f"{path} exists, but its interpreter {interpreter.rstrip(chr(13))!r} does not{ending}"
    if head.startswith(b"\x7fELF"):
        if errno == _ENOENT:
            return (
                f"{path} exists, but the program loader it names does not: a library or C library is missing"
            )
        machine = int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")
        return f"{path} is a program for another machine (ELF machine {machine})"
    if errno == _ENOEXEC:
        return f"{path} is neither a program nor a script with a #! line"
    return ""
