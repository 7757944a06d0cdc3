"""Small files and descriptors: read a whole file, write a value with one call, close what was opened.

Mostly for files of the kernel (/proc, /sys, cgroups): they have no size, and take a value in one write(2).
Every verb uses it (law 2), so there is no codec except UTF-8, and no io.open().
"""

from __future__ import annotations

import os

_READ = os.O_RDONLY | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CLOEXEC
_PIECE = 1 << 16


class closing:  # noqa: N801 - reads as contextlib's, whose import costs more than all the rest
    """Close a descriptor at the end of a `with` block."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        """Keep a descriptor."""
        self._fd = fd

    def __enter__(self) -> int:
        """Return the descriptor."""
        return self._fd

    def __exit__(self, *_exc: object) -> None:
        """Close it, whatever happened."""
        os.close(self._fd)


def read(path: str, *, dir_fd: int | None = None, largest: int = -1) -> bytes:
    """Return the content of a file.

    Args:
        path: its path.
        dir_fd: descriptor of the directory that the path starts at.
        largest: the largest number of bytes, -1 for no limit.

    Raises:
        OSError: as open(2) and read(2); EFBIG, there is more than largest bytes.

    """
    return read_whole(os.open(path, _READ, dir_fd=dir_fd), largest)


def read_whole(fd: int, largest: int = -1) -> bytes:
    """Return all that can be read from a descriptor, and close it.

    Args:
        fd: the descriptor.
        largest: the largest number of bytes, -1 for no limit.

    Raises:
        OSError: as read(2); EFBIG, there is more than largest bytes.

    """
    parts = []
    size = 0
    with closing(fd):
        while part := os.read(fd, _PIECE):
            parts.append(part)
            size += len(part)
            if -1 < largest < size:
                from errno import EFBIG

                raise OSError(EFBIG, os.strerror(EFBIG))
    return b"".join(parts)


def text(path: str) -> str:
    """Return the text of a file, without its last newline; "" if it cannot be read.

    Bytes that are no UTF-8 are kept as os.fsdecode() keeps them.
    """
    try:
        return read(path).decode("utf-8", "surrogateescape").rstrip("\n")
    except OSError:
        return ""


def write(path: str, value: bytes, *, dir_fd: int | None = None) -> None:
    """Write a value, with one call, to an existing file.

    Raises:
        OSError: as open(2) and write(2).

    """
    with closing(os.open(path, _WRITE, dir_fd=dir_fd)) as fd:
        os.write(fd, value)
