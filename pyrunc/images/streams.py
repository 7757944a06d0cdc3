"""The bytes of an image: counted, digested, decompressed, and read forward only.

An image is hostile, and whether a layer has its digest is known only at its end. So reading is limited: a
blob by the size in its descriptor, the headers of a tar by a limit of pyrunc's; data is read in pieces.
"""

from __future__ import annotations

import hashlib
import sys
import zlib
from typing import TYPE_CHECKING

from pyrunc.errors import Failure

if TYPE_CHECKING:
    from typing import Protocol

    class Source(Protocol):
        """Something to read from."""

        def read(self, size: int, /) -> bytes:
            """Return so many bytes; fewer or none at the end."""


PIECE = 1 << 18
# The largest headers of one entry: names of 4 KiB, some attributes of 64 KiB each, the map of a sparse file.
# tarfile reads them into memory.
_HEADERS = 8 << 20
_ALGORITHMS = {"sha256": 64, "sha384": 96, "sha512": 128}
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
# zstd's skippable frames, at the beginning or end of zstd:chunked images (RFC 8878, 3.1.2).
_SKIPPABLE = b"\x2a\x4d\x18"
_OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ": "xz"}


def digest(text: object, what: str) -> tuple[str, str]:
    """Return algorithm and hexadecimal digits of a digest ("sha256:...").

    The digits become a file name, so nothing else may be in them.

    Raises:
        Failure: it is none, or of an algorithm that says nothing.

    """
    algorithm, colon, digits = text.partition(":") if isinstance(text, str) else ("", "", "")
    if not colon or not digits or set(digits) - set("0123456789abcdef"):
        raise Failure(f"{what} has no digest that can be read: {text!a}")
    if _ALGORITHMS.get(algorithm) != len(digits):
        known = ", ".join(_ALGORITHMS)
        raise Failure(f"{what} has a digest that cannot be checked: {text!a}", hint=f"known are {known}")
    return algorithm, digits


class Digesting:
    """A source whose digest is computed while it is read.

    Attributes:
        count: bytes read so far.

    """

    def __init__(self, source: Source, wanted: str, what: str, size: int = -1) -> None:
        """Prepare the digest.

        Args:
            source: the source of the bytes.
            wanted: the digest they must have.
            what: their name in messages.
            size: their number, -1 if unknown.

        Raises:
            Failure: the digest cannot be checked.

        """
        algorithm, self._digits = digest(wanted, what)
        self._source = source
        self._hash = hashlib.new(algorithm)
        self._size = size
        self.what = what
        self.count = 0

    def read(self, size: int, /) -> bytes:
        """Return so many bytes; fewer or none at the end.

        Raises:
            Failure: there are more than the size allows.

        """
        data = self._source.read(size)
        self.count += len(data)
        if 0 <= self._size < self.count:
            raise Failure(f"{self.what} has more than the {self._size} bytes it should have")
        self._hash.update(data)
        return data

    def finish(self) -> None:
        """Read the rest, and check size and digest.

        Raises:
            Failure: size or digest differ.

        """
        while self.read(PIECE):
            pass
        if 0 <= self._size != self.count:
            raise Failure(
                f"{self.what} has {self.count} bytes, not {self._size}", hint="copy the image again"
            )
        if self._hash.hexdigest() != self._digits:
            raise Failure(
                f"{self.what} has another content than it should have: its digest is "
                f"{self._hash.name}:{self._hash.hexdigest()}, not {self._digits}",
                hint="copy the image again",
            )


class Joined:
    """Bytes that have been read already, then the rest of a source."""

    def __init__(self, head: bytes, source: Source) -> None:
        """Keep both."""
        self._head = head
        self._source = source

    def read(self, size: int, /) -> bytes:
        """Return so many bytes; fewer or none at the end."""
        if self._head:
            found, self._head = self._head[:size], self._head[size:]
            return found
        return self._source.read(size)


def decompressed(source: Source, what: str) -> Source:
    """Return the plain bytes of a source that may be compressed; its first bytes tell how.

    Raises:
        Failure: the compression is not supported here.

    """
    head = b""
    while len(head) < 6:
        more = source.read(6 - len(head))
        if not more:
            break
        head += more
    whole = Joined(head, source)
    if head.startswith(_GZIP):
        return _Gunzip(whole, what)
    if head.startswith(_ZSTD) or (head[1:4] == _SKIPPABLE and head[0] >> 4 == 5):
        return _Unzstd(whole, what)
    for magic, name in _OTHERS.items():
        if head.startswith(magic):
            raise Failure(f"{what} is compressed with {name}", hint="gzip and zstd are what images have")
    return whole


