"""The message for each failed operation; a report that a container has forged gets one, too."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrunc import store
from pyrunc.apply import failures, parent
from pyrunc.errors import Failure
from pyrunc.plan import program_first, steps
from pyrunc.plan.program import NAMES
from tests.support.programs import beginning, created
from tests.support.specs import with_process

if TYPE_CHECKING:
    from pathlib import Path

HEAD = struct.Struct("=IIIiQ")
PLAIN = steps.Step(pointer="/here")
IDENTITY = steps.Identity(
    uid=5,
    gid=6,
    gids=(),
    umask=0o22,
    bounding=None,
    effective=0,
    permitted=0,
    inheritable=0,
    ambient=0,
    no_new_privileges=False,
    pointer="/process",
)
PROGRAM = steps.Program(args=("prog",), env=("PATH=/a:/b",), pointer="/process/args")
PATH = steps.Program(args=("/p/prog",), env=(), pointer="/process/args")
LIMIT = steps.Rlimit(name="RLIMIT_CPU", number=0, soft=5, hard=6, pointer="/process/rlimits/0")
HOOKS = steps.Hooks(
    kind="startContainer", hooks=({"path": "/h", "args": ["h", "x"], "timeout": 2},), pointer="/hooks"
)
KEYRING = steps.Keyring(name="_ses.c1")
DEADLINE = steps.Scheduler(
    policy=6,
    flags=0,
    nice=0,
    priority=0,
    runtime=1,
    deadline=2,
    period=3,
    cpuset=True,
    pointer="/process/scheduler",
)
CWD = steps.Cwd(path="/work", pointer="/process/cwd")
JOIN = steps.Join(kind="pid", path="/proc/7/ns/pid", pointer="/linux/namespaces/0")
LABEL = steps.LsmLabel(lsm="selinux", label="l", pointer="/process/selinuxLabel")
HIGH = 1 << 32


def report(
    name: str, number: int = 1, detail: int = 0, *, tag: int = 0, said: bytes = b"", operation: int = 0
) -> failures.Report:
    return failures.Report(operation=operation, name=name, tag=tag, errno=number, detail=detail, said=said)


class Row(NamedTuple):
    """An operation that fails, and parts of the message."""

    step: steps.Step
    report: failures.Report
    text: str
    hint: str = ""


START = "unable to start container process"
ROWS = [
    Row(PLAIN, report("PRCTL"), "enter the container"),
    Row(IDENTITY, report("PRCTL"), "set no_new_privs"),
    Row(PLAIN, report("KEEP"), "enter the container"),
    Row(PLAIN, report("BECOME_ROOT"), "enter the container"),
    Row(steps.Affinity(cpus=(1, 2)), report("AFFINITY"), "run on CPUs (1, 2)"),
    Row(PLAIN, report("AFFINITY"), "run on CPUs"),
    Row(PLAIN, report("WRITE"), "join the container's cgroup"),
    Row(PLAIN, report("SETNS"), "join the container's namespaces"),
    Row(JOIN, report("SETNS"), "join pid namespace /proc/7/ns/pid"),
    Row(JOIN, report("SETNS", errno.EINVAL), "/proc/7/ns/pid is not a pid namespace that can be joined"),
    Row(PLAIN, report("CHROOT"), "enter the container's root file system"),
    Row(PLAIN, report("CLONE"), "make a process in the container's pid namespace"),
    Row(KEYRING, report("KEYRING", errno.EDQUOT), "unable to join session keyring _ses.c1", "maxkeys"),
    Row(
        KEYRING, report("KEYRING", errno.EACCES), "unable to join session keyring _ses.c1", "--no-new-keyring"
    ),
    Row(PLAIN, report("UNSHARE"), "make a time or an ipc namespace"),
    Row(PLAIN, report("CLOCKS"), "/linux/timeOffsets: set the clock offsets"),
    Row(PLAIN, report("CLONE", tag=1), "/linux/namespaces: make the container's namespaces"),
    Row(JOIN, report("TRY_SETNS"), "join pid namespace /proc/7/ns/pid"),
    Row(PLAIN, report("KEYRING", errno.EINVAL), "unable to join session keyring"),
    Row(
        DEADLINE,
        report("SCHEDULER", errno.EPERM),
        "process scheduler can't be used together with AllowedCPUs",
    ),
    Row(DEADLINE, report("SCHEDULER", errno.EINVAL), "set the process's scheduler"),
    Row(PLAIN, report("IO_PRIORITY"), "set the process's I/O priority"),
    Row(PLAIN, report("PERSONALITY"), "set the personality"),
    Row(PLAIN, report("MEMORY_POLICY"), "set the memory policy"),
    Row(LABEL, report("WRITE_BELOW"), "set SELinux label 'l'", "is SELinux enabled"),
    Row(LABEL, report("PROCFS"), "set SELinux label 'l'", "is SELinux enabled"),
    Row(PLAIN, report("WRITE_BELOW"), "set the label"),
    Row(PLAIN, report("TERMINAL", detail=1), "open /dev/pts in the container"),
    Row(PLAIN, report("TERMINAL", detail=2), "/dev/pts in the container is not a devpts", "type devpts"),
    Row(PLAIN, report("TERMINAL", detail=3), "open /dev/pts/ptmx in the container"),
    Row(PLAIN, report("TERMINAL", errno.ENOSPC, 3), "open /dev/pts/ptmx", "/proc/sys/kernel/pty/max"),
    Row(PLAIN, report("TERMINAL", detail=4), "/dev/pts/ptmx in the container is covered by another file"),
    Row(PLAIN, report("TERMINAL", detail=5), "unlock the terminal"),
    Row(PLAIN, report("TERMINAL", detail=7 * HIGH | 6), "open the other side of /dev/pts/7"),
    Row(PLAIN, report("TERMINAL", detail=7 * HIGH | 7), "set up /dev/pts/7"),
    Row(PLAIN, report("TERMINAL", detail=8), "hand over the terminal"),
    Row(PLAIN, report("TAKE_TERMINAL", detail=9), "make the terminal the controlling one"),
    Row(PLAIN, report("TERMINAL", detail=0), "make the process's terminal"),
    Row(PLAIN, report("TERMINAL", detail=10), "make the process's terminal"),
    Row(CWD, report("CWD", errno.ENOTDIR), 'chdir to cwd ("/work") set in config.json failed'),
    Row(CWD, report("CWD_AGAIN", errno.EACCES), 'chdir to cwd ("/work") set in config.json failed'),
    Row(CWD, report("CWD", errno.EACCES, 1), "the working directory is outside the root file system"),
    Row(PLAIN, report("CWD"), "enter the container"),
    Row(PLAIN, report("SECCOMP", errno.EBUSY), "loading the seccomp filter", "another filter"),
    Row(PLAIN, report("SECCOMP", errno.EACCES), "loading the seccomp filter", "CAP_SYS_ADMIN"),
    Row(PLAIN, report("SECCOMP", errno.ENOMEM), "loading the seccomp filter"),
    Row(LIMIT, report("RLIMIT", errno.EPERM, 5), "set RLIMIT_CPU to 5:6", "the hard limit here is 5"),
    Row(LIMIT, report("RLIMIT", errno.EPERM, HIGH * HIGH - 1), "set RLIMIT_CPU to 5:6", "here is unlimited"),
    Row(PLAIN, report("RLIMIT"), "enter the container"),
    Row(IDENTITY, report("BOUNDING"), "drop capabilities from the bounding set"),
    Row(IDENTITY, report("GROUPS", errno.EPERM), "cannot set any additional groups", "denies setgroups"),
    Row(IDENTITY, report("GROUPS", errno.EINVAL), "set the process's groups"),
    Row(IDENTITY, report("GROUP", errno.EINVAL), "set the process's group to 6", "/linux/gidMappings"),
    Row(IDENTITY, report("GROUP"), "set the process's group to 6"),
    Row(PLAIN, report("GROUP"), "set the process's group to"),
    Row(IDENTITY, report("USER", errno.EINVAL), "set the process's user to 5", "/linux/uidMappings"),
    Row(PLAIN, report("USER"), "set the process's user to"),
    Row(IDENTITY, report("CAPABILITIES"), "set the process's capabilities"),
    Row(IDENTITY, report("AMBIENT"), "set the process's capabilities"),
    Row(PATH, report("FIND", errno.ENOENT, HIGH | 1), 'exec: "/p/prog": stat /p/prog', "why(/p/prog,2)"),
    Row(PATH, report("FIND", errno.EACCES, HIGH | 2), 'exec: "/p/prog": is a directory: permission denied'),
    Row(
        PATH, report("FIND", errno.EACCES, HIGH | 3), 'exec: "/p/prog": permission denied', "why(/p/prog,13)"
    ),
    Row(
        PATH, report("FIND", errno.EACCES, HIGH | 4), 'exec: "/p/prog": permission denied', "why(/p/prog,13)"
    ),
    Row(
        PROGRAM,
        report("FIND", errno.ENOENT),
        'exec: "prog": executable file not found in $PATH',
        "PATH is /a:/b",
    ),
    Row(PROGRAM, report("FIND", errno.EACCES, 2 * HIGH | 3), "not found in $PATH", "why(/b/prog,13)"),
    Row(PROGRAM, report("FIND", errno.EACCES, 3 * HIGH | 3), "not found in $PATH", "PATH is /a:/b"),
    Row(PROGRAM, report("FIND", errno.EACCES, 3), "not found in $PATH", "PATH is /a:/b"),
    Row(PLAIN, report("FIND"), "find the program"),
    Row(PROGRAM, report("EXEC", errno.ENOEXEC, 2), "exec /b/prog", "why(/b/prog,8)"),
    Row(PROGRAM, report("EXEC", errno.ENOEXEC, 9), "exec prog", "why(prog,8)"),
    Row(PLAIN, report("EXEC", errno.ENOENT), "there is no process to start", "no process section"),
    Row(
        HOOKS,
        report("HOOK", errno.ENOENT, 1),
        "error running startContainer hook #0: fork/exec /h",
        "why(/h,2)",
    ),
    Row(
        HOOKS,
        report("HOOK", errno.EIO, 500 * HIGH | 3 << 8 | 2, said=struct.pack("=I3sI3s", 3, b"out", 3, b"err")),
        "error running startContainer hook #0: exit status 3, stdout: out, stderr: err",
        "it was /h x, and ran 0.50 s",
    ),
    Row(
        HOOKS, report("HOOK", errno.EIO, 9 << 8 | 3), "startContainer hook #0: signal: killed", "it was /h x"
    ),
    Row(HOOKS, report("HOOK", errno.EIO, 4), "hook ran past specified timeout of 2.0s", "it was /h x"),
    Row(HOOKS, report("HOOK", errno.ENOMEM, 5), "error running startContainer hook #0"),
    Row(HOOKS, report("HOOK", errno.EIO, 200 << 8 | 3), "error running startContainer hook #0"),
    Row(HOOKS, report("HOOK", errno.EIO, 3), "error running startContainer hook #0"),
    Row(
        HOOKS,
        report("HOOK", errno.EIO, 3 << 8 | 2, tag=77),
        "error running startContainer hook #77: exit status 3",
        "it was None",
    ),
    Row(PLAIN, report("HOOK"), "enter the container"),
]


def why(path: str, number: int) -> str:
    return f"why({path},{number})"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.report.name}-{row.text[:30]}")
def test_the_words(row: Row) -> None:
    found = failures.failure(row.step, row.report, why)
    assert row.text in str(found)
    assert row.hint in found.hint
    assert bool(row.hint) == bool(found.hint)


# What no kernel refuses, or what does not come back then.
SILENT = {
    "NAME", "SIGNALS", "STDIO_NULL", "ALL_CPUS", "ALONE", "WAIT", "SEND", "SETSID", "OWN_NULL", "OPEN_PROC",
    "HOME", "AWAIT", "WIPE", "STDIO_OWNER", "UMASK",
}  # fmt: skip


def test_every_operation_has_words() -> None:
    """Each operation has a message here, or in test_tree_failures.py, which looks for missing ones."""
    assert {row.report.name for row in ROWS}.isdisjoint(SILENT)
    assert {row.report.name for row in ROWS} | SILENT <= set(NAMES)
    for name in SILENT:
        assert "enter the container" in str(failures.failure(PLAIN, report(name)))


def test_a_report_is_read_as_it_is_written() -> None:
    payload = HEAD.pack(3, NAMES.index("CWD"), 4, 13, 1 << 40) + b"more"
    assert failures.Report.read(payload) == report("CWD", 13, 1 << 40, tag=4, said=b"more", operation=3)
    assert failures.waits(payload) is False
    assert failures.waits(HEAD.pack(0, NAMES.index("EXEC"), 0, 2, 0)) is True


@pytest.mark.parametrize(
    "payload",
    [b"", bytes(HEAD.size - 1), HEAD.pack(0, len(NAMES), 0, 1, 0), HEAD.pack(0, (1 << 32) - 1, 0, 1, 0)],
)
def test_a_malformed_report(payload: bytes) -> None:
    assert failures.Report.read(payload) is None
    assert failures.waits(payload) is False


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> store.Container:
    """The record of a container with a hook."""
    config = with_process(args=["/nosuch"])
    config["hooks"] = {"startContainer": [{"path": "/h"}]}
    monkeypatch.setattr(store, "load_config", lambda _container: config)
    return store.Container(str(tmp_path), "c1")


def test_at_start(container: store.Container) -> None:
    def said(name: str, number: int, detail: int = 0) -> str:
        return str(failures.at_start(container, HEAD.pack(0, NAMES.index(name), 0, number, detail)))

    assert "exec /nosuch" in said("EXEC", errno.ENOEXEC, 1)
    assert "startContainer hook #0" in said("HOOK", errno.ENOENT, 1)
    assert said("SECCOMP", errno.EINVAL).startswith("/linux/seccomp: loading the seccomp filter")
    assert "enter the container" in said("UMASK", errno.EINVAL)
    assert "malformed" in str(failures.at_start(container, b"x"))


numbers = st.integers(0, (1 << 32) - 1)
EVERY = (PLAIN, IDENTITY, PROGRAM, PATH, LIMIT, HOOKS, KEYRING, DEADLINE, CWD, JOIN, LABEL)


@given(
    step=st.sampled_from(EVERY),
    name=st.sampled_from(NAMES),
    tag=numbers,
    number=st.integers(-(1 << 31), (1 << 31) - 1),
    detail=st.integers(0, (1 << 64) - 1)
    | st.integers(0, 1 << 12)
    | st.integers(0, 12).map(lambda low: HIGH | low),
    said=st.binary(max_size=20),
)
def test_a_forged_report_is_a_failure(
    *, step: steps.Step, name: str, tag: int, number: int, detail: int, said: bytes
) -> None:
    """A report may name any operation and any step: it never causes another exception."""
    found = failures.failure(step, report(name, number, detail, tag=tag, said=said), why)
    assert isinstance(found, Failure)
    assert str(found)


@given(numbers, numbers, numbers)
def test_a_report_about_what_the_program_does_not_have(operation: int, code: int, tag: int) -> None:
    """A report is malformed if the program has no such operation, or has another one in that place."""
    plan = created()
    made = parent.Launch(store.Container("/nowhere", "c1"), plan)
    try:
        program = program_first.lower(plan, beginning(plan))
        made.program = program
        text = str(made._reported(HEAD.pack(operation, code % len(NAMES), tag, 1, 0)))
        names = [each.name for each in program.operations]
        if operation >= len(names) or names[operation] != NAMES[code % len(NAMES)]:
            assert "malformed" in text
        last = str(made._reported(HEAD.pack(len(names) - 1, NAMES.index("CWD"), tag, 1, 0)))
        assert "malformed" in last
    finally:
        made.sock.close()
        made.far.close()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EDQUOT, "root_maxkeys"),
        (errno.EPERM, "--no-new-keyring"),
        (errno.EACCES, "--no-new-keyring"),
        (errno.ENOMEM, ""),
    ],
)
def test_a_keyring_that_is_refused(number: int, words: str) -> None:
    hint = failures.keyring_hint(number)
    assert words in hint
    assert bool(hint) == bool(words)


@pytest.mark.parametrize(
    ("lsm", "name", "loader"),
    [("selinux", "SELinux", "load_policy"), ("apparmor", "AppArmor", "apparmor_parser")],
)
def test_a_label_that_is_refused(lsm: str, name: str, loader: str) -> None:
    text, hint = failures.label_words(steps.LsmLabel(lsm=lsm, label="mine"))
    assert text == f"set {name} label 'mine'"
    assert loader in hint
