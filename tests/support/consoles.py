"""The receiving side of a console socket, and a terminal to call the command from."""

from __future__ import annotations

import array
import fcntl
import os
import pty
import select
import socket
import struct
import termios
import time
from pathlib import Path

from tests.support.containers import PATIENCE


class Receiver:
    """Listen on a socket as an engine does, and receive one terminal."""

    def __init__(self, path: Path) -> None:
        """Begin to listen."""
        self.path = path
        self.server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        back = os.open(".", os.O_PATH)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.chdir(path.parent)  # an address has at most 107 bytes, a path may be longer
        self.server.bind(path.name)
        os.fchdir(back)
        os.close(back)
        self.server.listen(128)
        self.server.settimeout(30)
        self.payload = b""
        self.fd = -1

    def take(self) -> int:
        """Accept the connection; return the descriptor that was sent."""
        connection, _ = self.server.accept()
        with connection:
            connection.settimeout(30)
            self.payload, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(16))
            fds = array.array("i")
            for level, kind, data in ancillary:
                assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
                fds.frombytes(data)
            assert len(fds) == 1
            self.fd = fds[0]
            assert connection.recv(1) == b""  # and nothing more
        return self.fd

    def close(self) -> None:
        """Close the socket."""
        self.server.close()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Screen:
    """A terminal the command is called from."""

    def __init__(self, rows: int = 24, columns: int = 80) -> None:
        """Open a pair."""
        self.master, self.slave = pty.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(self.slave)

    def resize(self, rows: int, columns: int) -> None:
        """Change the window."""
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def is_raw(self) -> bool:
        """Tell whether the terminal is in raw mode."""
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def restored(self) -> bool:
        """Tell whether the modes are the same as at the beginning."""
        return termios.tcgetattr(self.slave) == self.before

    def close(self) -> None:
        """Close both sides."""
        os.close(self.master)
        os.close(self.slave)


def read_until(fd: int, text: bytes, seconds: float = 30.0) -> bytes:
    """Read from a terminal until a text comes; return everything, the text included."""
    seen = b""
    end = time.monotonic() + seconds * PATIENCE
    while text not in seen:
        assert time.monotonic() < end, f"{text!r} did not come, only {seen!r}"
        if select.select([fd], [], [], 0.5)[0]:
            try:
                seen += os.read(fd, 4096)
            except OSError as exc:  # EIO: the other side is closed
                raise AssertionError(f"{text!r} did not come, only {seen!r}") from exc
    return seen
