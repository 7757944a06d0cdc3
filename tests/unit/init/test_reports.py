"""What the init program reports when an operation fails: operation, code, tag, errno, detail."""

from __future__ import annotations

import errno
import os
import resource
import struct
from typing import TYPE_CHECKING, NamedTuple

import pytest

from pyrunc.linux import flags
from pyrunc.plan.program import NAMES, Program
from tests.support.init_machine import BUSYBOX, STEP, as_root, carry_out, program, shell

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = as_root

HIGH = 1 << 32
FOUND_NOT_THERE, FOUND_DIRECTORY, FOUND_NO_MODE, FOUND_NO_PERMISSION = 1, 2, 3, 4


class Case(NamedTuple):
    """An operation that fails, how it is added to a program, and the errno and the detail of the report."""

    name: str
    errno: int
    detail: int
    arguments: Callable[[Program], tuple[int, ...]]


def numbers(*values: int) -> Callable[[Program], tuple[int, ...]]:
    return lambda _made: values


def empty_slot(made: Program) -> tuple[int, ...]:
    return (made.slot("empty"), 0)


def found(*paths: str) -> Callable[[Program], tuple[int, ...]]:
    return lambda made: (made.list(paths),)


CASES = [
    Case("PRCTL", errno.EINVAL, 0, numbers(1 << 20, 0)),
    Case("KEEP", errno.EINVAL, 0, numbers((1 << 31) - 1, 1)),
    Case("WIPE", errno.EINVAL, 0, numbers(2, 1)),
    Case("WIPE", errno.EINVAL, 0, numbers(0, 1 << 20)),
    Case("WIPE", errno.EINVAL, 0, numbers(1 << 63, (1 << 64) - 1)),
    Case("STDIO_NULL", errno.EBADF, 0, empty_slot),
    Case("AFFINITY", errno.EINVAL, 0, lambda made: (made.blob(bytes(8)),)),
    Case("AFFINITY", errno.EINVAL, 0, lambda made: (made.blob(b""),)),
    Case("WRITE", errno.EBADF, 0, lambda made: (made.slot("empty"), made.blob(b"x"))),
    Case("SETNS", errno.EBADF, 0, empty_slot),
    Case("CHROOT", errno.EBADF, 0, empty_slot),
    Case(
        "CLONE", errno.EINVAL, 0, lambda made: (0x20000 | 0x200, made.slot("no cgroup"))
    ),  # CLONE_NEWNS | CLONE_FS
    Case("SCHEDULER", errno.EINVAL, 0, lambda made: (made.blob(b""),)),
    Case("SCHEDULER", errno.EINVAL, 0, lambda made: (made.blob(struct.pack("=I", 48)),)),
    Case("SCHEDULER", errno.EINVAL, 0, lambda made: (made.blob(struct.pack("=II40x", 48, 99)),)),
    Case("IO_PRIORITY", errno.EINVAL, 0, numbers(7 << 13)),
    Case("MEMORY_POLICY", errno.EINVAL, 0, lambda made: (99, made.blob(b""), 0)),
    Case("MEMORY_POLICY", errno.EINVAL, 0, lambda made: (2, made.blob(bytes(8)), 66)),
    Case(
        "WRITE_BELOW",
        errno.EBADF,
        0,
        lambda made: (made.slot("x"), made.text("a"), made.text("b"), made.blob(b"")),
    ),
    Case("TAKE_TERMINAL", errno.EBADF, 9, empty_slot),
    Case("CWD", errno.ENOENT, 0, lambda made: (made.text("/nosuch"),)),
    Case("CWD", errno.ENOTDIR, 0, lambda made: (made.text("/etc/passwd"),)),
    Case("CWD", errno.ENAMETOOLONG, 0, lambda made: (made.text("/" + "x" * 5000),)),
    Case("SECCOMP", errno.EINVAL, 0, lambda made: (0, made.blob(bytes(7)), 0)),
    Case("SECCOMP", errno.EINVAL, 0, lambda made: (0, made.blob(b""), 0)),
    Case("SECCOMP", errno.EINVAL, 0, lambda made: (0, made.blob(bytes(8 * 70000)), 0)),
    Case("SECCOMP", errno.EINVAL, 0, lambda made: (1 << 30, made.blob(bytes(8)), 0)),
    Case("AWAIT", errno.EBADF, 0, lambda made: (made.slot("go"), made.slot("answers"))),
    Case(
        "HOOK",
        errno.EINVAL,
        5,
        lambda made: (made.list(["x"]), made.list([]), made.list(["", ""]), made.blob(bytes(24))),
    ),
    Case(
        "HOOK",
        errno.EINVAL,
        5,
        lambda made: (made.list(["x", "x"]), made.list([]), made.list([""]), made.blob(bytes(24))),
    ),
    Case(
        "HOOK",
        errno.EINVAL,
        5,
        lambda made: (made.list(["x", "x"]), made.list([]), made.list(["", ""]), made.blob(bytes(16))),
    ),
    Case(
        "RLIMIT",
        errno.EINVAL,
        resource.prlimit(0, resource.RLIMIT_NOFILE)[1],
        numbers(resource.RLIMIT_NOFILE, 9, 8),
    ),
    Case("RLIMIT", errno.EINVAL, 0, numbers(99, 9, 8)),
    Case("GROUPS", errno.EINVAL, 0, lambda made: (made.blob(bytes(7)),)),
    Case("GROUPS", errno.EINVAL, 0, lambda made: (made.blob(bytes(4 * 65537)),)),
    Case("GROUPS", errno.EINVAL, 0, lambda made: (made.blob(b"\xff" * 4),)),
    Case("CAPABILITIES", errno.EPERM, 0, numbers(1, 0, 0)),
    Case("AMBIENT", errno.EPERM, 0, numbers(1 << 0)),
    Case("FIND", errno.ENOENT, 0, found()),
    Case("FIND", errno.ENOENT, HIGH | FOUND_NOT_THERE, found("/nosuch")),
    Case("FIND", errno.ENOENT, HIGH | FOUND_NOT_THERE, found("")),
    Case("FIND", errno.ENOTDIR, HIGH | FOUND_NOT_THERE, found("/etc/passwd/x")),
    Case("FIND", errno.ENOENT, 0, found("/nosuch", "/nosuch2")),
    Case("FIND", errno.EACCES, 2 * HIGH | FOUND_DIRECTORY, found("/nosuch", "/etc", "/nosuch2")),
    Case("FIND", errno.EACCES, 2 * HIGH | FOUND_NO_MODE, found("/etc", "/etc/passwd")),
    Case("FIND", errno.EACCES, HIGH | FOUND_NO_MODE, found("/dev/null")),
    Case("EXEC", errno.ENOENT, 0, lambda made: (made.list(["x"]), made.list([]))),
]


