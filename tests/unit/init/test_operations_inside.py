"""Each operation of the init program alone, against the kernel: inside a container."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import signal
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from pyrunc.linux import _linux, flags
from pyrunc.plan import process
from pyrunc.plan.program import NAMES, Program
from tests.support.init_machine import (
    BUSYBOX,
    READY,
    STEP,
    as_root,
    carry_out,
    execute,
    field,
    good,
    inside,
    looked,
    program,
    shell,
)

pytestmark = as_root

STATUS = "cat /proc/self/status"
ALLOW = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)  # return SECCOMP_RET_ALLOW
SETGID, SETUID = 1 << 6, 1 << 7


def test_setsid() -> None:
    made = program(("SETSID",), ("SETSID",))  # a leader's is no failure
    assert looked(made, lambda pid: os.getsid(pid) == pid) is True


@pytest.mark.parametrize("name", ["_ses.short", "_ses." + "x" * 300, "_ses." + "y" * 1000])
def test_keyring(name: str) -> None:
    made = Program()
    made.add(STEP, "KEYRING", made.text(name), 0x00080000 | 0x00000008)
    out = good(carry_out(shell(made, "cat /proc/keys")))
    rows = [line.split() for line in out.splitlines() if f" {name}:" in line]
    assert [int(row[4], 16) & 0x00080008 for row in rows] == [0x00080008], out
    assert int(rows[0][4], 16) & 0x3F000000 == 0x3F000000, "what its possessor may do is left as it is"


def test_scheduler() -> None:
    made = Program()
    batch = process.POLICIES["SCHED_BATCH"]
    made.add(STEP, "SCHEDULER", made.blob(struct.pack("=IIQiIQQQ", 48, batch, 0, 5, 0, 0, 0, 0)))
    found = looked(made, lambda pid: (os.sched_getscheduler(pid), os.getpriority(os.PRIO_PROCESS, pid)))
    assert found == (os.SCHED_BATCH, 5)


@pytest.mark.parametrize(
    ("name", "level", "text"),
    [("IOPRIO_CLASS_BE", 6, "best-effort: prio 6\n"), ("IOPRIO_CLASS_IDLE", 0, "idle\n")],
)
def test_io_priority(name: str, level: int, text: str) -> None:
    value = process.IO_CLASSES[name] << flags.IOPRIO_CLASS_SHIFT | level
    assert good(carry_out(shell(program(("IO_PRIORITY", value)), "ionice -p $$"))) == text


def test_personality() -> None:
    made = program(("PERSONALITY", process.PERSONALITIES["LINUX32"]))
    assert good(carry_out(shell(made, "cat /proc/self/personality"))) == "00000008\n"


def test_memory_policy() -> None:
    made = Program()
    bind = process.MEMORY_MODES["MPOL_BIND"]
    made.add(STEP, "MEMORY_POLICY", bind, made.blob(struct.pack("=Q", 1)), 65)
    assert "bind:0" in good(carry_out(shell(made, "cat /proc/self/numa_maps")))
    made = Program()
    made.add(STEP, "MEMORY_POLICY", process.MEMORY_MODES["MPOL_LOCAL"], made.blob(b""), 0)
    assert "local" in good(carry_out(shell(made, "cat /proc/self/numa_maps")))


@pytest.mark.parametrize("first", ["thread-self/comm", "thread-self/attr/nosuch/exec"])
def test_procfs_and_label(first: str) -> None:
    """A label is written through a procfs of our own, where no container can have mounted anything.

    If the first file does not exist, the second one is written.
    """
    made = Program()
    slot = made.slot("procfs")
    made.add(STEP, "PROCFS", slot)
    made.add(
        STEP, "WRITE_BELOW", slot, made.text(first), made.text("thread-self/comm"), made.blob(b"labelled")
    )
    made.add(STEP, "PROCFS", slot)  # for a second label: the same

    def look(pid: int) -> object:
        held = os.listdir(f"/proc/{pid}/fd")
        return Path(f"/proc/{pid}/comm").read_text(), len(held)

    def few() -> None:
        os.closerange(3, 200)

    name, held = looked(made, look, before=few)
    alone = looked(Program(), lambda pid: len(os.listdir(f"/proc/{pid}/fd")), before=few)
    assert (name, held) == ("labelled\n", alone + 1)


def terminal(root: Path, operation: Callable[[Program], None], *, closed: bool = False) -> str:
    """Let a process with a terminal print what it has; check that all went well, and return that."""

    def mount() -> None:
        (root / "dev/pts").mkdir()
        _linux.mount(None, "/", None, flags.MS_REC | flags.MS_PRIVATE, None)
        _linux.mount("devpts", str(root / "dev/pts"), "devpts", 0, "newinstance,ptmxmode=0666")
        _linux.mount("proc", str(root / "proc"), "proc", 0, None)
        os.dup2(os.open(root, os.O_PATH | os.O_DIRECTORY), 210)
        if closed:
            os.closerange(0, 3)

    (root / "dev/tty").touch()
    made = program(("CHROOT", 1), slots=("root",))
    made.add(STEP, "SETSID")
    operation(made)
    shell(made, "tty; stty -a; ls -l /proc/self/fd; echo end; : >/dev/tty", "/bin/busybox")
    outcome = carry_out(made, {"root": 210}, before=mount, new=flags.CLONE_NEWNS)
    assert (outcome.status, outcome.report) == (0, None), outcome
    (told,) = outcome.told
    assert (told.kind, told.payload) == (b"T", b"/dev/pts/0")
    text = b""
    try:
        while part := os.read(told.fd, 4096):
            text += part
    except OSError as exc:
        assert exc.errno == errno.EIO  # noqa: PT017 - nobody has the other side any more
    os.close(told.fd)
    return text.decode()


@pytest.mark.parametrize("clean", [0, 1])
def test_terminal(root: Path, clean: int) -> None:
    def operation(made: Program) -> None:
        size = made.blob(struct.pack("=4H", 33, 77, 0, 0))
        made.add(STEP, "TERMINAL", made.slot("devpts"), made.slot("slave"), size, clean)
        made.add(STEP, "TAKE_TERMINAL", made.slot("slave"), 1234)

    text = terminal(root, operation)
    assert text.split()[0] == "/dev/pts/0"
    assert "rows 33; columns 77" in text
    assert ("end\r\n" in text) == (not clean)
    assert text.count(" -> /dev/pts/0") == 3, "the program has it as its stdio and nowhere else"
    assert "ptmx" not in text, "the other side is the parent's alone"


def test_terminal_with_stdio_closed(root: Path) -> None:
    def operation(made: Program) -> None:
        made.add(STEP, "TERMINAL", made.slot("devpts"), made.slot("slave"), made.blob(b""), 0)
        made.add(STEP, "TAKE_TERMINAL", made.slot("slave"), 0)

    assert terminal(root, operation, closed=True).startswith("/dev/pts/0")


def test_take_terminal() -> None:
    master, slave = os.openpty()
    made = program(("SETSID",), ("TAKE_TERMINAL", 1, 1000), slots=("slave",))
    name = os.ttyname(slave)
    found = looked(
        made,
        lambda pid: (os.readlink(f"/proc/{pid}/fd/0"), os.stat(name).st_uid, os.getsid(pid) == pid),
        slots={"slave": slave},
    )
    assert found == (name, 1000, True)
    for fd in (master, slave):
        os.close(fd)


def test_open_proc() -> None:
    outcome = carry_out(program(("OPEN_PROC",)), new=flags.CLONE_NEWPID)
    (told,) = outcome.told
    assert told.kind == b"P"
    _linux.fsconfig(told.fd, flags.FSCONFIG_CMD_CREATE, None, None, 0)
    os.close(told.fd)


PASSWD = """\
# a remark
root:x:0:0::/root:/bin/sh
long:x:77:1::/{long}:/bin/sh
nohome:x:5:5:::/bin/sh
five:x:5:5::/home/five
five:x:5:5::/home/second:/bin/sh
odd:x:5x:1::/wrong:
{line}
last:x:4294967294:1::/home/last:/bin/sh"""


@pytest.mark.parametrize(
    ("uid", "home"),
    [
        (0, "/root"),
        (5, "/home/five"),
        (77, "/"),
        (9, "/"),
        (88, "/home/after"),
        (4294967294, "/home/last"),
    ],
)
def test_home(root: Path, opened: Callable[..., int], uid: int, home: str) -> None:
    line = "x:" + "y" * 20000 + "\nafter:x:88:1::/home/after:/bin/sh\n" + "z" * 8192
    (root / "etc/passwd").write_text(PASSWD.format(long="l" * 5000, line=line))
    made, slots = inside(root, opened)
    made.add(STEP, "HOME", uid)
    execute(made, "env", env=("A=1",), path="/bin/busybox")
    assert good(carry_out(made, slots)) == f"A=1\nHOME={home}\n"


@pytest.mark.parametrize("kind", ["fifo", "directory", "device", "link", "none", "endless"])
def test_home_waits_for_no_odd_file(root: Path, opened: Callable[..., int], kind: str) -> None:
    place = root / "etc/passwd"
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "directory":
        place.mkdir()
    elif kind == "device":
        os.mknod(place, 0o20666, os.makedev(1, 5))
    elif kind == "link":
        place.symlink_to("/proc/self/fd/0")
    elif kind == "endless":
        with place.open("wb") as file:
            file.truncate(1 << 40)
    made, slots = inside(root, opened)
    made.add(STEP, "HOME", 5)
    assert good(carry_out(execute(made, "env", path="/bin/busybox"), slots)) == "HOME=/\n"


def test_cwd(tmp_path: Path) -> None:
    made = Program()
    made.add(STEP, "CWD", made.text(str(tmp_path)))
    made.add(STEP, "CWD_AGAIN", made.text("/nosuch"))
    assert good(carry_out(shell(made, "pwd"))) == f"{tmp_path}\n"


def test_cwd_that_only_the_user_may_enter(tmp_path: Path) -> None:
    """Root may not enter a file system of the user's own (FUSE), so the directory is entered as the user."""
    os.chmod(tmp_path.parent, 0o755)
    place = tmp_path / "place"
    place.mkdir(mode=0o700)
    os.chown(place, 1234, 1234)
    for up in (tmp_path, *tmp_path.parents):
        os.chmod(up, os.stat(up).st_mode | 0o111)
    made = program(("CAPABILITIES", SETUID | SETGID, SETUID | SETGID, 0))
    made.add(STEP, "CWD", made.text(str(place)))
    made.add(STEP, "USER", 1234)
    made.add(STEP, "CWD_AGAIN", made.text(str(place)))
    assert good(carry_out(shell(made, "pwd"))) == f"{place}\n"


