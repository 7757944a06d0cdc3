"""Seccomp filters: the parent takes them from the cache or compiles them, init loads them.

Law 5: init gets bytes and flags, and makes one system call with them. Law 2: if the filter is in the
cache, this takes microseconds and libseccomp is not loaded.

What a filter must allow, because init does it after it is loaded: write(2), to tell its parent about the
listener or an error, execve(2), and all operations that follow. With noNewPrivileges the filter is therefore
loaded last. Without it the kernel requires CAP_SYS_ADMIN, so it is loaded before the capabilities are
dropped; then the profile must also allow capset, prctl, setresuid, setgroups and so on, as with runc.
"""

from __future__ import annotations

import _socket
import os
import sys
from _stat import S_ISREG
from errno import EACCES, EBUSY, EFAULT, EINVAL

from pyrunc import jsonio
from pyrunc.errors import Failure
from pyrunc.files import closing
from pyrunc.linux import _linux
from pyrunc.linux.flags import SECCOMP_FILTER_FLAG_NEW_LISTENER, SECCOMP_SET_MODE_FILTER
from pyrunc.plan.record import Record
from pyrunc.plan.seccomp import FLAGS, Filter

# Part of the key: increase it when another filter would be compiled from the same section.
_FORMAT = "pyrunc seccomp 2"
# An entry has some 10 kB, in a tmpfs. An engine that makes a profile for each container must not fill it.
_MOST_ENTRIES = 128
# seconds that an agent may take to accept its descriptor
_AGENT_PATIENCE = 10.0
_OTHERS = 0o077
# What the kernel's error number means when a filter is loaded.
HINTS = {
    EACCES: "without noNewPrivileges the process needs CAP_SYS_ADMIN",
    EBUSY: "another filter of this process has a listener already, and there can be only one",
    EINVAL: "a flag may be newer than this kernel: see `features`, linux.seccomp.supportedFlags",
}


class Program(Record):
    """A filter ready for seccomp(2).

    bpf is an array of struct sock_filter, flags the call's flags, unknown the names that libseccomp did not
    know, pointer the section's place in config.json, sendmsg and clock whether the filter always lets
    sendmsg(2) and clock_gettime(2) through, cached whether it came from the cache.
    """

    bpf: bytes
    flags: int
    unknown: tuple[str, ...]
    pointer: str
    sendmsg: bool
    clock: bool
    cached: bool


def cache_dir(root: str) -> str:
    """Return the directory of a state root for compiled filters: no container id can have an @."""
    return root + "/@cache/seccomp"


def compile(lowered: Filter, directory: str) -> Program:  # noqa: A001 - it is what it does
    """Return the program for a filter: from the cache if it is there and intact, else compiled.

    Args:
        lowered: what plan.seccomp.lower returned.
        directory: the cache, see cache_dir(); made if missing. It is not used if other users can write to it.

    Raises:
        Failure: the filter cannot be compiled (see apply/seccomp/compiler.py).

    """
    key = _key(lowered)
    cache = _open_cache(directory)
    try:
        found = _read(cache, key) if cache >= 0 else None
        if found is not None:
            bpf, unknown = found
        else:
            from pyrunc.apply.seccomp import compiler

            bpf, unknown = compiler.build(lowered)
            if cache >= 0:
                _write(cache, key, bpf, unknown)
    finally:
        if cache >= 0:
            os.close(cache)
    if unknown and lowered.strict:
        raise Failure(
            f"unknown system calls: {', '.join(unknown)}",
            pointer=lowered.pointer,
            hint="the annotation run.oci.seccomp_fail_unknown_syscall is set; without it they are left out",
        )
    return Program(
        bpf=bpf,
        flags=lowered.flags,
        unknown=tuple(unknown),
        pointer=lowered.pointer,
        sendmsg=lowered.always_allows("sendmsg"),
        clock=lowered.always_allows("clock_gettime"),
        cached=found is not None,
    )


def fetch_listener(pidfd: int, number: bytes) -> int:
    """Return a descriptor of a listener that the child could not send.

    Args:
        pidfd: the child.
        number: the number of its descriptor in decimal digits, as sent by the child.

    Raises:
        Failure: it has no such descriptor.

    """
    if not (0 < len(number) < 8 and number.isdigit()):
        raise Failure("the container's side sent a malformed seccomp listener")
    try:
        return _linux.pidfd_getfd(pidfd, int(number))
    except OSError as exc:
        raise Failure("fetch the seccomp listener from the container's side", errno=exc.errno or 0) from exc


def check_listener(fd: int) -> None:
    """Check that a descriptor from the child is a listener: the child may be under the container's control.

    Raises:
        Failure: it is none.

    """
    kind = os.readlink(f"/proc/self/fd/{fd}")
    if kind != "anon_inode:seccomp notify":
        raise Failure(f"the container's side sent {kind} in place of a seccomp listener")


