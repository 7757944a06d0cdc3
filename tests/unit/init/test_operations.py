"""Each operation of the init program alone, against the kernel: entering a container."""

from __future__ import annotations

import errno
import os
import signal
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from pyrunc.apply import init_program, protocol
from pyrunc.linux import _linux, flags
from pyrunc.plan import program as plan_program
from pyrunc.plan.program import NAMES, Program
from tests.support.init_machine import (
    READY,
    SOCKET,
    STEP,
    WAITED,
    as_root,
    carry_out,
    copy,
    execute,
    field,
    good,
    inside,
    looked,
    program,
    shell,
)
from tests.support.libc import set_capabilities
from tests.support.mounts import read_rows

pytestmark = as_root

STATUS = "cat /proc/self/status"
CHOWN, SETUID = 1 << 0, 1 << 7


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
    """Keep capabilities, set groups and user, then set capabilities and the ambient ones.

    The order of the step Identity.
    """
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
        set_capabilities(effective, permitted, permitted)
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
        set_capabilities(effective, permitted, permitted)
        _linux.prctl(flags.PR_CAP_AMBIENT, flags.PR_CAP_AMBIENT_RAISE, 6, 0, 0)
        _linux.prctl(flags.PR_CAP_AMBIENT, flags.PR_CAP_AMBIENT_RAISE, 7, 0, 0)

    out = good(carry_out(shell(program(("BECOME_ROOT", 9, 9, stay)), STATUS), before=somebody))
    assert field(out, "Uid").split() == field(out, "Gid").split() == ["0"] * 4
    assert field(out, "Groups").split() == (["5"] if stay else [])


def keep_rights() -> None:
    """Put all capabilities into the ambient set. A user other than 0 keeps them over execve only there."""
    effective, permitted, _inheritable = _linux.capget(0)
    set_capabilities(effective, permitted, permitted)
    for number in range(64):
        if permitted >> number & 1:
            _linux.prctl(flags.PR_CAP_AMBIENT, flags.PR_CAP_AMBIENT_RAISE, number, 0, 0)


@pytest.mark.parametrize("maps", [((0, 100, 10),), ((50, 100, 10),)], ids=["with a root", "without"])
def test_become_root_of_a_user_namespace(maps: tuple[tuple[int, int, int], ...]) -> None:
    """Become root of the user namespace.

    If that does not map 0, become the user that the container's process will be.
    """
    inner = maps[0][0]

    def go(pid: int) -> bytes:
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{pid}/{name}").write_text(" ".join(map(str, maps[0])))
        return b"A"

    def wait() -> None:
        os.write(SOCKET, b"R")
        os.read(SOCKET, 1)
        keep_rights()

    made = program(("BECOME_ROOT", 53, 54, 0))
    out = good(carry_out(shell(made, STATUS), answers={b"R": go}, before=wait, new=flags.CLONE_NEWUSER))
    assert field(out, "Uid").split() == (["0"] * 4 if inner == 0 else ["53"] * 4)
    assert field(out, "Gid").split() == (["0"] * 4 if inner == 0 else ["54"] * 4)


def test_name() -> None:
    made = Program()
    made.add(STEP, "NAME", made.text(plan_program.NAME))
    assert looked(made, lambda pid: Path(f"/proc/{pid}/comm").read_text()) == "pyrunc:[init]\n"


def test_wipe() -> None:
    """Strings that are no longer needed are removed from memory; the strings after them stay."""
    made = Program()
    made.add(STEP, "NAME", made.text("secret"))
    end = len(made.strings)
    later = made.text("name")
    made.add(STEP, "WIPE", 1, end)
    made.add(STEP, "NAME", made.text("secret"))
    assert looked(made, lambda pid: Path(f"/proc/{pid}/comm").read_text()) == "\n"
    made = Program()
    made.text("secret")
    made.add(STEP, "WIPE", 1, end)
    assert made.text("name") == later
    made.add(STEP, "NAME", later)
    assert looked(made, lambda pid: Path(f"/proc/{pid}/comm").read_text()) == "name\n"


LIST = "for f in /proc/self/fd/*; do [ -e $f ] && echo ${f##*/}; done; true"


