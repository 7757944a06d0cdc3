"""One call of a command in which one system call fails: which system calls there are, and how they can fail.

fault.c does it from outside, by ptrace: the command is not changed, and does not notice it.
"""

from __future__ import annotations

import errno
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

from tests.support.containers import TOP

HERE = Path(__file__).resolve().parent
REFUSED = 125  # fault.c: tracing is not allowed here
_CREATING = 0o100

# What each call may say when something is full, broken or busy. Not here: what says that there is no such
# thing, or one already, since that is an answer and no fault; and calls that cannot fail like this.
_FULL, _BROKEN = ("ENOSPC",), ("EIO",)
_FEW = ("EMFILE", "ENFILE")
ERRORS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("mkdir", "mkdirat", "mknod", "mknodat", "symlink", "symlinkat", "link", "linkat"), _FULL
    ),
    **dict.fromkeys(("rename", "renameat", "renameat2"), _FULL + _BROKEN),
    **dict.fromkeys(("unlink", "unlinkat"), _BROKEN),
    **dict.fromkeys(("rmdir", "umount2"), ("EBUSY",)),
    **dict.fromkeys(
        ("write", "writev", "pwrite64", "ftruncate", "fallocate", "copy_file_range"), _FULL + _BROKEN
    ),
    **dict.fromkeys(
        ("read", "pread64", "getdents64", "readlink", "readlinkat", "statx", "newfstatat"), _BROKEN
    ),
    **dict.fromkeys(("stat", "lstat", "fstat", "statfs", "fstatfs", "fsync"), _BROKEN),
    **dict.fromkeys(("open", "openat", "openat2"), (*_FEW, "ENOMEM", "EIO")),
    **dict.fromkeys(
        ("memfd_create", "pipe", "pipe2", "socket", "socketpair", "dup", "dup3", "pidfd_open"), _FEW
    ),
    **dict.fromkeys(("epoll_create1", "eventfd2", "signalfd4"), _FEW),
    **dict.fromkeys(("clone", "clone3", "fork", "vfork"), ("EAGAIN", "ENOMEM")),
    **dict.fromkeys(("mount", "open_tree", "fsopen", "fsmount", "move_mount", "fsconfig"), ("ENOMEM",)),
    **dict.fromkeys(("mount_setattr", "pivot_root", "chdir", "fchdir", "chroot"), ("ENOMEM",)),
    **dict.fromkeys(("fchmod", "fchmodat", "chmod", "fchown", "fchownat", "lchown", "utimensat"), _BROKEN),
    **dict.fromkeys(("setxattr", "fsetxattr"), _FULL),
    **dict.fromkeys(("setns", "unshare", "bpf", "seccomp", "execve", "execveat"), ("ENOMEM",)),
    **dict.fromkeys(("add_key", "keyctl"), ("EDQUOT",)),
    **dict.fromkeys(("capset", "setsid", "setgroups", "setresuid", "setresgid", "prlimit64"), ("EPERM",)),
    **dict.fromkeys(("sethostname", "setdomainname", "setpriority", "ioprio_set", "prctl"), ("EPERM",)),
    **dict.fromkeys(("sched_setattr", "sched_setaffinity", "set_mempolicy"), ("EPERM",)),
    **dict.fromkeys(("pidfd_send_signal", "kill"), ("EPERM",)),
    **dict.fromkeys(("sendmsg", "recvmsg", "sendto", "recvfrom"), ("ENOBUFS",)),
    **dict.fromkeys(("connect", "bind", "listen"), ("ENOMEM",)),
    "flock": ("ENOLCK",),
    "ppoll": ("ENOMEM",),
    "poll": ("ENOMEM",),
}
# Of these the command itself makes only those that cannot be refused: it asks, or gives up rights.
_OWN_RIGHTS = frozenset({"prctl", "prlimit64"})
# A kill between two calls that only look is the same as a kill before the first of them.
_LOOKING = frozenset(
    {
        *("read", "pread64", "readv", "getdents64", "readlink", "readlinkat", "access", "faccessat"),
        *(
            "statx",
            "newfstatat",
            "stat",
            "lstat",
            "fstat",
            "statfs",
            "fstatfs",
            "lseek",
            "ioctl",
            "prlimit64",
        ),
        *("fcntl", "dup", "dup2", "dup3", "close", "close_range"),
        *("getxattr", "fgetxattr", "listxattr", "flistxattr"),
    }
)
_OPENING = frozenset({"open", "openat", "openat2"})
# Where the interpreter finds its modules: a machine that cannot read these has no pyrunc.
_MODULES = tuple(
    {
        str(TOP / "pyrunc"),
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    }
)


