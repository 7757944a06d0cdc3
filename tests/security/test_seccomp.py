"""Seccomp: what a container under a filter can do, and what the runtime can still do with it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import struct
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import wait_for
from tests.support.profiles import ALLOW_ALL, denied, rule

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from tests.support.containers import Bundle, Runtime

NOTIF_RECV = 0xC0502100  # SECCOMP_IOCTL_NOTIF_RECV and _SEND of linux/seccomp.h
NOTIF_SEND = 0xC0182101
CONTINUE = 1
EITHER_WAY = pytest.mark.parametrize("no_new_privileges", [True, False])
# The system calls of a shell that says something. What a runtime needs in addition to these is its own
# affair.
SHELL = """
access alarm arch_prctl brk capget capset chdir close close_range dup2 epoll_create1 execve exit exit_group
faccessat faccessat2 fchdir fcntl fstat futex getcwd getdents64 getegid geteuid getgid getpgrp getpid getppid
getrandom gettid getuid ioctl lseek lstat mmap mprotect munmap newfstatat open openat poll ppoll prctl
pread64 prlimit64 read readlink rseq rt_sigaction rt_sigprocmask rt_sigreturn set_robust_list set_tid_address
setgid setgroups setpgid setresgid setresuid setuid sigaltstack stat statx umask uname wait4 write writev
"""


@EITHER_WAY
def test_a_denied_call_fails_with_its_errno(
    bundle: Bundle, runtime: Runtime, *, no_new_privileges: bool
) -> None:
    bundle.process["noNewPrivileges"] = no_new_privileges
    bundle.linux["seccomp"] = denied("mkdir", "mkdirat", errnoRet=errno.ENETDOWN)
    result = runtime.run(bundle, "mkdir /dev/shm/x; echo still here")
    assert "Network is down" in result.stdout
    assert result.stdout.endswith("still here\n")


@EITHER_WAY
def test_exec_is_under_the_same_filter(bundle: Bundle, runtime: Runtime, *, no_new_privileges: bool) -> None:
    bundle.process["noNewPrivileges"] = no_new_privileges
    bundle.linux["seccomp"] = denied("mkdir", "mkdirat", errnoRet=errno.ENETDOWN)
    result = runtime("exec", runtime.started(bundle), "/bin/mkdir", "/dev/shm/x")
    assert "Network is down" in result.stdout


def test_kill_ends_the_container_with_sigsys(bundle: Bundle, runtime: Runtime) -> None:
    bundle.process["rlimits"] = [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]
    bundle.linux["seccomp"] = {**ALLOW_ALL, "syscalls": [rule("SCMP_ACT_KILL_PROCESS", "mkdir", "mkdirat")]}
    bundle.process["args"] = ["/bin/mkdir", "/dev/shm/x"]
    assert runtime.run(bundle).returncode == 128 + signal.SIGSYS


def test_a_start_container_hook_is_under_the_filter(bundle: Bundle, runtime: Runtime) -> None:
    bundle.linux["seccomp"] = {**ALLOW_ALL, "syscalls": [rule("SCMP_ACT_KILL", "mkdir", "mkdirat")]}
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "mkdir /dev/shm/x"]}
    bundle.config["hooks"] = {"startContainer": [hook]}
    result = runtime.run(bundle, "echo started")
    assert result.returncode != 0
    assert "started" not in result.stdout
    assert "startContainer hook" in result.stdout


@EITHER_WAY
def test_calls_the_runtime_likes_may_be_missing(
    bundle: Bundle, runtime: Runtime, *, no_new_privileges: bool
) -> None:
    bundle.process["noNewPrivileges"] = no_new_privileges
    names = [
        "close_range",
        "faccessat2",
        "getcwd",
        "fsopen",
        "fsconfig",
        "fspick",
        "openat2",
        "open_tree",
        "move_mount",
        "mount_setattr",
    ]
    bundle.linux["seccomp"] = denied(*names, errnoRet=errno.ENOSYS)
    (bundle.rootfs / "etc/passwd").write_text("root:x:0:0:root:/home/of/root:/bin/sh\n")
    assert runtime.output(bundle, "echo $HOME") == "/home/of/root\n"
    name = runtime.started(bundle)
    assert runtime("exec", name, "/bin/sh", "-c", "echo $HOME").stdout == "/home/of/root\n"


@EITHER_WAY
def test_a_profile_of_what_the_program_needs_is_enough(
    bundle: Bundle, runtime: Runtime, *, no_new_privileges: bool
) -> None:
    bundle.process["noNewPrivileges"] = no_new_privileges
    bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [rule("SCMP_ACT_ALLOW", *SHELL.split())],
    }
    assert runtime.output(bundle, "echo hello") == "hello\n"
    runtime.started(bundle, "echo hello > /tmp/said; sleep 0")
    assert wait_for((bundle.rootfs / "tmp/said").exists)


@EITHER_WAY
def test_a_program_that_is_missing_is_still_named(
    bundle: Bundle, runtime: Runtime, *, no_new_privileges: bool
) -> None:
    bundle.process["noNewPrivileges"] = no_new_privileges
    names = [name for name in SHELL.split() if name not in ("sendto", "sendmsg")]
    bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [rule("SCMP_ACT_ALLOW", *names)],
    }
    (bundle.rootfs / "script").write_text("#!/no/such/interpreter\n")
    (bundle.rootfs / "script").chmod(0o755)
    bundle.process["args"] = ["/script"]
    result = runtime.run(bundle)
    assert result.returncode != 0
    assert "exec /script: no such file or directory" in result.stdout


def test_an_empty_section_is_no_filter(bundle: Bundle, runtime: Runtime) -> None:
    bundle.linux["seccomp"] = {}
    assert "Seccomp:\t0\n" in runtime.output(bundle, "cat /proc/self/status")


def test_a_wrong_action_is_refused_with_its_place(bundle: Bundle, runtime: Runtime) -> None:
    bundle.linux["seccomp"] = {**ALLOW_ALL, "syscalls": [rule("SCMP_ACT_NO", "mkdir")]}
    result = runtime.run(bundle, "true")
    assert result.returncode != 0
    assert "/linux/seccomp/syscalls/0/action" in result.stdout
    assert "SCMP_ACT_NO" in result.stdout


def test_the_compiled_filter_is_kept_where_no_container_is(bundle: Bundle, runtime: Runtime) -> None:
    bundle.linux["seccomp"] = denied("mkdir")
    runtime.output(bundle, "true")
    runtime.output(bundle, "true")
    (entry,) = runtime.root.rglob("seccomp/*")
    assert entry.stat().st_mode & 0o7777 == 0o600
    assert json.loads(runtime("list", "--format", "json").stdout or "[]") in ([], None)


# ---- notifications


class Agent:
    """A seccomp agent in a process of its own: mkdir gets ENOMEDIUM, all other calls continue."""

    def __init__(self, directory: Path) -> None:
        """Listen."""
        self.path = str(directory / "agent.sock")
        self.seen = directory / "messages"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        self.mkdir = {83, 258} if os.uname().machine == "x86_64" else {34}
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.setpgid(0, 0)
                signal.alarm(100)
                self.serve()
            finally:
                os._exit(1)
        os.setpgid(self.pid, self.pid)

    def serve(self) -> None:
        """Receive listeners, and answer each in a process of its own."""
        while True:
            connection = self.listener.accept()[0]
            data, descriptors, _flags, _address = socket.recv_fds(connection, 65536, 4)
            while more := connection.recv(65536):
                data += more
            with self.seen.open("ab") as out:
                out.write(data + b"\n")
            connection.close()
            if os.fork() == 0:
                signal.alarm(100)
                self.listener.close()
                self.answer_all(descriptors[0])
                os._exit(0)
            os.close(descriptors[0])

    def answer_all(self, listener: int) -> None:
        """Answer notifications until no process is left under the filter."""
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        while poll.poll()[0][1] & select.POLLIN:
            request = bytearray(80)
            try:
                fcntl.ioctl(listener, NOTIF_RECV, request)
                cookie, _pid, _flags, number = struct.unpack_from("=QIIi", request)
                answer = (0, -errno.ENOMEDIUM, 0) if number in self.mkdir else (0, 0, CONTINUE)
                fcntl.ioctl(listener, NOTIF_SEND, struct.pack("=QqiI", cookie, *answer))
            except OSError as exc:
                if exc.errno != errno.ENOENT:  # ENOENT: the process was killed while it waited
                    return

    def messages(self) -> list[dict[str, Any]]:
        """Return what was received."""
        return [json.loads(line) for line in self.seen.read_text().splitlines()]

    def close(self) -> None:
        """End, with all the processes made for listeners."""
        os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.listener.close()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = Agent(tmp_path)
    yield made
    made.close()


def notifying(bundle: Bundle, path: str, *names: str) -> None:
    bundle.linux["seccomp"] = {
        **ALLOW_ALL,
        "listenerPath": path,
        "listenerMetadata": "opaque",
        "syscalls": [rule("SCMP_ACT_NOTIFY", *names)],
    }


@EITHER_WAY
def test_an_agent_answers(bundle: Bundle, runtime: Runtime, agent: Agent, *, no_new_privileges: bool) -> None:
    bundle.process["noNewPrivileges"] = no_new_privileges
    notifying(bundle, agent.path, "mkdir", "mkdirat")
    bundle.config["annotations"] = {"some": "thing"}
    assert "No medium found" in runtime.run(bundle, "mkdir /dev/shm/x").stdout
    (message,) = agent.messages()
    assert message["fds"] == ["seccompFd"]
    assert message["metadata"] == "opaque"
    assert message["state"]["status"] == "creating"
    assert message["state"]["bundle"] == str(bundle.path)
    assert message["state"]["annotations"] == {"some": "thing"}
    assert message["pid"] == message["state"]["pid"] > 0


@EITHER_WAY
def test_an_agent_answers_for_exec(
    bundle: Bundle, runtime: Runtime, agent: Agent, *, no_new_privileges: bool
) -> None:
    bundle.process["noNewPrivileges"] = no_new_privileges
    notifying(bundle, agent.path, "mkdir", "mkdirat")
    name = runtime.started(bundle)
    assert "No medium found" in runtime("exec", name, "/bin/mkdir", "/dev/shm/x").stdout
    first, second = agent.messages()
    assert [first["state"]["status"], second["state"]["status"]] == ["creating", "running"]
    assert first["pid"] != second["pid"]


@EITHER_WAY
def test_calls_the_runtime_makes_itself_may_be_notified(
    bundle: Bundle, runtime: Runtime, agent: Agent, *, no_new_privileges: bool
) -> None:
    bundle.process["noNewPrivileges"] = no_new_privileges
    notifying(bundle, agent.path, "execve", "openat", "open", "read", "close", "fcntl", "sendmsg", "recvmsg")
    assert runtime.output(bundle, "echo hello") == "hello\n"


def test_a_hook_gets_no_listener(bundle: Bundle, runtime: Runtime, agent: Agent) -> None:
    notifying(bundle, agent.path, "mkdir")
    count = "[ $(ls /proc/self/fd | wc -l) = 4 ]"
    bundle.config["hooks"] = {"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", count]}]}
    assert runtime.output(bundle, "echo hello") == "hello\n"


def test_without_an_agent_there_is_no_container(bundle: Bundle, runtime: Runtime, tmp_path: Path) -> None:
    notifying(bundle, str(tmp_path / "nobody"), "mkdir")
    result = runtime.run(bundle, "echo started")
    assert result.returncode != 0
    assert "failed to connect with seccomp agent" in result.stdout
    assert "started" not in result.stdout


def test_an_agent_that_dies_leaves_calls_that_do_not_exist(
    bundle: Bundle, runtime: Runtime, tmp_path: Path
) -> None:
    """If no process holds the listener any more, the kernel answers ENOSYS."""
    path = str(tmp_path / "agent.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    taker = os.fork()
    if taker == 0:
        signal.alarm(50)
        listener.accept()[0].recv(65536)
        os._exit(0)
    notifying(bundle, path, "mkdir", "mkdirat")
    result = runtime.run(bundle, "mkdir /dev/shm/x")
    os.waitpid(taker, 0)
    listener.close()
    assert "Function not implemented" in result.stdout


def test_write_cannot_be_notified(bundle: Bundle, runtime: Runtime, agent: Agent) -> None:
    notifying(bundle, agent.path, "write")
    result = runtime.run(bundle, "true")
    assert result.returncode != 0
    assert "SCMP_ACT_NOTIFY cannot be used for the write syscall" in result.stdout


def test_the_distributions_profile_works(bundle: Bundle, runtime: Runtime) -> None:
    """It is the profile of containers-common, without the parts that an engine must resolve."""
    path = "/usr/share/containers/seccomp.json"
    if not os.path.exists(path) or shutil.which("uname") is None:
        pytest.skip("needs the profile of containers-common")
    with open(path) as file:
        source = json.load(file)
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, "")
    entries = [
        entry
        for entry in source["syscalls"]
        if not entry.get("excludes")
        and (not entry.get("includes") or machine in (entry["includes"].get("arches") or ()))
    ]
    rules = [{key: entry[key] for key in ("names", "action", "args") if entry.get(key)} for entry in entries]
    bundle.linux["seccomp"] = {
        "defaultAction": source["defaultAction"],
        "defaultErrnoRet": source["defaultErrnoRet"],
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    }
    if os.uname().machine != "x86_64":
        del bundle.linux["seccomp"]["architectures"]
    assert "Seccomp:\t2\n" in runtime.output(bundle, "cat /proc/self/status")
