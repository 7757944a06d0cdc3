"""Colours and width: of a terminal, never of a pipe."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
from typing import TYPE_CHECKING

import pytest

from pyrunc import screen

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Return a terminal of 100 columns, for a user without settings for colours."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 100, 0, 0))
    yield slave
    os.close(master)
    os.close(slave)


@pytest.fixture
def pipe() -> Iterator[int]:
    reader, writer = os.pipe()
    yield writer
    os.close(reader)
    os.close(writer)


def test_width(terminal: int, pipe: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "55")  # what a shell has exported is for pipes, too
    assert screen.width(terminal) == 100
    assert screen.width(pipe) == 0
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
    assert screen.width(terminal) == 80
    assert screen.width(-1) == 0


@pytest.mark.parametrize(
    ("said", "variable", "colored"),
    [
        ("", "TERM=xterm", (True, False)),
        ("auto", "TERM=xterm", (True, False)),
        ("", "NO_COLOR=1", (False, False)),
        ("", "NO_COLOR=", (True, False)),
        ("", "TERM=dumb", (False, False)),
        ("always", "NO_COLOR=1", (True, True)),
        ("never", "TERM=xterm", (False, False)),
    ],
)
def test_colours(terminal: int, pipe: int, said: str, variable: str, colored: tuple[bool, bool]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(screen, "color", said)
        patch.setenv(*variable.split("="))
        assert (screen.colored(terminal), screen.colored(pipe)) == colored
        assert (screen.painter(pipe) is not None) == colored[1]


def test_paint() -> None:
    assert screen.paint("  word  ", "title") == "  \033[1mword\033[0m  "
    assert screen.paint("   ", "title") == "   "
    assert screen.paint("word", "") == "word"
