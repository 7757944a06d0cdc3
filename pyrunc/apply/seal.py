"""Make the running interpreter unwritable before a container can reach it through /proc (CVE-2019-5736).

Between fork and execve the container's init is this interpreter: its /proc/PID/exe is the host's python3, its
/proc/PID/map_files the host's libraries. An image whose entry point is /proc/self/exe would run the host's
python3 inside, keep it open, and overwrite it. So the parent, before its first fork, exchanges every file
mapping of the process for the same file on a read-only clone of its mount that is attached nowhere and that
nobody can reach to make it writable again; then it declares that file to be its executable. Nothing is
executed a second time.

Law 5 binds this module: it acts in the parent, and its result is verified there. It is on the hot path of
create, run and exec: no `re`, no text files.

Call it after the last import and before the first effect: a module loaded later is mapped from the writable
mount again (harmless but for containers with CAP_SYS_ADMIN in the host's user namespace), and where the
kernel refuses, the command begins anew from a sealed copy of the interpreter.
"""

from __future__ import annotations

import os
import sys

from pyrunc import cli
from pyrunc.errors import Failure
from pyrunc.linux import _linux, flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    Mapping = tuple[int, int, int, int, bool, int]

EXE = "/proc/self/exe"
F_ADD_SEALS, F_GET_SEALS = 1033, 1034
F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE = 1, 2, 4, 8
SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE
MFD_CLOEXEC, MFD_ALLOW_SEALING, MFD_EXEC = 1, 2, 16

# The words of the command that begins again where sealing in place is refused; a library's worker has others
# than its caller's program.
words: Callable[[], list[str]] | None = None

# What seal() answered in this process or in the one it was forked from. Nothing is sealed twice: on a
# detached mount a file's path need not be what it was.
_answer = ""
EPERM, EBUSY, EINVAL, ENOSYS = 1, 16, 22, 38  # importing errno costs 0.3 ms


def seal() -> str:
    """Make this process's executable and its libraries unwritable for whoever gets hold of them; verify it.

    Must run in a process with one thread, before its first fork and before any effect. Only for the one
    case in which a container sees the interpreter: see namespaces.seen_while_made().

    Only /proc/PID/map_files leads to the libraries, and the kernel opens it for none but CAP_SYS_ADMIN and
    CAP_CHECKPOINT_RESTORE (Linux 5.9) in the host's user namespace. Whether there is such a process that
    sees us cannot be told from the container's configuration: an earlier `exec --cap` may have brought one,
    or another container that joins the pid namespace. So they are always sealed, for 0.6 to 0.8 ms.

    Returns:
        "bind": the executable and every mapped file is on a detached read-only mount;
        "memfd": the executable is a sealed copy in memory (this is the second run of the command);
        "unwritable": neither was possible or needed: an unprivileged process whose interpreter belongs to
        root, which no user namespace it can make maps.

    Raises:
        Failure: nothing worked; no container may be started.
    """
    global _answer  # noqa: PLW0603 - a fact about the process
    if not _answer:
        _answer = _seal()
    return _answer


def seal_process() -> None:
    """Make what this process executes unwritable before anything of a container can see it.

    Must come before the first effect: where the kernel refuses, the command begins anew from a sealed copy of
    itself.
    """
    how = seal()
    # Inherited by the fork: in a joined pid namespace the child can be seen before its first instruction
    # (CVE-2016-9962).
    _linux.prctl(flags.PR_SET_DUMPABLE, 0, 0, 0, 0)
    cli.debug(f"pyrunc exeseal: using /proc/self/exe clone ({how})")


def _seal() -> str:
    """Do what seal() says, whatever was done before."""
    path = os.readlink(EXE)
    if path.startswith("/memfd:") and _sealed_memfd():
        return "memfd"
    try:
        _exchange(os.fsencode(path))
    except OSError as error:
        if _unwritable():
            return "unwritable"
        _begin_again(error)
    if not os.statvfs(EXE).f_flag & flags.ST_RDONLY:
        raise Failure(f"the interpreter {path} is still writable through {EXE}", step="seal")
    return "bind"


def _exchange(exe: bytes) -> None:
    """Put the file mappings on a read-only mount, then declare the executable.

    Raises:
        OSError: the kernel refused a part; the process is in order, but the executable is what it was.
    """
    files: dict[bytes, int] = {}
    trees: dict[bytes, int] = {}
    pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        layout = _layout()
        mappings = _mappings(files, trees)
        if files.get(exe, -1) < 0:
            raise OSError(EBUSY, "the executable was replaced while it runs")
        _linux.exchange_mappings(mappings, pagemap)
        _linux.set_mm_map(layout, files[exe])
    finally:
        os.close(pagemap)
        # With the last descriptor of a tree its anonymous mount namespace goes, and with that the only way to
        # clear the mount's read-only flag: no child may ever inherit one.
        for fd in (*files.values(), *trees.values()):
            if fd >= 0:
                os.close(fd)


def _layout() -> tuple[int, ...]:
    """Where the kernel says the parts of this process are, without an environment: proc_pid_stat(5).

    An empty environment keeps what the engine gave its runtime out of /proc/PID/environ.
    """
    fields = _read("/proc/self/stat").rpartition(b")")[2].split()  # the first one is field 3
    if fields[17] != b"1":
        raise OSError(EBUSY, "the process has more than one thread")
    number = [int(fields[field - 3]) for field in (26, 27, 45, 46, 47, 28, 48, 49, 50)]
    return (*number, number[-1])


