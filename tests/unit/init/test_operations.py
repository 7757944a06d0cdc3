"""Each operation of the init program alone, against the kernel."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import shutil
import signal
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrunc.apply import identity, machine, protocol
from pyrunc.linux import _linux, flags
from pyrunc.plan import program as plan_program
from pyrunc.plan.program import NAMES, Program
from tests.support.init_machine import (
    BUSYBOX,
    SOCKET,
    STEP,
    Outcome,
    as_root,
    carry_out,
    execute,
    program,
    shell,
)

pytestmark = as_root

STATUS = "cat /proc/self/status"
READY, WAITED = (ord("R"),), (ord("A"),)
Look = Callable[[int], object]
ALLOW = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)  # return SECCOMP_RET_ALLOW
CHOWN, DAC_OVERRIDE, SETGID, SETUID = (1 << number for number in (0, 1, 6, 7))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root file system with a busybox, and places for the rest."""
    made = tmp_path / "root"
    for name in ("bin", "dev", "etc", "proc"):
        (made / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, made / "bin/busybox")
    return made


@pytest.fixture
def opened() -> Iterator[Callable[..., int]]:
    """A function that opens a file as os.open does; it is closed at the end."""
    fds: list[int] = []

    def open_it(path: str | Path, how: int = os.O_RDONLY) -> int:
        fds.append(os.open(path, how))
        return fds[-1]

    yield open_it
    for fd in fds:
        os.close(fd)


def field(out: str, name: str) -> str:
    """Return a field of /proc/PID/status."""
    return next(line.partition(":")[2].strip() for line in out.splitlines() if line.startswith(name + ":"))


def copy(fd: int, to: int) -> None:
    os.dup2(fd, to)


def looked(made: Program, look: Look, **how: Any) -> Any:
    """Carry a program out up to here, and return what look() says of the process then."""
    found: list[Any] = []

    def see(pid: int) -> bytes:
        found.append(look(pid))
        return b"A"

    made.add(STEP, "SEND", *READY)
    made.add(STEP, "WAIT", *WAITED)
    outcome = carry_out(made, answers={b"R": see, b"C": b"O"}, **how)
    assert outcome.status == 0, outcome
    return found[0]


def good(outcome: Outcome) -> str:
    """Return what a process wrote that went well."""
    assert (outcome.status, outcome.report) == (0, None), outcome
    return outcome.out


def inside(root: Path, opened: Callable[..., int]) -> tuple[Program, dict[str, int]]:
    """Return a program that has entered a root, and its slots."""
    made = Program()
    made.add(STEP, "CHROOT", made.slot("root"))
    return made, {"root": opened(root, os.O_PATH | os.O_DIRECTORY)}


def test_every_operation_has_a_test() -> None:
    files = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert [name for name in NAMES if f'"{name}"' not in files] == []


@pytest.mark.parametrize(
    ("operation", "name", "value"),
    [
        (("PRCTL", 38, 1), "NoNewPrivs", "1"),
        (("UMASK", 0o27), "Umask", "0027"),
        (("BOUNDING", CHOWN | SETUID), "CapBnd", f"{CHOWN | SETUID:016x}"),
        (("BOUNDING", 0), "CapBnd", f"{0:016x}"),
        (("CAPABILITIES", CHOWN, CHOWN | SETUID, 1 << 32), "CapInh", f"{1 << 32:016x}"),
        (("GROUP", 7), "Gid", "7\t7\t7\t7"),
        (("SIGNALS",), "SigIgn", "0" * 16),
        (("SIGNALS",), "SigBlk", "0" * 16),
    ],
)
def test_what_status_shows(operation: tuple[str, *tuple[int, ...]], name: str, value: str) -> None:
    def ignore() -> None:
        for number in (signal.SIGUSR1, signal.SIGRTMAX, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGRTMAX})

    assert field(good(carry_out(execute(program(operation), *STATUS.split()), before=ignore)), name) == value


