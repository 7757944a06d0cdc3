"""CRIU's messages as bytes, compared with examples from the description of the encoding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrunc.apply.criu import messages


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        # "Simple Message" and "Length-Delimited Records" of protobuf.dev's guide to the encoding, with our
        # fields.
        ({"type": 150}, "08 96 01"),
        ({"type": 1}, "08 01"),
        ({"type": 6, "notify_success": True}, "08 06 18 01"),
        ({"type": 6, "notify_success": False}, "08 06 18 00"),
        ({"type": 1, "opts": {}}, "08 01 12 00"),
        ({"type": 1, "opts": {"log_file": "testing"}}, "08 01 12 09 52 07 74 65 73 74 69 6e 67"),
        # A field number above 15 takes two bytes; -2 takes ten, as 64 bits of two's complement.
        ({"opts": {"status_fd": -2}}, "12 0c 88 03 fe ff ff ff ff ff ff ff ff 01"),
        ({"opts": {"external": ["a", "b"]}}, "12 08 aa 02 01 61 aa 02 01 62"),
        ({"opts": {"ext_mnt": [{"key": "a", "val": "b"}]}}, "12 09 ba 01 06 0a 01 61 12 01 62"),
        ({"opts": {"log_file": None, "external": []}}, "12 00"),
        ({"features": {"mem_track": True}}, "2a 02 08 01"),
    ],
)
def test_requests(message: dict[str, object], wire: str) -> None:
    assert messages.encode(message) == bytes.fromhex(wire)


def test_a_path_may_hold_any_byte() -> None:
    path = b"/a\xff".decode("utf-8", "surrogateescape")
    assert messages.encode({"opts": {"root": path}}) == b"\x12\x05\x6a\x03/a\xff"


def test_an_option_criu_does_not_have() -> None:
    with pytest.raises(KeyError):
        messages.encode({"opts": {"no_such": 1}})


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        ("08 01 10 01", {"type": 1, "success": 1}),
        ("08 02 10 01 22 03 08 d2 09", {"type": 2, "success": 1, "restore": {"pid": 1234}}),
        ("08 01 10 00 38 fe ff ff ff ff ff ff ff ff 01", {"type": 1, "success": 0, "cr_errno": -2}),
        ("08 06 2a 04 0a 02 68 69", {"type": 6, "notify": {"script": "hi"}}),
        # What is not known is passed over: number, bytes, 64 bits, 32 bits.
        ("08 01 98 06 01 a2 06 01 00 a9 06 00 00 00 00 00 00 00 00 ad 06 00 00 00 00", {"type": 1}),
        ("", {}),
    ],
)
def test_responses(wire: str, message: dict[str, object]) -> None:
    assert messages.decode(bytes.fromhex(wire)) == message


@pytest.mark.parametrize(
    "wire",
    [
        "08",  # no value
        "08 80",  # one that does not end
        "2a 05 00",  # fewer bytes than announced
        "0b",  # a group: not in this protocol
        "0a 00",  # bytes where a number belongs
        "08 ff ff ff ff ff ff ff ff ff ff 01",  # more than 64 bits
    ],
)
def test_what_is_no_message(wire: str) -> None:
    with pytest.raises(ValueError):
        messages.decode(bytes.fromhex(wire))


@given(st.binary(max_size=64))
def test_nothing_else_goes_wrong(wire: bytes) -> None:
    try:
        found = messages.decode(wire)
    except ValueError:
        return
    assert set(found) <= set(messages.RESPONSE)


@given(st.lists(st.tuples(st.integers(-(2**31), 2**31 - 1), st.text(max_size=300)), max_size=4))
def test_what_is_encoded_is_decoded(values: list[tuple[int, str]]) -> None:
    table: messages.Table = {"inner": (5, {"number": (3, None), "text": (20, str)})}
    for number, text in values:
        message = {"inner": {"number": number, "text": text}}
        assert messages.decode(messages.encode(message, table), table) == message
