"""The C extension against the real kernel: results, errors, arguments that are refused before the call."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyrunc.linux import _linux, flags, flags_slow
from pyrunc.plan import process

if TYPE_CHECKING:
    from collections.abc import Callable

    Forked = Callable[[Callable[[], object]], str]


def private_mounts() -> None:
    """Enter a new mount namespace: what is mounted after this ends with the process."""
    _linux.unshare(flags.CLONE_NEWNS)
    _linux.mount(None, "/", None, flags.MS_REC | flags.MS_PRIVATE, None)


def detached_tmpfs(**options: str) -> int:
    """Return a tmpfs that is not attached anywhere."""
    fs = _linux.fsopen("tmpfs", 0)
    for key, value in options.items():
        _linux.fsconfig(fs, flags.FSCONFIG_SET_STRING, key, value, 0)
    _linux.fsconfig(fs, flags.FSCONFIG_CMD_CREATE, None, None, 0)
    mnt = _linux.fsmount(fs, 0, flags.MOUNT_ATTR_NOSUID)
    os.close(fs)
    return mnt


class TestClone3:
    def test_child_and_parent_see_what_fork_would_give_them(self) -> None:
        pid, pidfd = _linux.clone3(0, signal.SIGCHLD, -1)
        if pid == 0:
            os._exit(7 if pidfd == -1 else 8)
        assert not os.get_inheritable(pidfd)
        assert os.readlink(f"/proc/self/fd/{pidfd}") in ("anon_inode:[pidfd]", "pidfd:[pidfd]") or pidfd > 2
        answer = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)
        assert answer is not None
        assert (answer.si_pid, answer.si_status) == (pid, 7)

    def test_fork_hooks_run_on_both_sides(self, forked: Forked) -> None:
        def hooks() -> list[str]:
            seen: list[str] = []
            os.register_at_fork(
                before=lambda: seen.append("before"),
                after_in_parent=lambda: seen.append("parent"),
                after_in_child=lambda: seen.append("child"),
            )
            reader, writer = os.pipe()
            pid, _pidfd = _linux.clone3(0, signal.SIGCHLD, -1)
            if pid == 0:
                os.write(writer, " ".join(seen).encode())
                os._exit(0)
            os.waitpid(pid, 0)
            return [*seen, os.read(reader, 100).decode()]

        assert forked(hooks) == repr(["before", "parent", "before child"])

    @pytest.mark.root
    def test_new_pid_namespace(self) -> None:
        pid, pidfd = _linux.clone3(flags.CLONE_NEWPID, signal.SIGCHLD, -1)
        if pid == 0:
            os._exit(os.getpid())
        os.close(pidfd)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1

    def test_refused_by_the_kernel_leaves_no_child(self) -> None:
        with pytest.raises(OSError, match="Invalid argument") as caught:
            _linux.clone3(
                flags.CLONE_NEWUSER | 0x200, signal.SIGCHLD, -1
            )  # CLONE_FS excludes a user namespace
        assert caught.value.errno == errno.EINVAL
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)

    def test_cgroup_must_be_a_cgroup(self) -> None:
        fd = os.open("/", os.O_PATH)
        with pytest.raises(OSError, match="Bad file") as caught:
            _linux.clone3(0, signal.SIGCHLD, fd)
        os.close(fd)
        assert caught.value.errno == errno.EBADF

    @pytest.mark.parametrize("flag", [0x100, 0x4000, 0x10000, 0x80000])
    def test_shared_memory_is_refused(self, flag: int) -> None:
        with pytest.raises(ValueError, match="share its memory"):
            _linux.clone3(flag, 0, -1)


@pytest.mark.root
class TestNamespaces:
    def test_into_a_namespace_and_back(self, forked: Forked) -> None:
        def names() -> tuple[str, bool]:
            before = os.uname().nodename
            host = os.open("/proc/self/ns/uts", os.O_RDONLY)
            _linux.unshare(flags.CLONE_NEWUTS)
            socket.sethostname("box")
            inside = os.uname().nodename
            _linux.setns(host, flags.CLONE_NEWUTS)
            return inside, os.uname().nodename == before

        assert forked(names) == repr(("box", True))


@pytest.mark.root
class TestMounts:
    def test_detached_mount_gets_its_options_and_attributes(self) -> None:
        mnt = detached_tmpfs(size="64k", mode="0711")
        kind, flag = _linux.fstatfs(mnt)
        assert kind == flags.TMPFS_MAGIC
        assert flags_slow.filesystem(kind) == "tmpfs"
        assert flag & flags.ST_NOSUID
        assert os.fstat(mnt).st_mode & 0o7777 == 0o711
        assert not os.get_inheritable(mnt)
        _linux.mount_setattr(mnt, "", flags.AT_EMPTY_PATH, flags.MOUNT_ATTR_RDONLY, 0, 0, -1)
        with pytest.raises(OSError, match="Read-only") as caught:
            os.mkdir("x", dir_fd=mnt)
        assert caught.value.errno == errno.EROFS
        _linux.mount_setattr(mnt, "", flags.AT_EMPTY_PATH, 0, flags.MOUNT_ATTR_RDONLY, 0, -1)
        os.mkdir("x", dir_fd=mnt)
        os.close(mnt)

    def test_bad_option_is_explained_on_the_descriptor(self) -> None:
        fs = _linux.fsopen(b"tmpfs", 0)
        with pytest.raises(OSError, match="Invalid") as caught:
            _linux.fsconfig(fs, flags.FSCONFIG_SET_STRING, "size", "many", 0)
        assert caught.value.errno == errno.EINVAL
        assert b"size" in os.read(fs, 200)
        os.close(fs)

    def test_open_tree_clones(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("content")
        tree = _linux.open_tree(flags.AT_FDCWD, tmp_path, flags.OPEN_TREE_CLONE | flags.AT_RECURSIVE)
        assert not os.get_inheritable(tree)
        assert _linux.statx_mnt(tree)[1] is True
        fd = os.open("file", os.O_RDONLY, dir_fd=tree)
        assert os.read(fd, 10) == b"content"
        assert _linux.statx_mnt(fd) == (_linux.statx_mnt(tree)[0], False)
        os.close(fd)
        os.close(tree)

    def test_a_detached_mount_is_attached(self, forked: Forked, tmp_path: Path) -> None:
        def attach() -> tuple[list[str], list[str]]:
            private_mounts()
            mnt = detached_tmpfs()
            os.mkdir("only", dir_fd=mnt)
            _linux.move_mount(mnt, "", flags.AT_FDCWD, tmp_path, flags.MOVE_MOUNT_F_EMPTY_PATH)
            attached = os.listdir(tmp_path)
            _linux.umount2(tmp_path, flags.MNT_DETACH | flags.UMOUNT_NOFOLLOW)
            return attached, os.listdir(tmp_path)

        assert forked(attach) == repr((["only"], []))

    def test_mount_and_umount(self, forked: Forked, tmp_path: Path) -> None:
        def old_way() -> tuple[int, bool]:
            private_mounts()
            _linux.mount("tmpfs", tmp_path, "tmpfs", flags.MS_NODEV, "size=64k")
            kind = os.statvfs(tmp_path).f_flag & flags.ST_NODEV
            _linux.umount2(tmp_path, 0)
            return kind, os.path.ismount(tmp_path)

        assert forked(old_way) == repr((flags.ST_NODEV, False))

    def test_statmount(self) -> None:
        fd = os.open("/", os.O_PATH)
        try:
            unique, is_root = _linux.statx_mnt(fd, flags.STATX_MNT_ID_UNIQUE)
        except OSError as error:
            assert error.errno in (errno.ENOSYS, errno.EOPNOTSUPP)  # noqa: PT017 - before Linux 6.8
            return
        finally:
            os.close(fd)
        assert is_root
        # "/" is below the namespace's own root, or is it when there is no initramfs below
        answer = _linux.statmount(unique, flags.STATMOUNT_MNT_BASIC | flags.STATMOUNT_MNT_POINT, 4096)
        size, _, mask = struct.unpack_from("=IIQ", answer)
        assert size == len(answer)
        assert mask & flags.STATMOUNT_MNT_BASIC
        assert answer.endswith(b"/\0")
        with pytest.raises(OSError, match="too large") as caught:
            _linux.statmount(unique, flags.STATMOUNT_MNT_POINT, 8 * 64 + 1)
        assert caught.value.errno == errno.EOVERFLOW

    def test_unknown_statx_bit_is_said_to_be_unsupported(self) -> None:
        with pytest.raises(OSError, match="not supported") as caught:
            _linux.statx_mnt(0, 0x40000000)
        assert caught.value.errno == errno.EOPNOTSUPP


class TestFiles:
    def test_openat2_stays_in_its_root(self, tmp_path: Path) -> None:
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc" / "passwd").write_text("inside")
        (tmp_path / "link").symlink_to("/etc/passwd")
        root = os.open(tmp_path, os.O_PATH)
        fd = _linux.openat2(root, "../../link", os.O_RDONLY, 0, flags.RESOLVE_IN_ROOT)
        assert os.read(fd, 10) == b"inside"
        assert not os.get_inheritable(fd)
        os.close(fd)
        for resolve, number in (
            (flags.RESOLVE_BENEATH, errno.EXDEV),
            (flags.RESOLVE_NO_SYMLINKS, errno.ELOOP),
        ):
            with pytest.raises(OSError, match=r"\[Errno") as caught:
                _linux.openat2(root, "link", os.O_PATH, 0, resolve)
            assert caught.value.errno == number
        os.close(root)

    @pytest.mark.root
    def test_owner_through_a_path_descriptor(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        fd = os.open(tmp_path / "file", os.O_PATH | os.O_NOFOLLOW)
        _linux.fchownat(fd, "", 12, 34, flags.AT_EMPTY_PATH)
        status = os.fstat(fd)
        assert (status.st_uid, status.st_gid) == (12, 34)
        os.close(fd)

    def test_close_range_marks_and_closes(self, forked: Forked) -> None:
        def ranges() -> tuple[bool, bool]:
            fd = fcntl.fcntl(0, fcntl.F_DUPFD, 900)
            os.set_inheritable(fd, True)
            _linux.close_range(900, 0xFFFFFFFF, flags.CLOSE_RANGE_CLOEXEC)
            marked = not os.get_inheritable(fd)
            _linux.close_range(900, 0xFFFFFFFF, 0)
            return marked, os.path.exists(f"/proc/self/fd/{fd}")

        assert forked(ranges) == repr((True, False))

    def test_signalfd_tells_of_a_blocked_signal(self, forked: Forked) -> None:
        def wait() -> tuple[int, bool]:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGRTMIN})
            fd = _linux.signalfd([signal.SIGUSR1, signal.SIGRTMIN], os.O_NONBLOCK)
            os.kill(os.getpid(), signal.SIGUSR1)
            return struct.unpack_from("=I", os.read(fd, 128))[0], os.get_inheritable(fd)

        assert forked(wait) == repr((10, False))

    def test_pidfd_getfd_duplicates(self) -> None:
        reader, writer = os.pipe()
        pidfd = os.pidfd_open(os.getpid())
        copy = _linux.pidfd_getfd(pidfd, writer)
        os.write(copy, b"x")
        assert os.read(reader, 1) == b"x"
        assert not os.get_inheritable(copy)
        for fd in (reader, writer, copy, pidfd):
            os.close(fd)


class TestArguments:
    @pytest.mark.parametrize("nul", ["a\0b", b"a\0b"])
    def test_nul_in_a_string_is_refused(self, nul: str | bytes) -> None:
        refused: list[Callable[[], object]] = [
            lambda: _linux.open_tree(-1, nul, 0),
            lambda: _linux.move_mount(-1, "", -1, nul, 0),
            lambda: _linux.move_mount(-1, nul, -1, "", 0),
            lambda: _linux.mount_setattr(-1, nul, 0, 0, 0, 0, -1),
            lambda: _linux.fsopen(nul, 0),
            lambda: _linux.fsconfig(-1, 0, nul, None, 0),
            lambda: _linux.fsconfig(-1, 0, "key", nul, 0),
            lambda: _linux.mount(nul, "", None, 0, None),
            lambda: _linux.mount(None, nul, None, 0, None),
            lambda: _linux.mount(None, "", nul, 0, None),
            lambda: _linux.mount(None, "", None, 0, nul),
            lambda: _linux.umount2(nul, 0),
            lambda: _linux.openat2(-1, nul, 0, 0, 0),
            lambda: _linux.fchownat(-1, nul, 0, 0, 0),
        ]
        for call in refused:
            with pytest.raises(ValueError, match="null byte"):
                call()

    def test_numbers_that_do_not_fit_are_refused(self) -> None:
        with pytest.raises(OverflowError):
            _linux.open_tree(-1, "", -1)
        with pytest.raises(OverflowError, match="32 bits"):
            _linux.open_tree(-1, "", 2**32)
        with pytest.raises(OverflowError):
            _linux.fchownat(-1, "", -1, 0, 0)  # would mean "unchanged": setting the owner must not be skipped
        with pytest.raises(OverflowError):
            _linux.openat2(-1, "", 2**64, 0, 0)
        with pytest.raises(OverflowError):
            _linux.prctl(0, 2**64, 0, 0, 0)
        with pytest.raises(OverflowError):
            _linux.setns(2**31, 0)

    def test_wrong_types_are_refused(self) -> None:
        wrong: list[Callable[[], object]] = [
            lambda: _linux.open_tree(-1, 5, 0),  # type: ignore[arg-type]
            lambda: _linux.open_tree(-1, "", "0"),  # type: ignore[arg-type]
            lambda: _linux.prctl(0, "0", 0, 0, 0),  # type: ignore[arg-type]
            lambda: _linux.signalfd(5, 0),  # type: ignore[arg-type]
            lambda: _linux.signalfd(["x"], 0),  # type: ignore[list-item]
            lambda: _linux.umount2(None, 0),  # type: ignore[arg-type]
        ]
        for call in wrong:
            with pytest.raises(TypeError):
                call()

    @pytest.mark.parametrize("number", [0, -1, 65])
    def test_signal_numbers(self, number: int) -> None:
        with pytest.raises(ValueError, match="1 to 64"):
            _linux.signalfd([number], 0)

    def test_surrogates_become_the_bytes_they_stand_for(self, tmp_path: Path) -> None:
        os.mkdir(os.fsencode(tmp_path) + b"/\xff")
        fd = _linux.openat2(flags.AT_FDCWD, f"{tmp_path}/\udcff", os.O_PATH, 0, 0)
        assert os.readlink(f"/proc/self/fd/{fd}").endswith("\udcff")
        os.close(fd)

    def test_nothing_is_leaked_by_refused_arguments(self) -> None:
        calls: list[Callable[[], object]] = [
            lambda: _linux.move_mount(-1, "first" * 50, -1, "second" * 50, "x"),  # type: ignore[arg-type]
            lambda: _linux.move_mount(-1, "x" * 50, -1, "y" * 50, 0),
            lambda: _linux.mount(None, "x" * 5000, None, 0, "y" * 50),
        ]

        def refused() -> None:
            for call in calls * 200:
                try:
                    call()
                except (TypeError, OSError):
                    continue
                raise AssertionError(call)

        refused()
        before = sys.getallocatedblocks()
        refused()
        assert sys.getallocatedblocks() - before < 100  # of 1200 strings


class TestFlags:
    def test_values_agree_with_the_interpreters(self) -> None:
        import resource

        for name, value in process.RLIMITS.items():
            if hasattr(resource, name):
                assert getattr(resource, name) == value, name
        for name, value in vars(flags).items():
            for module in (os, socket, fcntl):
                if isinstance(value, int) and hasattr(module, name):
                    assert getattr(module, name) == value, name

    def test_limits_are_the_interpreter_s(self) -> None:
        import resource

        had = resource.getrlimit(resource.RLIMIT_CORE)
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (5, had[1]))
            found = _linux.prlimit(0, process.RLIMITS["RLIMIT_CORE"], None)
            assert found == (5, had[1] % (1 << 64))
            assert _linux.prlimit(os.getpid(), process.RLIMITS["RLIMIT_CORE"], (7, found[1])) == found
            assert resource.getrlimit(resource.RLIMIT_CORE) == (7, had[1])
        finally:
            resource.setrlimit(resource.RLIMIT_CORE, had)
        for wrong in ((1, 0), (1 << 64, 0), (-1, 0), (1,), 1):
            with pytest.raises((OSError, OverflowError, TypeError)):
                _linux.prlimit(0, process.RLIMITS["RLIMIT_CORE"], wrong)  # type: ignore[arg-type]

    def test_a_signal_s_default(self) -> None:
        """The process gets the default action; the interpreter's own table of handlers does not change."""
        code = (
            "import os, signal, sys; sys.path.insert(0, sys.argv[1]); from pyrunc.linux import _linux\n"
            "signal.signal(signal.SIGUSR1, signal.SIG_IGN); os.kill(os.getpid(), signal.SIGUSR1)\n"
            "_linux.default_signal(signal.SIGUSR1); os.kill(os.getpid(), signal.SIGUSR1)"
        )
        words = [sys.executable, "-I", "-c", code, __file__.rpartition("/tests/")[0]]
        assert subprocess.run(words, check=False).returncode == -signal.SIGUSR1
        with pytest.raises(OSError, match="Invalid argument"):
            _linux.default_signal(signal.SIGKILL)

    def test_capabilities_are_all_there_are(self) -> None:
        with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
            last = int(file.read())
        assert sorted(process.CAPABILITIES.values()) == list(range(len(process.CAPABILITIES)))
        assert len(process.CAPABILITIES) >= last + 1


