"""Trees that containers have made are handled by descriptor: nothing outside is ever changed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyrunc.apply import directory_trees
from pyrunc.errors import Failure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

root = pytest.mark.skipif(os.geteuid() != 0, reason="owners and mounts take root")


@pytest.fixture
def top(tmp_path: Path) -> Iterator[Path]:
    before = len(os.listdir("/proc/self/fd"))
    (tmp_path / "top").mkdir()
    yield tmp_path / "top"
    assert len(os.listdir("/proc/self/fd")) == before, "descriptors leak"


def with_fd(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def remove(path: Path) -> int:
    parent = with_fd(path.parent)
    try:
        return directory_trees.remove(parent, path.name, "it")
    finally:
        os.close(parent)


def test_remove_takes_everything_and_only_that(top: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").write_text("x")
    (top / "link").symlink_to(outside)
    (top / "sub/sub").mkdir(parents=True)
    (top / "sub/link").symlink_to("../../outside")
    (top / "sub/sub/file").write_bytes(b"12345")
    os.mkfifo(top / "fifo")
    assert remove(top) >= 5
    assert not top.exists()
    assert (outside / "keep").read_text() == "x"


def test_what_is_not_there_is_gone(top: Path) -> None:
    assert remove(top / "no") == 0


def test_a_symlink_in_its_place_is_not_followed(top: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/keep").write_text("x")
    (top / "it").symlink_to(tmp_path / "outside")
    with pytest.raises(Failure):
        remove(top / "it")
    assert (tmp_path / "outside/keep").exists()


def test_depth_does_not_matter(top: Path) -> None:
    """The tree is deeper than the limit of open descriptors, and deeper than a path can be long."""
    fd = with_fd(top)
    for _ in range(3000):
        os.mkdir("directory", dir_fd=fd)
        inner = os.open("directory", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    remove(top)
    assert not top.exists()


def test_names_that_look_like_ours_do_no_harm(top: Path) -> None:
    for name in (".pyrunc-1-0", ".pyrunc-", "a/.pyrunc-1-0/b", "a/b"):
        (top / name).mkdir(parents=True)
    remove(top)
    assert not top.exists()


@root
def test_a_mount_point_stops_it(top: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/keep").write_text("x")
    (top / "a/mounted").mkdir(parents=True)
    subprocess.run(["mount", "--bind", tmp_path / "outside", top / "a/mounted"], check=True)
    try:
        with pytest.raises(Failure, match="'mounted' in it is a mount point"):
            remove(top)
        assert (tmp_path / "outside/keep").exists()
    finally:
        subprocess.run(["umount", top / "a/mounted"], check=True)


@root
def test_an_ordinary_user_can_remove_what_he_has_locked(top: Path) -> None:
    (top / "locked/inner/more").mkdir(parents=True)
    (top / "locked/inner/more/file").touch()
    for folder in (top, *top.rglob("*")):
        os.chown(folder, 1000, 1000)
    (top / "locked/inner/more").chmod(0)
    (top / "locked/inner").chmod(0)
    (top / "locked").chmod(0o500)
    pid = os.fork()
    if pid == 0:
        try:
            os.setgid(1000)
            fd = with_fd(top)
            os.setuid(1000)
            directory_trees.empty(fd, "it")
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    assert os.listdir(top) == []


@root
def test_chown_gives_all_but_what_links_point_to(top: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.touch()
    (top / "sub").mkdir()
    (top / "sub/file").touch()
    (top / "link").symlink_to(outside)
    fd = os.open(top, os.O_PATH)
    directory_trees.chown(fd, 1234, 4321, "it")
    os.close(fd)
    for path in (top, top / "sub", top / "sub/file", top / "link"):
        assert (path.lstat().st_uid, path.lstat().st_gid) == (1234, 4321)
    assert outside.stat().st_uid == 0


@root
def test_chown_leaves_alone_what_is_right_already(top: Path) -> None:
    """A chown(2) would remove setuid bits, and change the ctime, even if the owner stays the same."""
    (top / "file").touch()
    (top / "file").chmod(0o4755)
    fd = os.open(top, os.O_PATH)
    directory_trees.chown(fd, 0, 0, "it")
    os.close(fd)
    assert (top / "file").stat().st_mode & 0o7777 == 0o4755


@root
def test_chown_of_a_single_file(top: Path) -> None:
    (top / "file").touch()
    fd = os.open(top / "file", os.O_PATH)
    directory_trees.chown(fd, 1234, 4321, "it")
    os.close(fd)
    assert (top / "file").stat().st_uid == 1234


@root
def test_chown_does_not_enter_mounts(top: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").touch()
    (top / "mounted").mkdir()
    subprocess.run(["mount", "--bind", tmp_path / "outside", top / "mounted"], check=True)
    try:
        fd = os.open(top, os.O_PATH)
        directory_trees.chown(fd, 1234, 4321, "it")
        os.close(fd)
        assert (tmp_path / "outside/file").stat().st_uid == 0
    finally:
        subprocess.run(["umount", top / "mounted"], check=True)


def test_label_marks_every_entry_once(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (top / "sub").mkdir()
    (top / "sub/file").touch()
    (top / "link").symlink_to("/etc/passwd")
    marked = []

    def mark(path: str, name: str, value: bytes, *, follow_symlinks: bool) -> None:
        assert (name, value) == ("security.selinux", b"system_u:object_r:container_file_t:s0:c1,c2\0")
        if (
            path.count("/") == 4
        ):  # /proc/self/fd/N is a descriptor and must be followed, a name in it must not
            assert follow_symlinks
            marked.append(os.path.realpath(path))
        else:
            assert not follow_symlinks
            marked.append(os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path)))

    monkeypatch.setattr(os, "setxattr", mark)
    fd = os.open(top, os.O_PATH)
    directory_trees.label(fd, "system_u:object_r:container_file_t:s0:c1,c2", "it")
    os.close(fd)
    assert sorted(marked) == sorted(map(str, (top, top / "sub", top / "sub/file", top / "link")))


def nest(top: Path, depth: int) -> None:
    """Make directories in each other, deeper than a path can say."""
    here = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        for name in ("e", "f"):
            os.mkdir(name, dir_fd=inner)
        os.close(here)
        here = inner
    os.close(here)


def test_no_depth_is_too_much(top: Path) -> None:
    depth = 3 * directory_trees.DEEPEST + 5
    nest(top, depth)
    before = len(os.listdir("/proc/self/fd"))
    fd = with_fd(top)
    try:
        assert directory_trees.count(fd, seconds=60) == 1 + 3 * depth
        directory_trees.chown(fd, os.getuid(), os.getgid(), "it")
    finally:
        directory_trees.empty(fd, "it")
        os.close(fd)
    assert os.listdir(top) == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_who_moves_a_directory_meanwhile_leads_nobody_out(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a very deep tree the walk goes back up by "..".

    If a container has moved a directory, ".." leads to another place: this must be noticed.
    """
    (top / "walked").mkdir()
    nest(top / "walked", directory_trees.DEEPEST + 20)
    (top / "elsewhere").mkdir()
    chain = "/".join(["d"] * 10)
    seen: list[tuple[int, int]] = []
    real = directory_trees._visit

    def visit(fd: int, action: Any, directories: list[str]) -> None:
        found = os.fstat(fd)
        seen.append((found.st_dev, found.st_ino))
        real(fd, action, directories)
        if len(seen) == directory_trees.DEEPEST + 15:  # the tenth is closed by now
            (top / "walked" / chain / "d").rename(top / "elsewhere" / "d")

    monkeypatch.setattr(directory_trees, "_visit", visit)
    fd = with_fd(top / "walked")
    try:
        with pytest.raises(Failure, match="a directory in it was moved meanwhile"):
            directory_trees.chown(fd, os.getuid(), os.getgid(), "it")
    finally:
        os.close(fd)
    outside = (top / "elsewhere").stat()
    assert (outside.st_dev, outside.st_ino) not in seen


def test_count(top: Path) -> None:
    for number in range(3000):
        (top / str(number)).touch()
    fd = with_fd(top)
    try:
        assert directory_trees.count(fd, seconds=60) == 3001
        assert directory_trees.count(fd, seconds=-1) == 0
    finally:
        os.close(fd)


def test_what_is_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "place"
    assert not directory_trees.lacks(str(place), "data"), "nothing is there"
    place.touch()
    assert directory_trees.lacks(str(place), "data"), "a file"
    place.unlink()
    place.mkdir()
    assert directory_trees.lacks(str(place), "data")
    (place / "data").mkdir()
    assert not directory_trees.lacks(str(place), "data")
    real = os.stat

    def removed_meanwhile(name: str, **how: Any) -> os.stat_result:
        """Do what another remover could do between two looks at the directory."""
        (tmp_path / "place").rename(tmp_path / "gone")
        (tmp_path / "gone" / "data").rmdir()
        return real(name, **how)

    monkeypatch.setattr(os, "stat", removed_meanwhile)
    assert not directory_trees.lacks(str(place), "data")
