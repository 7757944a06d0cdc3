"""CRIU's messages: encode and decode the part of its protocol that a runtime needs.

Requests are dictionaries with the names of CRIU's own description (images/rpc.proto), so that a request can
be shown and tested as data (law 1). The field numbers are only in the tables here. Protocol buffers need no
library for this: a message is a row of (field number, value); a value is a number in base 128, or a length
and that many bytes.

Sources: CRIU 4.2 images/rpc.proto, https://protobuf.dev/programming-guides/encoding/. The fields exist since
CRIU 3.0 unless a remark gives another version.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Message = dict[str, Any]
    # name -> (number, None for a number or a truth value, str for text, a table for a message inside)
    Table = dict[str, tuple[int, Any]]

DUMP, RESTORE, CHECK, PRE_DUMP = 1, 2, 3, 4
NOTIFY, FEATURE_CHECK, VERSION = 6, 9, 10

TYPES = {
    DUMP: "DUMP",
    RESTORE: "RESTORE",
    CHECK: "CHECK",
    PRE_DUMP: "PRE_DUMP",
    NOTIFY: "NOTIFY",
    FEATURE_CHECK: "FEATURE_CHECK",
    VERSION: "VERSION",
}

_PAGE_SERVER: Table = {"address": (1, str), "port": (2, None)}

_OPTIONS: Table = {
    "images_dir_fd": (1, None),
    "pid": (2, None),
    "leave_running": (3, None),
    "ext_unix_sk": (4, None),
    "tcp_established": (5, None),
    "evasive_devices": (6, None),
    "shell_job": (7, None),
    "file_locks": (8, None),
    "log_level": (9, None),
    "log_file": (10, str),
    "ps": (11, _PAGE_SERVER),
    "notify_scripts": (12, None),
    "root": (13, str),
    "parent_img": (14, str),
    "track_mem": (15, None),
    "auto_dedup": (16, None),
    "work_dir_fd": (17, None),
    "link_remap": (18, None),
    "ext_mnt": (23, {"key": (1, str), "val": (2, str)}),
    "manage_cgroups": (24, None),
    "cg_root": (25, {"ctrl": (1, str), "path": (2, str)}),
    "rst_sibling": (26, None),
    "inherit_fd": (27, {"key": (1, str), "fd": (2, None)}),
    "manage_cgroups_mode": (34, None),
    "external": (37, str),
    "empty_ns": (38, None),
    "join_ns": (39, {"ns": (1, str), "ns_file": (2, str)}),
    "freeze_cgroup": (44, str),
    "tcp_skip_in_flight": (46, None),
    "lazy_pages": (48, None),
    "status_fd": (49, None),
    "orphan_pts_master": (50, None),
    "config_file": (51, str),
    "tcp_close": (52, None),
    "lsm_profile": (53, str),
    "lsm_mount_context": (63, str),  # CRIU 3.16
    "network_lock": (64, None),  # CRIU 3.16
}

_FEATURES: Table = {"mem_track": (1, None), "lazy_pages": (2, None)}

REQUEST: Table = {
    "type": (1, None),
    "opts": (2, _OPTIONS),
    "notify_success": (3, None),
    "features": (5, _FEATURES),
}

RESPONSE: Table = {
    "type": (1, None),
    "success": (2, None),
    "restore": (4, {"pid": (1, None)}),
    "notify": (5, {"script": (1, str), "pid": (2, None)}),
    "cr_errno": (7, None),
    "features": (8, _FEATURES),
    "cr_errmsg": (9, str),
    "version": (10, {"major_number": (1, None), "minor_number": (2, None), "sublevel": (4, None)}),
}

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def encode(message: Message, table: Table = REQUEST) -> bytes:
    """Return a message as CRIU reads it.

    Args:
        message: values by name. A list is a repeated field, None a field that is left out.
        table: the message's fields.

    Raises:
        KeyError: there is no such field.

    """
    wire = b""
    for name, value in message.items():
        number, kind = table[name]
        for one in value if isinstance(value, list) else [value]:
            if one is None:
                continue
            if kind is None:
                wire += _varint(number << 3 | _VARINT) + _varint(int(one))
                continue
            # Paths may hold any byte but NUL.
            data = one.encode("utf-8", "surrogateescape") if kind is str else encode(one, kind)
            wire += _varint(number << 3 | _BYTES) + _varint(len(data)) + data
    return wire


def decode(data: bytes, table: Table = RESPONSE) -> Message:
    """Return the fields of a message that are in a table; of a repeated one the last value.

    Raises:
        ValueError: the bytes are no message of this kind.

    """
    names = {number: (name, kind) for name, (number, kind) in table.items()}
    found: Message = {}
    for number, value in _fields(data):
        if number not in names:
            continue
        name, kind = names[number]
        if (kind is None) != isinstance(value, int):
            raise ValueError(f"field {name} is of another type")
        if isinstance(value, int):
            # int32 is sent as 64 bits in two's complement.
            found[name] = value - (1 << 64) if value >> 63 else value
        elif kind is str:
            found[name] = value.decode("utf-8", "replace")
        else:
            found[name] = decode(value, kind)
    return found


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    wire = bytearray()
    while value > 0x7F:
        wire.append(value & 0x7F | 0x80)
        value >>= 7
    wire.append(value)
    return bytes(wire)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        head, at = _read_varint(data, at)
        number, kind = head >> 3, head & 7
        if kind == _VARINT:
            value, at = _read_varint(data, at)
            yield number, value
            continue
        if kind == _BYTES:
            length, at = _read_varint(data, at)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind}")
        if at + length > len(data):
            raise ValueError("cut off")
        yield number, data[at : at + length]
        at += length


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("cut off")
        value |= (data[at] & 0x7F) << shift
        at += 1
        if not data[at - 1] & 0x80:
            return value & ((1 << 64) - 1), at
        shift += 7