@pytest.mark.parametrize("before", [0, 3])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.errno}-{case.detail:x}")
def test_the_report(case: Case, before: int) -> None:
    made = program(*[("UMASK", 0)] * before)
    made.add(STEP, case.name, *case.arguments(made), tag=0xFFFFFFF0 + before)
    made.add(STEP, "WRITE", made.slot("after"), made.blob(b"no further"))
    reader, writer = os.pipe()
    outcome = carry_out(made, {"after": writer})
    os.close(writer)
    with os.fdopen(reader, "rb") as after:
        assert after.read() == b""
    report = outcome.report
    assert report is not None, outcome
    assert (report.operation, report.name, report.tag) == (before, case.name, 0xFFFFFFF0 + before)
    assert (report.errno, report.detail) == (case.errno, case.detail), outcome
    assert (outcome.status, report.said, outcome.out) == (1, b"", "")


@pytest.mark.parametrize(
    ("place", "errno_", "detail"),
    [
        ("script", errno.ENOENT, 1),
        ("text", errno.ENOEXEC, 1),
    ],
)
def test_execve_is_refused(tmp_path: Path, place: str, errno_: int, detail: int) -> None:
    """The detail is the number of the path that was executed."""
    (tmp_path / "script").write_text("#!/nosuch/interpreter\n")
    (tmp_path / "text").write_text("echo\n")
    (tmp_path / place).chmod(0o755)
    for paths, number in (
        ([str(tmp_path / place)], detail),
        (["/nosuch", str(tmp_path / place)], detail + 1),
    ):
        made = Program()
        made.add(STEP, "FIND", made.list(paths))
        made.add(STEP, "EXEC", made.list(["x"]), made.list([]), tag=2)
        report = carry_out(made).report
        assert report is not None
        assert (report.operation, report.name, report.tag) == (1, "EXEC", 2)
        assert (report.errno, report.detail) == (errno_, number)


