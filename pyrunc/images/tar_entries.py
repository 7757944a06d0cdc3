"""A file in a layer's tar, checked before it is used.

tarfile reads the format (ustar, pax, GNU's, sparse files); its values come from the image and are not
trusted. Law 3 begins here: a name is a list of components without "..", and the root has none.
"""

from __future__ import annotations

import os
import tarfile
from typing import TYPE_CHECKING, cast

from pyrunc.errors import Failure, printable
from pyrunc.images.streams import Forward

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    from pyrunc.images.streams import Source

FILE, DIRECTORY, SYMLINK, LINK, FIFO, CHARACTER, BLOCK = range(7)
_KINDS = {
    tarfile.REGTYPE: FILE,
    tarfile.AREGTYPE: FILE,
    tarfile.CONTTYPE: FILE,
    tarfile.GNUTYPE_SPARSE: FILE,
    tarfile.DIRTYPE: DIRECTORY,
    tarfile.SYMTYPE: SYMLINK,
    tarfile.LNKTYPE: LINK,
    tarfile.FIFOTYPE: FIFO,
    tarfile.CHRTYPE: CHARACTER,
    tarfile.BLKTYPE: BLOCK,
}
_XATTR = "SCHILY.xattr."
_IDS = 0xFFFFFFFE  # the largest user id: -1 means "unchanged" to chown(2)
# What tarfile raises for invalid headers; it is not written for hostile files.
DAMAGE = (tarfile.TarError, ValueError, ArithmeticError, LookupError, EOFError, RecursionError, TypeError)


class Entry:
    """One file of a layer.

    Attributes:
        directory: path of the directory it is in, "" for the root.
        name: its name there, "" for the root itself.
        kind: FILE, DIRECTORY, ...
        mode: permissions, with setuid, setgid and sticky.
        uid, gid: its owner, in the image.
        times: last access and last change, in nanoseconds.
        size: of a file.
        target: text of a symlink; path of a hard link's file, relative to the root.
        device: of a device.
        attributes: extended attributes.
        parts: the data of a sparse file: pairs of position and size. None: no holes.
        at: position of its data in the tar.

    """

    __slots__ = (
        "at",
        "attributes",
        "device",
        "directory",
        "gid",
        "kind",
        "mode",
        "name",
        "parts",
        "size",
        "target",
        "times",
        "uid",
    )
    directory: str
    name: str
    kind: int
    mode: int
    uid: int
    gid: int
    times: tuple[int, int]
    size: int
    target: str
    device: int
    attributes: dict[str, bytes]
    parts: list[tuple[int, int]] | None
    at: int

    @property
    def path(self) -> str:
        """The whole path, relative to the root."""
        return f"{self.directory}/{self.name}" if self.directory else self.name


class Reader:
    """A layer's tar, entry by entry."""

    def __init__(self, source: Source, what: str) -> None:
        """Keep the source.

        Args:
            source: its uncompressed bytes.
            what: its name in messages.

        """
        self.what = what
        self.stream = Forward(source, what)
        self._tar: tarfile.TarFile | None = None

    def __iter__(self) -> Iterator[Entry]:
        """Yield the entries; the data of one has to be read before the next one.

        Raises:
            Failure: one is refused, or the tar is damaged.

        """
        while (info := self._next()) is not None:
            try:
                entry = check(info)
            except Failure as problem:
                raise Failure(f"{self.what}: {quoted(info.name)} is refused: {problem.message}") from None
            yield entry

    def _next(self) -> tarfile.TarInfo | None:
        self.stream.fresh()
        try:
            if self._tar is None:
                self._tar = opened(cast("IO[bytes]", self.stream))
                # Opening it reads the first header. Where that is no header, next() would look behind it.
                if self._tar.firstmember is None:  # type: ignore[attr-defined]
                    self._end()
                    return None
            info = self._tar.next()
            self._tar.members = []  # type: ignore[attr-defined] # it would keep all
        except DAMAGE as exc:
            if self._tar is None and not self.stream.tell():
                return None  # no bytes at all: an empty layer
            raise Failure(
                f"{self.what} is damaged: {printable(str(exc))}", hint="copy the image again"
            ) from None
        if info is None:
            self._end()
        return info

    def _end(self) -> None:
        """Check that this is where a tar may end.

        Raises:
            Failure: the last block is neither zeros nor a header; tarfile takes that for the end, too.

        """
        if not self.stream.zeros:
            place = self.stream.tell() - tarfile.BLOCKSIZE
            raise Failure(f"{self.what} is damaged: no header at byte {place}", hint="copy the image again")

    def data(self, entry: Entry) -> Iterator[tuple[int, bytes]]:
        """Yield the content of a file, in pieces with their positions in it.

        Raises:
            Failure: the tar ends too soon, or has invalid positions.

        """
        self.stream.seek(entry.at)
        end = 0
        for first, size in ((0, entry.size),) if entry.parts is None else entry.parts:
            if not size:
                continue  # the end of a map, or padding
            if first < end or size < 0 or first + size > entry.size:
                raise Failure(
                    f"{self.what}: {quoted(entry.path)} is refused: its map of holes makes no sense"
                )
            at, end = first, first + size
            while at < end:
                piece = self.stream.piece(end - at)
                if not piece:
                    raise Failure(f"{self.what} ends too soon", hint="copy the image again")
                yield at, piece
                at += len(piece)


