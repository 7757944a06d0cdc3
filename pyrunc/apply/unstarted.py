"""Find out why a program cannot be started, after execve(2) has refused it.

The kernel returns one error number, and often it is about another file than the named one: the interpreter of
a script, the loader of a program, a directory in the path. Law 3: these files belong to the container. They
are reached below a descriptor of its root (apply/target.py), nothing blocks, and only the beginning of a file
is read. Nothing here fails: what cannot be found out is left out.
"""

from __future__ import annotations

import _stat as stat
import os
from errno import E2BIG, EACCES, ELOOP, ENOENT, ENOEXEC, ENOTDIR, EPERM, ETXTBSY

from pyrunc.apply import target
from pyrunc.files import closing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_NOEXEC = 8  # ST_NOEXEC (statvfs(3))
_HEAD = 4096  # bytes of a file that are read; the kernel reads 256 of a script
_DEPTH = 4  # interpreters of interpreters that are looked at; the kernel follows five
_PT_INTERP = 3
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY

# elf(5), e_machine: the architectures people build images for.
_MACHINES = {
    2: "sparc", 3: "i386", 8: "mips", 20: "powerpc", 21: "ppc64", 22: "s390x", 40: "arm", 43: "sparc64",
    62: "x86_64", 183: "aarch64", 243: "riscv64", 258: "loongarch64",
}  # fmt: skip
# What a machine can run besides its own architecture; the names are uname(2)'s.
_RUNS = {
    "x86_64": (62, 3), "i686": (62, 3), "i386": (62, 3), "aarch64": (183, 40), "armv8l": (183, 40),
    "armv7l": (40,), "ppc64le": (21,), "ppc64": (21, 20), "s390x": (22,), "riscv64": (243,),
    "loongarch64": (258,), "mips64": (8,), "sparc64": (43, 2),
}  # fmt: skip


class _Look:
    """The root, user and working directory for one search."""

    def __init__(self, root: int, uid: int, gids: Iterable[int], *, override: bool) -> None:
        self.root = root
        self.override = override
        self.uid = uid
        self.gids = frozenset(gids)

    def file(self, path: str, errno: int, depth: int = _DEPTH) -> str:
        """Return why a file cannot be executed, "" if nothing is found."""
        way = self._way(path, errno)
        if way:
            return way
        try:
            fd = target.resolve(self.root, path)
        except OSError as exc:
            return self._missing(path, depth) if exc.errno == ENOENT else ""
        with closing(fd):
            found = os.fstat(fd)
            noexec = os.fstatvfs(fd).f_flag & _NOEXEC
        if not stat.S_ISREG(found.st_mode):
            return f"{path} is a {_kind(found.st_mode)}"
        if not found.st_mode & 0o111:
            return f"{path} has no x in its mode ({_mode(found)}); chmod +x"
        if noexec:
            return f"{self._mount(path)} is mounted noexec, and {path} is on it"
        if errno == EACCES and not self._may(found):
            return f"{path} may not be executed by user {self.uid} ({_owned(found)})"
        return self._content(path, errno, depth)

    def _missing(self, path: str, depth: int) -> str:
        """Return the missing interpreter or loader. If the file itself is missing, the kernel has said so."""
        try:
            fd = target.resolve(self.root, path, follow=False)
        except OSError:
            return f"{path} is not there" if depth < _DEPTH else ""
        with closing(fd):
            return f"{path} is a symlink to {os.readlink('', dir_fd=fd)}, which is not there"

    def _way(self, path: str, errno: int) -> str:
        """Return the directory of a path that is missing, no directory, or may not be searched."""
        names = [name for name in path.split("/") if name not in ("", ".")][:-1]
        way = ""
        for name in ("", *names):
            way = f"{way}/{name}" if name else ""
            try:
                fd = target.resolve(self.root, way or "/")
            except OSError as exc:
                if exc.errno == ENOENT:
                    return f"the directory {way} is not there"
                before = way.rpartition("/")[0] or "/"
                return f"user {self.uid} may not pass the directory {before}" if exc.errno == EACCES else ""
            with closing(fd):
                found = os.fstat(fd)
            if not stat.S_ISDIR(found.st_mode):
                return f"{way} is a {_kind(found.st_mode)}, not a directory"
            if errno == EACCES and not self._may(found):
                return f"user {self.uid} may not pass the directory {way or '/'} ({_owned(found)})"
        return ""

    def _may(self, found: os.stat_result) -> bool:
        """Tell whether the mode lets the user execute a file or search a directory."""
        if self.override:
            return bool(found.st_mode & 0o111) or stat.S_ISDIR(found.st_mode)
        if found.st_uid == self.uid:
            return bool(found.st_mode & 0o100)
        return bool(found.st_mode & (0o010 if found.st_gid in self.gids else 0o001))

    def _mount(self, path: str) -> str:
        """Return the mount point that a path is on, as far as the path alone shows it."""
        point = path
        while len(point) > 1:
            above = point.rpartition("/")[0] or "/"
            if self._device(above) != self._device(path):
                return point
            point = above
        return "/"

    def _device(self, path: str) -> tuple[int, int]:
        try:
            fd = target.resolve(self.root, path)
        except OSError:
            return -1, -1
        with closing(fd):
            # A bind mount has the file system of its source, but its flags may differ.
            return os.fstat(fd).st_dev, os.fstatvfs(fd).f_flag

    def _content(self, path: str, errno: int, depth: int) -> str:
        try:
            fd = target.resolve(self.root, path, mode=_READ)
        except OSError:
            return ""  # it can be executed but not read
        try:
            head = os.read(fd, _HEAD)
            if head.startswith(b"#!"):
                return self._script(path, head, errno, depth)
            if head.startswith(b"\x7fELF"):
                return self._program(path, head, fd, errno, depth)
        except OSError:
            return ""
        finally:
            os.close(fd)
        if errno != ENOEXEC:
            return ""
        if not head:
            return f"{path} is empty"
        if head.startswith(b"\xef\xbb\xbf#!"):
            return f"{path} begins with a byte order mark, the #! must come first"
        return f"{path} is neither a program nor a script with a #! line"

    def _script(self, path: str, head: bytes, errno: int, depth: int) -> str:
        line = head[2:].split(b"\n", 1)[0].strip(b" \t")
        words = line.split(None, 1)
        if not words:
            return f"the #! line of {path} names no interpreter"
        if line.endswith(b"\r") and len(words) == 1:
            name = _text(words[0])
            return (
                f"{path} has lines that end as on Windows (CRLF): its interpreter is {name + chr(13)!r}; "
                "take the CR out of them (dos2unix)"
            )
        interpreter = _text(words[0])
        if not depth:
            return f"{path} has interpreters of interpreters of interpreters"
        inner = self.file(interpreter if interpreter[0] == "/" else "/" + interpreter, errno, depth - 1)
        if not inner:
            return ""
        if inner.endswith("is not there"):
            return f"{path} is there, but its interpreter {interpreter} is not"
        return f"{path} is a script for {interpreter}: {inner}"

    def _program(self, path: str, head: bytes, fd: int, errno: int, depth: int) -> str:
        if len(head) < 64 or head[4] not in (1, 2) or head[5] not in (1, 2):
            return f"{path} is cut off, or not a program" if errno == ENOEXEC else ""
        order: str = "little" if head[5] == 1 else "big"

        def number(data: bytes, at: int, size: int) -> int:
            return int.from_bytes(data[at : at + size], order)  # type: ignore[arg-type]

        machine = number(head, 18, 2)
        own = os.uname().machine
        foreign = own in _RUNS and (machine not in _RUNS[own] or (own == "ppc64le" and order == "big"))
        if foreign:
            name = _MACHINES.get(machine, f"ELF machine {machine}")
            return f"{path} is a program for {name}, and this machine is {own}"
        if number(head, 16, 2) not in (2, 3):
            return f"{path} is no program, but an object file or a core dump"
        wide = head[4] == 2
        table, size, count = (32, 54, 56) if wide else (28, 42, 44)
        at, step = number(head, table, 8 if wide else 4), number(head, size, 2)
        headers = os.pread(fd, min(step * number(head, count, 2), 65536), at)
        for start in range(0, len(headers) - 31, max(step, 32)):
            if number(headers, start, 4) != _PT_INTERP:
                continue
            where, length = (8, 32) if wide else (4, 16)
            offset = number(headers, start + where, 8 if wide else 4)
            much = min(number(headers, start + length, 8 if wide else 4), 4096)
            return self._loader(path, _text(os.pread(fd, much, offset).rstrip(b"\0")), errno, depth)
        return ""

    def _loader(self, path: str, loader: str, errno: int, depth: int) -> str:
        if not loader.startswith("/") or not depth:
            return ""
        inner = self.file(loader, errno, depth - 1)
        if not inner:
            return ""
        if inner.endswith("is not there"):
            library = "musl" if "musl" in loader else "the C library (glibc)"
            return f"{path} is there, but its loader {loader} is not: it is built for an image with {library}"
        return f"{path} needs the loader {loader}: {inner}"