class Call(NamedTuple):
    """One system call of a run without a fault.

    Attributes:
        task: the process that makes it, 0 is the command itself.
        number: how many of that name the task has made with it.
        name: its name.
        flags: of an opening.
        object: a path, or what the descriptor stands for.

    """

    task: int
    number: int
    name: str
    flags: int
    object: str

    @property
    def looks(self) -> bool:
        """Whether nothing is changed by it."""
        return self.name in _LOOKING or (self.name in _OPENING and not self.flags & _CREATING)

    @property
    def imports(self) -> bool:
        """Whether the interpreter makes it to load a module."""
        modules = self.object.startswith(_MODULES) or self.object == str(TOP)
        return modules or "__pycache__" in self.object or ".so." in self.object


class Fault(NamedTuple):
    """What goes wrong: a call, and "kill", "main" or the name of an error."""

    call: Call
    what: str

    def words(self) -> str:
        """Return it as fault.c has it."""
        what = self.what if self.what in ("kill", "main") else str(getattr(errno, self.what))
        return f"{self.call.task}:{self.call.name}:{self.call.number}:{what}"

    def __str__(self) -> str:
        """Name it for people."""
        return f"{self.what} at {self.call.task}:{self.call.name}:{self.call.number} {self.call.object}"


def kills(calls: list[Call]) -> list[Fault]:
    """Return every kill: of the process that makes a call that changes something, or of the command."""
    found = []
    for call in calls:
        if not call.looks and not call.imports:
            found.append(Fault(call, "kill"))
            if call.task:
                found.append(Fault(call, "main"))
    return found


def errors(calls: list[Call]) -> list[Fault]:
    """Return every error of every call that can have one."""
    return [
        Fault(call, what)
        for call in calls
        if not call.imports and (call.task or call.name not in _OWN_RIGHTS)
        for what in ERRORS.get(call.name, ())
    ]


def spread(faults: list[Fault], count: int) -> list[Fault]:
    """Return some of them: each kind of call at least once as long as there is room, then evenly spaced."""
    first = {(fault.call.name, fault.call.task, fault.what in ("kill", "main")): fault for fault in faults}
    chosen = list(first.values())
    chosen = chosen[:: max(1, -(-len(chosen) // count))]
    rest = [fault for fault in faults if fault not in chosen]
    room = count - len(chosen)
    if room > 0:
        chosen += rest[:: max(1, -(-len(rest) // room))]
    return sorted(chosen)


def compiled(directory: Path) -> Path:
    """Return the program, compiled."""
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")[0]
    program = directory / "fault"
    warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-override-init"]
    subprocess.run([compiler, "-std=gnu11", "-O1", *warnings, HERE / "fault.c", "-o", program], check=True)
    return program


def may_trace(program: Path, directory: Path) -> bool:
    """Tell whether processes may be traced here."""
    words = [
        str(program),
        str(directory / "log"),
        str(directory),
        "0:-:0:list",
        sys.executable,
        "-I",
        "-S",
        "-c",
        "pass",
    ]
    return subprocess.run(words, check=False).returncode != REFUSED


def read(log: Path) -> list[Call]:
    """Return the calls the program has written down."""
    rows = (line.split("\t", 4) for line in log.read_text(errors="replace").splitlines())
    return [
        Call(int(task), int(number), name, int(flags, 16), text) for task, number, name, flags, text in rows
    ]
