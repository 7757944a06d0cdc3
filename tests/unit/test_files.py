"""Small files and descriptors."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from pyrunc import files

if TYPE_CHECKING:
    from pathlib import Path


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError as exc:
        assert exc.errno == errno.EBADF  # noqa: PT017
        return False
    return True


def test_what_is_opened_is_closed(tmp_path: Path) -> None:
    with files.closing(os.open(tmp_path, os.O_PATH)) as fd:
        assert _is_open(fd)
    assert not _is_open(fd)


def test_what_is_opened_is_closed_when_the_block_fails(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mine"), files.closing(os.open(tmp_path, os.O_PATH)) as fd:
        raise ValueError("mine")
    assert not _is_open(fd)


@pytest.mark.parametrize("size", [0, 1, 1 << 16, (1 << 16) + 1, 1 << 18])
def test_a_file_is_read_whole(tmp_path: Path, size: int) -> None:
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    (tmp_path / "file").write_bytes(content)
    assert files.read(f"{tmp_path}/file") == content
    with files.closing(os.open(tmp_path, os.O_PATH)) as directory:
        assert files.read("file", dir_fd=directory) == content


@pytest.mark.parametrize(
    ("size", "largest", "fits"), [(5, 5, True), (6, 5, False), (0, 0, True), (1, 0, False)]
)
def test_a_file_may_be_too_large(tmp_path: Path, size: int, largest: int, fits: bool) -> None:
    (tmp_path / "file").write_bytes(bytes(size))
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    if fits:
        assert files.read_whole(fd, largest) == bytes(size)
    else:
        with pytest.raises(OSError, match="too large") as caught:
            files.read_whole(fd, largest)
        assert caught.value.errno == errno.EFBIG
    assert not _is_open(fd)


def test_a_file_of_the_kernel_is_read_whole() -> None:
    assert files.read("/proc/self/stat").startswith(b"%d (" % os.getpid())


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"max 100000\n", "max 100000"), (b" \n\n", " "), (b"a\xff\n", "a\udcff"), (None, "")],
)
def test_the_text_of_a_file(tmp_path: Path, content: bytes | None, text: str) -> None:
    if content is not None:
        (tmp_path / "file").write_bytes(content)
    assert files.text(f"{tmp_path}/file") == text


def test_a_value_is_written_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    write = os.write
    (tmp_path / "file").touch()

    def noted(fd: int, data: bytes) -> int:
        written.append(data)
        return write(fd, data)

    monkeypatch.setattr(os, "write", noted)
    files.write(f"{tmp_path}/file", b"max")
    assert written == [b"max"]
    assert (tmp_path / "file").read_bytes() == b"max"


def test_a_value_goes_to_a_file_that_is_there(tmp_path: Path) -> None:
    with files.closing(os.open(tmp_path, os.O_PATH)) as directory:
        with pytest.raises(FileNotFoundError):
            files.write("file", b"1", dir_fd=directory)
        (tmp_path / "file").touch()
        files.write("file", b"1", dir_fd=directory)
    assert (tmp_path / "file").read_bytes() == b"1"