def send_notify_fd(path: str, fd: int, state: dict[str, object]) -> None:
    """Send a listener to the seccomp agent: one connection, one message, one descriptor.

    Args:
        path: listenerPath, a SOCK_STREAM socket of the host.
        fd: the listener; it stays open here.
        state: the container process state (plan.seccomp.process_state).

    Raises:
        Failure: no process listens, or the agent does not take the message within ten seconds.

    """
    place = "/linux/seccomp/listenerPath"
    text = f"failed to connect with seccomp agent at {path}"
    channel = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        channel.settimeout(_AGENT_PATIENCE)
        channel.connect(path)
        text = f"failed to send the seccomp listener to the agent at {path}"
        payload = jsonio.dumps(state).encode()
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fd.to_bytes(4, sys.byteorder))
        sent = channel.sendmsg([payload], [rights])
        # An agent that has received all may have closed the connection; sendall sends nothing, too: EPIPE.
        if sent < len(payload):
            channel.sendall(payload[sent:])
    except TimeoutError as exc:
        raise Failure(f"{text}: it does not read", pointer=place) from exc
    except OSError as exc:
        # For a path longer than the kernel's 107 bytes Python raises an error without an errno.
        message = text if exc.errno else f"{text}: {exc}"
        raise Failure(message, pointer=place, errno=exc.errno or 0) from exc
    finally:
        channel.close()


def supported_flags() -> list[str]:
    """Return the words of linux.seccomp.flags that this kernel knows.

    seccomp(2) checks the flags before the program. With a program at address 0 it returns EFAULT if the flags
    are valid and EINVAL if not, and loads nothing.
    """
    found = []
    for word, bit in FLAGS.items():
        try:
            # Some flags are valid only together with a listener.
            _linux.seccomp(SECCOMP_SET_MODE_FILTER, bit | SECCOMP_FILTER_FLAG_NEW_LISTENER, None)
        except OSError as exc:
            if exc.errno == EFAULT:
                found.append(word)
    return found


def _key(lowered: Filter) -> str:
    system = os.uname()
    text = (_FORMAT, system.machine, system.release, sys.maxsize, lowered.text())
    return _linux.sha256(repr(text).encode("utf-8", "surrogatepass"))


def _open_cache(directory: str) -> int:
    """Return a descriptor of the cache directory, -1 if it cannot be made or others can write to it."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(directory, flags)
    except FileNotFoundError:
        fd = _make_cache(directory, flags)
    except OSError:
        fd = -1
    if fd < 0:
        return -1
    found = os.fstat(fd)
    if found.st_uid == os.geteuid() and not found.st_mode & _OTHERS:
        return fd
    os.close(fd)
    return -1


def _make_cache(directory: str, flags: int) -> int:
    parent = os.path.dirname(directory)
    try:
        for path in (os.path.dirname(parent), parent, directory):
            # os.makedirs uses the umask for the parents.
            try:
                os.mkdir(path, 0o700)
            except FileExistsError:
                pass
        return os.open(directory, flags)
    except OSError:
        return -1


def _read(cache: int, key: str) -> tuple[bytes, list[str]] | None:
    """Return an entry's program and unknown names, None unless it is complete as _write() makes it."""
    try:
        fd = os.open(key, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=cache)
    except OSError:
        return None
    with closing(fd):
        found = os.fstat(fd)
        if not S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & _OTHERS:
            return None
        content = os.read(fd, found.st_size)
    checksum, _, body = content.partition(b"\n")
    if checksum.decode("latin-1") != _checksum(key, body):
        return None
    facts, library, unknown, bpf = body.split(b"\n", 3)
    if facts != _library_facts(library):
        return None
    return bpf, unknown.decode().split()


def _write(cache: int, key: str, bpf: bytes, unknown: list[str]) -> None:
    """Add an entry. If the cache cannot be written, only time is lost, so that is no Failure."""
    library = _library_path()
    body = b"\n".join((_library_facts(library), library, " ".join(unknown).encode(), bpf))
    temporary = f"{key}.{os.getpid()}"
    try:
        how = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with closing(os.open(temporary, how, 0o600, dir_fd=cache)) as fd:
            os.write(fd, _checksum(key, body).encode() + b"\n" + body)
        os.rename(temporary, key, src_dir_fd=cache, dst_dir_fd=cache)
        _prune(cache)
    except OSError:
        pass


def _prune(cache: int) -> None:
    """Remove the oldest entries beyond _MOST_ENTRIES, and files left by a killed writer."""
    names = os.listdir(cache)
    entries = [(os.stat(name, dir_fd=cache, follow_symlinks=False).st_mtime_ns, name) for name in names]
    for _time, name in sorted(entries, reverse=True)[_MOST_ENTRIES:]:
        os.unlink(name, dir_fd=cache)


def _checksum(key: str, body: bytes) -> str:
    # With the key: an entry under another name is as wrong as an incomplete one.
    return _linux.sha256(key.encode() + body)


def _library_path() -> bytes:
    """Return the path of the libseccomp that this process has mapped, b"" if none."""
    with open("/proc/self/maps", "rb") as maps:
        for line in maps:
            if b"/libseccomp.so" in line:
                return line.split(None, 5)[5].rstrip(b"\n")
    return b""


def _library_facts(path: bytes) -> bytes:
    """Return what changes when another libseccomp is installed; this costs one stat(2)."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return b"no library"
    return b"%d %d %d %d" % (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
