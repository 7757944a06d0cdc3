"""A shrunk filter answers as the long one did; code that is not understood is not changed."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrunc.plan import seccomp_shrink
from pyrunc.plan.seccomp_shrink import shrink
from tests.support.bpf import run

LOAD, JUMP, RETURN, AND = 0x20, 0x05, 0x06, 0x54
EQUAL, ABOVE, NOT_BELOW, BIT = 0x15, 0x25, 0x35, 0x45
ARCHITECTURE, NUMBER, ARGUMENT = (LOAD, 0, 0, 4), (LOAD, 0, 0, 0), (LOAD, 0, 0, 16)
ALLOW, KILL, ERRNO = 0x7FFF0000, 0, 0x00050001
X86_64, I386, OTHER = 0xC000003E, 0x40000003, 0xC00000B7


def assemble(*code: tuple[int, int, int, int]) -> bytes:
    return b"".join(struct.pack("=HBBI", *each) for each in code)


def answer(value: int) -> tuple[int, int, int, int]:
    return (RETURN, 0, 0, value)


def chain(allowed: list[int], otherwise: int = ERRNO) -> bytes:
    """Return a filter for x86_64 that compares with one number after another."""
    tests = [part for number in allowed for part in ((EQUAL, 0, 1, number), answer(ALLOW))]
    body = [NUMBER, *tests, answer(otherwise)]
    return assemble(ARCHITECTURE, (EQUAL, 1, 0, X86_64), answer(KILL), *body)


def same(old: bytes, new: bytes, numbers: list[int], arguments: list[int]) -> None:
    for architecture in (X86_64, I386, OTHER, 0, 1):
        for number in numbers:
            for argument in arguments:
                args = (argument, 0, 0, 0, 0, 0)
                assert run(new, architecture, number, args) == run(old, architecture, number, args)


EDGES = [0, 1, 2**30 - 1, 2**30, 2**30 + 1, 2**31 - 1, 2**31, 3 * 2**30, 2**32 - 1]


def test_neighbours_become_a_range() -> None:
    old = chain(list(range(100)))
    new = shrink(old)
    assert len(new) // 8 <= 8
    same(old, new, [*range(120), *EDGES], [0])


def test_a_program_that_is_short_already_is_kept() -> None:
    old = assemble(answer(ALLOW))
    assert shrink(old) == old


@given(st.lists(st.integers(0, 600), unique=True, max_size=60), st.sampled_from([ERRNO, KILL]))
def test_any_chain_keeps_its_answers(allowed: list[int], otherwise: int) -> None:
    old = chain(allowed, otherwise)
    new = shrink(old)
    assert len(new) <= len(old)
    same(old, new, [*range(0, 620, 7), *allowed, *[each + 1 for each in allowed], *EDGES], [0])


def test_looks_at_arguments_are_copied() -> None:
    """Numbers 5 to 8 are allowed if the first argument, masked, is 4.

    For 6 the filter takes another way to that test.
    """
    old = assemble(
        ARCHITECTURE,
        (EQUAL, 1, 0, X86_64),
        answer(KILL),
        NUMBER,
        *[part for number in range(300, 310) for part in ((EQUAL, 0, 1, number), answer(ALLOW))],
        (EQUAL, 3, 0, 6),
        (NOT_BELOW, 0, 1, 5),
        (ABOVE, 0, 3, 8),
        answer(ERRNO),
        (JUMP, 0, 0, 2),
        answer(KILL),
        ARGUMENT,
        ARGUMENT,
        (AND, 0, 0, 6),
        (JUMP, 0, 0, 1),
        answer(KILL),
        (EQUAL, 0, 1, 4),
        answer(ALLOW),
        answer(ERRNO),
    )
    new = shrink(old)
    assert len(new) < len(old)
    same(old, new, [*range(12), 299, 300, 301, 309, 310, *EDGES], [0, 1, 2, 4, 5, 6, 7, 12])
    assert run(new, X86_64, 6, (5, 0, 0, 0, 0, 0)) == ALLOW
    assert run(new, X86_64, 6, (6, 0, 0, 0, 0, 0)) == ERRNO


def test_the_bit_of_x32_divides_the_numbers() -> None:
    tests = [part for number in range(20) for part in ((EQUAL, 0, 1, number), answer(ALLOW))]
    old = assemble(
        ARCHITECTURE,
        (EQUAL, 1, 0, X86_64),
        answer(KILL),
        NUMBER,
        (BIT, 0, 1, 1 << 30),
        answer(KILL),
        *tests,
        answer(ERRNO),
    )
    new = shrink(old)
    assert len(new) < len(old)
    same(old, new, [*range(25), *EDGES], [0])


def test_many_stretches_take_long_jumps() -> None:
    old = chain([number for number in range(3000) if number % 16 < 8])
    new = shrink(old)
    assert len(new) < len(old)
    same(old, new, [*range(0, 3010, 3), *EDGES], [0])
    assert any(code == JUMP for code, *_rest in struct.iter_unpack("=HBBI", new))


def test_long_ways_over_arguments_stay_whole() -> None:
    """Three jumps lead to one test of an argument, two of them over instructions that are removed."""
    dead = [answer(KILL)] * 3
    tests = [part for number in range(30) for part in ((EQUAL, 0, 1, 100 + number), answer(ALLOW))]
    old = assemble(
        ARCHITECTURE, (EQUAL, 1, 0, X86_64), answer(KILL), NUMBER, *tests,
        (EQUAL, 0, 1, 7), (JUMP, 0, 0, 3 + 1), (JUMP, 0, 0, 3), *dead,
        ARGUMENT, (ABOVE, 0, 2, 9), answer(ALLOW), answer(KILL), answer(ERRNO),
    )  # fmt: skip
    new = shrink(old)
    assert len(new) < len(old)
    same(old, new, [0, 6, 7, 8, 99, 100, 129, 130, *EDGES], [0, 9, 10, 2**32 - 1])


UNKNOWN = {
    "a call of another kind": [(0x87, 0, 0, 0)],
    "a test before anything is loaded": [(EQUAL, 0, 0, 5), ARCHITECTURE],
    "an architecture compared by size": [ARCHITECTURE, (ABOVE, 0, 0, 5)],
    "a bit that changes often": [NUMBER, (BIT, 0, 1, 4), answer(KILL)],
    "a stranger who gets several answers": [NUMBER, (EQUAL, 0, 1, 4), answer(KILL)],
}


@pytest.mark.parametrize("start", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_what_is_not_understood_is_left_alone(start: list[tuple[int, int, int, int]]) -> None:
    old = assemble(*start, answer(ALLOW), answer(ALLOW), answer(ALLOW), answer(ALLOW))
    assert shrink(old) == old


def test_a_wrong_result_is_thrown_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The new program is compared with the old one. If they differ, the old one is kept."""
    old = chain([*range(50), 70])
    monkeypatch.setattr(seccomp_shrink, "_bisect", lambda _stretches: [answer(ALLOW)])
    assert shrink(old) == old