def test_the_user_and_the_rights() -> None:
    """KEEPCAPS, groups, user, capabilities, the ambient ones: the order of Identity."""
    made = program(("PRCTL", 8, 1))
    made.add(STEP, "GROUPS", made.blob(struct.pack("=3I", 5, 1 << 20, 9)))
    made.add(STEP, "GROUP", 1 << 31)
    made.add(STEP, "USER", 1234)
    made.add(STEP, "CAPABILITIES", CHOWN, CHOWN | SETUID, CHOWN)
    made.add(STEP, "AMBIENT", CHOWN)
    out = good(carry_out(shell(made, STATUS)))
    assert field(out, "Uid") == "\t".join(["1234"] * 4)
    assert field(out, "Gid") == "\t".join([str(1 << 31)] * 4)
    assert field(out, "Groups").split() == ["5", "9", str(1 << 20)]
    assert [int(field(out, name), 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")] == [CHOWN] * 4


def test_ambient_clears_what_came_from_outside() -> None:
    def raise_it() -> None:
        effective, permitted, _inheritable = _linux.capget(0)
        _linux.capset(effective, permitted, permitted)
        _linux.prctl(flags.PR_CAP_AMBIENT, flags.PR_CAP_AMBIENT_RAISE, 0, 0, 0)

    kept = field(good(carry_out(shell(program(), STATUS), before=raise_it)), "CapAmb")
    cleared = field(good(carry_out(shell(program(("AMBIENT", 0)), STATUS), before=raise_it)), "CapAmb")
    assert (int(kept, 16), int(cleared, 16)) == (1, 0)


@pytest.mark.parametrize("stay", [0, 1])
def test_become_root(stay: int) -> None:
    def somebody() -> None:
        os.setgroups([5])
        _linux.prctl(8, 1, 0, 0, 0)
        os.setresgid(4, 4, 4)
        effective, permitted, _inheritable = _linux.capget(0)
        os.setresuid(3, 3, 3)
        _linux.capset(effective, permitted, permitted)
        _linux.prctl(flags.PR_CAP_AMBIENT, flags.PR_CAP_AMBIENT_RAISE, 6, 0, 0)
        _linux.prctl(flags.PR_CAP_AMBIENT, flags.PR_CAP_AMBIENT_RAISE, 7, 0, 0)

    out = good(carry_out(shell(program(("BECOME_ROOT", 9, 9, stay)), STATUS), before=somebody))
    assert field(out, "Uid").split() == field(out, "Gid").split() == ["0"] * 4
    assert field(out, "Groups").split() == (["5"] if stay else [])


@pytest.mark.parametrize("maps", [((0, 100, 10),), ((50, 100, 10),)], ids=["with a root", "without"])
def test_become_root_of_a_user_namespace(maps: tuple[tuple[int, int, int], ...]) -> None:
    """Where it maps no 0: the ids of the process to be."""
    inner = maps[0][0]

    def go(pid: int) -> bytes:
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{pid}/{name}").write_text(" ".join(map(str, maps[0])))
        return b"A"

    def wait() -> None:
        os.write(SOCKET, b"R")
        os.read(SOCKET, 1)
        identity.keep_rights()

    made = program(("BECOME_ROOT", 53, 54, 0))
    out = good(carry_out(shell(made, STATUS), answers={b"R": go}, before=wait, new=flags.CLONE_NEWUSER))
    assert field(out, "Uid").split() == (["0"] * 4 if inner == 0 else ["53"] * 4)
    assert field(out, "Gid").split() == (["0"] * 4 if inner == 0 else ["54"] * 4)


def test_name() -> None:
    made = Program()
    made.add(STEP, "NAME", made.text(plan_program.NAME))
    assert looked(made, lambda pid: Path(f"/proc/{pid}/comm").read_text()) == "pyrunc:[init]\n"


LIST = "for f in /proc/self/fd/*; do [ -e $f ] && echo ${f##*/}; done; true"


def descriptors(out: str) -> list[int]:
    """Return the descriptors that LIST has printed, without the one that it was read through."""
    return sorted(int(line) for line in out.split())


@pytest.mark.parametrize(
    ("passed", "stay", "left"),
    [
        (0, 1, {0, 1, 2}),
        (2, 1, {0, 1, 2, 3, 4}),
        (0, 0b11, {0, 1, 2}),
    ],
)
def test_keep_closes_all_the_rest(passed: int, stay: int, left: set[int]) -> None:
    """Slots stay open up to execve and no longer; what is passed goes to the program."""

    def many() -> None:
        for fd in (*range(3, 12), 777, 1000):
            os.dup2(0, fd)

    made = Program()
    made.slot("more")
    made.add(STEP, "KEEP", 3 + passed, stay)
    found: list[set[str]] = []

    def look(pid: int) -> bytes:
        found.append(set(os.listdir(f"/proc/{pid}/fd")))
        return b"A"

    made.add(STEP, "SEND", *READY)
    made.add(STEP, "WAIT", *WAITED)
    # What is not passed but inherited: the slot "more", and 777.
    out = good(carry_out(shell(made, LIST), {"more": 777}, before=many, answers={b"R": look}, passed=passed))
    assert set(descriptors(out)) - {10} == left  # ash keeps what it reads from at 10
    slots = {"200"} | ({"777"} if stay & 2 else set())
    assert found == [{str(fd) for fd in left} | slots]


def test_keep_refuses_a_slot_among_what_is_passed() -> None:
    made = Program()
    made.slot("more")
    made.add(STEP, "KEEP", 6, 1)
    found = carry_out(made, {"more": 4}, before=lambda: copy(0, 4))
    assert found.report is not None
    assert found.report.errno == errno.EINVAL


@pytest.mark.parametrize("first", [0x7FFFFFFF, 0x80000000, 1 << 32, (1 << 64) - 1])
def test_keep_knows_its_bounds(first: int) -> None:
    found = carry_out(program(("KEEP", first, 1)), patience=10)
    assert found.report is not None
    assert found.report.errno == errno.EINVAL


def mount_of(fd: int) -> str:
    return f"grep mnt_id /proc/self/fdinfo/{fd}"


def test_stdio_null() -> None:
    null = machine.null_device()
    assert null >= 0
    made = Program()
    made.add(STEP, "STDIO_NULL", made.slot("null"))
    before = good(carry_out(shell(Program(), mount_of(0))))
    after = good(carry_out(shell(made, mount_of(0)), {"null": null}))
    os.close(null)
    assert before != after
    assert "mnt_id" in after


@pytest.mark.parametrize("there", ["a null device", "another device", "a fifo", "nothing", "a symlink"])
def test_own_null(root: Path, opened: Callable[..., int], there: str) -> None:
    """A null device in the container takes the place of the host's; anything else is let alone."""
    place = root / "dev/null"
    if there == "a null device":
        os.mknod(place, 0o20666, os.makedev(1, 3))
    elif there == "another device":
        os.mknod(place, 0o20666, os.makedev(1, 7))
    elif there == "a fifo":
        os.mkfifo(place)
    elif there == "a symlink":
        os.mknod(root / "dev/real", 0o20666, os.makedev(1, 3))
        place.symlink_to("/dev/real")
    made, slots = inside(root, opened)
    made.add(STEP, "OWN_NULL")
    used = looked(made, lambda pid: os.stat(f"/proc/{pid}/fd/0").st_ino, slots=slots)
    own = place.stat().st_ino if there == "a null device" else os.stat("/dev/null").st_ino
    assert used == own


def test_own_null_with_stdin_closed(root: Path, opened: Callable[..., int]) -> None:
    """The descriptor that is opened has the number of one of stdio then."""
    os.mknod(root / "dev/null", 0o20666, os.makedev(1, 3))
    made, slots = inside(root, opened)
    made.add(STEP, "OWN_NULL")

    def close() -> None:
        os.dup2(os.open("/dev/null", os.O_RDWR), 2)
        os.close(0)

    def look(pid: int) -> object:
        return "0" in os.listdir(f"/proc/{pid}/fd"), os.stat(f"/proc/{pid}/fd/2").st_ino

    assert looked(made, look, slots=slots, before=close) == (False, (root / "dev/null").stat().st_ino)


def test_cpus() -> None:
    cpus = os.sched_getaffinity(0)
    one = min(cpus)
    made = Program()
    made.add(STEP, "AFFINITY", made.blob(struct.pack("=Q", 1 << one)))
    assert looked(made, os.sched_getaffinity) == {one}
    assert (
        looked(program(("ALL_CPUS",)), os.sched_getaffinity, before=lambda: os.sched_setaffinity(0, {one}))
        == cpus
    )


def test_write(tmp_path: Path, opened: Callable[..., int]) -> None:
    made = Program()
    made.add(STEP, "WRITE", made.slot("file"), made.blob(b"a\0b"))
    good(carry_out(made, {"file": opened(tmp_path / "file", os.O_CREAT | os.O_WRONLY)}))
    assert (tmp_path / "file").read_bytes() == b"a\0b"


def test_setns_and_clone(opened: Callable[..., int]) -> None:
    """Into another's namespaces, by a pidfd; then a child of ours is born in its pid namespace."""
    new = flags.CLONE_NEWPID | flags.CLONE_NEWUTS
    pid, pidfd = _linux.clone3(new, signal.SIGCHLD, -1)
    if pid == 0:
        signal.pause()
    try:
        made = program(("SETNS", 1, new), ("CLONE", 0x8000), ("WAIT", ord("O")), slots=("init",))
        spaces = [f"/proc/{{}}/ns/{kind}" for kind in ("uts", "pid", "mnt")]
        found = looked(
            made, lambda at: [os.readlink(space.format(at)) for space in spaces], slots={"init": pidfd}
        )
        theirs = [os.readlink(space.format(pid)) for space in spaces]
        assert found == theirs
    finally:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(pidfd)


def test_wait_ends_at_another_word() -> None:
    made = program(("SEND", *READY), ("WAIT", *WAITED))
    answers = {b"R": b"Z"}
    found = carry_out(made, answers=answers)
    assert (found.status, found.report) == (1, None)


def test_wait_ends_where_nobody_is_any_more() -> None:
    ours, far = protocol.pair()
    pid, pidfd = machine.start(program(("WAIT", *WAITED)).encode({"socket": far.fileno()}), [far.fileno()])
    far.close()
    ours.close()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    os.close(pidfd)


def test_chroot(root: Path, opened: Callable[..., int]) -> None:
    made, slots = inside(root, opened)
    assert good(carry_out(shell(made, "echo /*; pwd", "/bin/busybox"), slots)) == "/bin /dev /etc /proc\n/\n"


def test_alone() -> None:
    def look(pid: int) -> object:
        mounts = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
        return (
            os.listdir(f"/proc/{pid}/root"),
            os.listdir(f"/proc/{pid}/cwd"),
            len(mounts),
            mounts[0].split()[5],
        )

    entries, here, mounts, options = looked(program(("ALONE",)), look)
    assert (entries, here, mounts) == ([], [], 1)
    assert set(options.split(",")) >= {"ro", "nosuid", "nodev", "noexec"}
    before = Path("/proc/self/mountinfo").read_text()
    looked(program(("ALONE",)), lambda _pid: None)
    assert Path("/proc/self/mountinfo").read_text() == before


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
    made.add(STEP, "SCHEDULER", made.blob(struct.pack("=IIQiIQQQ", 48, 3, 0, 5, 0, 0, 0, 0)))
    found = looked(made, lambda pid: (os.sched_getscheduler(pid), os.getpriority(os.PRIO_PROCESS, pid)))
    assert found == (os.SCHED_BATCH, 5)


def test_io_priority() -> None:
    out = good(carry_out(shell(program(("IO_PRIORITY", 2 << 13 | 6)), "ionice -p $$")))
    assert out == "best-effort: prio 6\n"


def test_personality() -> None:
    assert good(carry_out(shell(program(("PERSONALITY", 8)), "cat /proc/self/personality"))) == "00000008\n"


def test_memory_policy() -> None:
    made = Program()
    made.add(STEP, "MEMORY_POLICY", 2, made.blob(struct.pack("=Q", 1)), 65)  # MPOL_BIND
    assert "bind:0" in good(carry_out(shell(made, "cat /proc/self/numa_maps")))
    made = Program()
    made.add(STEP, "MEMORY_POLICY", 4, made.blob(b""), 0)  # MPOL_LOCAL
    assert "local" in good(carry_out(shell(made, "cat /proc/self/numa_maps")))


@pytest.mark.parametrize("first", ["thread-self/comm", "thread-self/attr/nosuch/exec"])
def test_procfs_and_label(first: str) -> None:
    """It is a procfs of its own, on which nothing can be mounted; a file that is not there has another."""
    made = Program()
    slot = made.slot("procfs")
    made.add(STEP, "PROCFS", slot)
    made.add(STEP, "LABEL", slot, made.text(first), made.text("thread-self/comm"), made.blob(b"labelled"))
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
    """Have a process with a terminal print what it has; return that, and see that all went well."""

    def mount() -> None:
        (root / "dev/pts").mkdir()
        _linux.mount(None, "/", None, flags.MS_REC | flags.MS_PRIVATE, None)
        _linux.mount("devpts", str(root / "dev/pts"), "devpts", 0, "newinstance,ptmxmode=0666")
        os.dup2(os.open(root, os.O_PATH | os.O_DIRECTORY), 210)
        if closed:
            os.closerange(0, 3)

    (root / "dev/tty").touch()
    made = program(("CHROOT", 1), slots=("root",))
    made.add(STEP, "SETSID")
    operation(made)
    shell(made, "tty; stty -a; echo end; : >/dev/tty", "/bin/busybox")
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
        made.add(STEP, "TERMINAL", made.blob(struct.pack("=4H", 33, 77, 0, 0)), clean, 1234)

    text = terminal(root, operation)
    assert text.split()[0] == "/dev/pts/0"
    assert "rows 33; columns 77" in text
    assert ("end\r\n" in text) == (not clean)


def test_terminal_with_stdio_closed(root: Path) -> None:
    def operation(made: Program) -> None:
        made.add(STEP, "TERMINAL", made.blob(b""), 0, 0)

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
    """As with a file system of the user's own (FUSE), where root is let alone."""
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
    made.add(STEP, "SECCOMP", how, made.blob(ALLOW), listener)
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
    """Make a fifo and open both its ends."""
    os.mkfifo(path)
    return os.open(path, os.O_RDWR | os.O_CLOEXEC)


@pytest.mark.parametrize("word", [b"A", b"xyzA"])
def test_await(tmp_path: Path, word: bytes) -> None:
    """After the word the socket is closed, and a failure is told to the other fifo."""
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
    """Pipes become the process's, files stay whose they are."""
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


def test_times() -> None:
    """Begin and end of each operation, in order, before execve."""
    made = execute(program(*[("UMASK", 0)] * 2500), "true")
    outcome = carry_out(made, trace=True)
    assert outcome.status == 0
    rows = [row for told in outcome.told for row in struct.iter_unpack("=QQQ", told.payload)]
    assert {told.kind for told in outcome.told} == {b"w"}
    assert [row[0] for row in rows] == list(range(2501)), "all but the last one, which does not return"
    assert all(begin <= end for _number, begin, end in rows)
    assert all(one[2] <= two[1] for one, two in itertools.pairwise(rows))
