"""The list of mount points: exactly what is written down is removed."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path

import pytest

from pyrunc.apply.mounts import mount_point_removal, mount_points
from pyrunc.store import Container
from tests.support.init_machine import as_root
from tests.support.init_tree import Tree

pytestmark = as_root


@pytest.fixture
def container(tmp_path: Path) -> Container:
    made = Container(str(tmp_path / "state"), "one")
    Path(made.directory).mkdir(parents=True)
    made.pid = 1
    return made


def remove(container: Container) -> None:
    """Remove the mount points of the list, as delete does."""
    file = os.open(f"{container.directory}/{mount_points.FILE}", os.O_RDONLY)
    try:
        mount_point_removal.take_away(container, file, rootfs=True, undo=False)
    finally:
        os.close(file)


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def make(container: Container, top: Path, *paths: tuple[str, str]) -> int:
    """Make mount points as the mount steps do; return how many files and directories are on the list."""
    listed = mount_points.open_list(container.directory)
    tree = Tree(top, listed=listed)
    for number, (path, kind) in enumerate(paths):
        if kind == "dir":
            tree.add("PLACE", path, 0, f"place{number}")
        else:
            tree.add("CLONE_PATH", "/dev/null", 0, "null").attach("null", path)
    outcome = tree.run()
    os.close(listed)
    assert (outcome.status, outcome.report) == (0, None)
    lines = Path(container.directory, mount_points.FILE).read_text().splitlines()
    return sum(len(json.loads(line)) > 3 for line in lines)


def test_all_goes_that_was_made(container: Container, top: Path) -> None:
    (top / "there").mkdir()
    assert make(container, top, ("/a/b/c", "dir"), ("/there/file", "file"), ("/a/d", "file")) == 5
    assert (top / "there/file").is_file()
    remove(container)
    assert [str(path.relative_to(top)) for path in top.rglob("*")] == ["there"]


def test_what_is_used_stays(container: Container, top: Path) -> None:
    make(container, top, ("/dir/inner", "dir"), ("/file", "file"), ("/linked", "file"), ("/swapped", "file"))
    (top / "dir/kept").write_text("")
    (top / "file").write_text("written")
    os.link(top / "linked", top / "other")
    (top / "swapped").unlink()
    (top / "swapped").symlink_to("file")
    remove(container)
    left = sorted(str(path.relative_to(top)) for path in top.rglob("*"))
    assert left == ["dir", "dir/kept", "file", "linked", "other", "swapped"]


def test_a_directory_put_in_its_place_is_not_entered(container: Container, top: Path, tmp_path: Path) -> None:
    """Neither a symlink nor another directory with the same name is followed."""
    make(container, top, ("/a/point", "dir"), ("/b/point", "dir"))
    (tmp_path / "host/point").mkdir(parents=True)
    (top / "a").rename(top / "moved")
    (top / "a").symlink_to(tmp_path / "host")
    (top / "b").rename(top / "moved-too")
    (top / "b/point").mkdir(parents=True)
    remove(container)
    assert (tmp_path / "host/point").is_dir()
    assert (top / "b/point").is_dir()


def test_what_somebody_else_made_first_is_taken_back(container: Container, top: Path) -> None:
    here = top.stat()
    lines: list[list[object]] = []
    for number, name in enumerate(("mine", "theirs"), 1):
        (top / name).mkdir()
        found = (top / name).stat()
        lines.append([number, str(top), name, here.st_dev, here.st_ino])
        lines.append([number, found.st_dev, found.st_ino] if name == "mine" else [number])
    text = "".join(json.dumps(line) + "\n" for line in lines)
    Path(container.directory, mount_points.FILE).write_text(text)
    remove(container)
    assert sorted(os.listdir(top)) == ["theirs"]


@pytest.mark.parametrize("text", ["", "[", '["/nowhere","a",1,2]\n', "null\n", '["/nowhere"'])
def test_a_list_that_says_nothing(container: Container, text: str) -> None:
    Path(container.directory, mount_points.FILE).write_text(text)
    remove(container)


def test_who_looks_for_mount_points_and_who_takes_them_away_wait_for_each_other(
    container: Container, top: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    looking, held = mount_points.hold(container.root, str(top))
    also, _held = mount_points.hold(container.root, str(top))
    taking = mount_points.open_locks(container.root)
    assert min(looking, also, taking) >= 0

    def taken(path: Path) -> bool:
        found = path.stat()
        return mount_points.lock(
            taking, fcntl.F_WRLCK, mount_points.part((found.st_dev, found.st_ino)), time.monotonic()
        )

    assert taken(other)
    assert not taken(top)
    os.close(also)
    assert not taken(top)
    mount_points.let_go(looking, held)
    assert taken(top)
    for fd in (looking, taking):
        os.close(fd)


def test_nobody_waits_for_ever(container: Container, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mount_points, "_SECONDS", 0.02)
    taking = mount_points.open_locks(container.root)
    found = top.stat()
    assert mount_points.lock(taking, fcntl.F_WRLCK, mount_points.part((found.st_dev, found.st_ino)), 0)
    assert mount_points.hold(container.root, str(top)) == (-1, b"")
    os.close(taking)


@pytest.mark.parametrize("what", ["no root file system", "no place for locks"])
def test_without_locks_it_goes_on(container: Container, top: Path, what: str) -> None:
    if what == "no root file system":
        top.rmdir()
    else:
        Path(container.root, "@cache").write_text("")
    assert mount_points.hold(container.root, str(top)) == (-1, b"")
