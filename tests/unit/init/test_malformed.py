"""A buffer that is not a program ends the init program with status 2 before anything is done."""

from __future__ import annotations

import os
import struct

import pytest

from pyrunc.plan.program import NAMES, SIGNATURES, Program
from tests.support.init_machine import BUSYBOX, HELD, SOCKET, STEP, as_root, carry_out

pytestmark = as_root

HEADER, OPERATION = 24, 48
FIELDS = ("magic", "version", "flags", "operations", "slots", "strings")
HUGE = (0, 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)


def good(*, trace: bool = False) -> bytes:
    """Return a program that first sends a message, which shows that it is carried out."""
    made = Program()
    made.slot("other")
    made.add(STEP, "SEND", ord("R"))
    made.add(STEP, "NAME", made.text("name"))
    made.add(STEP, "WRITE", made.slot("other"), made.blob(b""))
    made.add(STEP, "FIND", made.list([BUSYBOX]))
    made.add(STEP, "EXEC", made.list(["true"]), made.list(["A=1", "B=2"]))
    return made.encode({"socket": SOCKET}, trace=trace)


def refused(data: bytes, **how: object) -> None:
    outcome = carry_out(data, **how)  # type: ignore[arg-type]
    assert (outcome.status, outcome.report, outcome.told, outcome.out) == (2, None, [], "")


def done(data: bytes) -> bool:
    """Tell whether a program was carried out."""
    return [told.kind for told in carry_out(data).told] == [b"R"]


def with_field(data: bytes, name: str, value: int) -> bytes:
    place = 4 * FIELDS.index(name)
    return data[:place] + struct.pack("=I", value) + data[place + 4 :]


def with_argument(data: bytes, operation: int, argument: int, value: int) -> bytes:
    place = HEADER + OPERATION * operation + 8 + 8 * argument
    return data[:place] + struct.pack("=Q", value) + data[place + 8 :]


@pytest.mark.parametrize("trace", [False, True])
def test_what_these_are_made_of_is_good(trace: bool) -> None:
    assert done(good(trace=trace)) or trace
    assert carry_out(good(trace=trace)).told[0].kind == b"R"


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("change", [*HUGE, -1, +1, 2, 8])
def test_every_field_of_the_header(name: str, change: int) -> None:
    """A count must agree with the size of the buffer, and only known flags are allowed."""
    data = good()
    own = struct.unpack_from("=I", data, 4 * FIELDS.index(name))[0]
    for value in {change & 0xFFFFFFFF, (own + change) & 0xFFFFFFFF} - {own}:
        changed = with_field(data, name, value)
        if name == "slots" and (value + 1) // 2 == (own + 1) // 2 and value > own:
            continue  # the padding of the slots becomes one
        if name == "strings" and own < value <= own + (-own % 8):
            continue  # the padding of the strings becomes a part of them
        refused(changed)


@pytest.mark.parametrize("slots", [(1 << 16) + 1, (1 << 16) + 2, 1 << 20])
def test_more_slots_than_there_may_be(slots: int) -> None:
    data = good()
    place = HEADER + OPERATION * 5
    padded = data[:place] + bytes(4 * (slots + slots % 2)) + data[place + 8 :]
    refused(with_field(padded, "slots", slots))


def test_no_strings() -> None:
    made = Program()
    made.add(STEP, "SEND", ord("R"))
    data = made.encode({"socket": SOCKET})
    refused(with_field(data[:-8], "strings", 0))


def test_strings_without_an_end() -> None:
    data = good()
    (strings,) = struct.unpack_from("=I", data, 20)
    start = len(data) - strings - (-strings % 8)
    last = start + strings - 1
    refused(data[:last] + b"x" + data[last + 1 :])


def test_too_short_and_too_long() -> None:
    for data in (good(), good(trace=True)):
        for size in {0, 1, 23, 24, 25, 64, len(data) - 8, len(data) - 1, *range(0, len(data), 37)}:
            refused(data[:size])
        for more in (1, 8, 4096):
            refused(data + bytes(more))