@pytest.mark.parametrize("listener", [0, 1, 2])
def test_seccomp(listener: int) -> None:
    made = Program()
    how = 8 if listener else 0
    made.add(STEP, "SECCOMP", how, made.blob(ALLOW), listener, 0)
    outcome = carry_out(shell(made, STATUS), answers={b"N": b"O"} if listener == 2 else {})
    assert field(good(outcome), "Seccomp") == "2"
    if not listener:
        assert outcome.told == []
        return
    (told,) = outcome.told
    assert told.payload.isdigit() == (listener == 2)
    assert (told.fd >= 0) == (listener == 1)
    if told.fd >= 0:
        assert os.readlink(f"/proc/self/fd/{told.fd}") == "anon_inode:seccomp notify"
        os.close(told.fd)


def fifo(path: Path) -> int:
    """Make a fifo and open both of its ends."""
    os.mkfifo(path)
    return os.open(path, os.O_RDWR | os.O_CLOEXEC)


@pytest.mark.parametrize("word", [b"A", b"xyzA"])
def test_await(tmp_path: Path, word: bytes) -> None:
    """After the word from `start` the socket is closed, and a failure is reported through the other fifo."""
    go, answers = fifo(tmp_path / "go"), fifo(tmp_path / "answers")

    def go_on(_pid: int) -> bytes:
        os.write(go, word)
        return b""

    made = program(("SEND", *READY), ("AWAIT", 1, 2), slots=("go", "answers"))
    made.add(STEP, "FIND", made.list(["/nosuch"]), tag=5)
    outcome = carry_out(made, {"go": go, "answers": answers}, answers={b"R": go_on})
    assert (outcome.status, outcome.report) == (1, None)
    os.set_blocking(answers, False)
    kind, *numbers = struct.unpack("=cIIIiQ", os.read(answers, 4096))
    assert (kind, numbers) == (b"X", [2, NAMES.index("FIND"), 5, errno.ENOENT, 1 << 32 | 1])
    for fd in (go, answers):
        os.close(fd)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM])
