"""Starting the init program: with either call, in a cgroup or not; a null device that cannot be changed."""

from __future__ import annotations

import errno
import os
import signal
import stat
from typing import TYPE_CHECKING, Any

import pytest

from pyrunc.apply import init_program, protocol
from pyrunc.errors import Failure
from pyrunc.linux import _linux, flags
from pyrunc.plan import program_first
from tests.support.forked import in_child
from tests.support.init_machine import as_root, program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = as_root

ASKED = program(("SEND", ord("R")), ("WAIT", ord("A")))


def refusing(monkeypatch: pytest.MonkeyPatch, number: int) -> list[tuple[int, int, int]]:
    """Let the newer system call fail; return the list of what is tried.

    (cgroup, cgroup.procs, older call).
    """
    tried: list[tuple[int, int, int]] = []
    own = _linux.spawn

    def spawn(*words: Any) -> tuple[int, int, int]:
        tried.append((words[1], words[2], words[7]))
        if not words[7]:
            raise OSError(number, os.strerror(number))
        return own(*words)

    monkeypatch.setattr(_linux, "spawn", spawn)
    return tried


def serve() -> tuple[bytes, int]:
    """Start a program that sends one message and waits, and answer it; return the message and exit status."""
    ours, far = protocol.pair()
    try:
        pid, pidfd = init_program.start(ASKED.encode({"socket": far.fileno()}), [far.fileno()])
        far.close()
        kind, _payload, _fd = protocol.receive(ours)
        protocol.send(ours, protocol.START)
        assert os.readlink(f"/proc/self/fd/{pidfd}") in (
            "anon_inode:[pidfd]",
            f"pidfd:[{os.fstat(pidfd).st_ino}]",
        )
        os.close(pidfd)
        return kind, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        ours.close()


