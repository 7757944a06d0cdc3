"""The list of mount points that were made for a container; delete removes them (mount_point_removal.py).

Each one is noted before it is made, so that none is unknown if init is killed (law 4). A line is one JSON
list, because commands for other containers may add lines:

    [number, directory on the host, path below it, device and inode of the directory]   about to be made
    [number, device and inode of what was made]                                         made
    [number]                                                                            not made: it was there
    [-1, directory, path, its device and inode, device and inode of what was made]      of another container

Device nodes and links in /dev are on the list, too. They are removed only if the creation fails, because
another container of the same root file system may have found and used them.

What is made on a file system of the container's own is removed with that, and is not noted. Neither is what
is made on a mount below a bind's source: only the kernel knows where that comes from.

Commands that look for mount points and commands that remove them lock each other out. The locks are on a file
beside the state directories, with one range for each directory of the host (fcntl_locking(2), locks of an
open file description). They are not on the directories themselves: a container's processes can open those,
lock them too and never release the lock. Another state root has other locks; then only the check at the end
(verify.py) notices a missing mount point.
"""

from __future__ import annotations

import _struct
import fcntl
import os
import time

from pyrunc.errors import Failure, failing

FILE = "made"
# In @cache of a state root, which is never removed.
LOCKS = "mountpoints.lock"
# EIO, ENOMEM, ENFILE, EMFILE: the question could not be answered.
UNASKED = (5, 12, 23, 24)
# The holder of an exclusive lock reads the mount tables of all containers meanwhile: milliseconds, or a
# second on a host with thousands.
_SECONDS = 10.0
_PAUSE = 0.005
_OFFSETS = (1 << 62) - 1


def open_list(directory: str) -> int:
    """Make the list's file in a state directory, and return its descriptor.

    Raises:
        Failure: it cannot be made.

    """
    how = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    place = f"{directory}/{FILE}"
    with failing(f"make {place}"):
        return os.open(place, how, 0o600)


def list_failure(directory: str, errno: int) -> Failure:
    """Return the Failure for a list that cannot be written; the cause is in the state directory."""
    what = f"write the list of mount points, {FILE} in the container's state directory {directory}"
    return Failure(what.rstrip(), errno=errno)


def hold(root: str, rootfs: str) -> tuple[int, bytes]:
    """Keep mount points that were found in a root file system, and are not in use yet, from being removed.

    Args:
        root: the state root.
        rootfs: the directory of the root file system.

    Returns:
        A descriptor with a shared lock, and the request for let_go(). The descriptor is -1 if there can be no
            lock, or if another command has removed mount points for longer than it should take. Then it is
            better to go on: if a mount point disappears, verify.py notices.

    """
    try:
        found = os.stat(rootfs)
    except OSError:
        return -1, b""  # the next code that opens it reports the error
    try:
        fd = open_locks(root)
    except OSError:
        return -1, b""
    if fd < 0:
        return -1, b""
    wanted = part((found.st_dev, found.st_ino))
    if lock(fd, fcntl.F_RDLCK, wanted, time.monotonic() + _SECONDS):
        return fd, wanted
    os.close(fd)
    return -1, b""


def open_locks(root: str) -> int:
    """Open the file of locks of a state root, -1 if there can be none.

    Raises:
        OSError: it cannot be found out now.

    """
    directory = f"{root}/@cache"
    how = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        try:
            return os.open(f"{directory}/{LOCKS}", how, 0o600)
        except FileNotFoundError:
            os.makedirs(directory, 0o700, exist_ok=True)
            return os.open(f"{directory}/{LOCKS}", how, 0o600)
    except OSError as exc:
        if exc.errno in UNASKED:
            raise
        return -1


def part(inode: tuple[int, int]) -> bytes:
    """Return the range for a directory (device, inode); two with the same range wait for each other."""
    # The offset is a positive number of 64 bits; most inode numbers have far fewer.
    offset = (inode[1] ^ inode[0] << 40) & _OFFSETS
    return _struct.pack("qq", offset, 1)


def lock(fd: int, kind: int, wanted: bytes, end: float) -> bool:
    """Take a lock, or change it; tell whether it was taken.

    Args:
        fd: from open_locks().
        kind: F_RDLCK, of which there may be several, or F_WRLCK.
        wanted: from part().
        end: time of the monotonic clock at which to give up.

    """
    while True:
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _request(kind, wanted))
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(_PAUSE)
        except OSError:
            return False  # a file system without locks
        else:
            return True


def let_go(fd: int, held: bytes) -> None:
    """Release a lock, for all processes that have inherited the descriptor."""
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, release(held))


def release(held: bytes) -> bytes:
    """Return the struct flock that releases a lock."""
    return _request(fcntl.F_UNLCK, held)


def _request(kind: int, wanted: bytes) -> bytes:
    """Return a struct flock: type, whence (SEEK_SET), start and length, process (none)."""
    return _struct.pack("hh4x", kind, os.SEEK_SET) + wanted + bytes(8)
