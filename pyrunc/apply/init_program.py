"""Start the init program (pyrunc/init) and hand it a program.

Law 5: what runs in a container is not Python but that program. It is held by a sealed memory file, so that
nobody who sees the process can write to what it executes (CVE-2019-5736), and is started with an empty
environment and with the descriptors that are in its slots.
"""

from __future__ import annotations

import os
import sys
from errno import EACCES, EINVAL, ENOSYS, EPERM
from fcntl import fcntl

from pyrunc.apply import protocol
from pyrunc.errors import Failure
from pyrunc.linux import _linux, flags
from pyrunc.plan.program import NAME


def sealed(name: str, data: bytes, *, executable: bool = False, mode: int = 0o111) -> int:
    """Return a memory file that nobody can write to any more (memfd_create(2), fcntl(2) F_ADD_SEALS).

    Args:
        name: what /proc shows.
        data: its content.
        executable: it is a program.
        mode: of a program. If nobody may read it, who has no rights on the host cannot look into the process
            that executes it either (PR_SET_DUMPABLE(2const)).

    Raises:
        OSError: there is no room, or no program may be executed from memory (vm.memfd_noexec).

    """
    how = flags.MFD_CLOEXEC | flags.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create(name, how | flags.MFD_EXEC if executable else how)
    except OSError as exc:
        if not executable or exc.errno != EINVAL:
            raise
        fd = os.memfd_create(name, how)  # before Linux 6.3 every memory file is executable
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        if executable:
            os.fchmod(fd, mode)
        fcntl(fd, flags.F_ADD_SEALS, flags.F_SEAL_ALL)
    except BaseException:
        os.close(fd)
        raise
    return fd


def image(mode: int = 0o111) -> int:
    """Return a sealed memory file with the init program.

    Args:
        mode: who may read it, see sealed().

    Raises:
        Failure: it cannot be made.

    """
    try:
        return sealed("pyrunc-init", _linux.init_image(), executable=True, mode=mode)
    except OSError as exc:
        raise Failure("start the init program", errno=exc.errno or 0) from None


def start(
    program: bytes,
    descriptors: list[int],
    cgroup: int = -1,
    new: int = 0,
    what: str = "make a process in the container's cgroup",
    *,
    readable: bool = False,
) -> tuple[int, int]:
    """Start the init with a program.

    Args:
        program: what Program.encode() returned.
        descriptors: those in its slots, which it inherits.
        cgroup: descriptor of the unified cgroup it is born in, -1 for ours (CLONE_INTO_CGROUP, Linux 5.7).
        new: CLONE_NEW* flags of the namespaces it is born in.
        what: what is done, for a failure of that.
        readable: it begins as the first of an ordinary user's new user namespace, whose owner then has the
            rights over it that he has over what is in the namespace: to write id maps, and to join it later.

    Returns:
        Its pid and a pidfd.

    Raises:
        Failure: it cannot be started; errno is the kernel's.

    """
    made = -1
    step = "start the init program"
    init = image(0o555 if readable else 0o111)
    try:
        made = sealed("pyrunc-program", program)
        inherited = [*descriptors, made]
        keep = b"".join(fd.to_bytes(4, sys.byteorder) for fd in inherited)
        step = what
        pid, pidfd, error = _spawn(new, cgroup, init, str(made), keep)
    except OSError as exc:
        raise Failure(step, errno=exc.errno or 0) from None
    finally:
        for fd in (init, made):
            if fd >= 0:
                os.close(fd)
    if error:
        os.close(pidfd)
        os.waitpid(pid, 0)
        raise Failure("start the init program", errno=error, hint=hint(error))
    return pid, pidfd


def hide() -> None:
    """Let no other process of our user look into this one or what it forks (CVE-2016-9962)."""
    _linux.prctl(flags.PR_SET_DUMPABLE, 0, 0, 0, 0)


def hint(errno: int | None) -> str:
    """Return what to do about an init program that cannot be executed, "" when nothing is certain to help."""
    return "sysctl vm.memfd_noexec = 2 forbids programs in memory" if errno == EACCES else ""


