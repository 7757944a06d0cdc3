"""Which mount points were made for a container, and how delete takes them away again.

Written down one by one, and before each is made: whenever init is killed, nothing that it made is unknown
(law 4). A line is the JSON text of [directory on the host, path below it, device and inode of the directory
it was made in]; `null` takes the line before it back.

Taken away is what is still empty, in the directory it was made in, and covered by no other container's mount:
the kernel lets a mount point go that is used in another mount namespace, and the mount with it.

What lies on a file system made for the container goes with it and is not noted; neither is what lies on
something mounted below a bind's source, of which only the kernel knows where it comes from.
"""

from __future__ import annotations

import _stat as stat
import os

from pyrunc import jsonio
from pyrunc.errors import Failure
from pyrunc.linux import _linux, flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.store import Container

FILE = "made"
_EMPTY = (0, 1)  # size and links of a file that is nothing but a mount point


class Made:
    """The list for one container, from the side of its init.

    Attributes:
        file: descriptor of the list, -1 for none.
        bases: mount id -> directory on the host that is mounted there.
        mask: which kind of mount id: STATX_MNT_ID_UNIQUE, or STATX_MNT_ID where the kernel has no other.
        count: how many were made.

    """

    def __init__(self) -> None:
        """Begin with nothing made."""
        self.file = -1
        self.bases: dict[int, str] = {}
        self.mask = flags.STATX_MNT_ID_UNIQUE
        self.count = 0
        self._noted = False

    def open(self, directory: str) -> int:
        """Make the list's file in a state directory, and return its descriptor; by the parent.

        Raises:
            Failure: it cannot be made.

        """
        how = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self.file = os.open(f"{directory}/{FILE}", how, 0o600)
        except OSError as exc:
            raise Failure(f"make {directory}/{FILE}", errno=exc.errno or 0) from None
        return self.file

    def intend(self, stack: list[int], names: list[str], name: str) -> None:
        """Note what is about to be made.

        Args:
            stack: descriptors of the directories from the root down.
            names: their names, the root's not among them.
            name: what will be made in the last one.

        """
        self.count += 1
        self._noted = False
        if self.file < 0:
            return
        for depth in range(len(stack) - 1, -1, -1):
            mount, is_top = _linux.statx_mnt(stack[depth], self.mask)
            if is_top or not depth:
                base = self.bases.get(mount)
                if base is not None:
                    parent = os.fstat(stack[-1])
                    self._write([base, "/".join((*names[depth:], name)), parent.st_dev, parent.st_ino])
                    self._noted = True
                return

    def retract(self) -> None:
        """Take the last note back: somebody else was faster."""
        self.count -= 1
        if self._noted:
            self._write(None)

    def _write(self, line: object) -> None:
        os.write(self.file, jsonio.dumps(line).encode() + b"\n")


def remove(container: Container) -> None:
    """Remove what was made for a container and is still empty; whatever stands in the way stays.

    Args:
        container: its record; its init has ended.

    """
    made = _read(f"{container.directory}/{FILE}")
    used: set[tuple[str, str]] | None = None
    for base, path, device, inode in reversed(made):
        head, _, name = path.rpartition("/")
        try:
            top = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue  # unmounted, or gone as a whole
        try:
            rules = flags.RESOLVE_BENEATH | flags.RESOLVE_NO_SYMLINKS | flags.RESOLVE_NO_XDEV
            here = _linux.openat2(top, head or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, 0, rules)
        except OSError:
            continue
        finally:
            os.close(top)
        try:
            found = os.fstat(here)
            if (found.st_dev, found.st_ino) == (device, inode):
                if used is None:
                    used = _others(container)
                if not used or _place(here, name) not in used:
                    _remove(here, name)
        except OSError:
            continue  # not empty, or mounted on
        finally:
            os.close(here)


def _read(path: str) -> list[tuple[str, str, int, int]]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return []
    made: list[tuple[str, str, int, int]] = []
    for line in _lines(fd):
        try:
            entry = jsonio.loads(line)
        except ValueError:
            break  # half a line: init was killed, and what it was to say was not made yet
        if isinstance(entry, list):
            made.append((entry[0], entry[1], entry[2], entry[3]))
        elif made:
            made.pop()
    return made


def _remove(here: int, name: str) -> None:
    found = os.stat(name, dir_fd=here, follow_symlinks=False)
    if stat.S_ISDIR(found.st_mode):
        os.rmdir(name, dir_fd=here)
    elif stat.S_ISREG(found.st_mode) and (found.st_size, found.st_nlink) == _EMPTY:
        os.unlink(name, dir_fd=here)


def _others(container: Container) -> set[tuple[str, str]]:
    """Return where other containers of the same state root have mounts: (device, path in its file system)."""
    from pyrunc import store

    used = set()
    for name in store.ids(container.root):
        try:
            pid = store.open_container(container.root, name).pid if name != container.id else 0
            table = os.open(f"/proc/{pid}/mountinfo", os.O_RDONLY | os.O_CLOEXEC) if pid > 0 else -1
        except (OSError, Failure):
            continue  # on its way in, or out
        if table >= 0:
            rows = {row[0]: row for row in (line.split(" ", 5) for line in _lines(table))}
            for row in rows.values():
                if row[1] in rows:
                    used.add(_inside(rows[row[1]], row[4]))
    return used


def _place(here: int, name: str) -> tuple[str, str]:
    """Return (device, path in its file system) of something in a directory."""
    mount = str(_linux.statx_mnt(here, flags.STATX_MNT_ID)[0])
    path = os.readlink(f"/proc/self/fd/{here}").rstrip("/") + "/" + name
    for line in _lines(os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)):
        row = line.split(" ", 5)
        if row[0] == mount:
            return _inside(row, path.translate(_ESCAPES))
    return "", path


_ESCAPES = {ord(char): f"\\{ord(char):03o}" for char in " \t\n\\"}


def _inside(row: list[str], path: str) -> tuple[str, str]:
    """Return (device, path in its file system) of a path that lies on the mount of a row of mountinfo."""
    return row[2], row[3].rstrip("/") + path[len(row[4].rstrip("/")) :]


def _lines(fd: int) -> list[str]:
    parts = []
    try:
        while part := os.read(fd, 1 << 16):
            parts.append(part)
    finally:
        os.close(fd)
    # Only a newline ends a line: a path may hold all else.
    return [line for line in b"".join(parts).decode("utf-8", "surrogateescape").split("\n") if line]
