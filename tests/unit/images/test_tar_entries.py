"""Checks of what a tar says about a file. tests/security tries real attacks."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from pyrunc.errors import Failure
from pyrunc.images import tar_entries
from tests.support.images import TIME, Entry, folder, layer, link, symlink

if TYPE_CHECKING:
    from pathlib import Path


def read(data: bytes) -> list[tar_entries.Entry]:
    return list(tar_entries.Reader(io.BytesIO(data), "the layer"))


def one(entry: Entry) -> tar_entries.Entry:
    (found,) = read(layer(entry))
    return found


@pytest.mark.parametrize(
    ("name", "directory", "last"),
    [
        ("a", "", "a"),
        ("./a", "", "a"),
        ("a/b/c", "a/b", "c"),
        ("a//./b", "a", "b"),
        ("..a/b..", "..a", "b.."),
        ("a/...", "a", "..."),
    ],
)
def test_names(name: str, directory: str, last: str) -> None:
    found = one(Entry(name))
    assert (found.directory, found.name, found.path) == (directory, last, f"{directory}/{last}".lstrip("/"))


@pytest.mark.parametrize("name", [".", "./", "/", "//"])
def test_the_root(name: str) -> None:
    found = one(folder(name))
    assert (found.directory, found.name, found.path) == ("", "", "")


@pytest.mark.parametrize("name", ["\udcff", "é", "\u2028", "a\nb", "n" * 255, "d/" * 100 + "x"])
def test_names_of_all_kinds(name: str) -> None:
    assert one(Entry(name)).path == name


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        (tarfile.REGTYPE, tar_entries.FILE),
        (tarfile.AREGTYPE, tar_entries.FILE),
        (tarfile.CONTTYPE, tar_entries.FILE),
        (tarfile.DIRTYPE, tar_entries.DIRECTORY),
        (tarfile.SYMTYPE, tar_entries.SYMLINK),
        (tarfile.LNKTYPE, tar_entries.LINK),
        (tarfile.FIFOTYPE, tar_entries.FIFO),
        (tarfile.CHRTYPE, tar_entries.CHARACTER),
        (tarfile.BLKTYPE, tar_entries.BLOCK),
    ],
)
def test_kinds(kind: bytes, wanted: int) -> None:
    assert one(Entry("x", kind=kind, link="y")).kind == wanted


@pytest.mark.parametrize(
    ("pax", "times"),
    [
        ({}, (TIME * 10**9, TIME * 10**9)),
        ({"mtime": "1"}, (10**9, 10**9)),
        ({"mtime": "1.000000001", "atime": "2.5"}, (2_500_000_000, 1_000_000_001)),
        ({"mtime": "1.1234567899"}, (1_123_456_789, 1_123_456_789)),
        ({"mtime": "-1.5"}, (-1_500_000_000, -1_500_000_000)),
        ({"mtime": "1."}, (10**9, 10**9)),
    ],
)
def test_times(pax: dict[str, str], times: tuple[int, int]) -> None:
    """Python's tarfile makes floats of times, and a float has not enough digits for nanoseconds."""
    assert one(Entry("x", pax=pax)).times == times


@pytest.mark.parametrize("text", ["", "x", "1.x", "--1", "1e3", "inf", "1" * 12, "1.-1", "\u0661"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(Failure, match='the layer: "x" is refused: its time is'):
        one(Entry("x", pax={"mtime": text}))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a", "/etc/../.."),
        ("a/b", ".."),
        ("a/b", "../c"),
        ("a/b/c", "../../d/../e"),
        ("a", "b/.."),
        ("a", "./b//c"),
    ],
)
def test_symlinks_that_stay(name: str, text: str) -> None:
    assert one(symlink(name, text)).target == text


@pytest.mark.parametrize(
    ("name", "text"), [("a", ".."), ("a", "b/../.."), ("a/b", "../.."), ("a/b", "c/../../..")]
)
def test_symlinks_that_do_not(name: str, text: str) -> None:
    with pytest.raises(Failure, match="leads out of the root"):
        one(symlink(name, text))


def test_attributes_are_bytes() -> None:
    values = bytes(range(1, 256)), b"", b"=\n12 x=y\n"
    pax = {
        f"SCHILY.xattr.user.{number}": value.decode("utf-8", "surrogateescape")
        for number, value in enumerate(values)
    }
    assert list(one(Entry("x", pax=pax)).attributes.values()) == [*values]


def test_hard_links_are_below_the_root() -> None:
    assert one(link("x", "./a//b")).target == "a/b"


def test_nothing_at_all() -> None:
    assert read(b"") == []
    assert read(layer()) == []


@pytest.mark.parametrize("form", ["gnu", "oldgnu", "0.0", "0.1", "1.0"])
def test_holes_in_each_form(form: str, tmp_path: Path) -> None:
    parts = {0: b"first", 200_000: b"x" * 5000, 1 << 20: b"last"}
    with (tmp_path / "file").open("wb") as file:
        for place, data in parts.items():
            file.seek(place)
            file.write(data)
        file.truncate(2 << 20)
    (tmp_path / "end").write_bytes(b"after it")
    how = [f"--format={form}"] if "gnu" in form else ["--format=posix", f"--sparse-version={form}"]
    words = ["tar", "-C", str(tmp_path), "-cS", *how, "file", "end"]
    data = subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout
    reader = tar_entries.Reader(io.BytesIO(data), "the layer")
    found = {}
    for entry in reader:
        assert (entry.parts is not None) == (entry.name == "file")
        content = bytearray(entry.size)
        for place, piece in reader.data(entry):
            content[place : place + len(piece)] = piece
        found[entry.name] = bytes(content)
    assert found == {name: (tmp_path / name).read_bytes() for name in ("file", "end")}


def test_the_data_need_not_be_read() -> None:
    assert [
        entry.name for entry in read(layer(Entry("a", b"x" * 5000), Entry("b", b"y" * 513), folder("c")))
    ] == [
        "a",
        "b",
        "c",
    ]


def test_the_first_header_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Newer versions of tarfile refuse a negative size, and then read the next block as the first header."""

    def strict(info: tarfile.TarInfo, count: int) -> int:
        if count < 0:
            raise tarfile.InvalidHeaderError("invalid offset")  # type: ignore[attr-defined]
        return -(-count // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE

    monkeypatch.setattr(tarfile.TarInfo, "_block", strict)
    with pytest.raises(Failure, match="the layer is damaged: no header at byte 1024"):
        read(layer(Entry("f", b"x", pax={"size": "-1"})))


def test_headers_for_all_following_entries_are_ignored_and_not_kept() -> None:
    """As in Go's archive/tar. Kept, they would fill the memory: a gigabyte compresses to a megabyte."""
    tar = io.BytesIO()
    for number in range(40):
        words = {f"k{number}": "x" * (1 << 20), "uid": "7", "path": "another"}
        tar.write(tarfile.TarInfo.create_pax_global_header(words))
        tar.write(tarfile.TarInfo(f"f{number}").tobuf(tarfile.USTAR_FORMAT))
    tar.write(bytes(2 * tarfile.BLOCKSIZE))
    data = tar.getvalue()
    tracemalloc.start()
    try:
        found = read(data)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert [(entry.name, entry.uid) for entry in found] == [(f"f{number}", 0) for number in range(40)]
