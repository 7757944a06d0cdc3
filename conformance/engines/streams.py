"""Talk to a CRI engine's streaming server, as kubectl exec, attach and port-forward do: by WebSockets.

The engine answers Exec, Attach and PortForward with an address. A WebSocket (RFC 6455) to it carries messages
whose first byte is the number of a channel; the protocol v4.channel.k8s.io defines these numbers.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
import time
import urllib.parse
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

# The channels of a command.
STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)

_PROTOCOL = "v4.channel.k8s.io"
_BINARY, _CLOSE = 2, 8
_SECONDS = 30.0


class Stream:
    """One connection, of a command or of forwarded ports; what has come so far is kept by channel."""

    def __init__(self, url: str) -> None:
        """Connect, and ask for a WebSocket."""
        where = urllib.parse.urlsplit(url)
        assert where.hostname
        assert where.port
        self.received: dict[int, bytes] = {}
        self.open = True
        self.connection = socket.create_connection((where.hostname, where.port), timeout=_SECONDS)
        self.reader = self.connection.makefile("rb")
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET {where.path}?{where.query} HTTP/1.1",
            f"Host: {where.netloc}",
            *("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
            *(f"Sec-WebSocket-Key: {key}", f"Sec-WebSocket-Protocol: {_PROTOCOL}", "", ""),
        ]
        self.connection.sendall("\r\n".join(lines).encode())
        answer = self.reader.readline()
        assert b" 101 " in answer, answer
        while self.reader.readline().strip():
            pass  # the headers say nothing that was not asked for

    def __enter__(self) -> Self:
        """Return the connection, which is closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.reader.close()
        self.connection.close()

    def send(self, channel: int, data: bytes | str) -> None:
        """Send a message on a channel."""
        payload = bytes([channel]) + (data.encode() if isinstance(data, str) else data)
        assert len(payload) < 126, "longer messages have another header, which no check needs"
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
        self.connection.sendall(bytes([0x80 | _BINARY, 0x80 | len(payload)]) + mask + masked)

    def resize(self, rows: int, columns: int) -> None:
        """Tell the size of the terminal."""
        self.send(RESIZE, json.dumps({"Width": columns, "Height": rows}))

    def text(self, channel: int) -> str:
        """All that has come on a channel."""
        return self.received.get(channel, b"").decode("utf-8", "replace")

    def until(self, channel: int, text: str) -> None:
        """Read until a channel has shown a text.

        Raises:
            AssertionError: it did not come; the message has what came instead.
        """
        end = time.monotonic() + _SECONDS
        while text not in self.text(channel):
            assert self.open, f"the stream ended without {text!r}: {self.received}"
            assert time.monotonic() < end, f"no {text!r} in {_SECONDS:g} s: {self.received}"
            self._receive()

    def rest(self) -> None:
        """Read until the other side ends the stream."""
        while self.open:
            self._receive()

    def exit_status(self) -> int:
        """Read to the end; the exit status of the command, from the last message of the error channel."""
        self.rest()
        status = json.loads(self.text(ERROR))
        if status["status"] == "Success":
            return 0
        (cause,) = [item for item in status["details"]["causes"] if item["reason"] == "ExitCode"]
        return int(cause["message"])

    def _receive(self) -> None:
        """Take one frame."""
        head = self.reader.read(2)
        if len(head) < 2:
            self.open = False
            return
        size = head[1] & 0x7F
        if size >= 126:
            form = ">H" if size == 126 else ">Q"
            (size,) = struct.unpack(form, self.reader.read(struct.calcsize(form)))
        data = self.reader.read(size)
        if head[0] & 0xF == _CLOSE:
            self.open = False
        elif data:
            self.received[data[0]] = self.received.get(data[0], b"") + data[1:]