def test_it_runs() -> None:
    assert serve() == (protocol.READY, 0)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_where_a_filter_refuses_clone3(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    tried = refusing(monkeypatch, number)
    assert serve() == (protocol.READY, 0)
    assert tried == [(-1, -1, 0), (-1, -1, 1)]


def test_without_clone3_it_goes_to_its_cgroup_by_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """The parent opens cgroup.procs for it, and closes the descriptor again."""
    tried = refusing(monkeypatch, errno.ENOSYS)
    (tmp_path / "cgroup.procs").touch()
    cgroup = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    before = sorted(os.listdir("/proc/self/fd"))
    pid, pidfd = init_program.start(program(("UMASK", 0)).encode({}), [], cgroup)
    os.waitpid(pid, 0)
    os.close(pidfd)
    assert sorted(os.listdir("/proc/self/fd")) == before
    os.close(cgroup)
    assert [(number >= 0, procs >= 0, older) for number, procs, older in tried] == [
        (True, False, 0),
        (False, True, 1),
    ]
    assert (tmp_path / "cgroup.procs").read_text().strip() == "0", "itself, as the kernel understands it"


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM, errno.EBUSY])
def test_what_else_is_refused_is_told(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    tried = refusing(monkeypatch, number)
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(Failure, match="make a process in the container's cgroup") as caught:
        init_program.start(ASKED.encode({}), [])
    assert caught.value.errno == number
    assert len(tried) == 1
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("older", [False, True])
def test_a_program_that_cannot_be_executed(monkeypatch: pytest.MonkeyPatch, older: bool) -> None:
    """The process ends and is waited for.

    The Failure has the errno of execve, with the new and with the old call.
    """
    if older:
        refusing(monkeypatch, errno.ENOSYS)
    monkeypatch.setattr(_linux, "init_image", lambda: b"no program")
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(Failure, match="start the init program") as caught:
        init_program.start(ASKED.encode({}), [])
    assert caught.value.errno == errno.ENOEXEC
    assert sorted(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_no_memory_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_name: str, _how: int) -> int:
        raise OSError(errno.EACCES, "")

    monkeypatch.setattr(os, "memfd_create", refuse)
    for call in (init_program.image, lambda: init_program.start(b"", [])):
        with pytest.raises(Failure, match="start the init program"):
            call()
    assert "memfd_noexec" in init_program.hint(errno.EACCES)
    assert init_program.hint(errno.ENOENT) == ""


def test_kernels_without_executable_as_a_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    own = os.memfd_create
    asked: list[int] = []

    def create(name: str, how: int) -> int:
        asked.append(how)
        if how & flags.MFD_EXEC:
            raise OSError(errno.EINVAL, "")
        return own(name, how)

    monkeypatch.setattr(os, "memfd_create", create)
    assert serve() == (protocol.READY, 0)
    assert [bool(how & flags.MFD_EXEC) for how in asked] == [True, False, False]


def test_a_program_alone_is_not_executable() -> None:
    fd = init_program.sealed("x", b"data")
    try:
        assert os.pread(fd, 9, 0) == b"data"
        with pytest.raises(PermissionError):
            os.write(fd, b"x")
    finally:
        os.close(fd)


# -- a null device of our own -----------------------------------------------------------------


@pytest.fixture
def null() -> Iterator[int]:
    fd = init_program.null_device()
    assert fd >= 0
    yield fd
    os.close(fd)


CHANGES: dict[str, Callable[[int], object]] = {
    "mode": lambda fd: os.fchmod(fd, 0o600),
    "owner": lambda fd: os.fchown(fd, 5, 5),
    "times": lambda fd: os.utime(fd, (1, 1)),
    "an attribute": lambda fd: os.setxattr(fd, "user.x", b"x"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_the_host_s_null_device_cannot_be_changed_through_it(null: int, what: str) -> None:
    """With all of root's rights, which a container's process may have."""
    before = os.stat("/dev/null")
    with pytest.raises(OSError, match="Read-only file system") as caught:
        CHANGES[what](null)
    assert caught.value.errno == errno.EROFS
    assert os.stat("/dev/null") == before


def test_it_is_a_null_device(null: int) -> None:
    found = os.fstat(null)
    assert (stat.S_ISCHR(found.st_mode), found.st_rdev) == (True, os.makedev(1, 3))
    assert os.write(null, b"gone") == 4
    assert os.read(null, 1) == b""


def test_another_file_in_its_place_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    own = _linux.open_tree
    for name in ("/dev/zero", "/etc/passwd"):
        monkeypatch.setattr(_linux, "open_tree", lambda at, _path, how, name=name: own(at, name, how))
        before = sorted(os.listdir("/proc/self/fd"))
        assert init_program.null_device() == -1
        assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("call", ["open_tree", "mount_setattr"])
def test_who_can_make_no_mount_has_none(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def refuse(*_words: object) -> int:
        raise OSError(errno.EPERM, "")

    monkeypatch.setattr(_linux, call, refuse)
    assert init_program.null_device() == -1


@pytest.mark.parametrize(
    ("found", "wanted"),
    [(("/dev/null", "x", "x"), True), (("x", "x", "/dev/null"), True), (("x", "x", "x"), False), ((), False)],
)
def test_whether_stdio_is_a_null_device(tmp_path: Any, found: tuple[str, ...], wanted: bool) -> None:
    (tmp_path / "x").touch()

    def ask() -> object:
        os.chdir(tmp_path)
        if not found:
            os.closerange(0, 3)
        for fd, name in enumerate(found):
            os.dup2(os.open(name, os.O_RDWR), fd)
        return init_program.has_null_stdio()

    assert in_child(ask) is wanted


# -- a procfs of another's pid namespace ------------------------------------------------------


@pytest.fixture
def stranger() -> Iterator[int]:
    """A process in a pid namespace and a user namespace of its own."""
    new = flags.CLONE_NEWPID | flags.CLONE_NEWUSER
    pid, pidfd = _linux.clone3(new, signal.SIGCHLD, -1)
    if pid == 0:
        signal.pause()
        os._exit(1)
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{pid}/{name}", "w") as file:
            file.write("0 1000 10")
    yield pid
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(pidfd)


@pytest.mark.parametrize("users", [False, True])
def test_a_procfs_of_another_pid_namespace(stranger: int, users: bool) -> None:
    """It shows the one process of that namespace; no descriptor stays open, and no process is left."""
    before = sorted(os.listdir("/proc/self/fd"))
    space = os.open(f"/proc/{stranger}/ns/pid", os.O_RDONLY)
    rights = os.open(f"/proc/{stranger}/ns/user", os.O_RDONLY) if users else None
    context = init_program.proc_context(space, rights)
    os.close(space)
    if not users:  # with another's rights only that one's user namespace mounts it
        _linux.fsconfig(context, flags.FSCONFIG_CMD_CREATE, None, None, 0)
        mount = _linux.fsmount(context, flags.FSMOUNT_CLOEXEC, 0)
        seen = os.open(f"/proc/self/fd/{mount}", os.O_RDONLY | os.O_DIRECTORY)
        assert [name for name in os.listdir(seen) if name.isdigit()] == ["1"]
        os.close(seen)
        os.close(mount)
    os.close(context)
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("path", ["/proc/self/ns/uts", "/dev/null"])
def test_what_is_no_pid_namespace(path: str) -> None:
    """The Failure has the kernel's error number."""
    fd = os.open(path, os.O_RDONLY)
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(Failure, match="open a procfs of the pid namespace to join") as caught:
        init_program.proc_context(fd, None)
    assert caught.value.errno == errno.EINVAL
    assert sorted(os.listdir("/proc/self/fd")) == before
    os.close(fd)


def test_a_helper_that_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program_first, "proc_context", lambda _users: program(slots=("pidns", "users")))
    with pytest.raises(Failure, match="open a procfs of the pid namespace to join") as caught:
        init_program.proc_context(os.open("/proc/self/ns/pid", os.O_RDONLY), None)
    assert caught.value.errno == 0
