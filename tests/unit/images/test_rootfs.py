"""Layers on each other: what hides what, and what a file keeps. conformance/ compares it with umoci's."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pyrunc.apply import directory_trees as volumes
from pyrunc.errors import Failure
from pyrunc.images.owners import Owners
from pyrunc.images.rootfs import Tree
from pyrunc.images.tar_entries import Reader
from pyrunc.volumes.progress import Progress
from tests.support.images import TIME, Entry, folder, layer, link, symlink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="owners and devices take root")
X = "SCHILY.xattr."


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Tree]:
    """Return a function that unpacks layers into tmp_path."""

    def unpack(*layers: bytes, **rules: Any) -> Tree:
        fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
        tree = Tree(fd, Owners(**rules) if os.geteuid() == 0 else Owners(1, 1), Progress("x", lambda: 0))
        try:
            for data in layers:
                tree.apply(Reader(io.BytesIO(data), "the layer"), lambda: 0)
        finally:
            os.close(fd)
        return tree

    return unpack


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def names(top: Path) -> list[str]:
    return sorted(str(path.relative_to(top)) for path in top.rglob("*"))


LOWER = [
    folder("d"),
    Entry("d/low", b"low"),
    folder("d/e"),
    Entry("d/e/low", b"low"),
    Entry("f", b"low"),
    symlink("l", "d"),
    symlink("up", "/d/e"),
]


@pytest.mark.parametrize(
    ("upper", "left"),
    [
        ([], ["d", "d/e", "d/e/low", "d/low", "f", "l", "up"]),
        ([Entry(".wh.d")], ["f", "l", "up"]),
        ([Entry(".wh.f"), Entry(".wh.l")], ["d", "d/e", "d/e/low", "d/low", "up"]),
        ([Entry(".wh.never")], ["d", "d/e", "d/e/low", "d/low", "f", "l", "up"]),
        ([Entry("never/.wh.x"), Entry("f/.wh.x")], ["d", "d/e", "d/e/low", "d/low", "f", "l", "up"]),
        ([Entry("d/.wh..wh..opq")], ["d", "f", "l", "up"]),
        ([Entry(".wh..wh..opq")], []),
        # What a layer hides is what others have brought, wherever in the tar it says so.
        ([Entry("d/new"), Entry("d/.wh..wh..opq")], ["d", "d/new", "f", "l", "up"]),
        ([Entry("d/.wh..wh..opq"), Entry("d/new")], ["d", "d/new", "f", "l", "up"]),
        ([Entry("d/e/new"), Entry("d/.wh..wh..opq")], ["d", "d/e", "d/e/new", "f", "l", "up"]),
        ([Entry("d/new"), Entry(".wh.d")], ["d", "d/new", "f", "l", "up"]),
        ([Entry(".wh.d"), Entry("d/new")], ["d", "d/new", "f", "l", "up"]),
        ([Entry("f"), Entry(".wh.f")], ["d", "d/e", "d/e/low", "d/low", "f", "l", "up"]),
        # To hide something in a directory is to bring nothing there.
        ([Entry("d/e/.wh.low"), Entry("d/.wh..wh..opq")], ["d", "f", "l", "up"]),
        # Through links, by whatever name.
        ([Entry("l/.wh.low")], ["d", "d/e", "d/e/low", "f", "l", "up"]),
        ([Entry("up/new"), Entry("l/.wh..wh..opq")], ["d", "d/e", "d/e/new", "f", "l", "up"]),
        ([Entry("l/new"), Entry("d/.wh.new")], ["d", "d/e", "d/e/low", "d/low", "d/new", "f", "l", "up"]),
        # A second name of a file from below is new, the first one is not.
        ([link("g", "f"), Entry(".wh.f")], ["d", "d/e", "d/e/low", "d/low", "g", "l", "up"]),
        # aufs's books.
        ([Entry(".wh..wh.plnk"), Entry("d/.wh..wh.aufs")], ["d", "d/e", "d/e/low", "d/low", "f", "l", "up"]),
        # Something else in its place.
        ([Entry("d", b"file")], ["d", "f", "l", "up"]),
        ([folder("f"), Entry("f/new")], ["d", "d/e", "d/e/low", "d/low", "f", "f/new", "l", "up"]),
        ([folder("l"), Entry("l/new")], ["d", "d/e", "d/e/low", "d/low", "f", "l", "l/new", "up"]),
        ([symlink("d", "f")], ["d", "f", "l", "up"]),
        # A name that leads elsewhere from now on.
        (
            [Entry("l/new"), folder("l"), Entry("l/y")],
            ["d", "d/e", "d/e/low", "d/low", "d/new", "f", "l", "l/y", "up"],
        ),
        ([Entry("d/new"), folder("x"), symlink("d", "x"), Entry("d/y")], ["d", "f", "l", "up", "x", "x/y"]),
        (
            [symlink("d/t", "/d"), symlink("l", "d/t"), Entry("l/x"), folder("l/t"), Entry("l/y")],
            ["d", "d/e", "d/e/low", "d/low", "d/t", "d/t/y", "d/x", "f", "l", "up"],
        ),
        ([Entry("d/e/new"), Entry("d"), folder("d"), Entry("d/e/y")], ["d", "d/e", "d/e/y", "f", "l", "up"]),
    ],
)
def test_what_a_layer_leaves(
    put: Callable[..., Tree], tmp_path: Path, upper: list[Entry], left: list[str]
) -> None:
    put(layer(*LOWER), layer(*upper))
    assert names(tmp_path) == left


def test_a_file_below_a_file(put: Callable[..., Tree]) -> None:
    with pytest.raises(Failure, match=r'the layer: "f/x": not a directory'):
        put(layer(Entry("f"), Entry("f/x")))


def test_directories_that_nobody_has_described(put: Callable[..., Tree], tmp_path: Path) -> None:
    os.umask(0o077)
    try:
        put(layer(Entry("a/b/c", b"x"), symlink("l", "nowhere/else"), Entry("l/d", b"x")))
    finally:
        assert os.umask(0o022) == 0o077
    assert names(tmp_path) == ["a", "a/b", "a/b/c", "l", "nowhere", "nowhere/else", "nowhere/else/d"]
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/b", "nowhere/else")} == {
        0o755
    }


def test_directories_keep_their_times(put: Callable[..., Tree], tmp_path: Path) -> None:
    put(
        layer(
            folder("./", time=1000),
            folder("d", time=2000),
            Entry("d/a"),
            folder("e", time=3000),
            Entry("e/gone"),
        ),
        layer(Entry("d/b"), Entry("d/deep/er/c"), Entry("e/.wh.gone"), folder("f", time=4000)),
        layer(folder("f", time=5000), Entry("f/x"), symlink("l", "d"), Entry("l/y")),
    )
    found = {name: (tmp_path / name).stat().st_mtime for name in (".", "d", "e", "f")}
    assert found == {".": 1000, "d": 2000, "e": 3000, "f": 5000}


def test_times_to_the_nanosecond(put: Callable[..., Tree], tmp_path: Path) -> None:
    pax = {"mtime": "1500000000.123456789", "atime": "1400000000.000000001"}
    put(layer(Entry("f", b"x", pax=pax), symlink("l", "f", pax=pax), folder("d", pax=pax)))
    for name in ("l", "f", "d"):
        found = (tmp_path / name).lstat()
        assert (found.st_atime_ns, found.st_mtime_ns) == (
            1_400_000_000_000_000_001,
            1_500_000_000_123_456_789,
        )


@needs_root
def test_owners_and_modes_come_along(put: Callable[..., Tree], tmp_path: Path) -> None:
    put(
        layer(
            folder("d", 0o2775, uid=1, gid=2),
            Entry("d/f", b"x", mode=0o6711, uid=3, gid=4),
            Entry("d/none", mode=0, uid=4_000_000_000, gid=5),
            symlink("d/l", "nowhere", uid=6, gid=7),
            Entry("d/p", kind=tarfile.FIFOTYPE, mode=0o622, uid=8, gid=9),
            Entry("d/c", kind=tarfile.CHRTYPE, mode=0o666, device=(1, 3)),
            Entry("d/b", kind=tarfile.BLKTYPE, mode=0o4640, device=(7, 300)),
        )
    )
    found = {name: (tmp_path / name).lstat() for name in names(tmp_path)}
    assert {name: (oct(one.st_mode), one.st_uid, one.st_gid) for name, one in found.items()} == {
        "d": ("0o42775", 1, 2),
        "d/f": ("0o106711", 3, 4),
        "d/none": ("0o100000", 4_000_000_000, 5),
        "d/l": ("0o120777", 6, 7),
        "d/p": ("0o10622", 8, 9),
        "d/c": ("0o20666", 0, 0),
        "d/b": ("0o64640", 0, 0),
    }
    assert [found[name].st_rdev for name in ("d/c", "d/b")] == [os.makedev(1, 3), os.makedev(7, 300)]
    assert {one.st_mtime for one in found.values()} == {TIME}


@needs_root
def test_attributes_come_along_and_go(put: Callable[..., Tree], tmp_path: Path) -> None:
    capability = "\x01\x00\x00\x02\x00\x04" + "\x00" * 14
    put(
        layer(
            folder("d", pax={X + "trusted.low": "1", X + "trusted.both": "low"}),
            Entry(
                "d/f",
                b"x",
                mode=0o444,
                uid=5,
                pax={X + "security.capability": capability, X + "trusted.x": "\udcff"},
            ),
            symlink("d/l", "f", pax={X + "trusted.l": "1"}),
        ),
        layer(folder("d", pax={X + "trusted.both": "up"})),
    )

    def read(name: str) -> dict[str, bytes]:
        path = tmp_path / name
        return {
            key: os.getxattr(path, key, follow_symlinks=False)
            for key in os.listxattr(path, follow_symlinks=False)
        }

    assert read("d") == {"trusted.both": b"up"}
    assert read("d/f") == {"security.capability": capability.encode("latin-1"), "trusted.x": b"\xff"}
    assert read("d/l") == {"trusted.l": b"1"}


def test_hard_links(put: Callable[..., Tree], tmp_path: Path) -> None:
    put(
        layer(
            Entry("a", b"1"), link("b", "a"), link("a", "b"), symlink("s", "a"), link("t", "s"), folder("d")
        ),
        layer(Entry("a", b"2"), link("d/c", "b"), symlink("l", "d"), link("l/e", "l/c")),
    )
    content = {name: (tmp_path / name).read_bytes() for name in ("a", "b", "d/c", "d/e")}
    assert content == {"a": b"2", "b": b"1", "d/c": b"1", "d/e": b"1"}
    assert (tmp_path / "b").stat().st_nlink == 3
    assert os.path.samestat((tmp_path / "s").lstat(), (tmp_path / "t").lstat())
    assert (tmp_path / "t").is_symlink()


def test_holes_stay_holes(put: Callable[..., Tree], tmp_path: Path) -> None:
    size = 64 << 20
    pax = {"GNU.sparse.map": f"{size // 2},5,{size - 5},5", "GNU.sparse.size": str(size)}
    put(layer(Entry("f", b"firstlast!", pax=pax), Entry("all", pax={**pax, "GNU.sparse.map": f"{size},0"})))
    for name in ("f", "all"):
        found = (tmp_path / name).stat()
        assert found.st_size == size
        assert found.st_blocks < 64
    with (tmp_path / "f").open("rb") as file:
        file.seek(size // 2 - 1)
        assert file.read(7) == b"\0first\0"
        file.seek(-5, os.SEEK_END)
        assert file.read() == b"last!"


def test_a_deep_tree(put: Callable[..., Tree], tmp_path: Path) -> None:
    deep = "d/" * 1500
    put(layer(Entry(deep + "f", b"x")), layer(Entry(deep + "g", b"x"), Entry("d/.wh..wh..opq")))
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    assert os.listdir(fd) == ["g"]
    os.close(fd)
    with opened(tmp_path) as top:
        volumes.empty(top, "what pytest could not remove")


@needs_root
def test_what_only_root_has(put: Callable[..., Tree], tmp_path: Path) -> None:
    made = put(
        layer(
            Entry("c", kind=tarfile.CHRTYPE, mode=0o640, device=(1, 3), uid=7),
            Entry("f", uid=7),
            symlink("l", "f", gid=8),
            Entry("p", kind=tarfile.FIFOTYPE),
        ),
        users=1,
        groups=1,
        devices=False,
    )
    found = (tmp_path / "c").stat()
    assert (oct(found.st_mode), found.st_size, found.st_uid) == ("0o100640", 0, 0)
    assert made.notes.words() == [
        "1 device of the image became an empty file: making one takes root",
        (
            "3 files of other users in the image became yours: keeping owners takes newuidmap and ids in "
            "/etc/subuid and /etc/subgid"
        ),
    ]


@needs_root
def test_more_users_than_there_are_ids(put: Callable[..., Tree]) -> None:
    with pytest.raises(Failure) as caught:
        put(layer(Entry("f", uid=5, gid=12)), users=10, groups=10)
    assert caught.value.text() == (
        '"f" belongs to 5:12, and there are only 10 user ids and 10 group ids; '
        "give yourself more in /etc/subuid and /etc/subgid"
    )


def test_attributes_that_cannot_be_set_are_told(
    put: Callable[..., Tree], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_words: object, **_how: object) -> None:
        raise OSError(95, "not supported")

    monkeypatch.setattr(os, "setxattr", refuse)
    made = put(
        layer(Entry("f", pax={X + "user.a": "1", X + "user.b": "2"}), folder("d", pax={X + "user.a": "1"}))
    )
    assert made.notes.words() == [
        '3 extended attributes of the image had to be left out, the first is "user.a" of "f"'
    ]


def test_what_the_kernel_refuses_is_named(put: Callable[..., Tree]) -> None:
    with pytest.raises(Failure) as caught:
        put(layer(Entry("a\x1b/" + "n" * 256)))
    assert caught.value.text() == rf'the layer: "a\x1b/{"n" * 256}": file name too long'
    with pytest.raises(Failure) as caught:
        put(layer(link("f", "nowhere")))
    assert caught.value.text() == 'the layer: "f": no such file or directory'
