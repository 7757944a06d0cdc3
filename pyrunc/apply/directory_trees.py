"""Directory trees that containers have written to: empty, change the owner, label, count; by descriptor.

Law 3: the content of a volume is as hostile as a root file system, and pyrunc changes it with the host's
rights. So a directory is entered by its name below a descriptor, never through a symlink and never across a
mount, and only the entry itself is changed. Trees may be nested deeper than there are descriptors: when one
is emptied, its directories are first moved up.
"""

from __future__ import annotations

import os
from errno import EBUSY, ELOOP, ENOTDIR, EXDEV

from pyrunc.errors import Failure
from pyrunc.files import closing
from pyrunc.linux import _linux, flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# To read a directory, and nothing else: no symlink to one, no terminal to acquire.
READ_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# How many levels are open at a time. A copy needs two descriptors for each level, and a process has 1024 (the
# usual soft limit of RLIMIT_NOFILE).
DEEPEST = 400
_INSIDE = flags.RESOLVE_BENEATH | flags.RESOLVE_NO_SYMLINKS | flags.RESOLVE_NO_XDEV
_LABEL = "security.selinux"


def remove(parent: int, name: str, what: str) -> int:
    """Remove a directory and everything in it, of any depth, with a handful of descriptors.

    Args:
        parent: descriptor of the directory it is in.
        name: its name there.
        what: its name in messages.

    Returns:
        How many bytes its files had; a file with several names counts once.

    Raises:
        Failure: something in it is a mount point, immutable or another user's; part of the rest may be
            removed.

    """
    try:
        fd = _enter(parent, name)
    except FileNotFoundError:
        return 0
    except OSError as exc:
        raise _failure(exc, what) from None
    with closing(fd):
        size = empty(fd, what)
    os.rmdir(name, dir_fd=parent)
    return size


def empty(top: int, what: str) -> int:
    """Remove everything in a directory, given by descriptor; otherwise as remove()."""
    prefix = f".pyrunc-{os.urandom(8).hex()}-"
    counted: set[tuple[int, int]] = set()
    try:
        todo, size = _clear(top, top, "", counted)
        number = 0
        while todo:
            name = todo.pop()
            with closing(_enter(top, name)) as fd:
                number += 1
                found, freed = _clear(fd, top, f"{prefix}{number}-", counted)
            os.rmdir(name, dir_fd=top)
            todo += found
            size += freed
    except OSError as exc:
        raise _failure(exc, what) from None
    return size


def _clear(fd: int, top: int, prefix: str, counted: set[tuple[int, int]]) -> tuple[list[str], int]:
    """Remove a directory's files and move its directories to the top.

    Returns:
        Names of the directories at the top that came from here, and the bytes that the files had.

    """
    found = []
    size = 0
    with os.scandir(fd) as entries:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for number, (name, is_directory) in enumerate(names):
        if not is_directory:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            os.unlink(name, dir_fd=fd)
            inode = (status.st_dev, status.st_ino)
            if inode not in counted:
                size += status.st_size
                if status.st_nlink > 1:
                    counted.add(inode)
        elif prefix:
            _lift(fd, name, top, f"{prefix}{number}")
            found.append(f"{prefix}{number}")
        else:
            found.append(name)
    return found, size


def _lift(fd: int, name: str, top: int, new: str) -> None:
    if os.geteuid() != 0:
        _unlock(fd, name)  # a move writes ".." in the directory
    os.rename(name, new, src_dir_fd=fd, dst_dir_fd=top)


def _enter(parent: int, name: str) -> int:
    """Open a directory; if its owner (an ordinary user) has no rights in its mode, add them."""
    if os.geteuid() != 0:
        _unlock(parent, name)
    return _linux.openat2(parent, name, READ_DIRECTORY, 0, _INSIDE)


def _unlock(parent: int, name: str) -> None:
    fd = _linux.openat2(parent, name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, 0, _INSIDE)
    try:
        os.chmod(f"/proc/self/fd/{fd}", 0o700)
    except PermissionError:
        pass  # another user's: the next failure says more
    finally:
        os.close(fd)


def _failure(exc: OSError, what: str) -> Failure:
    name = os.path.basename(os.fsdecode(exc.filename)) if isinstance(exc.filename, (str, bytes)) else ""
    where = f"{name!a} in it" if name else "a directory in it"
    if exc.errno in (EBUSY, EXDEV):
        return Failure(f"remove {what}: {where} is a mount point", hint="unmount it first (findmnt shows it)")
    hint = ""
    if isinstance(exc, PermissionError):
        hint = (
            "it may be immutable (lsattr)"
            if os.geteuid() == 0
            else "it may belong to another id (podman unshare)"
        )
    return Failure(f"remove {what}: {where}", errno=exc.errno or 0, hint=hint)


# -- change every entry ----


