"""Terminals: the container's own, its way to the engine, and the caller's in the foreground."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.consoles import Receiver, Screen, read_until
from tests.support.containers import wait_for
from tests.support.engine import FOREIGN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.containers import Bundle
    from tests.support.engine import Engine


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    made = Receiver(tmp_path / "console.sock")
    yield made
    made.close()


@pytest.fixture
def screen() -> Iterator[Screen]:
    made = Screen(33, 77)
    yield made
    made.close()


def created(engine: Engine, bundle: Bundle, receiver: Receiver, script: str) -> str:
    bundle.process["terminal"] = True
    bundle.process["args"] = ["/bin/sh", "-c", script]
    return engine.create(bundle, "--console-socket", str(receiver.path))


def test_an_engine_gets_the_terminal_before_create_returns(
    engine: Engine, bundle: Bundle, receiver: Receiver
) -> None:
    name = created(engine, bundle, receiver, "tty; read line; echo got $line; sleep 1000")
    receiver.server.settimeout(0.001)
    master = receiver.take()
    assert os.isatty(master)
    assert receiver.payload.startswith(b"/dev/")
    engine.call("start", name).ok()
    read_until(master, b"/dev/pts/0\r\n")
    os.write(master, b"words\n")
    read_until(master, b"got words\r\n")
    assert os.get_terminal_size(master) == (0, 0)  # its size was not set


def test_the_container_s_terminal(engine: Engine, bundle: Bundle, receiver: Receiver) -> None:
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    (bundle.rootfs / "bin/stty").symlink_to("busybox")
    script = (
        "stat -c %u:%t:%T /dev/pts/0 /dev/console; echo to the console > /dev/console;"
        "cat /proc/$$/stat; ls /dev/pts; ls /proc/$$/fd; echo end"
    )
    name = created(engine, bundle, receiver, script)
    master = receiver.take()
    engine.call("start", name).ok()
    lines = read_until(master, b"end\r\n").decode().split("\r\n")
    assert lines[0] == lines[1] == "1000:88:0"  # the user's, and 136:0, both
    assert lines[2] == "to the console"
    stat = lines[3].rsplit(")", 1)[1].split()
    assert stat[3] == "1"  # it leads its session
    assert stat[4] == str(136 << 8)  # whose controlling terminal this is
    # one terminal, its master nowhere in the container; 0 to 2 and what ls has opened itself
    assert " ".join(lines[4:]).split() == ["0", "ptmx", "0", "1", "2", "end"]


@pytest.mark.parametrize("size", [{"height": 10, "width": 110}, {"height": 3, "width": 5}])
def test_the_configured_size(
    engine: Engine, bundle: Bundle, receiver: Receiver, size: dict[str, int]
) -> None:
    bundle.process["consoleSize"] = size
    name = created(engine, bundle, receiver, "stty size")
    (bundle.rootfs / "bin/stty").symlink_to("busybox")
    master = receiver.take()
    engine.call("start", name).ok()
    read_until(master, f"{size['height']} {size['width']}\r\n".encode())


def test_hanging_up_tells_the_container(engine: Engine, bundle: Bundle, receiver: Receiver) -> None:
    name = created(engine, bundle, receiver, "trap 'exit 0' HUP; echo up; while :; do sleep 0.02; done")
    master = receiver.take()
    engine.call("start", name).ok()
    read_until(master, b"up\r\n")
    receiver.close()
    engine.until(name, "stopped")


@pytest.mark.skipif(FOREIGN, reason="runc cannot: an address holds 107 bytes")
def test_a_socket_with_a_long_path(engine: Engine, bundle: Bundle, tmp_path: Path) -> None:
    long = Receiver(tmp_path / ("d" * 100) / ("s" * 90))
    try:
        name = created(engine, bundle, long, "echo up; sleep 1000")
        master = long.take()
        engine.call("start", name).ok()
        read_until(master, b"up\r\n")
    finally:
        long.close()


def test_run_detached_and_exec_detached(
    engine: Engine, bundle: Bundle, receiver: Receiver, tmp_path: Path
) -> None:
    bundle.process["terminal"] = True
    engine.front(bundle, "echo up; sleep 1000", "--detach", "--console-socket", str(receiver.path)).ok()
    read_until(receiver.take(), b"up\r\n")
    second = Receiver(tmp_path / "second.sock")
    try:
        engine.call(
            "exec", "--tty", "--detach", "--console-socket", str(second.path), engine.ids[-1],
            "/bin/sh", "-c", "tty; sleep 1000",
        ).ok()  # fmt: skip
        read_until(second.take(), b"/dev/pts/1\r\n")
    finally:
        second.close()


@pytest.mark.parametrize("verb", ["create", "run"])
def test_a_terminal_left_alone_needs_a_socket(engine: Engine, bundle: Bundle, verb: str) -> None:
    bundle.process["terminal"] = True
    bundle.write()
    options = ["--detach"] if verb == "run" else []
    failed = engine.call(verb, *options, "--bundle", str(bundle.path), engine.new_id())
    failed.fails("cannot allocate tty if runc will detach without setting console socket")
    if not FOREIGN:
        failed.fails("/process/terminal", "--console-socket PATH")


def test_a_socket_needs_a_terminal_left_alone(engine: Engine, bundle: Bundle, receiver: Receiver) -> None:
    text = "cannot use console socket if runc will not detach or allocate tty"
    socket = ("--console-socket", str(receiver.path))
    bundle.write()
    engine.call("create", "--bundle", str(bundle.path), *socket, engine.new_id()).fails(text)
    bundle.process["terminal"] = True
    bundle.write()
    engine.call("run", "--bundle", str(bundle.path), *socket, engine.new_id()).fails(text)


def test_a_socket_nobody_listens_on(engine: Engine, bundle: Bundle, tmp_path: Path) -> None:
    bundle.process["terminal"] = True
    bundle.write()
    failed = engine.call(
        "create", "--bundle", str(bundle.path), "--console-socket", f"{tmp_path}/none", engine.new_id()
    )
    failed.fails("no such file or directory", f"{tmp_path}/none")
    assert engine.call("list", "-q").ok().out == ""


@pytest.mark.skipif(FOREIGN, reason="runc needs a terminal of the caller's")
def test_a_terminal_without_devpts(engine: Engine, bundle: Bundle) -> None:
    bundle.process["terminal"] = True
    bundle.without_mount("/dev/pts")
    failed = engine.front(bundle, "exit 0")
    assert failed.code == 1, failed
    assert "/dev/pt" in failed.err, failed


# -- in the foreground


def interactive(engine: Engine, screen: Screen, *words: str) -> subprocess.Popen[bytes]:
    """Call the command from a terminal of its own."""
    return engine.begin(
        *words, stdin=screen.slave, stdout=screen.slave, stderr=screen.slave, start_new_session=True
    )


def front(engine: Engine, bundle: Bundle, screen: Screen, script: str) -> subprocess.Popen[bytes]:
    bundle.process["terminal"] = True
    bundle.process["args"] = ["/bin/sh", "-c", script]
    (bundle.rootfs / "bin/stty").symlink_to("busybox")
    bundle.write()
    return interactive(engine, screen, "run", "--bundle", str(bundle.path), engine.new_id())


def test_a_session_at_a_terminal(engine: Engine, bundle: Bundle, screen: Screen) -> None:
    running = front(engine, bundle, screen, "tty; stty size; read line; echo got $line; exit 5")
    assert read_until(screen.master, b"33 77\r\n").startswith(b"/dev/pts/0\r\n")
    assert screen.is_raw()
    os.write(screen.master, b"a line\r")
    read_until(screen.master, b"got a line\r\n")
    assert running.wait(60) == 5
    assert screen.restored()


def test_the_window_is_followed(engine: Engine, bundle: Bundle, screen: Screen) -> None:
    script = "trap 'stty size; exit 0' WINCH; echo up; while :; do sleep 0.02; done"
    running = front(engine, bundle, screen, script)
    read_until(screen.master, b"up\r\n")
    screen.resize(12, 34)
    running.send_signal(signal.SIGWINCH)
    read_until(screen.master, b"12 34\r\n")
    assert running.wait(60) == 0


def test_keys_reach_the_container_as_signals(engine: Engine, bundle: Bundle, screen: Screen) -> None:
    script = "trap 'echo interrupted; exit 6' INT; echo up; while :; do sleep 0.02; done"
    running = front(engine, bundle, screen, script)
    read_until(screen.master, b"up\r\n")
    os.write(screen.master, b"\x03")
    read_until(screen.master, b"interrupted\r\n")
    assert running.wait(60) == 6


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_terminal_is_restored_after_a_signal(
    engine: Engine, bundle: Bundle, screen: Screen, number: signal.Signals
) -> None:
    script = "trap 'exit 7' TERM HUP; echo up; while :; do sleep 0.02; done"
    running = front(engine, bundle, screen, script)
    read_until(screen.master, b"up\r\n")
    running.send_signal(number)
    assert running.wait(60) == 7
    assert screen.restored()


def test_the_terminal_is_restored_after_a_failure(engine: Engine, bundle: Bundle, screen: Screen) -> None:
    bundle.process["terminal"] = True
    bundle.process["args"] = ["/nosuch"]
    bundle.write()
    running = interactive(engine, screen, "run", "--bundle", str(bundle.path), engine.new_id())
    read_until(screen.master, b"/nosuch")
    assert running.wait(60) == 1
    assert screen.restored()


def test_exec_at_a_terminal(engine: Engine, bundle: Bundle, screen: Screen) -> None:
    name = engine.start(bundle)
    (bundle.rootfs / "bin/stty").symlink_to("busybox")
    script = "tty; stty size; stat -c %u $(tty); read line; echo got $line; exit 8"
    running = interactive(engine, screen, "exec", "-t", "--user", "1000:1000", name, "/bin/sh", "-c", script)
    assert b"/dev/pts/0\r\n33 77\r\n1000\r\n" in read_until(screen.master, b"1000\r\n")
    os.write(screen.master, b"more\r")
    read_until(screen.master, b"got more\r\n")
    assert running.wait(60) == 8
    assert screen.restored()


@pytest.mark.skipif(FOREIGN, reason="runc needs a terminal of the caller's")
def test_output_into_a_pipe_is_complete_and_plain(engine: Engine, bundle: Bundle) -> None:
    bundle.process["terminal"] = True
    script = "i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done"
    out = engine.front(bundle, script).ok().out
    assert out == "".join(f"line {number}\n" for number in range(5000))


@pytest.mark.skipif(FOREIGN, reason="runc waits for ever: a terminal has no end of file of its own")
def test_the_end_of_stdin_is_the_end_of_input(engine: Engine, bundle: Bundle) -> None:
    bundle.process["terminal"] = True
    assert engine.front(bundle, "cat; echo over").ok().out == "over\n"


def test_the_console_of_an_exec_is_not_the_container_s(
    engine: Engine, bundle: Bundle, screen: Screen
) -> None:
    name = engine.start(bundle)
    running = interactive(engine, screen, "exec", "-t", name, "/bin/sh", "-c", "echo up; sleep 1000")
    read_until(screen.master, b"up\r\n")
    engine.call("kill", name, "KILL").ok()
    assert running.wait(60) == 137
    assert wait_for(screen.restored)
