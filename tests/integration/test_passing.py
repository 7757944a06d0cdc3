"""What the caller passes to a container: descriptors, sockets, pid files, keyrings, readiness."""

from __future__ import annotations

import os
import select
import socket
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.consoles import Receiver
from tests.support.containers import wait_for
from tests.support.engine import FOREIGN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.containers import Bundle
    from tests.support.engine import Engine

ours = pytest.mark.skipif(FOREIGN, reason="newer than runc 1.1")
# Put pipes with a word in each at 3, 4 ... and become the command; LISTEN_PID can only be known here.
WITH_DESCRIPTORS = """
import os, sys
count, listening = int(sys.argv[1]), sys.argv[2]
for number in range(count):
    reader, writer = os.pipe()
    os.write(writer, b"fd%d" % (3 + number))
    os.dup2(reader, 50 + number, inheritable=False)
for number in range(count):
    os.dup2(50 + number, 3 + number, inheritable=True)
if listening:
    os.environ.update(LISTEN_FDS=listening, LISTEN_PID=str(os.getpid()))
os.execvp(sys.argv[3], sys.argv[3:])
"""


def with_descriptors(
    engine: Engine, count: int, listening: str, *words: str
) -> subprocess.CompletedProcess[str]:
    prefix = ["/usr/bin/python3", "-c", WITH_DESCRIPTORS, str(count), listening]
    return subprocess.run(
        [*prefix, *engine.argv(*words)], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )


SHOW = (
    'for n in 3 4 5 6; do if test -e /proc/$$/fd/$n; then eval "head -c 3 <&$n"; fi; echo -n ,; done;'
    "echo; echo $LISTEN_FDS:$LISTEN_PID"
)


@pytest.mark.parametrize(
    ("listening", "preserve", "shown"),
    [
        ("", 0, ",,,,\n:\n"),
        ("", 2, "fd3,fd4,,,\n:\n"),
        ("1", 0, "fd3,,,,\n1:1\n"),
        ("1", 1, "fd3,fd4,,,\n1:1\n"),
    ],
)
def test_descriptors(engine: Engine, bundle: Bundle, listening: str, preserve: int, shown: str) -> None:
    bundle.process["args"] = ["/bin/sh", "-c", SHOW]
    bundle.write()
    options = ["--preserve-fds", str(preserve)] if preserve else []
    done = with_descriptors(
        engine, 3, listening, "run", *options, "--bundle", str(bundle.path), engine.new_id()
    )
    assert (done.returncode, done.stdout) == (0, shown), done


@ours
def test_a_preserved_descriptor_that_is_not_open(engine: Engine, bundle: Bundle) -> None:
    bundle.write()
    done = with_descriptors(
        engine, 1, "", "run", "--preserve-fds", "3", "--bundle", str(bundle.path), engine.new_id()
    )
    assert done.returncode == 1, done
    assert "unable to stat preserved-fd 1 (of 3)" in done.stderr


def test_they_survive_from_create_to_start(engine: Engine, bundle: Bundle) -> None:
    bundle.process["args"] = ["/bin/sh", "-c", "head -c 3 <&3 > /told; sleep 1000"]
    bundle.write()
    name = engine.new_id()
    words = ["create", "--preserve-fds", "1", "--bundle", str(bundle.path), name]
    prefix = ["/usr/bin/python3", "-c", WITH_DESCRIPTORS, "1", "", *engine.argv(*words)]
    quiet = subprocess.DEVNULL  # no pipe of ours: the container would hold it
    assert subprocess.run(prefix, check=False, stdin=quiet, stdout=quiet, stderr=quiet).returncode == 0
    engine.call("start", name).ok()
    told = bundle.rootfs / "told"
    assert wait_for(lambda: told.exists() and told.read_text() == "fd3")


# -- pid file


def test_the_pid_file_is_relative_to_the_caller(engine: Engine, bundle: Bundle, tmp_path: Path) -> None:
    bundle.process["args"] = ["/bin/sleep", "1031"]
    name = engine.create(bundle, "--pid-file", "relative.pid", cwd=tmp_path)
    assert (tmp_path / "relative.pid").read_text() == str(engine.state(name)["pid"])
    assert not [entry for entry in os.listdir(tmp_path) if entry.startswith(".")]


