"""The files of an image: a directory, or a tar archive of one.

Their maker is not trusted: a name in one of them leads only to files of the image.
"""

from __future__ import annotations

import os
import posixpath
import stat
import tempfile
from errno import ENOENT, ENOTDIR, EXDEV
from typing import TYPE_CHECKING, cast

from pyrunc import jsonio
from pyrunc.errors import Failure, failing, printable
from pyrunc.images import streams, tar_entries
from pyrunc.images.tar_entries import quoted
from pyrunc.linux import _linux, flags

if TYPE_CHECKING:
    import tarfile
    from typing import IO, Any

    from pyrunc.images.streams import Source

# The largest manifest or configuration, in bytes; registries accept 4 MiB.
LARGEST = 4 << 20
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_INSIDE = flags.RESOLVE_BENEATH | flags.RESOLVE_NO_MAGICLINKS
_LINKS = 8
_MISSING = (ENOENT, ENOTDIR)
_FORMS = "it takes an OCI image layout or what docker save or podman save writes"


class Part:
    """A piece of a file, read from its beginning, independent of other readers."""

    def __init__(self, fd: int, first: int, size: int) -> None:
        """Keep the range of bytes.

        Args:
            fd: descriptor of the file; the caller closes it.
            first: its offset.
            size: its length.

        """
        self._fd = fd
        self._first = self._at = first
        self._end = first + size
        self.size = size

    @property
    def count(self) -> int:
        """The number of bytes that have been read."""
        return self._at - self._first

    def read(self, size: int, /) -> bytes:
        """Return so many bytes; fewer or none at the end."""
        data = os.pread(self._fd, max(0, min(size, self._end - self._at)), self._at)
        self._at += len(data)
        return data


class Files:
    """The files of an image.

    Attributes:
        path: its path, as the user gave it.

    """

    def __init__(self, path: str) -> None:
        """Keep the path."""
        self.path = path
        self._open: list[int] = []

    def find(self, name: str) -> Part | None:
        """Return a file, None if there is none.

        Raises:
            Failure: it is no regular file, or cannot be read.

        """
        raise NotImplementedError

    def open(self, name: str) -> Part:
        """Return a file.

        Raises:
            Failure: there is none, or it cannot be read.

        """
        found = self.find(name)
        if found is None:
            raise Failure(f"{self.path} has no {printable(name)}", hint="copy the image again")
        return found

    def json(self, name: str, source: Source | None = None) -> Any:
        """Return the JSON value of a file.

        Args:
            name: its name, also for messages.
            source: the source of its bytes, if not the file itself.

        Raises:
            Failure: it is not valid.

        """
        source = source or self.open(name)
        data = b""
        while piece := source.read(LARGEST + 1 - len(data)):
            data += piece
        if len(data) > LARGEST:
            raise Failure(f"{printable(name)} of {self.path} has more than {LARGEST} bytes")
        try:
            return jsonio.loads(data.decode())
        except ValueError as exc:
            raise Failure(f"{printable(name)} of {self.path} is no JSON: {printable(str(exc))}") from None

    def close(self) -> None:
        """Close the open files."""
        while self._open:
            os.close(self._open.pop())


class Directory(Files):
    """An image as a directory."""

    def __init__(self, path: str) -> None:
        """Open it.

        Raises:
            Failure: it cannot be opened.

        """
        super().__init__(path)
        with failing(f"open {path}"):
            self._top = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._open.append(self._top)

    def find(self, name: str) -> Part | None:
        """Return a file, None if there is none; links may lead to others of the image, but not outside."""
        try:
            fd = _linux.openat2(self._top, name, _READ, 0, _INSIDE)
        except OSError as exc:
            if exc.errno in _MISSING:
                return None
            hint = "it leads out of the image" if exc.errno == EXDEV else ""
            raise Failure(f"open {printable(name)} of {self.path}", errno=exc.errno or 0, hint=hint) from None
        except ValueError:  # a NUL character
            return None
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(fd)
            raise Failure(f"{printable(name)} of {self.path} is no file")
        self._open.append(fd)
        return Part(fd, 0, found.st_size)


class Archive(Files):
    """An image as a tar archive; a compressed one is first decompressed into an unnamed file."""

    def __init__(self, path: str) -> None:
        """Open it, and find the offset of each file.

        Raises:
            Failure: it is no tar, or cannot be read.

        """
        super().__init__(path)
        with failing(f"open {path}"):
            fd = os.open(path, _READ)
        self._open.append(fd)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise Failure(f"{path} is no image: it is neither a file nor a directory", hint=_FORMS)
        size = found.st_size
        plain = streams.decompressed(Part(fd, 0, size), path)
        if not isinstance(plain, streams.Joined):
            fd, size = self._unpack(plain)
        self._fd = fd
        self._members: dict[str, tarfile.TarInfo] = {}
        try:
            with open(fd, "rb", closefd=False) as file:
                file.seek(0)
                bounded = cast("IO[bytes]", _Bounded(file, path))
                with tar_entries.opened(bounded) as tar:
                    for member in tar:
                        member.pax_headers = {}  # not needed, and an image decides how large they are
                        self._members[posixpath.normpath(member.name)] = member
        except tar_entries.DAMAGE as exc:
            why = printable(str(exc))
            raise Failure(f"{path} is no image: {why}", hint=_FORMS) from None
        self._size = size

    def _unpack(self, plain: Source) -> tuple[int, int]:
        what = f"decompress {self.path} into {tempfile.gettempdir()}"
        with failing(what), tempfile.TemporaryFile() as file:
            while piece := plain.read(streams.PIECE):
                file.write(piece)
            size = file.tell()
            file.flush()
            self._open.append(os.dup(file.fileno()))
        return self._open[-1], size

    def find(self, name: str) -> Part | None:
        """Return a file, None if there is none; links lead to others of the archive."""
        for _ in range(_LINKS):
            member = self._members.get(posixpath.normpath(name))
            if member is None:
                return None
            if member.issym():
                name = posixpath.join(posixpath.dirname(member.name), member.linkname)
            elif member.islnk():
                name = member.linkname
            elif not member.isreg() or member.issparse():
                break
            elif member.size < 0 or member.offset_data + member.size > self._size:
                raise Failure(f"{self.path} ends too soon", hint="copy the image again")
            else:
                return Part(self._fd, member.offset_data, member.size)
        raise Failure(f"{quoted(name)} of {self.path} is no file")


class _Bounded:
    """A file that is read in limited pieces: tarfile believes the size in a header."""

    def __init__(self, file: IO[bytes], what: str) -> None:
        self._file = file
        self._what = what
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= LARGEST:
            raise Failure(f"{self._what}: a header in it says it has {size} bytes")
        return self._file.read(size)
