"""Raw Linux system calls: parse the arguments, make one call, return its result or raise OSError.

These are the effects at the bottom of apply/; they decide nothing (law 1). For all functions:

- arguments are positional; a wrong type is a TypeError, a number that does not fit an OverflowError, a string
  with a NUL inside or a buffer of an impossible size a ValueError, all before the kernel is asked;
- `Path` is str (encoded for the file system, surrogateescape), bytes, or an object with `__fspath__`;
- a refusal by the kernel is OSError with its errno and without a file name: the caller knows the object and
  names it; a kernel that is too old gives ENOSYS;
- a returned file descriptor is close-on-exec, and -1 for an optional one means none;
- the GIL is not released.
"""

from collections.abc import Iterable
from os import PathLike
from typing import TypeAlias

Path: TypeAlias = str | bytes | PathLike[str] | PathLike[bytes]

# ---- processes and namespaces

def spawn(
    flags: int, cgroup_fd: int, procs_fd: int, image_fd: int, name: str, word: str, keep: bytes, older: int, /
) -> tuple[int, int, int]:
    """Start a program: clone3(2) with CLONE_VM and CLONE_VFORK, then execveat(2), in one call.

    The child runs no code of the interpreter and copies none of its memory. All its signals are blocked.

    Args:
        flags: CLONE_NEW*; CLONE_PIDFD is added.
        cgroup_fd: a cgroup v2 directory in which the child begins (CLONE_INTO_CGROUP, Linux 5.7), or -1.
        procs_fd: a cgroup.procs that the child writes itself to, or -1.
        image_fd: the program; it is executed without an environment.
        name: argv[0].
        word: argv[1].
        keep: descriptors that stay open, as C ints.
        older: 1 for clone(2), which has neither CLONE_INTO_CGROUP nor CLONE_NEWTIME.

    Returns:
        (pid, pidfd, 0): the child executes the program. (pid, pidfd, errno): it could not, and ends.
    """

def init_image() -> bytes:
    """Return the init program: an ELF file (pyrunc/init)."""

def clone3(flags: int, exit_signal: int, cgroup_fd: int, /) -> tuple[int, int]:
    """Fork with namespaces: clone3(2), Linux 5.3.

    Args:
        flags: CLONE_NEW*, CLONE_PARENT, CLONE_CLEAR_SIGHAND; CLONE_PIDFD is added. Sharing memory is a
            ValueError.
        exit_signal: the signal to the parent at the child's end: SIGCHLD (17), or 0 with CLONE_PARENT.
        cgroup_fd: a cgroup v2 directory in which the child begins (CLONE_INTO_CGROUP, Linux 5.7), or -1.

    Returns:
        (pid, pidfd) in the parent, (0, -1) in the child. Both run the interpreter's fork hooks, as with
            os.fork().
    """

def clone(flags: int, exit_signal: int, /) -> tuple[int, int]:
    """Fork with namespaces: clone(2), CLONE_PIDFD since Linux 5.2; used if clone3(2) is refused.

    As clone3(), but without a cgroup, CLONE_NEWTIME and flags above 32 bits, which it does not have.
    """

def unshare(flags: int, /) -> None:
    """Leave shared namespaces: unshare(2)."""

def setns(fd: int, flags: int, /) -> None:
    """Join the namespace of a /proc/PID/ns file, or several through a pidfd (Linux 5.8): setns(2)."""

def pidfd_getfd(pidfd: int, fd: int, /) -> int:
    """Duplicate a file descriptor of another process: pidfd_getfd(2), Linux 5.6."""

# ---- mounts

def open_tree(dfd: int, path: Path, flags: int, /) -> int:
    """Open a mounted tree, or with OPEN_TREE_CLONE a detached copy of it: open_tree(2), Linux 5.2."""

def move_mount(from_fd: int, from_path: Path, to_fd: int, to_path: Path, flags: int, /) -> None:
    """Attach or move a mount: move_mount(2), Linux 5.2."""

def mount_setattr(
    dfd: int, path: Path, flags: int, attr_set: int, attr_clr: int, propagation: int, userns_fd: int, /
) -> None:
    """Change the attributes of a mount, or of a whole tree with AT_RECURSIVE: mount_setattr(2), Linux 5.12.

    Args:
        dfd: directory or mount, see flags.
        path: the mount; empty with AT_EMPTY_PATH.
        flags: AT_EMPTY_PATH, AT_RECURSIVE, AT_SYMLINK_NOFOLLOW, AT_NO_AUTOMOUNT.
        attr_set: MOUNT_ATTR_* to set.
        attr_clr: MOUNT_ATTR_* to clear first.
        propagation: MS_PRIVATE, MS_SLAVE, MS_SHARED, MS_UNBINDABLE, or 0 to leave it.
        userns_fd: the user namespace whose mapping MOUNT_ATTR_IDMAP gives the mount, or -1.
    """

def fsopen(name: Path, flags: int, /) -> int:
    """Begin to configure a new filesystem of the named type: fsopen(2), Linux 5.2."""

def fsconfig(fd: int, command: int, key: Path | None, value: Path | None, aux: int, /) -> None:
    """Set one option of a filesystem being configured, or create it: fsconfig(2), Linux 5.2.

    After a refusal, read(2) on the same fd may return an explanation, lines such as "e tmpfs: Bad value for
    'size'".
    """

def fsmount(fd: int, flags: int, attributes: int, /) -> int:
    """Make a detached mount with MOUNT_ATTR_* of a configured filesystem: fsmount(2), Linux 5.2."""

