"""mount(2) in the place of the new mount API's calls: each does here what it does there.

What was built detached is built on a staging place: a tmpfs of our own over the root directory, where no path
leads. There a mount gets everything that was asked; MS_MOVE then puts it on its mount point. A descriptor
opened at the staging place goes along with its mount, so it still is the mount: nothing is opened again, no
mount is ever visible with fewer restrictions than asked. mount(2) takes names and no descriptors, so what it
is given are the numbers of descriptors, seen from our own /proc/self/fd (law 3).

Only for init, in a mount namespace of its own; see classic.py for when.
"""

from __future__ import annotations

import _stat as stat
import os

from pyrunc.apply import sources, verify
from pyrunc.errors import Failure
from pyrunc.linux import _linux, flags
from pyrunc.plan.classic import PAGE
from pyrunc.plan.mount_options import (
    ATIME_MASK,
    NOATIME,
    NODIRATIME,
    NOSYMFOLLOW,
    RDONLY,
    RELATIME,
    STRICTATIME,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class MountCalls(Protocol):
        """The calls that build mounts, as _linux has them, where they are documented."""

        def open_tree(self, dfd: int, path: str, flags: int, /) -> int:
            """Return a copy of a mount."""

        def move_mount(self, from_fd: int, from_: str, to_fd: int, to: str, flags: int, /) -> None:
            """Attach it."""

        def mount_setattr(  # noqa: PLR0917 - as in _linux
            self, dfd: int, path: str, flags: int, on: int, off: int, propagation: int, userns: int, /
        ) -> None:
            """Change it."""

        def fsopen(self, name: str, flags: int, /) -> int:
            """Begin to configure a file system."""

        def fsconfig(self, fd: int, command: int, key: str | None, value: str | None, aux: int, /) -> None:
            """Configure it."""

        def fsmount(self, fd: int, flags: int, attributes: int, /) -> int:
            """Return a mount of it."""

        def fspick(self, dfd: int, path: str, flags: int, /) -> int:
            """Begin to change it."""

    Row = tuple[int, int, str, list[str]]

_E2BIG, _EINVAL, _ESTALE = 7, 22, 116
_PATH = os.O_PATH | os.O_CLOEXEC
_BENEATH = flags.RESOLVE_BENEATH | flags.RESOLVE_NO_XDEV | flags.RESOLVE_NO_MAGICLINKS
_SAME = flags.MS_RDONLY | flags.MS_NOSUID | flags.MS_NODEV | flags.MS_NOEXEC  # the same number everywhere

# Words about the superblock that are flags of mount(2), not data: (to set, to clear).
_SUPER = {
    "ro": (flags.MS_RDONLY, 0),
    "rw": (0, flags.MS_RDONLY),
    "sync": (flags.MS_SYNCHRONOUS, 0),
    "async": (0, flags.MS_SYNCHRONOUS),
    "dirsync": (flags.MS_DIRSYNC, 0),
    "lazytime": (flags.MS_LAZYTIME, 0),
    "nolazytime": (0, flags.MS_LAZYTIME),
}


def open_seen(path: str, *, follow: bool, seen: dict[str, tuple[int, int]], dfd: int = flags.AT_FDCWD) -> int:
    """Open a path, and make sure that it is what the parent saw there.

    Raises:
        OSError: ESTALE if it is not; or as open(2).

    """
    how = _PATH if follow else _PATH | os.O_NOFOLLOW
    fd = os.open(path, how, dir_fd=None if dfd == flags.AT_FDCWD else dfd)
    expected = seen.get(path)
    if expected is not None:
        found = os.fstat(fd)
        if (found.st_dev, found.st_ino) != expected:
            os.close(fd)
            raise OSError(_ESTALE, os.strerror(_ESTALE), path)
    return fd


class _Context:
    """A file system being configured."""

    def __init__(self, fstype: str, place: int = -1) -> None:
        self.fstype = fstype
        self.place = place
        self.source: str | None = None
        self.set = 0
        self.clear = 0
        self.words: list[str] = []

    def data(self) -> str | None:
        """Return the words as mount(2) wants them.

        Raises:
            OSError: they do not fit into the page that mount(2) reads.

        """
        joined = ",".join(self.words)
        if len(os.fsencode(joined)) > PAGE:
            raise OSError(_E2BIG, os.strerror(_E2BIG))
        return joined or None


class Classic:
    """What stands in for the calls of the new mount API, in init; each is documented where it is from."""

    def __init__(self, procfs: int, anchor: str, seen: dict[str, tuple[int, int]]) -> None:
        """Make the staging place.

        Args:
            procfs: descriptor of a verified procfs.
            anchor: directory that the staging place is mounted on; on a mount that is not shared.
            seen: path -> (device, inode) of sources.

        Raises:
            OSError: from the system call that failed.

        """
        self.procfs = procfs
        self.given: dict[str, int] = {}
        self.early = False
        self._seen = seen
        self._count = 0
        self._contexts: dict[int, _Context] = {}
        self._fds = _linux.openat2(procfs, "self/fd", _PATH | os.O_DIRECTORY, 0, _BENEATH)
        place = os.open(anchor, _PATH | os.O_DIRECTORY)
        self.mount("tmpfs", place, "tmpfs", _SAME & ~flags.MS_RDONLY, "mode=700")
        # What lies over the root directory is only reached by going up from it.
        self.staging = os.open(anchor if anchor != "/" else "/..", _PATH | os.O_DIRECTORY)
        if _linux.fstatfs(self.staging)[0] != flags.TMPFS_MAGIC or mount_id(self.staging) == mount_id(place):
            raise OSError(_ESTALE, os.strerror(_ESTALE), anchor)
        os.close(place)
        self.mount(None, self.staging, None, flags.MS_PRIVATE, None)

    def mount(
        self, source: int | str | None, place: int, fstype: str | None, how: int, data: str | None
    ) -> None:
        """Mount with descriptors in the place of paths.

        Raises:
            OSError: as mount(2).

        """
        os.fchdir(self._fds)
        try:
            _linux.mount(str(source) if isinstance(source, int) else source, str(place), fstype, how, data)
        finally:
            os.chdir("/")

    def leave(self) -> bool:
        """Take the staging place away; what was built there has moved to where it belongs.

        Not if the root file system is over it, because the user cannot get to its own place: tells which.
        """
        number = mount_id(self.staging)
        if any(parent == number for _own, parent, _path, _row in self.rows().values()):
            return False
        os.fchdir(self._fds)
        try:
            _linux.umount2(str(self.staging), flags.MNT_DETACH)
        finally:
            os.chdir("/")
        os.close(self.staging)
        for fd in self.given.values():
            os.close(fd)
        self.given.clear()
        return True

    def _stage(
        self, source: int | str | None, fstype: str | None, how: int, data: str | None, kind: int
    ) -> int:
        """Mount something at the staging place, and return the descriptor of the mount."""
        name = str(self._count)
        self._count += 1
        if stat.S_ISDIR(kind):
            os.mkdir(name, 0o700, dir_fd=self.staging)
        else:
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, dir_fd=self.staging))
        place = os.open(name, _PATH | os.O_NOFOLLOW, dir_fd=self.staging)
        try:
            self.mount(source, place, fstype, how, data)
        finally:
            os.close(place)
        return os.open(name, _PATH | os.O_NOFOLLOW, dir_fd=self.staging)

    # -- the calls --

    def open_tree(self, dfd: int, path: str, how: int, /) -> int:
        """Copy a mount, or with AT_RECURSIVE all below it too: MS_BIND."""
        if not path:
            source = os.dup(dfd)
        elif path in self.given:
            source = os.dup(self.given[path])
        else:
            source = open_seen(path, follow=not how & flags.AT_SYMLINK_NOFOLLOW, seen=self._seen, dfd=dfd)
        try:
            deep = flags.MS_REC if how & flags.AT_RECURSIVE else 0
            return self._stage(source, None, flags.MS_BIND | deep, None, os.fstat(source).st_mode)
        finally:
            os.close(source)

    def move_mount(self, from_fd: int, _from: str, to_fd: int, _to: str, _how: int, /) -> None:
        """Attach what was built at the staging place: MS_MOVE."""
        self.mount(from_fd, to_fd, None, flags.MS_MOVE, None)

    def mount_setattr(  # noqa: PLR0917 - as in _linux
        self, dfd: int, path: str, how: int, set_: int, clear: int, propagation: int, _userns: int, /
    ) -> None:
        """Change attributes: MS_REMOUNT|MS_BIND for each mount; propagation is one call."""
        fd = os.open(path, _PATH | os.O_NOFOLLOW, dir_fd=dfd) if path else dfd
        deep = how & flags.AT_RECURSIVE
        try:
            if set_ | clear:
                self._attributes(fd, set_, clear)
                if deep:
                    self._attributes_below(fd, set_, clear)
            if propagation:
                self.mount(None, fd, None, propagation | (flags.MS_REC if deep else 0), None)
        finally:
            if path:
                os.close(fd)

    def fsopen(self, name: str, _how: int, /) -> int:
        """Begin to configure a file system; the descriptor only stands for it."""
        fd = os.dup(self._fds)
        self._contexts[fd] = _Context(name)
        return fd

    def fspick(self, dfd: int, _path: str, _how: int, /) -> int:
        """Begin to reconfigure a file system."""
        fd = os.dup(self._fds)
        self._contexts[fd] = _Context("", dfd)
        return fd

    def fsconfig(self, fd: int, command: int, key: str | None, value: str | None, _aux: int, /) -> None:
        """Take one word for the file system; mount(2) gets them all at once."""
        context = self._contexts[fd]
        if command == flags.FSCONFIG_CMD_RECONFIGURE:
            self._reconfigure(context)
        elif key == "source":
            context.source = value
        elif key in _SUPER:
            on, off = _SUPER[key]
            context.set = context.set & ~off | on
            context.clear = context.clear & ~on | off
        elif key is not None:
            word = key if value is None else f"{key}={value}"
            if "," in word:
                raise OSError(_EINVAL, os.strerror(_EINVAL))
            context.words.append(word)

    def fsmount(self, fd: int, _how: int, attributes: int, /) -> int:
        """Make the file system and mount it at the staging place."""
        context = self._contexts.pop(fd)
        # Of both only the mount becomes read-only, below: mount(2) would not tell it from the file system.
        how = context.set | (_words(attributes) & ~flags.MS_RDONLY)
        made = self._stage(context.source, context.fstype, how, context.data(), stat.S_IFDIR)
        if attributes & RDONLY:
            self._attributes(made, RDONLY, 0)
        return made

    # -- how --

    def _reconfigure(self, context: _Context) -> None:
        """Change a file system, and leave alone what no word is about: mount(2) knows only all at once."""
        place = context.place
        own = self._now(place, exact=True)
        row = self.rows()[mount_id(place)]
        now = 0
        for word in row[3][row[3].index("-") + 3].split(","):
            now |= _SUPER.get(word, (0, 0))[0]
        how = flags.MS_REMOUNT | (now & ~context.clear | context.set) | (_words(own) & ~flags.MS_RDONLY)
        self.mount(None, place, None, how, context.data())
        self.mount(None, place, None, flags.MS_REMOUNT | flags.MS_BIND | _words(own), None)

    def _attributes(self, fd: int, set_: int, clear: int) -> None:
        now = self._now(fd, exact=not (set_ | clear) & RDONLY)
        wanted = now & ~clear | set_
        if wanted != now:
            self.mount(None, fd, None, flags.MS_REMOUNT | flags.MS_BIND | _words(wanted), None)

    def _now(self, fd: int, *, exact: bool) -> int:
        """Return a mount's MOUNT_ATTR_* bits.

        statfs(2) does not tell a read-only mount from a mount of a read-only file system; where that counts
        (exact) the mount table does.
        """
        found = _linux.fstatfs(fd)[1]
        if exact and found & flags.ST_RDONLY:
            return verify.parse_table(" ".join(self.rows()[mount_id(fd)][3]))[mount_id(fd)][0]
        now = found & _SAME
        if found & flags.ST_NODIRATIME:
            now |= NODIRATIME
        if found & flags.ST_NOSYMFOLLOW:
            now |= NOSYMFOLLOW
        if found & flags.ST_NOATIME:
            return now | NOATIME
        return now | (RELATIME if found & flags.ST_RELATIME else STRICTATIME)

    def _attributes_below(self, fd: int, set_: int, clear: int) -> None:
        """Change every mount below one; each is looked up, and known by its number in the mount table.

        Raises:
            Failure: one is covered by another, so that no path leads to it.

        """
        rows = self.rows()
        base = rows[mount_id(fd)][2].rstrip("/") + "/"
        below = {mount_id(fd)}
        for number, parent, path, _row in sorted(rows.values(), key=lambda row: row[2]):
            if parent not in below:
                continue
            below.add(number)
            rules = flags.RESOLVE_IN_ROOT | flags.RESOLVE_NO_MAGICLINKS | flags.RESOLVE_NO_SYMLINKS
            each = _linux.openat2(fd, path[len(base) :] or ".", _PATH | os.O_NOFOLLOW, 0, rules)
            try:
                if mount_id(each) != number:
                    raise Failure(
                        f"another mount covers the one at /{path[len(base) :]} below the source, so that"
                        " mount(2) does not reach it",
                        hint="recursive options for it take mount_setattr(2) (Linux 5.12)",
                    )
                self._attributes(each, set_, clear)
            finally:
                os.close(each)

    def rows(self) -> dict[int, Row]:
        """Return our mount table: mount id -> (id, parent's id, mount point, all words)."""
        fd = _linux.openat2(self.procfs, "self/mountinfo", os.O_RDONLY | os.O_CLOEXEC, 0, _BENEATH)
        found: dict[int, Row] = {}
        for line in sources.lines(sources.read_all(fd)):
            words = line.split(" ")
            found[int(words[0])] = int(words[0]), int(words[1]), sources.unescape(words[4]), words
        return found

    def tree_propagation(self, flag: int) -> None:
        """Keep mount events from flowing to the host, but for what is at the staging place already.

        Raises:
            Failure: a mount that cannot be reached would stay shared with the host.

        """
        rows = self.rows()
        above = []
        number = mount_id(self.staging)
        while rows[number][1] in rows and rows[number][1] != number:
            number = rows[number][1]
            above.append(number)
        for number, parent, path, _row in rows.values():
            if number == mount_id(self.staging) or (number not in above and parent not in above):
                continue
            deep = 0 if number in above else flags.MS_REC
            try:
                _linux.mount(None, path, None, flag | deep, None)
            except OSError:
                continue  # covered; seen below
        ours = {mount_id(self.staging)}
        for number, parent, path, words in self.rows().values():
            if parent in ours:
                ours.add(number)
            elif number not in ours and any(
                word.startswith("shared:") for word in words[6 : words.index("-")]
            ):
                raise Failure(
                    f"mounts shared with the host cannot be kept apart with mount(2): {path} is covered",
                    pointer="/linux/rootfsPropagation",
                    hint="it takes open_tree(2) (Linux 5.2)",
                )


def _words(attributes: int) -> int:
    """Return MOUNT_ATTR_* bits as flags of mount(2)."""
    how = attributes & _SAME
    if attributes & NODIRATIME:
        how |= flags.MS_NODIRATIME
    if attributes & NOSYMFOLLOW:
        how |= flags.MS_NOSYMFOLLOW
    time = attributes & ATIME_MASK
    if time == NOATIME:
        return how | flags.MS_NOATIME
    return how | (flags.MS_STRICTATIME if time == STRICTATIME else flags.MS_RELATIME)


def mount_id(fd: int) -> int:
    """Return the number of the mount that a descriptor is on, as in the mount table."""
    return _linux.statx_mnt(fd)[0]