def why(
    root: int,
    path: str,
    errno: int,
    *,
    uid: int,
    gids: Iterable[int],
    override: bool = False,
    cwd: str = "/",
    filtered: bool = False,
) -> str:
    """Find out why a program could not be executed.

    Args:
        root: descriptor of the root directory the path is in.
        path: the path given to execve(2).
        errno: its error number.
        uid: the user id of the process.
        gids: all groups of that user.
        override: the user has CAP_DAC_OVERRIDE, which needs only one x in the mode.
        cwd: the working directory, for a path that is relative.
        filtered: a seccomp filter is in force.

    Returns:
        A clause without a full stop, "" if nothing is found.

    """
    if errno == E2BIG:
        return "arguments and environment are longer than the kernel takes (execve(2): 128 KiB a word)"
    if errno == ETXTBSY:
        return f"{path} is open for writing"
    whole = path if path.startswith("/") else f"{cwd}/{path}"
    found = ""
    if errno in (ENOENT, ENOEXEC, EACCES, ENOTDIR, ELOOP):
        try:
            found = _Look(root, uid, gids, override=override).file(whole, errno)
        except OSError:
            found = ""  # the filter even refuses the system calls of the search
    if found:
        return found
    if filtered and errno not in (ENOENT, ENOEXEC, ENOTDIR, ELOOP):
        return "most likely the seccomp filter (/linux/seccomp) refuses execve"
    if errno == EPERM:
        return f"{path} may have capabilities (getcap) that the container's bounding set lacks"
    if errno == EACCES:
        return "neither modes nor mounts forbid it: an AppArmor or SELinux profile may (dmesg says so)"
    return ""


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "directory"
    return "file" if stat.S_ISREG(mode) else "device, a fifo or a socket"


def _mode(found: os.stat_result) -> str:
    return f"{stat.S_IMODE(found.st_mode):04o}"


def _owned(found: os.stat_result) -> str:
    return f"mode {_mode(found)}, of user {found.st_uid} and group {found.st_gid}"


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
