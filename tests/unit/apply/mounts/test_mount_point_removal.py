"""Which mount points are removed: those of the lists, if they are not in use and were not replaced."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pyrunc import jsonio, store
from pyrunc.apply.mounts import mount_point_removal, mount_points
from pyrunc.plan import mount_table
from pyrunc.store import Container
from tests.support.records import refuse

TABLE = b"""20 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
21 20 0:5 / /proc rw - proc proc rw
30 20 8:2 /sub /srv rw - ext4 /dev/sdb rw
31 30 8:1 /var/data /srv/a\\040b rw - ext4 /dev/sda1 rw
32 31 0:9 / /srv/a\\040b/deep/er rw - tmpfs tmpfs rw
40 99 0:7 / /elsewhere rw - tmpfs tmpfs rw
41 20 0:8 / /odd\xe2\x80\xa8\x0c\r/x rw - tmpfs tmpfs rw
"""


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    made = tmp_path / "rootfs"
    made.mkdir()
    return made


def container(tmp_path: Path, name: str, rootfs: Path, *, pid: int = 1) -> Container:
    made = Container(str(tmp_path / "state"), name)
    Path(made.directory).mkdir(parents=True)
    made.rootfs = str(rootfs)
    made.pid = pid
    store.save(made)
    store.save_config(made, b"{}")
    (Path(made.directory) / mount_points.FILE).touch()
    return made


def write(owner: Container, *lines: object) -> None:
    with (Path(owner.directory) / mount_points.FILE).open("a") as file:
        for line in lines:
            file.write(jsonio.dumps(line) + "\n")


def read(owner: Container) -> list[tuple[str, str, tuple[int, int], tuple[int, int] | None]]:
    file = os.open(f"{owner.directory}/{mount_points.FILE}", os.O_RDONLY)
    try:
        return [(each.base, each.path, each.top, each.made) for each in mount_point_removal.listed(file)[0]]
    finally:
        os.close(file)


def take_away(owner: Container, *, rootfs: bool = True, undo: bool = False) -> None:
    file = os.open(f"{owner.directory}/{mount_points.FILE}", os.O_RDONLY)
    try:
        mount_point_removal.take_away(owner, file, rootfs=rootfs, undo=undo)
    finally:
        os.close(file)
    assert not (Path(owner.directory) / mount_points.FILE).exists()


def inode(path: Path) -> tuple[int, int]:
    return path.stat().st_dev, path.stat().st_ino


def make(owner: Container, rootfs: Path, *paths: str, files: tuple[str, ...] = ()) -> None:
    """Make mount points as a container's init does."""
    for number, path in enumerate((*paths, *files), 1):
        write(owner, [number, str(rootfs), path, *inode(rootfs)])
        if path in files:
            (rootfs / path).touch()
        else:
            (rootfs / path).mkdir()
        write(owner, [number, *inode(rootfs / path)])


# -- the list


def test_lines_of_two_writers_may_be_mixed(tmp_path: Path, rootfs: Path) -> None:
    one = container(tmp_path, "one", rootfs)
    write(
        one,
        [1, "/r", "a", 5, 6],
        [-1, "/r", "other", 5, 6, 5, 9],
        [1, 5, 7],
        [2, "/r", "b", 5, 6],
        [-1, "/r", "more", 5, 6, 5, 10],
        [2],
        [3, "/r", "c", 5, 6],
    )
    assert read(one) == [
        ("/r", "a", (5, 6), (5, 7)),
        ("/r", "c", (5, 6), None),
        ("/r", "other", (5, 6), (5, 9)),
        ("/r", "more", (5, 6), (5, 10)),
    ]


@pytest.mark.parametrize("text", [b"", b"[", b"{}\n7\n", b"[1]\n[1, 2, 3]\n", b"\xff\n", b'[1,"/r"'])
def test_a_damaged_list_says_nothing(tmp_path: Path, rootfs: Path, text: bytes) -> None:
    one = container(tmp_path, "one", rootfs)
    (Path(one.directory) / mount_points.FILE).write_bytes(text)
    assert read(one) == []


def test_names_that_are_no_text(tmp_path: Path, rootfs: Path) -> None:
    one = container(tmp_path, "one", rootfs)
    (Path(one.directory) / mount_points.FILE).write_bytes(b'[1,"/r","\xff\xfe",5,6]\n')
    assert read(one) == [("/r", os.fsdecode(b"\xff\xfe"), (5, 6), None)]


# -- what is in use


def test_places() -> None:
    assert mount_point_removal.places(mount_table.parse(TABLE.decode())) == {
        ("8:1", "/proc"),
        ("8:1", "/srv"),
        ("8:2", "/sub/a b"),
        ("8:1", "/var/data/deep/er"),
        ("8:1", "/odd\u2028\x0c\r/x"),  # what else ends a line in a text does not do so here
    }