def test_too_many_words() -> None:
    made = Program()
    made.add(STEP, "FIND", made.list([BUSYBOX]))
    made.add(STEP, "EXEC", made.list(["true", "x" * (1 << 20)]), made.list([]))
    report = carry_out(made).report
    assert report is not None
    assert (report.name, report.errno) == ("EXEC", errno.E2BIG)


def test_a_program_that_the_user_may_not_execute(tmp_path: Path) -> None:
    for up in (tmp_path, *tmp_path.parents):
        os.chmod(up, os.stat(up).st_mode | 0o111)
    place = tmp_path / "program"
    place.write_text("")
    place.chmod(0o700)
    made = program(("USER", 1234))
    made.add(STEP, "FIND", made.list([str(place)]))
    report = carry_out(made).report
    assert report is not None
    assert (report.name, report.errno, report.detail) == ("FIND", errno.EACCES, HIGH | FOUND_NO_PERMISSION)


def test_a_working_directory_that_nobody_may_enter(tmp_path: Path) -> None:
    """A failure of the first try is ignored; the second try, as the user, reports it."""
    place = tmp_path / "place"
    place.mkdir(mode=0o700)
    made = program(("USER", 1234))
    for name in ("CWD", "CWD_AGAIN"):
        made.add(STEP, name, made.text(str(place)))
    report = carry_out(made).report
    assert report is not None
    assert (report.operation, report.name, report.errno, report.detail) == (2, "CWD_AGAIN", errno.EACCES, 0)


def test_a_working_directory_outside_the_root(tmp_path: Path) -> None:
    """A descriptor leads out of the root (CVE-2024-21626); the detail says so."""
    made = program(("CHROOT", 1), slots=("root",))
    (tmp_path / "self").mkdir()
    made.add(STEP, "CWD", made.text("/self/fd/205"))

    def enter() -> None:
        from pyrunc.linux import _linux

        _linux.mount(None, "/", None, flags.MS_REC | flags.MS_PRIVATE, None)
        _linux.mount("/proc/self", str(tmp_path / "self"), None, flags.MS_BIND, None)
        os.dup2(os.open("/etc", os.O_PATH), 205)
        os.dup2(os.open(tmp_path, os.O_PATH), 206)

    report = carry_out(made, {"root": 206}, before=enter, new=flags.CLONE_NEWNS).report
    assert report is not None
    assert (report.name, report.errno, report.detail) == ("CWD", errno.EACCES, 1)


def test_a_short_write(tmp_path: Path) -> None:
    """If the kernel takes only a part of the text for a control file, that is a failure."""
    made = Program()
    made.add(STEP, "WRITE", made.slot("file"), made.blob(b"12345678"))

    def limit() -> None:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5, 5))

    fd = os.open(tmp_path / "file", os.O_CREAT | os.O_WRONLY)
    report = carry_out(made, {"file": fd}, before=limit).report
    os.close(fd)
    assert report is not None
    assert (report.name, report.errno) == ("WRITE", errno.EIO)


def test_times_of_what_failed() -> None:
    """The times are sent before the report; the failed operation has a time, too."""
    made = program(("UMASK", 0), ("CHROOT", 1), ("UMASK", 0), slots=("empty",))
    outcome = carry_out(made, trace=True)
    rows = [row[0] for told in outcome.told for row in struct.iter_unpack("=QQQ", told.payload)]
    assert rows == [0, 1]
    assert outcome.report is not None


def test_the_numbers_are_codes() -> None:
    """The report has the code of the operation; failures.Report makes it a name again."""
    assert carry_out(shell(Program(), "true")).report is None
    assert NAMES[0] == "PRCTL"


def test_what_is_no_terminal_gets_no_owner() -> None:
    fd = os.memfd_create("no terminal")
    report = carry_out(program(("TAKE_TERMINAL", 1, 1234), slots=("slave",)), {"slave": fd}).report
    assert report is not None
    assert (report.errno, os.fstat(fd).st_uid) == (errno.ENOTTY, 0)
    os.close(fd)