def test_a_pid_file_that_is_a_device_or_a_pipe_stays_one(
    engine: Engine, bundle: Bundle, tmp_path: Path
) -> None:
    device, pipe, link = tmp_path / "device", tmp_path / "pipe", tmp_path / "link"
    os.mknod(device, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR)
    link.symlink_to("/proc/self/fd/1")  # as /dev/stdout
    before = {path: path.lstat() for path in (device, pipe, link)}
    bundle.process["args"] = ["/bin/sleep", "1035"]
    bundle.write()
    pids = {}
    for path in before:
        name = engine.new_id()
        done = engine.call("create", "--pid-file", str(path), "--bundle", str(bundle.path), name)
        assert (done.code, done.err) == (0, ""), done
        pids[path] = str(engine.state(name)["pid"])
        if path == link:
            assert done.out == pids[link]
    assert [path for path in before if not os.path.samestat(path.lstat(), before[path])] == []
    assert os.read(reader, 64).decode() == pids[pipe]
    os.close(reader)


def test_a_failed_create_writes_no_pid_file(engine: Engine, bundle: Bundle, tmp_path: Path) -> None:
    bundle.process["args"] = ["/nosuch"]
    bundle.write()
    pid_file = tmp_path / "pid"
    words = ("create", "--pid-file", str(pid_file), "--bundle", str(bundle.path), engine.new_id())
    engine.call(*words).fails("/nosuch")
    assert not pid_file.exists()


# -- pidfd socket


def pid_of(pidfd: int) -> int:
    """Ask the kernel which process a pidfd stands for (pidfd_open(2), fdinfo)."""
    lines = Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pid:"))


@ours
def test_the_pidfd_of_init(engine: Engine, bundle: Bundle, tmp_path: Path) -> None:
    bundle.process["args"] = ["/bin/sleep", "1032"]
    receiver = Receiver(tmp_path / "pidfd.sock")
    try:
        name = engine.create(bundle, "--pidfd-socket", str(receiver.path))
        pidfd = receiver.take()
        assert receiver.payload == b"standard"
        assert pid_of(pidfd) == engine.state(name)["pid"]
    finally:
        receiver.close()


@ours
def test_the_pidfd_of_an_exec(engine: Engine, bundle: Bundle, tmp_path: Path) -> None:
    name = engine.start(bundle)
    receiver = Receiver(tmp_path / "pidfd.sock")
    pid_file = tmp_path / "pid"
    try:
        options = ("--detach", "--pidfd-socket", str(receiver.path), "--pid-file", str(pid_file))
        engine.call("exec", *options, name, "/bin/sleep", "1033").ok()
        pidfd = receiver.take()
        assert receiver.payload == b"setns"
        assert pid_of(pidfd) == int(pid_file.read_text())
    finally:
        receiver.close()


@ours
def test_a_pidfd_socket_nobody_listens_on(engine: Engine, bundle: Bundle, tmp_path: Path) -> None:
    bundle.write()
    words = ("create", "--pidfd-socket", f"{tmp_path}/none", "--bundle", str(bundle.path), engine.new_id())
    engine.call(*words).fails("--pidfd-socket", f"{tmp_path}/none", "no such file or directory")
    assert engine.call("list", "-q").ok().out == ""


# -- keyring


@pytest.mark.parametrize(("options", "found"), [((), True), (("--no-new-keyring",), False)])
def test_the_session_keyring(
    engine: Engine, bundle: Bundle, options: tuple[str, ...], *, found: bool
) -> None:
    bundle.linux["maskedPaths"].remove("/proc/keys")
    bundle.process["args"] = ["/bin/cat", "/proc/keys"]
    keys = engine.front(bundle, None, *options).ok().out
    # Those of other containers may still exist; a keyring is removed some time after its last user.
    assert (f"_ses.{engine.ids[-1]}:" in keys) is found, keys


# -- readiness


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket of a service manager."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    server.bind(str(tmp_path / "manager.sock"))
    server.settimeout(30)
    yield server
    server.close()


def hear(manager: socket.socket) -> list[bytes]:
    """Receive one message, and close the descriptor of a barrier at once."""
    message, fds, _, _ = socket.recv_fds(manager, 4096, 2)
    for fd in fds:
        os.close(fd)
    return message.split(b"\n")