@pytest.mark.parametrize(
    ("top", "path", "whole"), [("/", "", "/"), ("/", "/a", "/a"), ("/r", "a/b", "/r/a/b"), ("/r", "/", "/r")]
)
def test_join(top: str, path: str, whole: str) -> None:
    assert mount_point_removal.join(top, path) == whole


# -- what goes


def test_what_is_empty_and_ours_goes(tmp_path: Path, rootfs: Path) -> None:
    one = container(tmp_path, "one", rootfs)
    make(one, rootfs, "a", "a/b", "full", "gone", files=("f", "written", "linked"))
    (rootfs / "full/x").touch()
    (rootfs / "gone").rmdir()
    (rootfs / "written").write_text("x")
    os.link(rootfs / "linked", rootfs / "full/other-name")
    take_away(one)
    assert sorted(os.listdir(rootfs)) == ["full", "linked", "written"]
    assert not (Path(one.directory) / mount_points.FILE).exists()


def test_what_run_has_made_in_its_root_stays(tmp_path: Path, rootfs: Path) -> None:
    one = container(tmp_path, "one", rootfs)
    volume = tmp_path / "volume"
    volume.mkdir()
    make(one, rootfs, "a")
    (volume / "b").mkdir()
    (rootfs / "c").mkdir()
    write(one, [7, str(volume), "b", *inode(volume)], [7, *inode(volume / "b")])
    write(one, [-1, str(rootfs), "c", *inode(rootfs), *inode(rootfs / "c")])
    take_away(one, rootfs=False)
    assert os.listdir(volume) == []
    assert os.listdir(rootfs) == ["a"]


def test_what_was_not_confirmed_goes_if_it_is_empty(tmp_path: Path, rootfs: Path) -> None:
    one = container(tmp_path, "one", rootfs, pid=0)
    (rootfs / "a").mkdir()
    write(one, [1, str(rootfs), "a", *inode(rootfs)], [2, str(rootfs), "never", *inode(rootfs)])
    take_away(one)
    assert os.listdir(rootfs) == []


def test_another_inode_stays(tmp_path: Path, rootfs: Path) -> None:
    one = container(tmp_path, "one", rootfs)
    (rootfs / "a").mkdir()
    (rootfs / "b").mkdir()
    device, number = inode(rootfs)
    write(one, [1, str(rootfs), "a", device, number], [1, device, number + 1])
    write(one, [2, str(rootfs), "b", device, number + 1], [2, *inode(rootfs / "b")])
    take_away(one)
    assert sorted(os.listdir(rootfs)) == ["a", "b"]


def test_a_symlink_on_the_way_leads_nowhere(tmp_path: Path, rootfs: Path) -> None:
    one = container(tmp_path, "one", rootfs)
    (tmp_path / "outside/b").mkdir(parents=True)
    (rootfs / "a").symlink_to(tmp_path / "outside")
    write(one, [1, str(rootfs), "a/b", *inode(rootfs)], [1, *inode(tmp_path / "outside/b")])
    write(one, [2, str(rootfs), "../outside/b", *inode(rootfs)], [2, *inode(tmp_path / "outside/b")])
    take_away(one)
    assert (tmp_path / "outside/b").is_dir()


# -- what is left to others


