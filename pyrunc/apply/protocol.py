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
      | <--- ENDED + operation, errno, detail -- |  at any time; it waits for the end of the socket
      | <--- TIMES (only with --trace) --------- |  after many operations, before READY, at the end

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
for. FAILED is what Python says to Python: a worker (api/worker.py) to its caller.
"""

from __future__ import annotations

import _socket
import os
import sys

from pyrunc import jsonio
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
CLONED = b"C"
TIMES = b"w"
PROC = b"P"
ENDED = b"X"

_LIMIT = 1 << 16


def pair() -> tuple[_socket.socket, _socket.socket]:
    """Return the two ends, both close-on-exec. Datagrams stay separate, and a closed end is seen.

    Raises:
        Failure: they cannot be made.

    """
    kind = _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC
    with failing("make the socket to the container's init"):
        return _socket.socketpair(_socket.AF_UNIX, kind, 0)


def send(sock: _socket.socket, kind: bytes, payload: bytes = b"", fds: list[int] | None = None) -> None:
    """Send one message, with up to 253 descriptors (unix(7)).

    Raises:
        OSError: the other end is gone.

    """
    ancillary = []
    if fds:
        passed = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
        ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, passed)]
    sock.sendmsg([kind + payload], ancillary, _socket.MSG_NOSIGNAL)


def receive(sock: _socket.socket) -> tuple[bytes, bytes, int]:
    """Return (kind, payload, descriptor or -1) of the next message, (b"", b"", -1) at the end.

    Raises:
        Failure: the message is the other end's report of one.

    """
    room = _socket.CMSG_SPACE(16)
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


def report(sock: _socket.socket, problem: Failure) -> None:
    """Send a Failure; nothing is done if the parent is gone."""
    try:
        send(sock, FAILED, jsonio.dumps(problem.facts()).encode()[: _LIMIT - 1])
    except OSError:
        return
