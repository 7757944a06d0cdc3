"""A program as bytes: the header, operations, slots and strings, and room for times."""

from __future__ import annotations

import struct

import pytest

from pyrunc.plan import program, steps
from pyrunc.plan.program import NAMES, SIGNATURES, Operation, Program

STEP = steps.Step()
HEADER = struct.Struct("=6I")
OPERATION = struct.Struct("=II5Q")


def test_no_operation() -> None:
    assert Program().encode({"socket": 9}) == (
        HEADER.pack(0x7079696E, 1, 0, 0, 1, 1) + struct.pack("=2i", 9, -1) + bytes(8)
    )


def test_the_parts() -> None:
    made = Program()
    file = made.slot("file")
    made.add(STEP, "WRITE", file, made.blob(b"abc"), tag=5)
    made.add(STEP, "CWD", made.text("/x"))
    made.add(STEP, "SIGNALS")
    data = made.encode({"socket": 9, "file": 10, "other": 11})
    # The empty string, the blob at a place that is a multiple of eight with a NUL behind it, the string.
    strings = b"\0" + bytes(7) + b"abc\0" + b"/x\0"
    at = HEADER.size
    assert HEADER.unpack_from(data) == (0x7079696E, 1, 0, 3, 2, len(strings))
    rows = [OPERATION.unpack_from(data, at + number * OPERATION.size) for number in range(3)]
    assert rows == [
        (NAMES.index("WRITE"), 5, 1, 8 | 3 << 32, 0, 0, 0),
        (NAMES.index("CWD"), 0, 12, 0, 0, 0, 0),
        (NAMES.index("SIGNALS"), 0, 0, 0, 0, 0, 0),
    ]
    at += 3 * OPERATION.size
    assert struct.unpack_from("=2i", data, at) == (9, 10)
    assert data[at + 8 :] == strings + bytes(-len(strings) % 8)


@pytest.mark.parametrize(("slots", "encoded"), [(0, 2), (1, 2), (2, 4), (3, 4)])
def test_slots_come_in_pairs_and_are_empty_unless_given(slots: int, encoded: int) -> None:
    made = Program()
    for number in range(slots):
        assert made.slot(f"slot{number}") == number + 1
        assert made.slot(f"slot{number}") == number + 1, "there already"
    data = made.encode({"slot1": 4})
    values = struct.unpack_from(f"={encoded}i", data, HEADER.size)
    assert values == tuple(4 if number == 2 and slots > 1 else -1 for number in range(encoded))
    assert HEADER.unpack_from(data)[4] == slots + 1


def test_the_times_have_room_when_they_are_asked_for() -> None:
    made = Program()
    for _ in range(3):
        made.add(STEP, "SIGNALS")
    plain, traced = made.encode({}), made.encode({}, trace=True)
    assert HEADER.unpack_from(traced)[2] == 1
    assert len(traced) == len(plain) + 3 * 16
    assert traced[len(plain) :] == bytes(3 * 16)


def test_strings_are_kept_once() -> None:
    made = Program()
    assert made.text("") == 0
    first = made.text("a")
    assert (made.text("b"), made.text("a"), made.text(b"a")) == (first + 2, first, first)
    assert made.text("\udcff") == made.text(b"\xff"), "a name that is no UTF-8 is the kernel's bytes again"


@pytest.mark.parametrize("word", ["a\0b", b"\0", "\0"])
def test_a_string_with_a_nul_is_refused(word: str | bytes) -> None:
    with pytest.raises(ValueError, match="NUL"):
        Program().text(word)
    with pytest.raises(ValueError, match="NUL"):
        Program().list(["good", word])  # type: ignore[list-item]


def test_blobs_and_lists_are_aligned() -> None:
    made = Program()
    for size in range(1, 20):
        place = made.blob(bytes(size))
        assert place & 0xFFFFFFFF == place % (1 << 32)
        assert (place % 8, place >> 32) == (0, size)
    place = made.list(["a", "", "a"])
    offset, size = place & 0xFFFFFFFF, place >> 32
    assert (offset % 8, size) == (0, 12)
    words = struct.unpack_from("=3I", made.strings, offset)
    assert words[0] == words[2] == made.text("a")
    assert words[1] == 0


def test_slots_that_follow_each_other() -> None:
    made = Program()
    made.slot("before")
    assert (made.slots_of("batch", 3), made.slots_of("batch", 3)) == (2, 2)
    assert made.slots == ["socket", "before", "batch0", "batch1", "batch2"]


def kept(made: Program, number: int) -> set[int]:
    """Return the slots that KEEP leaves open in an encoded program; bits beyond the last slot must be 0."""
    data = made.encode({})
    blob = OPERATION.unpack_from(data, HEADER.size + number * OPERATION.size)[3]
    offset, size = blob & 0xFFFFFFFF, blob >> 32
    bits = int.from_bytes(made.strings[offset : offset + size], "little")
    return {slot for slot in range(len(made.slots)) if bits >> slot & 1}


@pytest.mark.parametrize("slots", [(), (0,), (0, 7), (8,), (0, 3, 300)])
def test_the_slots_that_stay(slots: tuple[int, ...]) -> None:
    made = Program()
    made.slots_of("many", 301)
    made.keep(STEP, 5, slots)
    assert made.operations[0].arguments[0] == 5
    assert kept(made, 0) == set(slots)


def test_all_slots_stay_those_too_that_are_made_later() -> None:
    made = Program()
    made.keep(STEP, 3)
    made.keep(STEP, 4, (0,))
    made.slots_of("many", 40)
    assert kept(made, 0) == set(range(41))
    assert kept(made, 1) == {0}
    assert [operation.arguments[0] for operation in made.operations] == [3, 4]
    assert made.encode({}) == made.encode({}), "a program may be encoded again"


def test_negative_numbers_are_the_kernel_s() -> None:
    made = Program()
    made.add(STEP, "PRCTL", -1, True)
    made.add(STEP, "UMASK", 5, tag=7)
    fields = [(each.name, each.arguments, each.step, each.tag) for each in made.operations]
    assert fields == [("PRCTL", ((1 << 64) - 1, 1), STEP, 0), ("UMASK", (5,), STEP, 7)]
    assert repr(Operation("CWD", (8,), STEP)) == "CWD(8,)"


def test_the_names_are_the_signatures() -> None:
    assert tuple(SIGNATURES) == NAMES == program.NAMES
    assert all(len(signature) <= 5 and set(signature) <= set("nsiobl") for signature in SIGNATURES.values())