def test_who_awaits_can_be_ended_as_pid_1(tmp_path: Path, number: int) -> None:
    go, answers = fifo(tmp_path / "go"), fifo(tmp_path / "answers")
    made = program(("AWAIT", 1, 2), slots=("go", "answers"))
    made.operations.insert(0, program(("SEND", *READY)).operations[0])

    def end(pid: int) -> bytes:
        while int(field(Path(f"/proc/{pid}/status").read_text(), "SigCgt"), 16) != 0x4007:
            os.sched_yield()
        os.kill(pid, number)
        return b""

    found = carry_out(made, {"go": go, "answers": answers}, answers={b"R": end}, new=flags.CLONE_NEWPID)
    assert found.status == 128 + number
    for fd in (go, answers):
        os.close(fd)


def test_rlimit() -> None:
    made = program(("RLIMIT", resource.RLIMIT_NOFILE, 77, 88))
    assert looked(made, lambda pid: resource.prlimit(pid, resource.RLIMIT_NOFILE)) == (77, 88)


def test_stdio_owner(tmp_path: Path) -> None:
    """Pipes get the process's user as owner; files keep theirs."""
    place = tmp_path / "file"

    def files() -> None:
        os.dup2(os.open(place, os.O_CREAT | os.O_WRONLY), 2)

    def owners(pid: int) -> object:
        return [os.stat(f"/proc/{pid}/fd/{fd}").st_uid for fd in (0, 1, 2)]

    assert looked(program(("STDIO_OWNER", 1234)), owners, before=files) == [0, 1234, 0]
    assert (
        looked(program(("STDIO_OWNER", 1234)), lambda _pid: None, before=lambda: os.closerange(0, 3)) is None
    )


