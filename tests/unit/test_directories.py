"""Directories get the modes that they should have, with any umask."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pyrunc import directories

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(("leaf", "parents"), [(0o700, 0o700), (0o1711, 0o755), (0o755, 0o755)])
def test_every_mode_is_the_one_that_is_meant(tmp_path: Path, leaf: int, parents: int) -> None:
    made: list[tuple[str, int, int]] = []
    directories.make(f"{tmp_path}/a/b/c", leaf, parents=parents, made=made)
    assert [mode(tmp_path / name) for name in ("a", "a/b", "a/b/c")] == [parents, parents, leaf]
    assert made == [
        (str(path), path.stat().st_dev, path.stat().st_ino)
        for path in (tmp_path / "a", tmp_path / "a/b", tmp_path / "a/b/c")
    ]


def test_what_is_there_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o750)
    (tmp_path / "link").symlink_to("a")
    made: list[tuple[str, int, int]] = []
    directories.make(f"{tmp_path}/a", 0o700, made=made)
    assert (mode(tmp_path / "a"), made) == (0o750, [])
    directories.make(f"{tmp_path}/link/b", 0o700)
    assert (tmp_path / "a/b").is_dir()


@pytest.mark.parametrize("target", ["nowhere", "file"])
def test_what_is_in_the_way(tmp_path: Path, target: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(OSError, match=r"Too many levels|Not a directory"):
        directories.make(f"{tmp_path}/link/a", 0o700)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]
    assert len(os.listdir("/proc/self/fd")) == before
