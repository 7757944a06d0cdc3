"""Which descriptors are passed on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pyrunc.apply import descriptors
from pyrunc.errors import Failure

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def with_open() -> Callable[[int, Callable[[], object]], str]:
    """Run a function in a process whose only descriptors are 0 to 2 and so many more."""

    def run(count: int, function: Callable[[], object]) -> str:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.dup2(writer, 2)
                os.closerange(3, 1024)
                for _ in range(count):
                    os.open("/dev/null", os.O_RDONLY)
                try:
                    answer = repr(function())
                except Failure as failure:
                    answer = failure.text()
                os.write(2, answer.encode())
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            answer = pipe.read().decode()
        os.waitpid(pid, 0)
        return answer

    return run


@pytest.mark.parametrize(
    ("opened", "preserve", "environ", "listen", "answer"),
    [
        (0, 0, {}, True, "(0, [])"),
        (2, 2, {}, True, "(2, [])"),
        (5, 0, {"LISTEN_FDS": "2", "LISTEN_PID": "self"}, True, "(2, ['LISTEN_FDS=2', 'LISTEN_PID=1'])"),
        (5, 3, {"LISTEN_FDS": "2", "LISTEN_PID": "self"}, True, "(5, ['LISTEN_FDS=2', 'LISTEN_PID=1'])"),
        (
            1,
            0,
            {"LISTEN_FDS": "1", "LISTEN_PID": "self", "LISTEN_FDNAMES": "web"},
            True,
            "(1, ['LISTEN_FDS=1', 'LISTEN_PID=1', 'LISTEN_FDNAMES=web'])",
        ),
        (5, 1, {"LISTEN_FDS": "2", "LISTEN_PID": "1"}, True, "(1, [])"),
        (5, 1, {"LISTEN_FDS": "2"}, True, "(1, [])"),
        (5, 1, {"LISTEN_FDS": "2", "LISTEN_PID": "self"}, False, "(1, [])"),
        (5, 1, {"LISTEN_FDS": "0", "LISTEN_PID": "self"}, True, "(1, [])"),
        (5, 1, {"LISTEN_FDS": "x", "LISTEN_PID": "self"}, True, "(1, [])"),
        (5, 1, {"LISTEN_FDS": "9" * 5000, "LISTEN_PID": "self"}, True, "(1, [])"),
        (5, -1, {}, True, "invalid value for preserve-fds: -1; it is a number of descriptors"),
        (1, 2, {}, True, "unable to stat preserved-fd 1 (of 2), descriptor 4: bad file descriptor"),
        (
            1,
            1,
            {"LISTEN_FDS": "1", "LISTEN_PID": "self"},
            True,
            "unable to stat preserved-fd 0 (of 1), descriptor 4: bad file descriptor",
        ),
        (
            1,
            0,
            {"LISTEN_FDS": "2", "LISTEN_PID": "self"},
            True,
            "unable to stat LISTEN_FDS descriptor 1 (of 2), descriptor 4: bad file descriptor",
        ),
    ],
)
def test_counting(
    with_open: Callable[[int, Callable[[], object]], str],
    opened: int,
    preserve: int,
    environ: dict[str, str],
    *,
    listen: bool,
    answer: str,
) -> None:
    def count() -> object:
        own = {key: str(os.getpid()) if value == "self" else value for key, value in environ.items()}
        return descriptors.passed(preserve, own, listen=listen)

    assert with_open(opened, count) == answer
