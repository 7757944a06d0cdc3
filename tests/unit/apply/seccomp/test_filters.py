"""Filters are compiled, cached and loaded: in forked children the kernel shows what they do."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import signal
import socket
import struct
from typing import TYPE_CHECKING

import pytest

from pyrunc.apply.seccomp import compiler, filters
from pyrunc.errors import Failure
from pyrunc.linux import _linux, flags
from pyrunc.plan import seccomp as plan
from tests.support.forked import in_child
from tests.support.profiles import ALLOW_ALL, denied, program, rule

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="a filter without no_new_privs takes CAP_SYS_ADMIN")


def load(compiled: filters.Program) -> int:
    """Load a filter as the init program does; return its listener, or 0."""
    return _linux.seccomp(flags.SECCOMP_SET_MODE_FILTER, compiled.flags, compiled.bpf)


def under(section: dict[str, Any], function: Callable[[], object]) -> object:
    """Return what function does in a child under a filter."""
    compiled = program(section)

    def child() -> object:
        load(compiled)
        return function()

    return in_child(child)


# ---- what the kernel does with it


@as_root
def test_errno_is_answered_and_other_calls_are_not_touched(tmp_path: Path) -> None:
    target = str(tmp_path / "made")
    assert under(denied("mkdir", "mkdirat", errnoRet=100), lambda: os.mkdir(target)) == {"errno": 100}
    assert under(denied("mkdir", "mkdirat"), lambda: os.mkdir(target)) == {"errno": errno.EPERM}
    assert not os.path.exists(target)
    assert under(denied("rmdir"), lambda: os.mkdir(target)) is None
    assert os.path.isdir(target)


@as_root
@pytest.mark.parametrize("action", ["SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"])
def test_kill_and_trap_end_the_process(action: str) -> None:
    section = {**ALLOW_ALL, "syscalls": [rule(action, "getppid")]}
    assert under(section, os.getppid) == {"signal": signal.SIGSYS}


@as_root
@pytest.mark.parametrize("action", ["SCMP_ACT_LOG", "SCMP_ACT_ALLOW"])
def test_log_and_allow_let_through(action: str) -> None:
    rules = [rule(action, "write", "exit_group", "getuid", "mmap", "munmap", "brk", "futex")]
    section = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}
    assert under(section, os.getuid) == os.getuid()
    assert under(section, os.getppid) == -1, "a call that is not in the profile"


@as_root
def test_trace_without_a_tracer_is_enosys() -> None:
    section = {**ALLOW_ALL, "syscalls": [rule("SCMP_ACT_TRACE", "mkdir", "mkdirat")]}
    assert under(section, lambda: os.mkdir("/proc/x")) == {"errno": errno.ENOSYS}


@as_root
def test_all_64_bits_of_an_argument_are_compared() -> None:
    fd = os.memfd_create("file")
    high = 1 << 40
    section = denied("lseek", args=[{"index": 1, "value": high, "op": "SCMP_CMP_EQ"}])
    assert under(section, lambda: os.lseek(fd, high, 0)) == {"errno": errno.EPERM}
    assert under(section, lambda: os.lseek(fd, high + 1, 0)) == high + 1
    assert under(section, lambda: os.lseek(fd, high & 0xFFFFFFFF, 0)) == 0
    os.close(fd)


@as_root
def test_conditions_on_several_arguments_must_all_hold() -> None:
    fd = os.memfd_create("file")
    conditions = [
        {"index": 1, "value": 0xF0, "valueTwo": 0x10, "op": "SCMP_CMP_MASKED_EQ"},
        {"index": 2, "value": os.SEEK_SET, "op": "SCMP_CMP_EQ"},
    ]
    section = denied("lseek", args=conditions)
    assert under(section, lambda: os.lseek(fd, 0x1F, os.SEEK_SET)) == {"errno": errno.EPERM}
    assert under(section, lambda: os.lseek(fd, 0x1F, os.SEEK_CUR)) == 0x1F
    assert under(section, lambda: os.lseek(fd, 0x2F, os.SEEK_SET)) == 0x2F
    os.close(fd)


@as_root
def test_conditions_on_one_argument_are_alternatives() -> None:
    fd = os.memfd_create("file")
    conditions = [{"index": 1, "value": value, "op": "SCMP_CMP_EQ"} for value in (5, 7)]
    section = denied("lseek", args=conditions)
    assert under(section, lambda: os.lseek(fd, 5, 0)) == {"errno": errno.EPERM}
    assert under(section, lambda: os.lseek(fd, 6, 0)) == 6
    assert under(section, lambda: os.lseek(fd, 7, 0)) == {"errno": errno.EPERM}
    os.close(fd)


@as_root
def test_calls_newer_than_the_profile_do_not_exist() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    number_of = compiler.Library().call.seccomp_syscall_resolve_name
    newest_known = number_of(b"openat2")

    def call(number: int) -> int:
        libc.syscall(number, 0, 0, 0, 0, 0, 0)
        return ctypes.get_errno()

    names = ("write", "exit_group", "openat2", "mmap", "munmap", "brk", "futex")
    rules = [rule("SCMP_ACT_ALLOW", *names)]
    section = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}
    assert under(section, lambda: call(newest_known + 1)) == errno.ENOSYS
    assert under(section, lambda: call(newest_known - 1)) == errno.EPERM
    rules.append(rule("SCMP_ACT_ERRNO", "openat2", "faccessat2"))
    assert under(section, lambda: call(number_of(b"faccessat2"))) == errno.EPERM


@as_root
def test_a_filter_is_kept_across_execve() -> None:
    def child() -> None:
        os.execve("/bin/sh", ["sh", "-c", "mkdir /proc/x 2>&1; exit 7"], {})

    section = denied("mkdir", "mkdirat", errnoRet=100)
    assert under(section, child) == {"exit": 7}


def test_without_rights_and_no_new_privs_the_kernel_refuses() -> None:
    compiled = program(denied("mkdir"))

    def child() -> object:
        if os.getuid() == 0:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
        return load(compiled)

    assert in_child(child) == {"errno": errno.EACCES}
    assert "without noNewPrivileges the process needs CAP_SYS_ADMIN" in filters.HINTS[errno.EACCES]


def test_all_known_flags_are_supported_here() -> None:
    assert filters.supported_flags() == list(plan.FLAGS)
    assert os.path.exists("/proc/self/status"), "asking loaded no filter"
    with open("/proc/self/status") as status:
        assert "Seccomp:\t0\n" in status.read()


@as_root
def test_flags_reach_the_kernel() -> None:
    section = {**denied("mkdir"), "flags": list(plan.FLAGS)[:3]}
    assert under(section, lambda: 5) == 5


# ---- notifications

NOTIF_RECV = 0xC0502100  # SECCOMP_IOCTL_NOTIF_RECV: struct seccomp_notif is 80 bytes
NOTIF_SEND = 0xC0182101
NOTIFY_MKDIR = {**ALLOW_ALL, "listenerPath": "/s", "syscalls": [rule("SCMP_ACT_NOTIFY", "mkdir", "mkdirat")]}


def answer_one(listener: int, error: int) -> None:
    request = bytearray(80)
    fcntl.ioctl(listener, NOTIF_RECV, request)
    cookie = struct.unpack_from("=Q", request)[0]
    fcntl.ioctl(listener, NOTIF_SEND, struct.pack("=QqiI", cookie, 0, -error, 0))


@as_root
@pytest.mark.parametrize("words", [[], ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]])
def test_a_notification_is_answered_through_the_listener(words: list[str]) -> None:
    ours, theirs = socket.socketpair()
    compiled = program({**NOTIFY_MKDIR, "flags": words})
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        listener = load(compiled)
        socket.send_fds(theirs, [b"x"], [listener])
        try:
            os.mkdir("/proc/x")
        except OSError as exc:
            os._exit(exc.errno or 0)
        os._exit(0)
    descriptors = socket.recv_fds(ours, 1, 1)[1]
    filters.check_listener(descriptors[0])
    answer_one(descriptors[0], errno.ENOMEDIUM)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == errno.ENOMEDIUM
    for each in (ours, theirs):
        each.close()
    os.close(descriptors[0])


@as_root
def test_a_second_listener_is_refused_in_words() -> None:
    compiled = program(NOTIFY_MKDIR)

    def child() -> object:
        load(compiled)
        return load(compiled)

    assert in_child(child) == {"errno": errno.EBUSY}
    assert "another filter of this process has a listener already" in filters.HINTS[errno.EBUSY]


@as_root
def test_a_listener_can_be_fetched_by_its_number() -> None:
    compiled = program(NOTIFY_MKDIR)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        os.write(writer, b"%d" % load(compiled))
        signal.pause()
    pidfd = os.pidfd_open(pid)
    number = os.read(reader, 10)
    listener = filters.fetch_listener(pidfd, number)
    filters.check_listener(listener)
    for wrong, why in ((b"", "malformed"), (b"-1", "malformed"), (b"1" * 9, "malformed"), (b"999", "fetch")):
        with pytest.raises(Failure, match=why):
            filters.fetch_listener(pidfd, wrong)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    for fd in (reader, writer, pidfd, listener):
        os.close(fd)


def test_something_else_is_not_taken_for_a_listener() -> None:
    fd = os.memfd_create("no listener")
    with pytest.raises(Failure, match="in place of a seccomp listener"):
        filters.check_listener(fd)
    os.close(fd)


def test_the_agent_gets_one_message_with_one_descriptor(tmp_path: Path) -> None:
    path = str(tmp_path / "agent")
    agent = socket.socket(socket.AF_UNIX)
    agent.bind(path)
    agent.listen()
    fd = os.memfd_create("stands for a listener")
    state = {"ociVersion": "1.3.0", "fds": ["seccompFd"], "pid": 1, "state": {"id": "a" * 100000}}
    reader = os.fork()
    if reader == 0:
        signal.alarm(20)
        connection = agent.accept()[0]
        data, descriptors, _flags, _address = socket.recv_fds(connection, 4096, 4)
        while more := connection.recv(65536):
            data += more
        same = os.fstat(descriptors[0]).st_ino == os.fstat(fd).st_ino
        os._exit(0 if json.loads(data) == state and len(descriptors) == 1 and same else 1)
    filters.send_notify_fd(path, fd, state)
    assert os.waitpid(reader, 0)[1] == 0
    agent.close()
    os.close(fd)


@pytest.mark.parametrize("name", ["nobody", "@abstract", "x" * 200])
def test_an_agent_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    path = str(tmp_path / name)
    with pytest.raises(Failure) as caught:
        filters.send_notify_fd(path, 0, {})
    assert caught.value.pointer == "/linux/seccomp/listenerPath"
    assert caught.value.message.startswith(f"failed to connect with seccomp agent at {path}")


def test_an_agent_that_does_not_read_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filters, "_AGENT_PATIENCE", 0.05)
    path = str(tmp_path / "agent")
    agent = socket.socket(socket.AF_UNIX)
    agent.bind(path)
    agent.listen()
    with pytest.raises(Failure, match="it does not read"):
        filters.send_notify_fd(path, 0, {"much": "x" * (1 << 22)})
    agent.close()