def descriptors(out: str) -> list[int]:
    """Return the descriptors that LIST has printed, without that of the listing itself."""
    return sorted(int(line) for line in out.split())


@pytest.mark.parametrize(
    ("passed", "stay", "left"),
    [
        (0, (0,), {0, 1, 2}),
        (2, (0,), {0, 1, 2, 3, 4}),
        (0, (0, 1), {0, 1, 2}),
        (0, None, {0, 1, 2}),
    ],
)
def test_keep_closes_all_the_rest(passed: int, stay: tuple[int, ...] | None, left: set[int]) -> None:
    """Slots stay open until execve; the descriptors that are passed on stay open after it as well."""

    def many() -> None:
        for fd in (*range(3, 12), 777, 1000):
            os.dup2(0, fd)

    made = Program()
    made.slot("more")
    made.keep(STEP, 3 + passed, stay)
    found: list[set[str]] = []

    def look(pid: int) -> bytes:
        found.append(set(os.listdir(f"/proc/{pid}/fd")))
        return b"A"

    made.add(STEP, "SEND", *READY)
    made.add(STEP, "WAIT", *WAITED)
    # What is not passed but inherited: the slot "more", and 777.
    out = good(carry_out(shell(made, LIST), {"more": 777}, before=many, answers={b"R": look}, passed=passed))
    assert set(descriptors(out)) - {10} == left  # ash keeps what it reads from at 10
    slots = {"200"} | ({"777"} if stay is None or 1 in stay else set())
    assert found == [{str(fd) for fd in left} | slots]


def test_keep_refuses_a_slot_among_what_is_passed() -> None:
    made = Program()
    made.slot("more")
    made.keep(STEP, 6, (0,))
    found = carry_out(made, {"more": 4}, before=lambda: copy(0, 4))
    assert found.report is not None
    assert found.report.errno == errno.EINVAL


@pytest.mark.parametrize("first", [0x7FFFFFFF, 0x80000000, 1 << 32, (1 << 64) - 1])
def test_keep_knows_its_bounds(first: int) -> None:
    made = Program()
    made.keep(STEP, first, (0,))
    found = carry_out(made, patience=10)
    assert found.report is not None
    assert found.report.errno == errno.EINVAL


def mount_of(fd: int) -> str:
    return f"grep mnt_id /proc/self/fdinfo/{fd}"


def test_stdio_null() -> None:
    null = init_program.null_device()
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
    """A null device of the container replaces the host's on stdio; any other file there is not used."""
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
    """When stdin is closed, open(2) returns 0. That descriptor must be closed again."""
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
    """Join the namespaces of another process by its pidfd; then the child is born in its pid namespace."""
    new = flags.CLONE_NEWPID | flags.CLONE_NEWUTS
    pid, pidfd = _linux.clone3(new, signal.SIGCHLD, -1)
    if pid == 0:
        signal.pause()
    try:
        made = program(
            ("SETNS", 1, new), ("CLONE", 0x8000, 2), ("WAIT", ord("O")), slots=("init", "no cgroup")
        )
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
    pid, pidfd = init_program.start(
        program(("WAIT", *WAITED)).encode({"socket": far.fileno()}), [far.fileno()]
    )
    far.close()
    ours.close()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    os.close(pidfd)


def test_chroot(root: Path, opened: Callable[..., int]) -> None:
    made, slots = inside(root, opened)
    assert good(carry_out(shell(made, "echo /*; pwd", "/bin/busybox"), slots)) == "/bin /dev /etc /proc\n/\n"


def test_alone() -> None:
    def look(pid: int) -> object:
        mounts = read_rows(pid)
        return (
            os.listdir(f"/proc/{pid}/root"),
            os.listdir(f"/proc/{pid}/cwd"),
            len(mounts),
            mounts[0].words,
        )

    entries, here, mounts, options = looked(program(("ALONE",)), look)
    assert (entries, here, mounts) == ([], [], 1)
    assert options >= {"ro", "nosuid", "nodev", "noexec"}
    before = Path("/proc/self/mountinfo").read_text()
    looked(program(("ALONE",)), lambda _pid: None)
    assert Path("/proc/self/mountinfo").read_text() == before
