"""Unix sockets of other programs: connect to one by a path of any length, send a descriptor.

Used for --console-socket, --pidfd-socket and NOTIFY_SOCKET. Law 5: the parent connects before it makes
anything, so after a wrong path nothing has to be undone. The child never sees these paths.
"""

from __future__ import annotations

import _socket
import os
import sys

from pyrunc.errors import Failure
from pyrunc.files import closing

# unix(7): sun_path has 108 bytes, one of them for the NUL at the end.
_LONGEST = 107


def connect(path: str, option: str) -> _socket.socket:
    """Connect to a listening unix stream socket.

    Args:
        path: of the socket; relative to the current directory.
        option: the option that gave it ("--console-socket"), for the message.

    Raises:
        Failure: with the path and the kernel's reason.

    """
    if not path:
        raise Failure(f"{option}: no path given")
    opened = -1
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        address = os.fsencode(path)
        if len(address) > _LONGEST:
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
            address = b"/proc/self/fd/%d" % opened
        sock.connect(address)
    except (OSError, ValueError) as exc:
        sock.close()
        hint = ""
        if isinstance(exc, ConnectionRefusedError):
            hint = "nothing listens there (a stream socket is expected)"
        raise Failure(f"{option}: connect to {path}", errno=getattr(exc, "errno", 0) or 0, hint=hint) from exc
    finally:
        if opened >= 0:
            os.close(opened)
    return sock


def bind(sock: _socket.socket, directory: str, name: str) -> None:
    """Bind a unix socket to a name in a directory, whose path may have any length.

    Raises:
        OSError: the kernel's answer.

    """
    with closing(os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as opened:
        sock.bind(b"/proc/self/fd/%d/%s" % (opened, os.fsencode(name)))


def send(sock: _socket.socket, payload: bytes, fd: int) -> None:
    """Send one message with one descriptor (unix(7), SCM_RIGHTS).

    Raises:
        OSError: the kernel's answer.

    """
    rights = fd.to_bytes(4, sys.byteorder)
    sock.sendmsg([payload], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])


def hand_over(sock: _socket.socket, option: str, payload: str, fd: int) -> None:
    """Send the one message that the receiver waits for, and close the socket.

    Args:
        sock: from connect().
        option: the option that gave the socket, for the message.
        payload: text beside the descriptor: the terminal's name for a console socket; "standard" (create,
            run) or "setns" (exec) for a pidfd socket, as runc has it.
        fd: the descriptor; it stays open here.

    Raises:
        Failure: the receiver has gone.

    """
    try:
        send(sock, payload.encode(), fd)
    except OSError as exc:
        raise Failure(f"{option}: send {payload}", errno=exc.errno or 0) from exc
    finally:
        sock.close()
