"""Terminals without a container: the host's own devpts stands in for the container's."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyrunc.apply import terminal
from pyrunc.errors import Failure
from pyrunc.plan import steps

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def pts() -> Iterator[int]:
    fd = os.open("/dev/pts", os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    ("wants", "detach", "socket", "words"),
    [
        (True, True, None, "cannot allocate tty if runc will detach without setting console socket"),
        (True, True, "", "cannot allocate tty if runc will detach without setting console socket"),
        (True, False, "/s", "cannot use console socket if runc will not detach or allocate tty"),
        (False, True, "/s", "cannot use console socket if runc will not detach or allocate tty"),
        (False, False, "/s", "cannot use console socket if runc will not detach or allocate tty"),
    ],
)
def test_a_console_socket_belongs_to_a_terminal_that_is_left_alone(
    *, wants: bool, detach: bool, socket: str | None, words: str
) -> None:
    with pytest.raises(Failure) as caught:
        terminal.check_socket(terminal=wants, detach=detach, socket=socket)
    assert words in caught.value.text()
    assert "--console-socket" in caught.value.hint


@pytest.mark.parametrize(
    ("wants", "detach", "socket"),
    [(True, True, "/s"), (True, False, None), (False, True, None), (False, False, None), (False, True, "")],
)
def test_the_right_combinations(*, wants: bool, detach: bool, socket: str | None) -> None:
    terminal.check_socket(terminal=wants, detach=detach, socket=socket)


def test_the_size_of_the_config_comes_first() -> None:
    step = steps.Terminal(width=70000, height=20, console=True)
    wanted = terminal.settings(step, foreground=False)
    assert wanted.size == struct.pack("4H", 20, 65535, 0, 0)


@pytest.mark.parametrize(("width", "height"), [(0, 0), (80, 0), (0, 25)])
def test_half_a_size_is_none(width: int, height: int) -> None:
    step = steps.Terminal(width=width, height=height, console=True)
    assert terminal.settings(step, foreground=False).size is None


def test_a_new_terminal(pts: int) -> None:
    before = os.listdir("/proc/self/fd")
    wanted = terminal.Settings(struct.pack("4H", 5, 6, 0, 0), clean=True)
    master, slave, number = terminal.open_pty(pts, wanted)
    try:
        assert os.ttyname(slave) == f"/dev/pts/{number}"
        assert not os.get_inheritable(master)
        assert not os.get_inheritable(slave)
        assert os.get_terminal_size(slave) == (6, 5)
        os.write(slave, b"a\nb")
        assert os.read(master, 10) == b"a\nb"
        with pytest.raises(OSError, match="Inappropriate ioctl"):  # it became nobody's controlling terminal
            os.tcgetpgrp(slave)
    finally:
        os.close(master)
        os.close(slave)
    assert os.listdir("/proc/self/fd") == before


def test_a_terminal_translates_newlines_unless_told_not_to(pts: int) -> None:
    master, slave, _ = terminal.open_pty(pts, terminal.Settings(None, clean=False))
    os.write(slave, b"a\n")
    assert os.read(master, 10) == b"a\r\n"
    os.close(master)
    os.close(slave)


def test_something_that_is_not_a_devpts(tmp_path: Path) -> None:
    (tmp_path / "ptmx").write_text("")
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    with pytest.raises(Failure, match="not a devpts") as caught:
        terminal.open_pty(fd, terminal.Settings(None, clean=False))
    os.close(fd)
    assert caught.value.pointer == "/process/terminal"


def test_taking_it(pts: int) -> None:
    master, slave, _ = terminal.open_pty(pts, terminal.Settings(None, clean=True))
    pid = os.fork()
    if pid == 0:
        os.setsid()
        terminal.take(slave, 12345)
        os.execve("/bin/sh", ["sh", "-c", "tty; stat -c '%u' /proc/self/fd/0 -L; echo /proc/$$/fd/*"], {})
    os.close(slave)
    os.waitpid(pid, 0)
    os.set_blocking(master, False)
    lines = os.read(master, 4096).decode().splitlines()
    os.close(master)
    assert lines[0].startswith("/dev/pts/")
    assert lines[1] == "12345"
    fds = {name.rsplit("/")[-1] for name in lines[2].split()}
    assert {"0", "1", "2"} <= fds
    assert str(master) not in fds