@pytest.mark.parametrize("code", [len(NAMES), len(NAMES) + 1, 255, 1 << 16, (1 << 32) - 1])
@pytest.mark.parametrize("operation", [0, 4])
def test_codes(code: int, operation: int) -> None:
    data = good()
    place = HEADER + OPERATION * operation
    refused(data[:place] + struct.pack("=I", code) + data[place + 4 :])


SIZE = struct.unpack_from("=I", good(), 20)[0]
WRONG = {
    "s": [SIZE, SIZE + 1, 1 << 32, (1 << 64) - 1],
    "i": [3, 64, 1 << 31, 1 << 32, 1 << 63, (1 << 64) - 1],
    "b": [SIZE + 1, 1 << 31, SIZE | 1 << 32, 1 | SIZE << 32, 0xFFFFFFFF << 32, (1 << 64) - 1],
    "l": [
        SIZE + 1,
        2 | 4 << 32,
        4 | 3 << 32,
        SIZE & ~3 | 8 << 32,
        0xFFFFFFFC,
        0xFFFFFFFC << 32 | 4,
        (1 << 64) - 1,
    ],
}
WRONG["o"] = WRONG["i"]


@pytest.mark.parametrize("name", [name for name in NAMES if SIGNATURES[name].strip("n")])
def test_every_argument_of_every_operation(name: str) -> None:
    """An argument out of its bounds in the last operation.

    Then even the first operation is not carried out.
    """
    made = Program()
    for slot in ("a", "b"):
        made.slot(slot)
    made.add(STEP, "SEND", ord("R"))
    made.add(STEP, name)
    made.text("z" * (SIZE - 3))
    data = made.encode({"socket": SOCKET})
    assert struct.unpack_from("=I", data, 20)[0] == SIZE - 1
    for place, kind in enumerate(SIGNATURES[name]):
        for value in WRONG.get(kind, ()):
            refused(with_argument(data, 1, place, value))


def test_an_offset_in_a_list() -> None:
    made = Program()
    made.add(STEP, "SEND", ord("R"))
    place = made.blob(struct.pack("=3I", 0, 0, 1 << 16))
    made.add(STEP, "FIND", place)
    refused(made.encode({"socket": SOCKET}))
    made = Program()
    made.add(STEP, "SEND", ord("R"))
    size = 8 + 4 + 1
    made.add(STEP, "FIND", made.blob(struct.pack("=I", size)))
    assert len(made.strings) == size
    refused(made.encode({"socket": SOCKET}))


WORDS: dict[str, list[str]] = {
    "nothing": [],
    "the name alone": ["x"],
    "three": ["x", str(HELD), "y"],
    "not a number": ["x", "program"],
    "an empty word": ["x", ""],
    "a number and more": ["x", f"{HELD}x"],
    "a sign": ["x", f"+{HELD}"],
    "negative": ["x", "-1"],
    "stdin": ["x", "0"],
    "not open": ["x", "999"],
    "beyond 32 bits": ["x", str((1 << 32) + HELD)],
    "very large": ["x", "9" * 1000],
    "the socket": ["x", str(SOCKET)],
    "a space": ["x", f" {HELD}"],
}


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_its_words(words: list[str]) -> None:
    refused(good(), arguments=lambda _held: words)


def test_a_directory_and_a_pipe_are_no_program() -> None:
    def open_them() -> None:
        os.dup2(os.open("/", os.O_RDONLY), 210)
        os.dup2(os.pipe()[0], 211)

    for word in ("210", "211"):
        refused(good(), arguments=lambda _held, word=word: ["x", word], before=open_them)


def test_no_operation() -> None:
    """A program without operations is valid, and does nothing."""
    outcome = carry_out(Program().encode({"socket": SOCKET}))
    assert (outcome.status, outcome.report, outcome.told) == (0, None, [])
