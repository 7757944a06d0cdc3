"""Which mount points were made for a container, so that delete can take them away again (sweep.py).

Written down one by one, and before each is made: whenever init is killed, nothing that it made is unknown
(law 4). A line is a JSON list that stands for itself, as other containers' commands may add lines:

    [number, directory on the host, path below it, device and inode of the directory]   about to be made
    [number, device and inode of what was made]                                         made
    [number]                                                                            not made: it was there
    [-1, directory, path, its device and inode, device and inode of what was made]      of another container

Device nodes and links in /dev are on it, too: only what undoes a creation takes these away, as another
container of the same root file system may have found and used them.

What lies on a file system made for the container goes with it and is not noted; neither is what lies on
something mounted below a bind's source, of which only the kernel knows where it comes from.
"""

from __future__ import annotations

import fcntl
import os

from pyrunc import jsonio
from pyrunc.errors import Failure
from pyrunc.linux import _linux, flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FILE = "made"
_EEXIST, _ENOSPC = 17, 28


class Made:
    """The list for one container, from the side of its init.

    Attributes:
        file: descriptor of the list, -1 for none.
        place: its path.
        bases: mount id -> directory on the host that is mounted there.
        mask: which kind of mount id: STATX_MNT_ID_UNIQUE, or STATX_MNT_ID where the kernel has no other.
        count: how many were made.
        noted: number of what is just being made on the list, 0 if it is not there.

    """

    def __init__(self) -> None:
        """Begin with nothing made."""
        self.file = -1
        self.place = ""
        self.bases: dict[int, str] = {}
        self.mask = flags.STATX_MNT_ID_UNIQUE
        self.count = 0
        self.noted = 0
        self._number = 0

    def open(self, directory: str) -> int:
        """Make the list's file in a state directory, and return its descriptor; by the parent.

        Raises:
            Failure: it cannot be made.

        """
        how = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self.place = f"{directory}/{FILE}"
        try:
            self.file = os.open(self.place, how, 0o600)
        except OSError as exc:
            raise Failure(f"make {self.place}", errno=exc.errno or 0) from None
        # Higher than any that is there: each has a line, and each line has several bytes.
        self._number = os.fstat(self.file).st_size
        return self.file

    def intend(self, stack: list[int], names: list[str], name: str) -> None:
        """Note what is about to be made.

        Args:
            stack: descriptors of the directories from the root down.
            names: their names, the root's not among them.
            name: what will be made in the last one.

        Raises:
            Failure: it cannot be noted, so it must not be made.

        """
        self.noted = 0
        if self.file < 0:
            return
        for depth in range(len(stack) - 1, -1, -1):
            mount, is_top = _linux.statx_mnt(stack[depth], self.mask)
            if is_top or not depth:
                base = self.bases.get(mount)
                if base is not None:
                    top = os.fstat(stack[depth])
                    self._number += 1
                    self.noted = self._number
                    path = "/".join((*names[depth:], name))
                    self._write([self.noted, base, path, top.st_dev, top.st_ino])
                return

    def make_in(self, directory: int, name: str, make: Callable[[], object]) -> bool:
        """Make something in a directory of which only the descriptor is known, and note it.

        Args:
            directory: its descriptor.
            name: what will be made in it.
            make: makes it.

        Returns:
            Whether it was made: if not, something was there.

        Raises:
            OSError: as make().

        """
        self.noted = 0
        # Most are on a tmpfs.
        if self.file >= 0 and _linux.statx_mnt(directory, self.mask)[0] in self.bases:
            if _is_there(directory, name):
                return False  # a note of it could cost the image its own, if we were killed here
            self._intend_in(directory, name)
        try:
            make()
        except OSError as exc:
            self.retract()
            if exc.errno != _EEXIST:
                raise
            return False
        if self.noted:
            made = os.stat(name, dir_fd=directory, follow_symlinks=False)
            self._add([self.noted, made.st_dev, made.st_ino])
        return True

    def _intend_in(self, directory: int, name: str) -> None:
        stack = [os.dup(directory)]
        back = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            while not _linux.statx_mnt(stack[0], self.mask)[1]:
                stack.insert(0, os.open("..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=stack[0]))
            # Only its end counts, so it does not matter whether the directory can be reached by it.
            os.fchdir(directory)
            text = os.fsdecode(_linux.getcwd())
            depth = len(stack) - 1
            self.intend(stack, text.split("/")[-depth:] if depth else [], name)
        finally:
            os.fchdir(back)
            for fd in (back, *stack):
                os.close(fd)

    def confirm(self, fd: int) -> None:
        """Note that it was made, and which it is."""
        self.count += 1
        if self.noted:
            made = os.fstat(fd)
            self._add([self.noted, made.st_dev, made.st_ino])

    def retract(self) -> None:
        """Note that it was not made: somebody else was faster, or it cannot be."""
        if self.noted:
            self._add([self.noted])

    def _add(self, line: object) -> None:
        """Say more of what is on the list. It can be done without: what is empty there is taken away."""
        try:
            self._write(line)
        except Failure:
            return

    def _write(self, line: object) -> None:
        data = jsonio.dumps(line).encode() + b"\n"
        try:
            if os.write(self.file, data) == len(data):
                return
            errno = _ENOSPC
        except OSError as exc:
            errno = exc.errno or 0
        # The state directory is to blame, not where the mount point should be.
        where = self.place.rpartition("/")[0]
        what = f"write the list of mount points, {FILE} in the container's state directory {where}"
        raise Failure(what.rstrip(), errno=errno)


def _is_there(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def hold(rootfs: str) -> int:
    """Keep others from taking a mount point away that is found in a root file system and not used yet.

    Args:
        rootfs: its directory.

    Returns:
        A descriptor with a shared lock, -1 where there can be none: who has no right to read a directory has
        none to change it, and on a file system without locks nothing is taken away.

    """
    try:
        fd = os.open(rootfs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
    except OSError:
        os.close(fd)
        return -1
    return fd
