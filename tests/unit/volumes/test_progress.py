"""The progress bar: only on a terminal, only after some time, and removed afterwards."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from pyrunc.volumes.progress import Progress, human, picture

if TYPE_CHECKING:
    from collections.abc import Iterator


class Screen:
    """Stands for standard error and for the clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.text = ""
        self.now = 100.0
        self.terminal = True
        monkeypatch.setattr(os, "write", self.write)
        monkeypatch.setattr(os, "isatty", lambda _fd: self.terminal)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def write(self, fd: int, data: bytes) -> int:
        assert fd == 2
        self.text += data.decode()
        return len(data)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    made = Screen(monkeypatch)
    yield made
    monkeypatch.undo()


def test_quick_work_shows_nothing_and_counts_nothing(screen: Screen) -> None:
    bar = Progress("copy", lambda: pytest.fail("counted"))
    for number in range(5):
        screen.now += 0.1
        bar.tick(number, number)
    bar.close()
    assert screen.text == ""


def test_a_second_later_there_is_a_bar(screen: Screen) -> None:
    bar = Progress("/data -> vol", lambda: 200)
    screen.now += 1.1
    bar.tick(50, 2_000_000)
    bar.tick(51, 2_000_000)  # too soon after the last picture
    screen.now += 0.2
    bar.tick(200, 5_000_000)
    bar.close()
    bar.close()
    shown = screen.text.split("\r")[1:]
    assert shown == [
        "/data -> vol [#######.......................]  25% 50 files, 2MB\x1b[K",
        "/data -> vol [##############################] 100% 200 files, 5MB\x1b[K",
        "\x1b[K",
    ]


def test_no_terminal_no_bar(screen: Screen) -> None:
    screen.terminal = False
    bar = Progress("copy", lambda: pytest.fail("counted"))
    screen.now += 10
    bar.tick(5, 5)
    bar.close()
    assert screen.text == ""


def test_a_terminal_that_goes_away_is_no_failure(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_fd: int, _data: bytes) -> int:
        raise OSError(5, "gone")

    bar = Progress("copy", lambda: 0)
    screen.now += 10
    monkeypatch.setattr(os, "write", gone)
    bar.tick(5, 5)
    bar.close()


def test_without_a_total_there_are_only_numbers() -> None:
    assert picture("copy", 12345, 1_200_000_000, 0, 7) == "copy 12,345 files, 1.2GB"
    assert picture("copy", 30, 0, 10, 30).count("#") == 30  # more than were counted: they were made meanwhile


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (36, "36B"),
        (999, "999B"),
        (1000, "1kB"),
        (1_835_000_000, "1.835GB"),
        (10**15, "1PB"),
        (10**19, "1e+04PB"),
    ],
)
def test_human(size: int, text: str) -> None:
    assert human(size) == text


def test_the_total_may_count_something_else(screen: Screen) -> None:
    bar = Progress("unpack image", lambda: 1000)
    screen.now += 1.1
    bar.tick(7, 5000, lambda: 500)
    bar.close()
    assert screen.text.split("\r")[1] == f"unpack image [{'#' * 15}{'.' * 15}]  50% 7 files, 5kB\x1b[K"
