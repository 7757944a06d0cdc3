"""The caller's settings of a terminal: its socket, size and output mode."""

from __future__ import annotations

import struct

import pytest

from pyrunc.apply import terminal
from pyrunc.errors import Failure
from pyrunc.plan import steps


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
