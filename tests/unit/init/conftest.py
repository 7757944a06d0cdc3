"""Shared by the tests of the init program."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.init_machine import BUSYBOX


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root file system with a busybox, and places for the rest."""
    made = tmp_path / "root"
    for name in ("bin", "dev", "etc", "proc"):
        (made / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, made / "bin/busybox")
    return made


@pytest.fixture
def opened() -> Iterator[Callable[..., int]]:
    """A function that opens a file as os.open does; it is closed at the end."""
    fds: list[int] = []

    def open_it(path: str | Path, how: int = os.O_RDONLY) -> int:
        fds.append(os.open(path, how))
        return fds[-1]

    yield open_it
    for fd in fds:
        os.close(fd)