def test_execute() -> None:
    made = Program()
    made.add(STEP, "FIND", made.list(["/nosuch/echo", BUSYBOX]))
    made.add(
        STEP, "EXEC", made.list(["sh", "-c", 'echo "$@"; env', "sh", "", "a b"]), made.list(["A=", "B=1=2"])
    )
    out = good(carry_out(made))
    assert out.splitlines()[0] == " a b"
    assert {"A=", "B=1=2"} <= set(out.splitlines())
    assert not any(line.startswith("HOME=") for line in out.splitlines())


def test_words_and_environment_arrive_as_they_are() -> None:
    """The order stays, a variable may occur twice, and bytes need not be text."""
    env = ("B=1", "A=2", "B=3")
    assert good(carry_out(execute(Program(), "env", env=env))) == "B=1\nA=2\nB=3\n"
    script = 'printf %s "$0$1" | od -A n -t x1'
    assert good(carry_out(execute(Program(), "sh", "-c", script, "on\xe9", "\udcff"))).split() == [
        *("6f", "6e", "c3", "a9"),
        "ff",
    ]


def test_times() -> None:
    """The begin and the end of each operation are sent in order, before execve."""
    made = execute(program(*[("UMASK", 0)] * 2500), "true")
    outcome = carry_out(made, trace=True)
    assert outcome.status == 0
    rows = [row for told in outcome.told for row in struct.iter_unpack("=QQQ", told.payload)]
    assert {told.kind for told in outcome.told} == {b"w"}
    assert [row[0] for row in rows] == list(range(2501)), "all but the last one, which does not return"
    assert all(begin <= end for _number, begin, end in rows)
    assert all(one[2] <= two[1] for one, two in itertools.pairwise(rows))


@pytest.mark.parametrize("clock", [0, 1])
def test_times_end_at_a_filter_that_may_refuse_the_clock(clock: int) -> None:
    made = program(("UMASK", 0))
    made.add(STEP, "SECCOMP", 0, made.blob(ALLOW), 0, clock)
    made.add(STEP, "UMASK", 0)
    outcome = carry_out(execute(made, "true"), trace=True)
    rows = [row[0] for told in outcome.told for row in struct.iter_unpack("=QQQ", told.payload)]
    assert rows == ([0, 1, 2, 3] if clock else [0])