def lacks(place: str, name: str) -> bool:
    """Tell whether a file exists at a path, but the directory has no entry with this name.

    A removal here renames a directory first: if the entry is gone and the path does not exist either, it is
    being removed.
    """
    try:
        fd = os.open(place, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        try:
            os.stat(name, dir_fd=fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return os.path.samestat(os.fstat(fd), os.lstat(place))
    except FileNotFoundError:
        return False
    finally:
        os.close(fd)
    return False


def chown(top: int, uid: int, gid: int, what: str) -> None:
    """Give a directory (or a file) and everything in it to a user.

    Raises:
        Failure: it cannot be given.

    """

    def give(fd: int, name: str) -> None:
        found = os.stat(name, dir_fd=fd, follow_symlinks=False) if name else os.fstat(fd)
        if (found.st_uid, found.st_gid) != (uid, gid):
            if name:
                os.chown(name, uid, gid, dir_fd=fd, follow_symlinks=False)
            else:
                _linux.fchownat(fd, "", uid, gid, flags.AT_EMPTY_PATH)

    _each(top, give, f"give {what} to {uid}:{gid}")


def label(top: int, context: str, what: str) -> None:
    """Set the SELinux context of a directory (or a file) and everything in it.

    Raises:
        Failure: the kernel refuses.

    """
    value = context.encode() + b"\0"

    def mark(fd: int, name: str) -> None:
        # There is no fsetxattrat before Linux 6.13. The path through /proc leads to the descriptor; its last
        # name is not followed.
        path = f"/proc/self/fd/{fd}/{name}" if name else f"/proc/self/fd/{fd}"
        os.setxattr(path, _LABEL, value, follow_symlinks=not name)

    _each(top, mark, f"label {what} as {context}")


class _Level:
    """A directory on the way down.

    Attributes:
        fd: its descriptor, -1 while it is closed because too many are open below it.
        names: its directories that are still to be visited.
        inode: its device and inode, once it is closed.

    """

    __slots__ = ("fd", "inode", "names")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.names: list[str] = []
        self.inode = (0, 0)


def _each(top: int, action: Callable[[int, str], None], doing: str) -> None:
    """Do something to each entry of a tree: (descriptor of its directory, name); the top is (top, "")."""
    stack: list[_Level] = []
    try:
        action(top, "")
        try:
            fd = os.open(f"/proc/self/fd/{top}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as exc:
            if exc.errno in (ENOTDIR, ELOOP):
                return  # a file, or a symlink, which is changed itself
            raise
        stack.append(_Level(fd))
        _visit(fd, action, stack[-1].names)
        while stack:
            here = stack[-1]
            if not here.names:
                _leave(stack, doing)
                continue
            try:
                inner = _linux.openat2(here.fd, here.names.pop(), READ_DIRECTORY, 0, _INSIDE)
            except OSError as exc:
                if exc.errno == EXDEV:
                    continue  # a mount point: what is mounted there does not belong to this tree
                raise
            stack.append(_Level(inner))
            if len(stack) > DEEPEST:
                _close(stack[-DEEPEST - 1])
            _visit(inner, action, stack[-1].names)
    except OSError as exc:
        name = os.path.basename(os.fsdecode(exc.filename)) if isinstance(exc.filename, (str, bytes)) else ""
        raise Failure(doing + (f": {name!a}" if name else ""), errno=exc.errno or 0) from None
    finally:
        for level in stack:
            if level.fd >= 0:
                os.close(level.fd)


def _close(level: _Level) -> None:
    """Close a directory for now; remember which one it is."""
    if level.fd >= 0:
        found = os.fstat(level.fd)
        level.inode = (found.st_dev, found.st_ino)
        os.close(level.fd)
        level.fd = -1


def _leave(stack: list[_Level], doing: str) -> None:
    """Go up one level; a directory that was closed is opened again from below.

    Raises:
        Failure: ".." leads to another directory, because the lower one has been moved.

    """
    here = stack.pop()
    with closing(here.fd):
        above = stack[-1] if stack else None
        if above is not None and above.fd < 0:
            above.fd = os.open("..", READ_DIRECTORY, dir_fd=here.fd)
            found = os.fstat(above.fd)
            if (found.st_dev, found.st_ino) != above.inode:
                raise Failure(f"{doing}: a directory in it was moved meanwhile", hint="try again")


def _visit(fd: int, action: Callable[[int, str], None], directories: list[str]) -> None:
    with os.scandir(fd) as entries:
        for entry in entries:
            action(fd, entry.name)
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)


def count(top: int, *, seconds: float) -> int:
    """Return how many entries a tree has, 0 when counting takes longer than some seconds."""
    import time

    class _TooLongError(Exception):
        pass

    end = time.monotonic() + seconds
    total = 0

    def one(_fd: int, _name: str) -> None:
        nonlocal total
        total += 1
        if not total & 1023 and time.monotonic() > end:
            raise _TooLongError

    try:
        _each(top, one, "count")
    except (_TooLongError, Failure):
        return 0
    return total