def _mappings(files: dict[bytes, int], trees: dict[bytes, int]) -> list[Mapping]:
    """The file mappings of this process with the descriptors they are to be exchanged for: proc_pid_maps(5).

    Args:
        files: filled with the descriptor of each mapped file by its path, -1 for one that is not found again.
        trees: filled with the descriptor of each read-only clone of a mount by its place.
    """
    found: list[Mapping] = []
    for line in _read("/proc/self/maps").splitlines():
        fields = line.split(None, 5)
        if fields[4] == b"0" or not fields[5].startswith(b"/"):  # anonymous memory has no inode
            continue
        span, allowed, offset, device, inode, path = fields
        start, _, end = span.partition(b"-")
        fd = files.get(path)
        if fd is None:
            fd = files[path] = _open_sealed(path, device, int(inode), trees)
        shared = allowed[3:4] == b"s"
        if shared and (fd < 0 or allowed[1:2] == b"w"):
            continue  # shared memory has no copy; the interpreter and its libraries do not write to files
        protection = (allowed[0:1] == b"r") | (allowed[1:2] == b"w") << 1 | (allowed[2:3] == b"x") << 2
        found.append((int(start, 16), int(end, 16), int(offset, 16), protection, shared, fd))
    return found


def _open_sealed(path: bytes, device: bytes, inode: int, trees: dict[bytes, int]) -> int:
    """Open a mapped file on a read-only clone of its mount; -1 if it is not there (deleted or replaced).

    One clone of "/" serves all files on that mount; a file on another one has its directory cloned.
    """
    for place in (b"/", path.rpartition(b"/")[0]):
        if not place.startswith(b"/"):
            break
        try:
            tree = trees.get(place, -1)
            if tree < 0:
                tree = trees[place] = _clone_read_only(place)
            fd = os.open(
                path[len(place) :].lstrip(b"/"), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=tree
            )
        except OSError as error:
            if error.errno in (EPERM, ENOSYS):  # no clone of anything will do
                raise
            continue
        status = os.fstat(fd)
        if status.st_ino == inode and _same_device(status.st_dev, device, path):
            return fd
        os.close(fd)
    return -1


def _same_device(number: int, device: bytes, path: bytes) -> bool:
    """Whether st_dev is the device that maps shows ("fe:00"); filesystems with subvolumes have two."""
    major, _, minor = device.partition(b":")
    return number == os.makedev(int(major, 16), int(minor, 16)) or number == os.stat(path).st_dev


def _clone_read_only(place: bytes) -> int:
    """A detached, read-only, private clone of the mount at a directory, without what is mounted below it."""
    tree = _linux.open_tree(flags.AT_FDCWD, place, flags.OPEN_TREE_CLONE)
    try:
        _linux.mount_setattr(tree, "", flags.AT_EMPTY_PATH, flags.MOUNT_ATTR_RDONLY, 0, flags.MS_PRIVATE, -1)
    except OSError:
        os.close(tree)
        raise
    return tree


def _sealed_memfd() -> bool:
    """Whether the executable is a file in memory that nobody can write to any more."""
    from fcntl import fcntl

    fd = os.open(EXE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return fcntl(fd, F_GET_SEALS) & F_SEAL_WRITE != 0
    finally:
        os.close(fd)


def _unwritable() -> bool:
    """Whether no container of this process could open the executable for writing, sealed or not.

    Without privileges a user namespace maps the user's own ids and subordinate ids, never root's. An
    interpreter of the user's own (pyenv, a virtual environment with copies) is writable inside.
    """
    status = os.stat(EXE)
    return os.geteuid() != 0 and status.st_uid == 0 and not status.st_mode & 0o022


def _begin_again(reason: OSError) -> NoReturn:
    """Execute this command again from a sealed copy of the interpreter in memory: 7 to 10 ms, measured.

    Args:
        reason: why sealing in place did not work, for the message if this does not work either.
    """
    from fcntl import fcntl

    try:
        source = os.open(EXE, os.O_RDONLY | os.O_CLOEXEC)
        kind = MFD_CLOEXEC | MFD_ALLOW_SEALING
        try:
            copy = os.memfd_create("pyrunc", kind | MFD_EXEC)
        except OSError as error:
            if error.errno != EINVAL:  # before Linux 6.3 every memfd is executable
                raise
            copy = os.memfd_create("pyrunc", kind)
        while os.sendfile(copy, source, None, 1 << 30):
            pass
        fcntl(copy, F_ADD_SEALS, SEALS)
        os.execve(f"/proc/self/fd/{copy}", words() if words else sys.orig_argv, os.environ)  # noqa: S606 - no shell
    except OSError as error:
        raise Failure(
            f"cannot protect the interpreter {os.readlink(EXE)} from the container (CVE-2019-5736): "
            f"sealing it in place: {reason.strerror}; running a sealed copy",
            step="seal",
            errno=error.errno or 0,
        ) from error


def _read(path: str) -> bytes:
    """The whole of a file in /proc, which gives a page at a time."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    parts = []
    while part := os.read(fd, 65536):
        parts.append(part)
    os.close(fd)
    return b"".join(parts)