class _Gunzip:
    """gzip(1), also with several members one after another, as pigz and stargz write it."""

    def __init__(self, source: Source, what: str) -> None:
        self._source = source
        self._what = what
        self._member = zlib.decompressobj(31)
        self._rest = b""

    def read(self, size: int, /) -> bytes:
        while True:
            if self._member.eof:
                rest = self._member.unused_data
                while not rest.lstrip(b"\0"):  # zeros fill up the end of a tape
                    rest = self._source.read(PIECE)
                    if not rest:
                        return b""
                self._rest = rest.lstrip(b"\0")
                self._member = zlib.decompressobj(31)
            data = self._rest or self._source.read(PIECE)
            if not data:
                raise Failure(f"{self._what} ends too soon", hint="copy the image again")
            try:
                found = self._member.decompress(data, size)
            except zlib.error as exc:
                raise Failure(f"{self._what} is damaged: {exc}", hint="copy the image again") from None
            self._rest = self._member.unconsumed_tail
            if found:
                return found


class _Unzstd:
    """zstd(1), with Python 3.14's own module or the package zstandard."""

    def __init__(self, source: Source, what: str) -> None:
        self._what = what
        self._reader, self._error = _zstd(source, what)

    def read(self, size: int, /) -> bytes:
        try:
            return self._reader.read(size)
        except (self._error, EOFError) as exc:
            raise Failure(f"{self._what} is damaged: {exc}", hint="copy the image again") from None


def _zstd(source: Source, what: str) -> tuple[Source, type[Exception]]:
    """Return a reader for zstd, and the exception that it raises.

    Raises:
        Failure: there is none.

    """
    try:
        from compression import zstd

        return zstd.ZstdFile(source), zstd.ZstdError
    except ImportError:
        pass
    try:
        import zstandard
    except ImportError:
        # The installed command has no pip of its own.
        place = next((path for path in sys.path if path.endswith("-packages")), "")
        raise Failure(
            f"{what} is compressed with zstd, which this Python cannot read by itself",
            hint=f"python3 -m pip install --target {place} zstandard"
            if place
            else "install zstandard of PyPI",
        ) from None
    reader = zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True)  # type: ignore[arg-type]
    return reader, zstandard.ZstdError


class Forward:
    """A source as the file that tarfile reads: forward only, in limited pieces.

    Attributes:
        zeros: the last block had only zeros, or there was none: here a tar may end.

    """

    def __init__(self, source: Source, what: str) -> None:
        """Start at the first byte."""
        self._source = source
        self._what = what
        self._data = b""
        self._at = 0
        self._before = 0  # position of _data's first byte
        self._budget = _HEADERS
        self.zeros = True

    def tell(self) -> int:
        """Return the position."""
        return self._before + self._at

    def fresh(self) -> None:
        """Reset the limit for the headers of the next entry."""
        self._budget = _HEADERS

    def read(self, size: int) -> bytes:
        """Return so many bytes of headers; fewer at the end.

        Raises:
            Failure: the headers are too large.

        """
        self._budget -= size
        if size < 0 or self._budget < 0:
            raise Failure(f"{self._what}: an entry's headers have more than {_HEADERS} bytes")
        end = self._at + size
        if end <= len(self._data):
            found = self._data[self._at : end]
            self._at = end
        else:
            found = b"".join(self._pieces(size))
        self.zeros = not found.strip(b"\0")
        return found

    def _pieces(self, size: int) -> list[bytes]:
        found = []
        while size:
            piece = self.piece(size)
            if not piece:
                break
            found.append(piece)
            size -= len(piece)
        return found

    def piece(self, size: int) -> bytes:
        """Return some bytes of data, at most this many; none at the end."""
        if self._at >= len(self._data):
            self._before += len(self._data)
            self._at = 0
            self._data = self._source.read(PIECE)
        found = self._data[self._at : self._at + size]
        self._at += len(found)
        return found

    def seek(self, position: int) -> None:
        """Go to a later position.

        Raises:
            Failure: the position has been passed, or the data ends before it.

        """
        left = position - self.tell()
        if left < 0:
            raise Failure(f"{self._what} is damaged: an entry has a size below zero")
        while left:
            piece = self.piece(min(left, PIECE))
            if not piece:
                raise Failure(f"{self._what} ends too soon", hint="copy the image again")
            left -= len(piece)