class _Unset(dict[str, str]):
    """The headers for all following entries ("global"): they are ignored.

    tarfile would keep them to the end and copy them for each entry, so a few kilobytes, compressed, could
    fill the memory. Go's archive/tar, and so other tools for images, does not apply them either.
    """

    def __setitem__(self, key: str, value: str) -> None:
        """Keep nothing."""


def opened(file: IO[bytes]) -> tarfile.TarFile:
    """Return an uncompressed tar for reading; it need not be closed."""
    return tarfile.open(
        fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape", pax_headers=_Unset()
    )


def quoted(name: str) -> str:
    """Return a name from an image for a message."""
    return f'"{printable(name)}"'


def check(info: tarfile.TarInfo) -> Entry:
    """Return an entry that can be made as it is.

    Raises:
        Failure: it cannot; with the reason.

    """
    kind = _KINDS.get(info.type)
    if kind is None:
        raise Failure(f"it is of a kind that layers do not have ({info.type!a})")
    made = Entry()
    parts = components(info.name)
    made.name = parts.pop() if parts else ""
    made.directory = "/".join(parts)
    made.kind = kind
    made.mode = info.mode & 0o7777
    made.uid, made.gid = _number(info.uid, _IDS, "user"), _number(info.gid, _IDS, "group")
    made.size = _number(info.size, 1 << 62, "size") if kind == FILE else 0
    made.target = ""
    made.device = 0
    made.parts = cast("list[tuple[int, int]] | None", info.sparse) if kind == FILE else None
    made.at = info.offset_data
    if not made.name and kind != DIRECTORY:
        raise Failure("it replaces the root, and is no directory")
    if kind == SYMLINK:
        made.target = _text(info.linkname)
        _stays(made, made.target)
    elif kind == LINK:
        made.target = "/".join(components(info.linkname, "what it is linked to"))
        if not made.target:
            raise Failure("it is a hard link to the root")
    elif kind in (CHARACTER, BLOCK):
        major = _number(info.devmajor, 0xFFFFFFFF, "device number")
        made.device = os.makedev(major, _number(info.devminor, 0xFFFFFFFF, "device number"))
    made.times = _times(info)
    made.attributes = {
        _text(key[len(_XATTR) :]): value.encode("utf-8", "surrogateescape")
        for key, value in info.pax_headers.items()
        if key.startswith(_XATTR)
    }
    return made


def components(path: str, what: str = "its name") -> list[str]:
    """Return the components of a path below the root; none is the root itself.

    Args:
        path: the path.
        what: its name in messages.

    Raises:
        Failure: it leads outside, or is no path.

    """
    parts = [part for part in _text(path).split("/") if part not in ("", ".")]
    if ".." in parts:
        raise Failure(f"{what} has .. in it")
    if path.startswith("/") and parts:
        raise Failure(f"{what} is an absolute path")
    return parts


def _text(text: str) -> str:
    """Return a name as Python has file names, independent of the locale.

    Raises:
        Failure: no file can have it.

    """
    if "\0" in text:
        raise Failure("there is a NUL in its names")
    return text if text.isascii() else os.fsdecode(text.encode("utf-8", "surrogateescape"))


def _stays(entry: Entry, text: str) -> None:
    """Refuse a symlink with too many "..". An absolute one means a path in the container.

    Raises:
        Failure: it leads outside the tree.

    """
    if text.startswith("/"):
        return
    depth = entry.directory.count("/") + 1 if entry.directory else 0
    for part in text.split("/"):
        if part == "..":
            depth -= 1
            if depth < 0:
                raise Failure(f"it is a symlink that leads out of the root ({quoted(text)})")
        elif part not in ("", "."):
            depth += 1


def _number(value: int, most: int, what: str) -> int:
    if not 0 <= value <= most:
        raise Failure(f"its {what} is {value}")
    return value


def _times(info: tarfile.TarInfo) -> tuple[int, int]:
    """Return access time and change time; tarfile's own value was a float."""
    headers = info.pax_headers
    if "mtime" in headers:
        changed = _nanoseconds(headers["mtime"])
    else:
        changed = _number(int(info.mtime), 1 << 33, "time") * 10**9
    accessed = _nanoseconds(headers["atime"]) if "atime" in headers else changed
    return accessed, changed


def _nanoseconds(text: str) -> int:
    """Return the number of a pax time: decimal, with a sign and any number of digits after the point.

    Raises:
        Failure: it is invalid, or no file system has such a time.

    """
    whole, _, part = text.partition(".")
    digits = whole.removeprefix("-")
    known = digits.isascii() and digits.isdecimal() and len(digits) < 12 and (part + "0").isascii()
    if not known or not (part + "0").isdecimal():
        raise Failure(f"its time is {quoted(text[:40])}")
    found = int(digits) * 10**9 + int((part + "0" * 9)[:9])
    return -found if text.startswith("-") else found
