"""The same filter with fewer instructions: neighbouring numbers with one answer become a range.

Linux runs a new filter once for each system call number to find those that it always allows, and translates
it to machine code. So loading the 1260 instructions that libseccomp makes of Docker's profile takes half a
millisecond, and loading 430 less than half of that. Law 1: pure; slow path, only used when a filter is
compiled.

For each architecture the program is followed with all numbers at once, which every comparison divides, until
it answers or looks at an argument. Neighbouring numbers with equal outcomes are joined to ranges, which the
new program finds by bisection. The instructions that look at arguments are copied unchanged. The new program
is then followed in the same way and must have the same outcomes. If not, or if the old one has an unknown
instruction, the old one is kept.
"""

from __future__ import annotations

from _struct import iter_unpack, pack

from pyrunc.plan.seccomp_stub import INSTRUCTION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Instruction: TypeAlias = tuple[int, int, int, int]  # code, skip if true, skip if false, constant
    # (-1, answer) if it is certain; (place, 0) where the program begins to look at arguments
    Outcome: TypeAlias = tuple[int, int]
    Stretch: TypeAlias = tuple[int, Outcome]  # first number, outcome from there on

_LOAD, _JUMP, _RETURN = 0x20, 0x05, 0x06
_IF_EQUAL, _IF_ABOVE, _IF_NOT_BELOW, _IF_BIT = 0x15, 0x25, 0x35, 0x45
_TESTS = (_IF_EQUAL, _IF_ABOVE, _IF_NOT_BELOW, _IF_BIT)
_NUMBER, _ARCHITECTURE = 0, 4  # offsets in struct seccomp_data
_END = 1 << 32
_STRANGER = 0  # no architecture has this token
_FAR = 255  # the distance of a conditional jump has eight bits


class _UnknownError(Exception):
    """The program has an instruction that this module does not know."""


def shrink(program: bytes) -> bytes:
    """Return a program that gives the same answers, the given one if no shorter one is found."""
    code = list(iter_unpack(INSTRUCTION, program))
    try:
        made = _rebuild(code)
    except _UnknownError:
        return program
    return b"".join(pack(INSTRUCTION, *each) for each in made) if len(made) < len(code) else program


def _rebuild(code: list[Instruction]) -> list[Instruction]:
    seen: list[int] = []
    otherwise = _stretches(code, _STRANGER, seen)
    if len(otherwise) > 1:
        raise _UnknownError
    blocks = [(token, _stretches(code, token)) for token in dict.fromkeys(seen)]
    blocks = [(token, stretches) for token, stretches in blocks if stretches != otherwise]
    every = [*blocks, (_STRANGER, otherwise)]
    entries = {place for _token, stretches in every for _first, (place, _answer) in stretches}
    tail = _reachable(code, entries - {-1})
    made = _assemble(blocks, otherwise, code, tail)
    moved = {old: len(made) - len(tail) + new for new, old in enumerate(tail)}
    for token, stretches in every:
        if _stretches(made, token) != [
            (first, (moved.get(place, -1), answer)) for first, (place, answer) in stretches
        ]:
            raise _UnknownError
    return made


def _stretches(code: list[Instruction], architecture: int, seen: list[int] | None = None) -> list[Stretch]:
    """Follow a program with all system call numbers at once.

    Args:
        code: the program.
        architecture: the architecture that it finds.
        seen: is extended by the architectures that it compares with.

    Returns:
        First number and outcome of each range of equal outcomes, from number 0 on.

    """
    found: list[Stretch] = []
    # place, what the accumulator has, first number, end of the numbers
    todo: list[tuple[int, int, int, int]] = [(0, -1, 0, _END)]
    while todo:
        index, has, first, end = todo.pop()
        kind, yes, no, constant = code[index]
        if kind == _LOAD and constant in (_NUMBER, _ARCHITECTURE):
            todo.append((index + 1, constant, first, end))
        elif kind == _LOAD:
            found.append((first, (index, 0)))
        elif kind == _RETURN:
            found.append((first, (-1, constant)))
        elif kind == _JUMP:
            todo.append((index + 1 + constant, has, first, end))
        elif kind not in _TESTS:
            raise _UnknownError
        elif has == _NUMBER:
            for start, stop, taken in _divide(kind, constant, first, end):
                todo.append((index + 1 + (yes if taken else no), has, start, stop))
        else:
            if kind != _IF_EQUAL or has != _ARCHITECTURE:
                raise _UnknownError
            if seen is not None:
                seen.append(constant)
            todo.append((index + 1 + (yes if architecture == constant else no), has, first, end))
    joined: list[Stretch] = []
    before: Outcome | None = None
    for number, outcome in sorted(found):
        if outcome != before:
            joined.append((number, outcome))
        before = outcome
    return joined


