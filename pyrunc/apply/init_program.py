"""Start the init program (pyrunc/init) with a program: a list of operations.

Law 5: no Python runs in a container, only the init program. It is in a sealed memory file, so that a process
which sees it cannot change what it executes (CVE-2019-5736). It starts with an empty environment, and with
the descriptors of its slots.
"""

from __future__ import annotations

import os
import sys
from errno import EACCES, EINVAL, ENOSYS, EPERM
from fcntl import fcntl

from pyrunc.apply import protocol
from pyrunc.errors import Failure, failing
from pyrunc.linux import _linux, flags
from pyrunc.plan.program import NAME


def sealed(name: str, data: bytes, *, executable: bool = False, mode: int = 0o111) -> int:
    """Return a memory file that cannot be written to any more (memfd_create(2), fcntl(2) F_ADD_SEALS).

    Args:
        name: the name that /proc shows.
        data: its content.
        executable: it is a program.
        mode: permission bits. If a program has no read permission, a process without the host's rights cannot
            trace one that executes it (PR_SET_DUMPABLE(2const)).

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
        mode: permission bits, see sealed().

    Raises:
        Failure: it cannot be made.

    """
    with failing("start the init program"):
        return sealed("pyrunc-init", _linux.init_image(), executable=True, mode=mode)


def start(
    program: bytes,
    descriptors: list[int],
    cgroup: int = -1,
    new: int = 0,
    what: str = "make a process in the container's cgroup",
    *,
    readable: bool = False,
) -> tuple[int, int]:
    """Start the init program.

    Args:
        program: what Program.encode() returned.
        descriptors: the descriptors of its slots, in order.
        cgroup: descriptor of the unified cgroup it is born in, -1 for ours (CLONE_INTO_CGROUP, Linux 5.7).
        new: CLONE_NEW* flags of the namespaces it is born in.
        what: what is being done, for the error message.
        readable: it is the first process in an ordinary user's new user namespace. The owner of the namespace
            may then write its id mappings and join it later.

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
    """Let no other process of this user trace this process or its children (CVE-2016-9962)."""
    _linux.prctl(flags.PR_SET_DUMPABLE, 0, 0, 0, 0)


def hint(errno: int | None) -> str:
    """Return a hint for an init program that cannot be executed; "" if the cause is not certain."""
    return "sysctl vm.memfd_noexec = 2 forbids programs in memory" if errno == EACCES else ""


def _spawn(new: int, cgroup: int, image: int, word: str, keep: bytes) -> tuple[int, int, int]:
    try:
        return _linux.spawn(new, cgroup, -1, image, NAME, word, keep, 0)
    except OSError as exc:
        if exc.errno not in (EPERM, ENOSYS):
            raise
    # Some filters refuse clone3(2) with ENOSYS, so that callers use the older call. That one cannot create a
    # process in a cgroup: the process joins the cgroup first of all.
    procs = -1
    try:
        if cgroup >= 0:
            procs = os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=cgroup)
        return _linux.spawn(new, -1, procs, image, NAME, word, keep, 1)
    finally:
        if procs >= 0:
            os.close(procs)


def proc_context(pid_namespace: int, users: int | None) -> int:
    """Return a file system context for a procfs of another pid namespace (fsopen(2)).

    The context keeps the pid namespace in which it was opened. So a process in that namespace opens it. That
    process can reach nothing else: its root is an empty directory, in a mount namespace of its own.

    Args:
        pid_namespace: its descriptor.
        users: descriptor of a user namespace that has the rights for it, closed here; None if this process
            has them.

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
            ours.close()  # a failed process waits for this; a clone may have ended earlier
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
    """Return a null device for stdio through which the host's inode cannot be changed; -1 if impossible.

    With the descriptor of the host's own /dev/null, a process with root's ids can change its owner and mode:
    fchown(2) and fchmod(2) need only the descriptor. On a read-only mount they are refused, while reading and
    writing still work. An ordinary user cannot make the mount, and has no right to change the host's inode
    either.
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
    """Tell whether stdin, stdout or stderr is a null device."""
    null = os.makedev(1, 3)
    for fd in (0, 1, 2):
        try:
            found = os.fstat(fd)
        except OSError:
            continue  # closed
        if found.st_mode & 0o170000 == 0o020000 and found.st_rdev == null:
            return True
    return False
