"""Call a shim as containerd does: `ctr` 1.6 has no command for some calls of a shim, such as Update.

ttrpc is a frame of ten bytes (length, stream, type, flags; big endian) before each message, and a request
names service and method and carries the payload. The few messages that are needed are put together here by
hand, by the field numbers of containerd's api/runtime/task/v2/shim.proto and of ttrpc's own.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_FRAME = struct.Struct(">IIBB")
_REQUEST, _RESPONSE = 1, 2
_SERVICE = "containerd.task.v2.Task"
_RESOURCES = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"
_SECONDS = 30.0


def update(address: str, container: str, resources: Mapping[str, object]) -> str:
    """Ask the shim at a socket to change a container's limits (`LinuxResources` of the runtime-spec).

    Returns:
        The error it answers with, or nothing.
    """
    value = json.dumps(resources).encode()
    message = _field(1, container.encode()) + _field(2, _field(1, _RESOURCES.encode()) + _field(2, value))
    return call(address, "Update", message)


def call(address: str, method: str, payload: bytes) -> str:
    """Call a method of a shim's task service; the error it answers with, or nothing."""
    request = _field(1, _SERVICE.encode()) + _field(2, method.encode()) + _field(3, payload)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_SECONDS)
        connection.connect(address)
        connection.sendall(_FRAME.pack(len(request), 1, _REQUEST, 0) + request)
        with connection.makefile("rb") as stream:
            length, _, kind, _ = _FRAME.unpack(stream.read(_FRAME.size))
            assert kind == _RESPONSE
            return _error(stream.read(length))


def _field(number: int, content: bytes) -> bytes:
    """A field of bytes, text or a message, as protocol buffers write it."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """A number in groups of seven bits, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _error(response: bytes) -> str:
    """The message of a response's status (its field 1), if there is one and it is not OK."""
    fields = _fields(response)
    return _fields(fields[1]).get(2, b"").decode() if 1 in fields else ""


def _fields(message: bytes) -> dict[int, bytes]:
    """The fields of bytes in a message; numbers are passed over."""
    found: dict[int, bytes] = {}
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        key = number()
        size = number()
        if key & 7 == 2:
            found[key >> 3] = message[at : at + size]
            at += size
    return found