def _spawn(new: int, cgroup: int, image: int, word: str, keep: bytes) -> tuple[int, int, int]:
    try:
        return _linux.spawn(new, cgroup, -1, image, NAME, word, keep, 0)
    except OSError as exc:
        if exc.errno not in (EPERM, ENOSYS):
            raise
    # Filters refuse clone3(2) with ENOSYS so that callers take the older call. It knows no cgroup to be
    # born in: the process goes there first of all.
    procs = -1
    try:
        if cgroup >= 0:
            procs = os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=cgroup)
        return _linux.spawn(new, -1, procs, image, NAME, word, keep, 1)
    finally:
        if procs >= 0:
            os.close(procs)


def proc_context(pid_namespace: int, users: int | None) -> int:
    """Return a file system context for a procfs of a pid namespace that we are not in (fsopen(2)).

    It remembers the namespace it was opened in. So a process opens it there that has nothing else: its root
    is an empty directory, in a mount namespace of its own.

    Args:
        pid_namespace: its descriptor.
        users: descriptor of a user namespace with the rights for that, closed here; None for our own rights.

    Raises:
        Failure: it cannot be had.

    """
    from pyrunc.plan import program_first

    ours, far = protocol.pair()
    pidfd = -1
    try:
        program = program_first.proc_context(users is not None)
        slots = {"socket": far.fileno(), "pidns": pid_namespace, "users": -1 if users is None else users}
        data = program.encode(slots)
        pid, pidfd = start(data, [fd for fd in slots.values() if fd >= 0])
        far.close()
        kind, payload, fd = protocol.receive(ours)
        if kind != protocol.CLONED:
            ours.close()  # whoever has failed waits for that; what was cloned may have been faster
        os.waitpid(pid, 0)
        if kind == protocol.CLONED and fd >= 0:
            os.close(fd)
            pid = int.from_bytes(payload, "little")
            kind, payload, fd = protocol.receive(ours)
            ours.close()
            os.waitpid(pid, 0)
        if kind != protocol.PROC or fd < 0:
            errno = int.from_bytes(payload[12:16], "little") if kind == protocol.ENDED else 0
            raise Failure("open a procfs of the pid namespace to join", errno=errno)
        return fd
    finally:
        ours.close()
        far.close()
        for fd in (pidfd, -1 if users is None else users):
            if fd >= 0:
                os.close(fd)


def null_device() -> int:
    """Return a null device for stdio that is the host's: nobody can change the host's inode through it.

    Who has the host's own, as root, can change its owner and mode: fchown(2) and fchmod(2) want no more
    than the descriptor. On a mount of its own that is read-only they are refused, while reading and writing
    are not. Returns -1 where no mount can be made: an ordinary user has no right to change the host's
    anyway.
    """
    try:
        tree = _linux.open_tree(-100, "/dev/null", flags.OPEN_TREE_CLONE | flags.OPEN_TREE_CLOEXEC)
    except OSError:
        return -1
    try:
        readonly = flags.MOUNT_ATTR_RDONLY | flags.MOUNT_ATTR_NOSUID | flags.MOUNT_ATTR_NOEXEC
        _linux.mount_setattr(tree, "", flags.AT_EMPTY_PATH, readonly, 0, 0, -1)
        found = os.fstat(tree)
        if found.st_mode & 0o170000 != 0o020000 or found.st_rdev != os.makedev(1, 3):
            return -1
        return os.open(f"/proc/self/fd/{tree}", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return -1
    finally:
        os.close(tree)


def has_null_stdio() -> bool:
    """Tell whether our stdin, stdout or stderr is a null device."""
    null = os.makedev(1, 3)
    for fd in (0, 1, 2):
        try:
            found = os.fstat(fd)
        except OSError:
            continue  # closed
        if found.st_mode & 0o170000 == 0o020000 and found.st_rdev == null:
            return True
    return False