def _divide(kind: int, constant: int, first: int, end: int) -> list[tuple[int, int, bool]]:
    """Divide the numbers from first to before end by a comparison: the parts, and its result for each."""
    if kind == _IF_EQUAL:
        parts = [(0, constant, False), (constant, constant + 1, True), (constant + 1, _END, False)]
    elif kind == _IF_BIT:
        if constant not in (1 << 30, 1 << 31):  # a lower bit changes too often to make ranges
            raise _UnknownError
        parts = [(at, at + constant, bool(at & constant)) for at in range(0, _END, constant)]
    else:
        border = constant + (kind == _IF_ABOVE)
        parts = [(0, border, False), (border, _END, True)]
    cut = [(max(start, first), min(stop, end), taken) for start, stop, taken in parts]
    return [(start, stop, taken) for start, stop, taken in cut if start < stop]


def _reachable(code: list[Instruction], entries: set[int]) -> list[int]:
    """Return the places, in order, that can be reached from those that look at arguments."""
    found: set[int] = set()
    todo = list(entries)
    while todo:
        index = todo.pop()
        if index in found:
            continue
        found.add(index)
        kind, yes, no, constant = code[index]
        if kind == _RETURN:
            continue
        if kind == _JUMP:
            todo.append(index + 1 + constant)
        elif kind in _TESTS:
            todo += [index + 1 + yes, index + 1 + no]
        else:
            todo.append(index + 1)
    return sorted(found)


def _assemble(
    blocks: list[tuple[int, list[Stretch]]],
    otherwise: list[Stretch],
    code: list[Instruction],
    tail: list[int],
) -> list[Instruction]:
    """Return: which architecture, for each a bisection over its stretches, then the looks at arguments.

    Jumps to the tail first have the place in the old program for a distance, marked by a second member of 1.
    """
    made: list[Instruction] = [(_LOAD, 0, 0, _ARCHITECTURE)]
    for architecture, stretches in blocks:
        body = [(_LOAD, 0, 0, _NUMBER), *_bisect(stretches)]
        if len(body) > _FAR:
            made += [(_IF_EQUAL, 1, 0, architecture), (_JUMP, 0, 0, len(body)), *body]
        else:
            made += [(_IF_EQUAL, 0, len(body), architecture), *body]
    ((_first, outcome),) = otherwise
    made.append(_leaf(outcome))
    start = len(made)
    place = {old: start + new for new, old in enumerate(tail)}
    made = [
        (_JUMP, 0, 0, place[constant] - index - 1) if kind == _JUMP and yes else (kind, yes, no, constant)
        for index, (kind, yes, no, constant) in enumerate(made)
    ]
    for old in tail:
        kind, yes, no, constant = code[old]
        # Without some instructions distances are shorter, never longer.
        if kind == _JUMP:
            constant = place[old + 1 + constant] - place[old] - 1
        elif kind in _TESTS:
            yes, no = place[old + 1 + yes] - place[old] - 1, place[old + 1 + no] - place[old] - 1
        made.append((kind, yes, no, constant))
    return made


def _bisect(stretches: list[Stretch]) -> list[Instruction]:
    middle = len(stretches) // 2
    border, outcome = stretches[middle]
    if not middle:
        return [_leaf(outcome)]
    low, high = _bisect(stretches[:middle]), _bisect(stretches[middle:])
    if len(low) > _FAR:
        return [(_IF_NOT_BELOW, 0, 1, border), (_JUMP, 0, 0, len(low)), *low, *high]
    return [(_IF_NOT_BELOW, len(low), 0, border), *low, *high]


def _leaf(outcome: Outcome) -> Instruction:
    place, answer = outcome
    return (_RETURN, 0, 0, answer) if place < 0 else (_JUMP, 1, 0, place)