def speaking(bundle: Bundle, *messages: str) -> None:
    """Let the container send a message. Busybox's nc knows no unix sockets, so it uses the host's Python."""
    code = "import _socket as s, os, time; c = s.socket(s.AF_UNIX, s.SOCK_DGRAM); "
    code += "c.connect(os.environ['NOTIFY_SOCKET']); "
    code += "".join(f"c.send({message.encode()!r}); " for message in messages) + "time.sleep(1000)"
    for path in ("/usr", "/lib", "/lib64"):
        if os.path.exists(path):
            (bundle.rootfs / path[1:]).mkdir(exist_ok=True)
            bundle.mount(path, path, "rbind", "ro")
    bundle.process["args"] = ["/usr/bin/python3", "-IS", "-c", code]


@pytest.mark.parametrize("how", ["start", "detach", "front"])
def test_readiness_reaches_the_service_manager(
    engine: Engine, bundle: Bundle, manager: socket.socket, how: str
) -> None:
    speaking(bundle, "READY=1\nSTATUS=up")
    bundle.write()
    name = engine.new_id()
    env = {**os.environ, "NOTIFY_SOCKET": manager.getsockname()}
    if how == "start":
        engine.call("create", "--bundle", str(bundle.path), name, env=env).ok()
        call = engine.begin("start", name, env=env)
    else:
        options = ["--detach"] if how == "detach" else []
        call = engine.begin("run", *options, "--bundle", str(bundle.path), name, env=env)
    heard: list[bytes] = []
    while not any(line.startswith(b"MAINPID=") for line in heard):
        heard += hear(manager)
    assert b"READY=1" in heard
    pid = call.pid if how == "front" else engine.state(name)["pid"]
    if how == "front" and not FOREIGN:
        assert call.poll() is None
    assert b"MAINPID=%d" % pid in heard
    if how != "front":
        while call.poll() is None:  # it waits until the manager has read the message
            if select.select([manager], [], [], 0.1)[0]:
                heard += hear(manager)
        assert call.returncode == 0
        assert FOREIGN or b"BARRIER=1" in heard  # newer than runc 1.1
    engine.delete(name)
    call.wait(60)


@ours
@pytest.mark.parametrize("host", ["/nosuch/notify", "/dev/null", "relative", "/" + "d" * 120 + "/notify"])
def test_a_service_manager_that_is_not_there_keeps_nothing_from_running(
    engine: Engine, bundle: Bundle, host: str
) -> None:
    env = {**os.environ, "NOTIFY_SOCKET": host}
    bundle.process["args"] = ["/bin/sh", "-c", "echo ${NOTIFY_SOCKET:-none}; ls /run 2>/dev/null; sleep 1000"]
    bundle.write()
    name = engine.new_id()
    made = engine.call("create", "--bundle", str(bundle.path), name, env=env)
    assert (made.code, made.err.count("NOTIFY_SOCKET=")) == (0, 1), made
    engine.call("start", name, env=env).ok()
    assert wait_for(lambda: (engine.directory / "out.1").read_text() == "none\n"), made
    bundle.process["args"] = ["/bin/true"]
    done = engine.front(bundle, env=env)
    assert (done.code, done.err.count("NOTIFY_SOCKET=")) == (0, 1), done


@ours
def test_a_service_manager_that_leaves_before_start(
    engine: Engine, bundle: Bundle, manager: socket.socket
) -> None:
    bundle.process["args"] = ["/bin/sleep", "1000"]
    env = {**os.environ, "NOTIFY_SOCKET": manager.getsockname()}
    name = engine.create(bundle, env=env)
    manager.close()
    done = engine.call("start", name, env=env)
    assert (done.code, "connection refused" in done.err) == (0, True), done
    assert engine.status(name) == "running"


@ours
def test_a_container_that_never_gets_ready(engine: Engine, bundle: Bundle, manager: socket.socket) -> None:
    bundle.process["args"] = ["/bin/sh", "-c", "echo $NOTIFY_SOCKET; sleep 0.2"]
    bundle.write()
    env = {**os.environ, "NOTIFY_SOCKET": manager.getsockname()}
    done = engine.call("run", "--detach", "--bundle", str(bundle.path), engine.new_id(), env=env).ok()
    assert wait_for(lambda: "sock" in (engine.directory / "out.1").read_text()), done
    engine.until(engine.ids[-1], "stopped")
