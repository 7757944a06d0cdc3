"""The only place where Python turns a path inside the root file system into a descriptor.

Law 3: the tree is hostile and may change between any two system calls. Every path is resolved below a
descriptor of the root, by openat2(2) with RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS, or component by
component. Nothing is created through a symlink that the kernel follows.
"""

from __future__ import annotations

import _stat as stat
import os
from errno import EAGAIN, ELOOP, ENOENT, ENOTDIR, EXDEV

from pyrunc.linux import _linux, flags

_IN_ROOT = flags.RESOLVE_IN_ROOT | flags.RESOLVE_NO_MAGICLINKS
_REAL = (
    flags.RESOLVE_BENEATH | flags.RESOLVE_NO_SYMLINKS | flags.RESOLVE_NO_MAGICLINKS | flags.RESOLVE_NO_XDEV
)
_PLAIN = os.O_PATH | os.O_CLOEXEC
_LINKS = 40  # what the kernel itself follows at most (path_resolution(7))
_TRIES = 128  # EAGAIN means a rename or mount raced with ".."; openat2(2) asks for a retry


def resolve(root: int, path: str, *, follow: bool = True, mode: int = os.O_PATH) -> int:
    """Open a path inside the root.

    Args:
        root: descriptor of the root directory.
        path: path inside it; a leading slash means the root.
        follow: follow a symlink in the last component.
        mode: open flags; O_PATH unless the content is wanted.

    Raises:
        OSError: as openat2(2).

    """
    how = mode | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    for _ in range(_TRIES):
        try:
            return _linux.openat2(root, path, how, 0, _IN_ROOT)
        except OSError as exc:
            if exc.errno != EAGAIN:
                raise
    return _linux.openat2(root, path, how, 0, _IN_ROOT)


def make(root: int, path: str, kind: str) -> int:
    """Open a path inside the root with O_PATH, and make what is missing.

    Missing directories get mode 0755; at the end a directory or a file is made. Symlinks on the way are
    followed inside the root, dangling ones too: what they point to is made.

    Args:
        root: descriptor of the root directory.
        path: path inside it.
        kind: "dir" or "file": what to make at the end.

    Raises:
        OSError: from the system call that failed.

    """
    try:
        return resolve(root, path)
    except OSError as exc:
        if exc.errno not in (ENOENT, ELOOP):
            raise
    return _Walk(root, path, kind).run()


def directory_of(base: int, path: str) -> int:
    """Open the directory that a path is in, without passing a symlink, "..", or another mount.

    Args:
        base: descriptor of the directory the path begins in.
        path: the path.

    Raises:
        OSError: there is none that can be reached so.

    """
    head = path.rpartition("/")[0]
    return _linux.openat2(base, head or ".", _PLAIN | os.O_DIRECTORY, 0, _REAL)


def directory(root: int, path: str, *, mode: int = os.O_PATH) -> int:
    """Open a directory inside the root, without passing a symlink, "..", or another mount.

    Args:
        root: descriptor of the root directory.
        path: path inside it, relative; "" is the root.
        mode: os.O_RDONLY to list it.

    Raises:
        OSError: there is none that can be reached so; ELOOP for a symlink.

    """
    return _linux.openat2(root, path or ".", mode | os.O_DIRECTORY | os.O_CLOEXEC, 0, _REAL)


class _Walk:
    """One walk from the root. It keeps the directories on the way open, so that ".." needs no system call."""

    def __init__(self, root: int, path: str, kind: str) -> None:
        self.stack = [os.dup(root)]
        self.todo = _components(path)
        self.kind = kind
        self.links = 0

    def run(self) -> int:
        try:
            while self.todo:
                found = self._step(self.todo.pop(0))
                if found >= 0:
                    return found
            return os.dup(self.stack[-1])
        finally:
            for fd in self.stack:
                os.close(fd)

    def _step(self, name: str) -> int:
        """Take one component; return a descriptor if it is the last one and no directory, else -1."""
        if name == "..":
            if len(self.stack) > 1:
                os.close(self.stack.pop())
            return -1
        here = self.stack[-1]
        try:
            fd = _open_component(here, name)
        except FileNotFoundError:
            fd = self._create(here, name)
        mode = os.fstat(fd).st_mode
        if stat.S_ISLNK(mode):
            _refuse_magic(here, name)
            self._follow(fd)
            return -1
        if self.todo or stat.S_ISDIR(mode):
            if not stat.S_ISDIR(mode):
                os.close(fd)
                raise OSError(ENOTDIR, os.strerror(ENOTDIR), name)
            self.stack.append(fd)
            return -1
        return fd

    def _create(self, here: int, name: str) -> int:
        try:
            if self.todo or self.kind == "dir":
                os.mkdir(name, 0o755, dir_fd=here)
            else:
                how = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                os.close(os.open(name, how, 0o644, dir_fd=here))
        except FileExistsError:
            pass  # another process was faster
        return _open_component(here, name)

    def _follow(self, link: int) -> None:
        """Put the text of a symlink in front of the rest of the path."""
        try:
            target = os.readlink("", dir_fd=link)
        finally:
            os.close(link)
        self.links += 1
        if self.links > _LINKS:
            raise OSError(ELOOP, os.strerror(ELOOP), target)
        if target.startswith("/"):
            while len(self.stack) > 1:
                os.close(self.stack.pop())
        self.todo[:0] = _components(target)


def _refuse_magic(here: int, name: str) -> None:
    """Refuse a magic link such as /proc/self/cwd: its text is not where it leads.

    Raises:
        OSError: ELOOP, as openat2(2) has it, or the error that kept us from finding out.

    """
    try:
        os.close(_linux.openat2(here, name, _PLAIN, 0, flags.RESOLVE_BENEATH | flags.RESOLVE_NO_MAGICLINKS))
    except OSError as exc:
        # An ordinary symlink leads to a name that can be looked up, or to one that is still to be made.
        if exc.errno not in (EXDEV, ENOENT, EAGAIN, ENOTDIR):
            raise


def _components(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]


def _open_component(here: int, name: str) -> int:
    return _linux.openat2(
        here,
        name,
        os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC,
        0,
        flags.RESOLVE_NO_MAGICLINKS | flags.RESOLVE_BENEATH,
    )


def read(root: int, path: str, limit: int) -> bytes:
    """Return the content of a regular file inside the root, at most limit bytes; b"" for anything else.

    A fifo or a device in its place must not block pyrunc or have effects. So it is opened with O_NONBLOCK and
    checked before it is read.
    """
    try:
        fd = resolve(root, path, mode=os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return b""
    try:
        return os.read(fd, limit) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    except OSError:
        return b""
    finally:
        os.close(fd)