def busy(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
    """Let it look as if something were mounted on these paths."""
    monkeypatch.setattr(mount_point_removal, "_place", lambda fd: ("8:1", os.readlink(f"/proc/self/fd/{fd}")))
    monkeypatch.setattr(mount_point_removal, "mounted_on", lambda *_: {("8:1", str(path)) for path in paths})


def test_what_is_in_use_is_left_to_who_has_the_same_root(
    tmp_path: Path, rootfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = container(tmp_path, "one", rootfs), container(tmp_path, "two", rootfs)
    container(tmp_path, "three", tmp_path)
    make(one, rootfs, "a", "a/b", "c")
    made = [inode(rootfs / "a/b"), inode(rootfs / "a")]
    busy(monkeypatch, rootfs / "a/b")
    take_away(one)
    assert os.listdir(rootfs) == ["a"]
    assert [entry[1:] for entry in read(two)] == [
        ("a/b", inode(rootfs), made[0]),
        ("a", inode(rootfs), made[1]),
    ]
    busy(monkeypatch)
    take_away(two)
    assert os.listdir(rootfs) == []


def test_what_was_mounted_on_a_volume_is_left_to_who_has_it_too(
    tmp_path: Path, rootfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = container(tmp_path, "one", rootfs), container(tmp_path, "two", tmp_path)
    three = container(tmp_path, "three", tmp_path)
    three.bundle = str(tmp_path)
    store.save(three)
    store.save_config(two, b'{"mounts": [{"source": "/elsewhere"}, {}, 7]}')
    store.save_config(three, b'{"mounts": [{"source": "volume"}]}')
    volume = tmp_path / "volume"
    volume.mkdir()
    make(one, volume, "a")
    busy(monkeypatch, volume / "a")
    take_away(one)
    assert read(two) == []
    assert [entry[:2] for entry in read(three)] == [(str(volume), "a")]


def test_nothing_is_left_to_who_is_going(
    tmp_path: Path, rootfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other containers do not keep the mount point.

    One list is removed while it is read, one is missing, and one container's record is broken.
    """
    one, two = container(tmp_path, "one", rootfs), container(tmp_path, "two", rootfs)
    three, broken = container(tmp_path, "three", rootfs), container(tmp_path, "broken", rootfs)
    (Path(broken.directory) / store.STATE).write_text("{")
    make(one, rootfs, "a")
    busy(monkeypatch, rootfs / "a")
    (Path(three.directory) / mount_points.FILE).unlink()
    real = os.fstat

    def going(fd: int) -> os.stat_result:
        if os.readlink(f"/proc/self/fd/{fd}") == f"{two.directory}/{mount_points.FILE}":
            os.unlink(f"{two.directory}/{mount_points.FILE}")
        return real(fd)

    monkeypatch.setattr(mount_point_removal, "_PATIENCE", 0.02)
    monkeypatch.setattr(os, "fstat", going)
    take_away(one)
    assert (rootfs / "a").is_dir()
    assert not (Path(two.directory) / mount_points.FILE).exists()


def test_what_is_left_to_us_at_the_last_moment(
    tmp_path: Path, rootfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = container(tmp_path, "one", rootfs)
    make(one, rootfs, "a")
    (rootfs / "b").mkdir()
    real = os.unlink

    def unlink(path: str, **how: int) -> None:
        if path.endswith(mount_points.FILE):
            write(one, [-1, str(rootfs), "b", *inode(rootfs), *inode(rootfs / "b")])
        real(path, **how)

    monkeypatch.setattr(os, "unlink", unlink)
    take_away(one)
    assert os.listdir(rootfs) == []


def test_who_is_just_dying_is_waited_for(
    tmp_path: Path, rootfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = container(tmp_path, "one", rootfs)
    make(one, rootfs, "a")
    answers = [{("8:1", str(rootfs / "a"))}, {("8:1", str(rootfs / "a"))}, set()]
    busy(monkeypatch)
    monkeypatch.setattr(mount_point_removal, "mounted_on", lambda *_: answers.pop(0))
    take_away(one)
    assert os.listdir(rootfs) == []


def test_while_others_are_being_made_it_is_left_to_them(
    tmp_path: Path, rootfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mount_point_removal, "_PATIENCE", 0.02)
    one, two = container(tmp_path, "one", rootfs), container(tmp_path, "two", rootfs)
    make(one, rootfs, "a")
    creating, _held = mount_points.hold(one.root, str(rootfs))
    assert creating >= 0
    take_away(one)
    assert [entry[1] for entry in read(two)] == ["a"]
    os.close(creating)
    take_away(two)
    assert os.listdir(rootfs) == []


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM])
@pytest.mark.parametrize("part", ["rootfs", "mountinfo"])
def test_what_cannot_be_asked_keeps_the_list(
    tmp_path: Path, rootfs: Path, monkeypatch: pytest.MonkeyPatch, part: str, number: int
) -> None:
    """If it is not known what is mounted, the mount point stays, and so does its line in the list."""
    one = container(tmp_path, "one", rootfs)
    make(one, rootfs, "a")
    with monkeypatch.context() as within:
        refuse(within, "open", part, number)
        with pytest.raises(OSError, match=os.strerror(number)):
            take_away(one)
    assert (rootfs / "a").is_dir()
    assert len(read(one)) == 1
    take_away(one)
    assert not (rootfs / "a").exists()


def test_a_list_that_is_unlinked_already_comes_back(
    tmp_path: Path, rootfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = container(tmp_path, "one", rootfs)
    make(one, rootfs, "a")
    place = Path(one.directory) / mount_points.FILE
    file = os.open(place, os.O_RDONLY)
    place.unlink()
    refuse(monkeypatch, "open", "mountinfo", errno.EMFILE)
    with pytest.raises(OSError, match="Too many open files"):
        mount_point_removal.take_away(one, file, rootfs=True, undo=False)
    os.close(file)
    assert [entry[1] for entry in read(one)] == ["a"]
