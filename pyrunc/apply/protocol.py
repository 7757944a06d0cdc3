"""The messages between parent and child, as a picture.

    parent                                   child (init of the container)
      | clone3 --------------------------------> |
      | id maps written ------- MAPPED --------> |  (only with a new user namespace)
      | <-- SOURCES, IDMAP: mounts/host_side.py -|  (any number of times, while mounting)
      | <--- TERMINAL + pty master, pidfds ----- |  (when there is a terminal)
      | <-------------------- HOOKS ------------ |  (tree stands; prestart, createRuntime run)
      | ---------------------- GO -------------> |
      | <--- NOTIFY + seccomp listener --------- |  (or its number, if the filter forbids sendmsg;
      | ---------------------- GO -------------> |   then the child keeps it open until it was fetched)
      | <-------------------- READY ------------ |  (only start is left)
      | state saved ----------- STORED --------> |
      |                 (create) START on exec.fifo, answers on report/exec.fifo; (run) START
      | <-------------------- end of file ------ |  execve succeeded
      | <--- FAILED + facts of a Failure ------- |  at any time
      | <--- LOG + a line (only with --debug) -- |  at any time
      | <--- TIMES of steps (only with --trace)- |  after many steps, before READY, at the end

`exec` is shorter: the init program joins the container, clones its process and says who that is.

    parent                                   init program, outside the pid namespace
      | spawn ----------------------------------> |
      | <--- CLONED + pidfd, pid --------------- |  (it ends; the process goes on with the same socket)
      | ---------------------- GO -------------> |
      | <--- TERMINAL, NOTIFY, TIMES as above -- |
      | <-------------------- READY ------------ |  (only if the parent is to set limits)
      | --------------------- START -----------> |
      | <-------------------- end of file ------ |  execve succeeded
      | <--- ENDED + operation, errno, detail -- |  at any time; it waits for the end of the socket

Law 5. A datagram is one kind byte and its payload; the child may be under a container's control after it
entered the container's namespaces, so the parent bounds what it reads and takes only descriptors it asked
for.
"""

from __future__ import annotations

import _socket
import os
import sys

from pyrunc import jsonio, log
from pyrunc.errors import Failure, failing, from_facts

MAPPED = b"M"
DUMPABLE = b"m"
SOURCES = b"B"
IDMAP = b"I"
COVERED = b"U"
COPY_UP = b"u"
MOUNTED = b"V"
TABLE = b"v"
LOCATED = b"L"
TERMINAL = b"T"
HOOKS = b"H"
GO = b"O"
NOTIFY = b"N"
READY = b"R"
STORED = b"S"
START = b"A"
FAILED = b"F"
LOG = b"D"
TIMES = b"W"
CLONED = b"C"
PROGRAM_TIMES = b"w"
PROC = b"P"
ENDED = b"X"

_LIMIT = 1 << 16


class Pipe:
    """A descriptor in place of a socket: init and `start` use a fifo."""

    def __init__(self, fd: int) -> None:
        """Keep the descriptor."""
        self._fd = fd

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)


def pair() -> tuple[_socket.socket, _socket.socket]:
    """Return the two ends, both close-on-exec. Datagrams stay separate, and a closed end is seen.

    Raises:
        Failure: they cannot be made.

    """
    kind = _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC
    with failing("make the socket to the container's init"):
        return _socket.socketpair(_socket.AF_UNIX, kind, 0)


def send(sock: _socket.socket | Pipe, kind: bytes, payload: bytes = b"", fd: int = -1) -> None:
    """Send one message, with a descriptor when fd is given.

    Raises:
        OSError: the other end is gone.

    """
    if fd >= 0 and not isinstance(sock, Pipe):
        passed = fd.to_bytes(4, sys.byteorder)
        sock.sendmsg(
            [kind + payload], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, passed)], _socket.MSG_NOSIGNAL
        )
    else:
        # write(2) and not send(2): a seccomp filter on the container's side has to allow write(2) anyway.
        os.write(sock.fileno(), kind + payload)


def send_fds(sock: _socket.socket, kind: bytes, fds: list[int]) -> None:
    """Send one message with up to 253 descriptors (unix(7)).

    Raises:
        OSError: the other end is gone.

    """
    passed = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
    ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, passed)] if fds else []
    sock.sendmsg([kind], ancillary, _socket.MSG_NOSIGNAL)


def receive_fds(sock: _socket.socket | Pipe) -> list[int]:
    """Return the descriptors of the next message; for the child, which can trust the parent.

    The child exits if the parent is gone.
    """
    if isinstance(sock, Pipe):
        return []
    data, ancillary, _flags, _address = sock.recvmsg(1, _socket.CMSG_SPACE(4 * 253), _socket.MSG_CMSG_CLOEXEC)
    if not data:
        os._exit(1)
    return [
        int.from_bytes(content[at : at + 4], sys.byteorder)
        for level, what, content in ancillary
        if level == _socket.SOL_SOCKET and what == _socket.SCM_RIGHTS
        for at in range(0, len(content) - 3, 4)
    ]


def read(sock: _socket.socket | Pipe) -> bytes:
    """Return the kind of the next message, b"" at the end of the socket.

    For the child: its seccomp filter need not allow recvmsg(2).

    Raises:
        OSError: the other end is gone.

    """
    return os.read(sock.fileno(), _LIMIT)[:1]


def receive(sock: _socket.socket) -> tuple[bytes, bytes, int]:
    """Return (kind, payload, descriptor or -1) of the next message, (b"", b"", -1) at the end.

    Raises:
        Failure: the message is the other end's report of one.

    """
    room = _socket.CMSG_SPACE(16)
    data, ancillary, _flags, _address = sock.recvmsg(_LIMIT, room, _socket.MSG_CMSG_CLOEXEC)
    while data[:1] == LOG:
        log.debug(data[1:].decode("utf-8", "replace"))
        data, ancillary, _flags, _address = sock.recvmsg(_LIMIT, room, _socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, what, content in ancillary:
        if level == _socket.SOL_SOCKET and what == _socket.SCM_RIGHTS:
            fds += [
                int.from_bytes(content[at : at + 4], sys.byteorder) for at in range(0, len(content) - 3, 4)
            ]
    for extra in fds[1:]:
        os.close(extra)
    kind, payload = data[:1], data[1:]
    if kind == FAILED:
        raise failure(payload)
    return kind, payload, fds[0] if fds else -1


def failure(payload: bytes) -> Failure:
    """Return the Failure for a FAILED message."""
    try:
        return from_facts(jsonio.loads(payload.decode("utf-8", "replace")))
    except ValueError:
        return from_facts(None)


def report(sock: _socket.socket | Pipe, problem: Failure) -> None:
    """Send a Failure; nothing is done if the parent is gone."""
    try:
        send(sock, FAILED, jsonio.dumps(problem.facts()).encode()[: _LIMIT - 1])
    except OSError:
        return
