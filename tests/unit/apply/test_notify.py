"""How sd_notify messages get from a container to the service manager."""

from __future__ import annotations

import os
import select
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyrunc import log
from pyrunc.apply import notify
from pyrunc.errors import Failure

if TYPE_CHECKING:
    from collections.abc import Iterator


class Manager:
    """A service manager's socket, and a state directory of a container."""

    def __init__(self, directory: Path) -> None:
        self.state = str(directory / "state")
        os.mkdir(self.state)
        notify.prepare(self.state)
        self.path = str(directory / "manager.sock")
        self.server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.server.bind(self.path)
        self.server.settimeout(10)

    def say(self, text: bytes) -> None:
        """Send a message, as the container does."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.connect(f"{self.state}/notify/notify.sock")
            client.send(text)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path)
    yield made
    made.server.close()


def serve(state: str, host: str, pid: int, *, once: bool) -> notify.Relay:
    """Start to forward messages to the manager."""
    relay = notify.serve(state, host, pid, once=once)
    assert relay is not None
    return relay


def pump(relay: notify.Relay) -> None:
    for fd, events in relay.wants().items():
        relay.ready(fd, events)


def test_what_the_container_gets(tmp_path: Path) -> None:
    mount, variable = notify.additions("/run/x/c1")
    assert mount["destination"] == "/run/notify"
    assert mount["source"] == "/run/x/c1/notify"
    assert "ro" in mount["options"]
    assert variable == "NOTIFY_SOCKET=/run/notify/notify.sock"


def test_ready_is_passed_on_with_the_pid_and_a_barrier(manager: Manager) -> None:
    relay = serve(manager.state, manager.path, 42, once=True)
    manager.say(b"STATUS=loading\nMAINPID=7\nFDSTORE=1\n")
    pump(relay)
    assert manager.server.recv(4096) == b"STATUS=loading"
    assert not relay.is_ready
    manager.say(b"READY=1")
    pid = os.fork()
    if pid == 0:  # the manager lets go of the barrier's descriptor when it reads the message
        manager.server.recv(4096)
        _, fds, _, _ = socket.recv_fds(manager.server, 4096, 1)
        os._exit(0 if len(fds) == 1 else 1)
    pump(relay)
    assert os.waitpid(pid, 0)[1] == 0
    assert relay.wants() == {}  # it is ready
    relay.close()


def test_in_the_foreground_everything_is_passed_on_until_the_end(manager: Manager) -> None:
    relay = serve(manager.state, manager.path, 42, once=False)
    manager.say(b"READY=1\nSTATUS=up")
    pump(relay)
    assert manager.server.recv(4096) == b"READY=1\nSTATUS=up\nMAINPID=42"
    manager.say(b"READY=1")
    pump(relay)
    assert manager.server.recv(4096) == b"READY=1"
    manager.say(b"BARRIER=1")
    pump(relay)
    manager.say(b"WATCHDOG=1")
    manager.say(b"STOPPING=1")
    relay.finish(-1)
    assert manager.server.recv(4096) == b"WATCHDOG=1"
    assert manager.server.recv(4096) == b"STOPPING=1"
    assert not relay.signal(10)
    relay.close()


@pytest.mark.parametrize("ready", [True, False])
def test_waiting_ends_with_the_container(manager: Manager, *, ready: bool) -> None:
    relay = serve(manager.state, manager.path, 42, once=False)
    pid = os.fork()
    if pid == 0:
        if ready:
            manager.say(b"READY=1")
        os._exit(0)
    pidfd = os.pidfd_open(pid)
    assert relay.wait_ready(pidfd) is ready
    os.waitpid(pid, 0)
    os.close(pidfd)
    relay.close()


def test_until_ready_closes_its_sockets(manager: Manager) -> None:
    before = os.listdir("/proc/self/fd")
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(reader, 1)
        manager.say(b"STATUS=going down")
        os._exit(0)
    relay = serve(manager.state, manager.path, pid, once=True)
    os.write(writer, b"x")
    os.close(writer)
    os.close(reader)
    assert not notify.until_ready(relay)
    os.waitpid(pid, 0)
    assert not notify.until_ready(serve(manager.state, manager.path, pid, once=True))
    assert os.listdir("/proc/self/fd") == before


def test_a_manager_that_left_does_no_harm(manager: Manager) -> None:
    relay = serve(manager.state, manager.path, 42, once=True)
    manager.server.close()
    manager.say(b"READY=1")
    pump(relay)
    assert relay.is_ready
    relay.close()


def test_an_abstract_socket(manager: Manager) -> None:
    name = f"pyrunc-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(f"\0{name}")
        relay = serve(manager.state, f"@{name}", 42, once=False)
        manager.say(b"STATUS=hello")
        pump(relay)
        assert select.select([server], [], [], 10)[0]
        assert server.recv(100) == b"STATUS=hello"
        relay.close()


def test_a_second_start_may_serve_again_and_failures_leave_nothing_open(manager: Manager) -> None:
    before = os.listdir("/proc/self/fd")
    for _ in range(2):
        serve(manager.state, manager.path, 42, once=True).close()
    assert notify.serve(manager.state, "/nosuch", 42, once=True) is None
    os.unlink(f"{manager.state}/notify/notify.sock")
    os.mkdir(f"{manager.state}/notify/notify.sock")
    with pytest.raises(Failure, match=r"NOTIFY_SOCKET: make .*/notify.sock: is a directory"):
        notify.serve(manager.state, manager.path, 42, once=True)
    with pytest.raises(Failure, match=r"make .*notify"):
        notify.prepare(manager.state)
    assert os.listdir("/proc/self/fd") == before


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list of the warnings."""
    found: list[str] = []
    monkeypatch.setattr(log, "listener", found.append)
    return found


@pytest.mark.parametrize(
    ("host", "said"),
    [
        (
            "/nosuch/notify",
            "NOTIFY_SOCKET=/nosuch/notify: no such file or directory: no service manager is told",
        ),
        ("/dev/null", "NOTIFY_SOCKET=/dev/null: connection refused: no service manager is told"),
        ("relative", "NOTIFY_SOCKET=relative: it is neither an absolute path nor an abstract name"),
        ("vsock:2:1", "NOTIFY_SOCKET=vsock:2:1: it is neither"),
        (
            "/" + "d" * 200,
            "NOTIFY_SOCKET=/" + "d" * 79 + ": AF_UNIX path too long: no service manager is told",
        ),
        ("@" + "d" * 200, "AF_UNIX path too long"),
    ],
)
def test_an_address_that_leads_nowhere_is_warned_of_and_left(
    manager: Manager, heard: list[str], host: str, said: str
) -> None:
    before = os.listdir("/proc/self/fd")
    assert not notify.usable(host)
    assert said in heard[0]
    assert notify.serve(manager.state, host, 42, once=True) is None
    assert heard[1] == heard[0]
    assert not os.listdir(f"{manager.state}/notify")
    assert os.listdir("/proc/self/fd") == before


def test_an_address_that_leads_somewhere(manager: Manager, heard: list[str]) -> None:
    assert notify.usable(manager.path)
    assert not heard


@pytest.mark.parametrize("umask", [0, 0o77])
def test_everybody_in_the_container_may_notify_whatever_our_umask(manager: Manager, umask: int) -> None:
    """The socket is made with its mode.

    To change the mode later by its path would be unsafe: the container sees the directory.
    """
    before = os.umask(umask)
    try:
        relay = serve(manager.state, manager.path, 42, once=False)
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert os.stat(f"{manager.state}/notify/notify.sock").st_mode & 0o7777 == 0o777
    relay.close()