def test_one_build_serves_every_python() -> None:
    """It uses the limited API only, which later versions of Python keep."""
    assert ".abi3." in (_linux.__file__ or "")


def test_every_function_has_a_user_and_a_signature() -> None:
    """The package itself uses each function; those that only tests need are in tests/support/libc.py."""
    root = Path(flags.__file__).resolve().parents[2]
    used = set()
    for folder in ("pyrunc", "install", "bench"):
        for path in (root / folder).rglob("*.py"):
            used.update(re.findall(r"\b_linux\.(\w+)", path.read_text(encoding="utf-8")))
    functions = {name for name in dir(_linux) if not name.startswith("__")}
    assert functions - used == set()
    stub = Path(flags.__file__).with_name("_linux.pyi").read_text(encoding="utf-8")
    assert set(re.findall(r"(?m)^def (\w+)\(", stub)) == functions


def test_import_is_quiet_and_imports_nothing() -> None:
    code = (
        "import sys, __future__; sys.path.insert(0, sys.argv[1]); import pyrunc.linux; a = set(sys.modules); "
    )
    code += "import pyrunc.linux._linux, pyrunc.linux.flags; print(sorted(set(sys.modules) - a))"
    root = os.path.dirname(os.path.dirname(os.path.dirname(flags.__file__)))
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, root], capture_output=True, text=True, check=True
    )
    assert (run.stdout, run.stderr) == ("['pyrunc.linux._linux', 'pyrunc.linux.flags']\n", "")


@pytest.mark.parametrize("size", [*range(130), 1000, 1 << 16])
def test_sha256(size: int) -> None:
    data = bytes(number % 251 for number in range(size))
    assert _linux.sha256(data) == hashlib.sha256(data).hexdigest()
    assert _linux.sha256(memoryview(data)) == hashlib.sha256(data).hexdigest()
