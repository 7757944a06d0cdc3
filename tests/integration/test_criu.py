"""Checkpoint and restore with CRIU itself, if it works here.

CRIU must fit the kernel: before 4.1 it cannot work on Linux 6.13 and later. Then these tests are skipped,
with CRIU's own message as the reason.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.consoles import Receiver, Screen, read_until
from tests.support.containers import wait_for
from tests.support.criu import (
    COUNT,
    CRIU,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.containers import Bundle
    from tests.support.engine import Engine


def _unable() -> str:
    """Return why CRIU cannot work here, "" if it can."""
    if CRIU is None:
        return "criu is not installed"
    if os.geteuid() != 0:
        return "criu needs root"
    done = subprocess.run([CRIU, "check"], check=False, capture_output=True, text=True)
    return "" if done.returncode == 0 else "criu check: " + done.stderr.strip().partition("\n")[0]


UNABLE = _unable()
real = pytest.mark.skipif(bool(UNABLE), reason=UNABLE or "criu works")


class Shuttle:
    """A container that counts into a pipe, through checkpoints and restores."""

    def __init__(self, engine: Engine, bundle: Bundle, place: Path) -> None:
        self.engine = engine
        self.bundle = bundle
        self.images = place / "images"
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        self.seen = b""

    def start(self, script: str = COUNT) -> str:
        # Everything of the container's stdio is ours to give: a log file of the test would be outside.
        self.bundle.process["args"] = ["/bin/sh", "-c", script]
        self.bundle.write()
        name = self.engine.new_id()
        words = ["run", "--detach", "--bundle", str(self.bundle.path), name]
        result = self.engine.call(*words, stdout=self.writer, stderr=self.writer)
        assert result.code == 0, self.read()
        return name

    def checkpoint(self, name: str, *words: str) -> None:
        self.engine.call("checkpoint", "--image-path", str(self.images), *words, name).ok()

    def restore(self, *words: str) -> str:
        name = self.engine.new_id()
        options = ["--detach", "--image-path", str(self.images), "--bundle", str(self.bundle.path), *words]
        result = self.engine.call("restore", *options, name, stdout=self.writer, stderr=self.writer)
        assert result.code == 0, self.read()
        return name

    def read(self) -> bytes:
        """Return everything that has come so far."""
        try:
            while data := os.read(self.reader, 65536):
                self.seen += data
        except BlockingIOError:
            pass
        return self.seen

    def count(self) -> int:
        """Return the last complete number that has come."""
        return int((b"0\n" + self.read()).rpartition(b"\n")[0].rpartition(b"\n")[2])

    def passes(self, number: int) -> bool:
        return wait_for(lambda: self.count() > number)

    def close(self) -> None:
        os.close(self.reader)
        os.close(self.writer)


@pytest.fixture
def shuttle(engine: Engine, bundle: Bundle, place: Path) -> Iterator[Shuttle]:
    made = Shuttle(engine, bundle, place)
    yield made
    made.close()


@real
def test_it_goes_on_where_it_was(shuttle: Shuttle, engine: Engine) -> None:
    name = shuttle.start()
    for _ in range(2):
        assert shuttle.passes(shuttle.count() + 3)
        shuttle.checkpoint(name)
        engine.call("state", name).fails("container does not exist")
        stopped = shuttle.count()
        time.sleep(0.2)
        assert shuttle.count() == stopped
        name = shuttle.restore()
        assert shuttle.passes(stopped + 3)
        lines = [int(line) for line in shuttle.read().split()]
        assert lines == list(range(1, len(lines) + 1))
        assert engine.status(name) == "running"
        assert engine.call("exec", name, "echo", "ok").ok().out == "ok\n"
    engine.call("pause", name).ok()
    assert engine.status(name) == "paused"
    engine.call("resume", name).ok()
    engine.delete(name)


@real
def test_leave_running(shuttle: Shuttle, engine: Engine) -> None:
    name = shuttle.start()
    assert shuttle.passes(2)
    shuttle.checkpoint(name, "--leave-running")
    assert shuttle.passes(shuttle.count() + 3)
    assert engine.status(name) == "running"


@real
def test_mounts_come_back(shuttle: Shuttle, bundle: Bundle, place: Path, engine: Engine) -> None:
    outer, inner = place / "outer", place / "inner"
    for path in (outer, inner):
        path.mkdir()
        (path / "mark").write_text(path.name)
    (bundle.rootfs / "real").mkdir()
    (bundle.rootfs / "link").symlink_to("real")
    bundle.mount("/link", outer, "bind", "ro")
    bundle.mount("/outer", outer, "bind")
    bundle.mount("/outer/inner", inner, "rbind")
    bundle.mount("/tmp", "tmpfs", "mode=1777", "nosuid", kind="tmpfs")
    bundle.config["root"]["readonly"] = True
    name = shuttle.start("echo kept > /tmp/file; " + COUNT)
    assert shuttle.passes(2)
    shuttle.checkpoint(name)
    shutil.rmtree(outer / "inner")
    name = shuttle.restore()
    assert shuttle.passes(shuttle.count() + 2)
    look = "cat /link/mark /outer/mark /outer/inner/mark /tmp/file; cat /proc/keys; ls /sys/firmware"
    said = engine.call("exec", name, "sh", "-c", look).ok().out
    assert said == "outerouterinnerkept\n"
    for command in ("touch /link/x", "touch /x", "touch /proc/sys/kernel/hostname"):
        assert "Read-only file system" in engine.call("exec", name, "sh", "-c", command).err


@real
def test_a_mount_below_a_recursive_bind(
    shuttle: Shuttle, bundle: Bundle, place: Path, engine: Engine
) -> None:
    source = place / "source"
    (source / "below").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "below", source / "below"], check=True)
    try:
        (source / "below" / "mark").write_text("here")
        bundle.mount("/data", source, "rbind")
        name = shuttle.start()
        assert shuttle.passes(2)
        shuttle.checkpoint(name)
        name = shuttle.restore()
        assert engine.call("exec", name, "cat", "/data/below/mark").ok().out == "here"
        engine.delete(name)
    finally:
        subprocess.run(["umount", source / "below"], check=True)


@real
def test_limits_are_those_of_the_configuration(shuttle: Shuttle, bundle: Bundle, engine: Engine) -> None:
    bundle.linux["resources"] = {"pids": {"limit": 77}}
    name = shuttle.start()
    assert shuttle.passes(2)
    shuttle.checkpoint(name)
    bundle.linux["resources"] = {"pids": {"limit": 78}}
    bundle.write()
    name = shuttle.restore("--manage-cgroups-mode", "ignore")
    stats = json.loads(engine.call("events", "--stats", name).ok().out)
    assert stats["data"]["pids"]["limit"] == 78


@real
def test_loopback_is_up(shuttle: Shuttle, engine: Engine) -> None:
    name = shuttle.start()
    assert shuttle.passes(2)
    shuttle.checkpoint(name)
    name = shuttle.restore()
    assert "UP,LOWER_UP" in engine.call("exec", name, "ip", "address", "show", "lo").ok().out


@real
def test_a_user_namespace(shuttle: Shuttle, bundle: Bundle, engine: Engine) -> None:
    bundle.user_namespace()
    name = shuttle.start()
    assert shuttle.passes(2)
    shuttle.checkpoint(name)
    name = shuttle.restore()
    assert shuttle.passes(shuttle.count() + 2)
    assert engine.call("exec", name, "cat", "/proc/self/uid_map").ok().out.split() == ["0", "100000", "65536"]


@real
def test_a_joined_network_namespace(
    shuttle: Shuttle, bundle: Bundle, bundles: Callable[[str], Bundle], engine: Engine
) -> None:
    path = f"/proc/{engine.pid(engine.start(bundles('holder')))}/ns/net"
    for entry in bundle.linux["namespaces"]:
        if entry["type"] == "network":
            entry["path"] = path
    name = shuttle.start()
    assert shuttle.passes(2)
    shuttle.checkpoint(name)
    name = shuttle.restore()
    assert os.readlink(f"/proc/{engine.pid(name)}/ns/net") == os.readlink(path)


@real
def test_namespaces_of_another_container(
    shuttle: Shuttle, bundle: Bundle, bundles: Callable[[str], Bundle], engine: Engine
) -> None:
    """As in a pod. One process only, for its number must be free in that pid namespace when it comes back."""
    holder = engine.pid(engine.start(bundles("holder"), "exec sleep 1000"))
    kinds = ("pid", "ipc", "uts", "network")
    for entry in bundle.linux["namespaces"]:
        if entry["type"] in kinds:
            entry["path"] = f"/proc/{holder}/ns/{entry['type'][:3]}"
    del bundle.config["hostname"]
    # Not sleep: that of busybox 1.37 does not go on after the interruption that a restore is.
    name = shuttle.start("exec tail -f /dev/null")
    shuttle.checkpoint(name)
    name = shuttle.restore()
    pid = engine.pid(name)
    for kind in kinds:
        file = f"ns/{kind[:3]}"
        assert os.readlink(f"/proc/{pid}/{file}") == os.readlink(f"/proc/{holder}/{file}")


@real
def test_a_terminal(engine: Engine, bundle: Bundle, place: Path) -> None:
    bundle.process["terminal"] = True
    bundle.process["args"] = ["/bin/sh", "-c", "while read x; do echo got-$x; done"]
    bundle.write()
    first = Receiver(place / "first.sock")
    taker = threading.Thread(target=first.take)
    taker.start()
    name = engine.new_id()
    words = ["--detach", "--bundle", str(bundle.path), "--console-socket"]
    engine.call("run", *words, str(first.path), name).ok()
    taker.join(30)
    os.write(first.fd, b"one\n")
    read_until(first.fd, b"got-one")
    engine.call("checkpoint", name, cwd=place).ok()
    first.close()
    second = Receiver(place / "second.sock")
    taker = threading.Thread(target=second.take)
    taker.start()
    name = engine.new_id()
    engine.call("restore", *words, str(second.path), name, cwd=place).ok()
    taker.join(30)
    os.write(second.fd, b"two\n")
    read_until(second.fd, b"got-two")
    engine.delete(name)
    second.close()


@real
def test_a_terminal_in_the_foreground(engine: Engine, bundle: Bundle, place: Path) -> None:
    bundle.process["terminal"] = True
    bundle.process["args"] = ["/bin/sh", "-c", "echo ready; while read x; do echo got-$x; exit 5; done"]
    bundle.write()
    receiver = Receiver(place / "first.sock")
    taker = threading.Thread(target=receiver.take)
    taker.start()
    name = engine.new_id()
    words = ["--bundle", str(bundle.path)]
    engine.call("run", *words, "--detach", "--console-socket", str(receiver.path), name).ok()
    taker.join(30)
    read_until(receiver.fd, b"ready")
    engine.call("checkpoint", name, cwd=place).ok()
    receiver.close()
    screen = Screen()
    name = engine.new_id()
    slave = screen.slave
    with engine.begin("restore", *words, name, cwd=place, stdin=slave, stdout=slave, stderr=slave) as called:
        engine.until_running(name)
        assert wait_for(screen.is_raw)
        os.write(screen.master, b"x\n")
        read_until(screen.master, b"got-x")
        assert called.wait(30) == 5
    assert screen.restored()
    screen.close()


@real
def test_a_connection_to_the_outside(shuttle: Shuttle, bundle: Bundle, engine: Engine) -> None:
    """Without the option it is refused, with CRIU's reason."""
    bundle.linux["namespaces"] = [entry for entry in bundle.linux["namespaces"] if entry["type"] != "network"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        name = shuttle.start(f"nc 127.0.0.1 {port} & " + COUNT)
        connection, _ = server.accept()
        assert shuttle.passes(2)
        words = ["checkpoint", "--image-path", str(shuttle.images), "--leave-running", name]
        said = engine.call(*words).fails("criu failed: type DUMP", "dump.log").err
        assert "established" in said or "Connected TCP socket" in said, said
        assert engine.status(name) == "running"
        connection.close()