def mount(source: Path | None, target: Path, fstype: Path | None, flags: int, data: Path | None, /) -> None:
    """Mount with the call that old kernels have, too: mount(2)."""

def umount2(path: Path, flags: int, /) -> None:
    """Unmount: umount2(2). UMOUNT_NOFOLLOW for every path that others can change."""

def statmount(mnt_id: int, mask: int, bufsize: int, /) -> bytes:
    """Ask for one mount: statmount(2), Linux 6.8.

    Args:
        mnt_id: the unique id, from statx_mnt(fd, STATX_MNT_ID_UNIQUE).
        mask: STATMOUNT_*.
        bufsize: room in bytes for struct statmount and its strings; too little is EOVERFLOW.

    Returns:
        struct statmount with its strings, as long as the kernel says it is.
    """

# ---- files

def openat2(dfd: int, path: Path, flags: int, mode: int, resolve: int, /) -> int:
    """Open with rules for the path's resolution: openat2(2), Linux 5.6.

    EAGAIN: something was renamed meanwhile, try again.
    """

def fstatfs(fd: int, /) -> tuple[int, int]:
    """(f_type, f_flags) of the filesystem that holds an open file: fstatfs(2), also on O_PATH.

    Flags as ST_*.
    """

def statx_mnt(fd: int, mask: int = ..., /) -> tuple[int, bool]:
    """(mount id, whether the file is the root of that mount) of an open file: statx(2).

    Args:
        fd: any file descriptor, also O_PATH.
        mask: STATX_MNT_ID (the default; Linux 5.8, ids as in /proc/PID/mountinfo, reused after an unmount) or
            STATX_MNT_ID_UNIQUE (Linux 6.8). EOPNOTSUPP if the kernel does not have it.
    """

def close_range(first: int, last: int, flags: int, /) -> None:
    """Close all file descriptors from first to last, or mark them close-on-exec.

    close_range(2), Linux 5.9 (5.11).
    """

def fchownat(dfd: int, path: Path, uid: int, gid: int, flags: int, /) -> None:
    """Change the owner, also of an O_PATH fd with AT_EMPTY_PATH, which os.chown cannot: fchownat(2)."""

def signalfd(signals: Iterable[int], flags: int, /) -> int:
    """A file descriptor to read blocked signals from: signalfd(2).

    Flags: SFD_NONBLOCK (os.O_NONBLOCK) or 0.
    """

# ---- rights and attributes of the process

def prctl(option: int, arg2: int, arg3: int, arg4: int, arg5: int, /) -> int:
    """prctl(2) for the options whose arguments are numbers, such as PR_SET_NO_NEW_PRIVS."""

def capget(pid: int, /) -> tuple[int, int, int]:
    """(effective, permitted, inheritable) of a process, 0 for this one: capget(2), version 3."""

def prlimit(pid: int, number: int, limits: tuple[int, int] | None, /) -> tuple[int, int]:
    """Set the (soft, hard) limit of a process, 0 for this one, and return the previous one: prlimit(2).

    None sets nothing; 2**64 - 1 is no limit.
    """

def default_signal(number: int, /) -> None:
    """Set a signal to its default action: signal(2). The module _signal does not notice it."""

# ---- programs for the kernel

def seccomp(operation: int, flags: int, argument: bytes | None, /) -> int:
    """Install a filter, or ask what the kernel's filters can do: seccomp(2), Linux 3.17.

    Args:
        operation: SECCOMP_SET_MODE_FILTER, SECCOMP_GET_ACTION_AVAIL.
        flags: SECCOMP_FILTER_FLAG_*.
        argument: struct sock_filter[] for SECCOMP_SET_MODE_FILTER; for others the bytes pointed to; or None,
            which with SECCOMP_SET_MODE_FILTER is EFAULT if the kernel knows the flags and EINVAL if not.

    Returns:
        0, or with SECCOMP_FILTER_FLAG_NEW_LISTENER the notification fd (the kernel makes it close-on-exec).
    """

def bpf_prog_load(prog_type: int, insns: bytes, attach_type: int, /) -> int:
    """Load a program, struct bpf_insn[], with licence "GPL": bpf(2) BPF_PROG_LOAD."""

def bpf_prog_attach(target_fd: int, prog_fd: int, attach_type: int, flags: int, replace_fd: int, /) -> None:
    """Attach a program to a cgroup: bpf(2) BPF_PROG_ATTACH.

    replace_fd: the program to replace, with BPF_F_REPLACE (Linux 5.6); otherwise -1.
    """

def bpf_prog_detach(target_fd: int, prog_fd: int, attach_type: int, /) -> None:
    """Detach a program from a cgroup: bpf(2) BPF_PROG_DETACH."""

def bpf_prog_query(target_fd: int, attach_type: int, /) -> list[int]:
    """The ids of the programs attached to a cgroup, 64 at most: bpf(2) BPF_PROG_QUERY, Linux 4.15."""

def bpf_prog_get_fd_by_id(prog_id: int, /) -> int:
    """Open a loaded program by its id: bpf(2) BPF_PROG_GET_FD_BY_ID, Linux 4.13."""

def sha256(data: bytes | memoryview, /) -> str:
    """Return the SHA-256 of data in hexadecimal digits; no system call, and the same on every Python."""

def read_json(text: str, /) -> object:
    """Return the value of a JSON text; a ValueError if it is none, or is nested more than 200 levels deep."""

def quote_json(text: str, /) -> str:
    """Return a text as a JSON string in ASCII."""
