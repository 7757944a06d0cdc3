"""plan/cgroup_devices: rules as exceptions of version 1 and as a program, compared with a simple model."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pyrunc.errors import Failure
from pyrunc.plan import cgroup_devices as cd
from pyrunc.plan.cgroup_plan import DEFAULT_DEVICES

ALL = cd.READ | cd.WRITE | cd.MKNOD


def rule(words: str, *, allow: bool) -> dict[str, Any]:
    """Return a configuration's rule for "c 1:3 rw", "a" or "a rwm"."""
    kind, *rest = words.split()
    made: dict[str, Any] = {"allow": allow, "type": kind, "access": rest[-1] if rest else "rwm"}
    if len(rest) == 2:
        for name, number in zip(("major", "minor"), rest[0].split(":"), strict=True):
            if number != "*":
                made[name] = int(number)
    return made


def rules(text: str, *, defaults: bool = False) -> list[cd.DeviceRule]:
    """Parse "+c 1:3 rw; -a" into rules."""
    found = [rule(part.strip()[1:], allow=part.strip()[0] == "+") for part in text.split(";") if part.strip()]
    return cd.parse(found) if defaults else cd.asked(found)


def model(parsed: list[cd.DeviceRule], kind: str, major: int, minor: int, access: int) -> bool:
    """Return what the specification means: for each access, the last rule that matches decides."""
    for bit in (cd.READ, cd.WRITE, cd.MKNOD):
        if not access & bit:
            continue
        verdict = False
        for one in parsed:
            if one.type == "a" or (
                one.type == kind
                and one.major in (-1, major)
                and one.minor in (-1, minor)
                and one.access & bit
            ):
                verdict = one.allow
        if not verdict:
            return False
    return True


def run(program: bytes, kind: str, major: int, minor: int, access: int) -> bool:
    """Run a program as the kernel does."""
    context = struct.pack("<III", access << 16 | (2 if kind == "c" else 1), major, minor)
    registers = [0] * 11
    at = steps = 0
    while True:
        code, pair, offset, value = struct.unpack_from("<BBhi", program, at * 8)
        target, at = pair & 15, at + 1
        unsigned = value & 0xFFFFFFFF
        steps += 1
        assert steps < 10000
        if code == 0x61:
            assert pair >> 4 == 1
            registers[target] = struct.unpack_from("<I", context, offset)[0]
        elif code == 0x54:
            registers[target] &= unsigned
        elif code == 0x74:
            registers[target] >>= unsigned
        elif code == 0xB4:
            registers[target] = unsigned
        elif code == 0x95:
            return bool(registers[0])
        elif code == 0x05:
            at += offset
        elif code == 0x56:
            at += offset if registers[target] != unsigned else 0
        elif code == 0x46:
            at += offset if registers[target] & unsigned else 0
        else:
            pytest.fail(f"unknown instruction {code:#x}")


def kernel_v1(writes: list[tuple[str, str]], kind: str, major: int, minor: int, access: int) -> bool:
    """Return what version 1 allows after these writes (security/device_cgroup.c, devcgroup_update_access)."""
    allows = True
    kept: dict[tuple[str, str], set[str]] = {}
    for file, text in writes:
        allow = file == "devices.allow"
        for line in text.split("\n"):
            if line == "a":
                allows, kept = allow, {}
                continue
            what, numbers, letters = line.split(" ")
            if allow != allows:
                kept.setdefault((what, numbers), set()).update(letters)
            elif (what, numbers) in kept:
                kept[what, numbers] -= set(letters)
    wanted = {letter for letter, bit in (("r", cd.READ), ("w", cd.WRITE), ("m", cd.MKNOD)) if access & bit}
    for (what, numbers), granted in kept.items():
        one, two = numbers.split(":")
        if what == kind and one in ("*", str(major)) and two in ("*", str(minor)):
            if allows and granted & wanted:
                return False
            if not allows and wanted <= granted:
                return True
    return allows


ACCESS = st.integers(min_value=1, max_value=7)
NUMBER = st.sampled_from([None, -1, 0, 1, 2])
RULE = st.fixed_dictionaries(
    {"allow": st.booleans(), "access": st.sampled_from(["r", "w", "m", "rw", "rwm", "wm"])},
    optional={"type": st.sampled_from(["a", "b", "c"]), "major": NUMBER, "minor": NUMBER},
)
DEVICE = st.tuples(st.sampled_from("bc"), st.integers(0, 3), st.integers(0, 3), ACCESS)


@given(st.lists(RULE, max_size=8), DEVICE, st.booleans())
def test_the_program_does_what_the_rules_mean(
    given_rules: list[dict[str, Any]], device: tuple[str, int, int, int], defaults: bool
) -> None:
    parsed = cd.parse(given_rules) if defaults else cd.asked(given_rules)
    assert run(cd.program(parsed), *device) is model(parsed, *device)


@given(st.lists(RULE, max_size=6), DEVICE)
def test_version_1_does_the_same_where_it_can_at_all(
    given_rules: list[dict[str, Any]], device: tuple[str, int, int, int]
) -> None:
    parsed = cd.asked(given_rules)
    try:
        writes = cd.lines(parsed)
    except Failure:
        assume(False)
    kind, major, minor, access = device
    if access & (access - 1) == 0:
        assert kernel_v1(writes, *device) is model(parsed, *device)
    elif kernel_v1(writes, kind, major, minor, access):
        # Version 1 wants one exception that has all bits: it is never more generous than the rules.
        assert model(parsed, *device)


@given(st.lists(RULE, max_size=5), st.lists(RULE, max_size=5), DEVICE)
def test_a_transition_ends_where_a_fresh_list_would(
    before: list[dict[str, Any]], after: list[dict[str, Any]], device: tuple[str, int, int, int]
) -> None:
    old, new = cd.asked(before), cd.asked(after)
    try:
        fresh, first = cd.lines(new), cd.lines(old)
    except Failure:
        assume(False)
    allows, kept = cd.exceptions(old)
    present = "a *:* rwm\n" if allows else "".join(cd._words(k, b) + "\n" for k, b in kept.items())
    writes = first + cd.transition(present, new)
    kind, major, minor, access = device
    for bit in (cd.READ, cd.WRITE, cd.MKNOD):
        if access & bit:
            assert kernel_v1(writes, kind, major, minor, bit) is kernel_v1(fresh, kind, major, minor, bit)


def test_a_transition_adds_before_it_takes() -> None:
    present = "c 1:3 rw\nc 1:3 m\nc 1:5 rwm\n"
    assert cd.transition(present, rules("+c 1:3 rwm; +c 1:7 r")) == [
        ("devices.allow", "c 1:7 r"),
        ("devices.deny", "c 1:5 rwm"),
    ]
    assert cd.transition("c 1:3 rwm\n", rules("+c 1:3 rwm")) == []
    assert cd.transition("c *:* m\n", rules("+a")) == [("devices.allow", "a")]
    assert cd.transition("a *:* rwm\n", rules("+c 1:* r")) == [
        ("devices.deny", "a"),
        ("devices.allow", "c 1:* r"),
    ]


class TestHoles:
    @pytest.mark.parametrize(
        "text",
        ["+c *:* rwm; -c 1:11 r", "+c 1:* rw; -c *:3 w", "+a; -c *:* r; +c 1:3 r", "+c 1:* rwm; -c 1:3 rwm"],
    )
    def test_version_1_cannot_cut_one(self, text: str) -> None:
        with pytest.raises(Failure, match="cgroup v1 cannot") as caught:
            cd.lines(rules(text))
        assert caught.value.pointer == f"/linux/resources/devices/{text.count(';')}"
        assert caught.value.hint

    @pytest.mark.parametrize(
        "text",
        [
            "+c 1:3 rwm; -c *:* rwm",
            "+c 1:* rw; -c 1:3 m",
            "-c 1:11 rwm",
            "+b 1:* rwm; -c 1:1 r",
            "+a; +c 1:3 r",
        ],
    )
    def test_what_is_none(self, text: str) -> None:
        assert cd.lines(rules(text))[0][1] == "a"

    def test_the_words_name_both_rules(self) -> None:
        with pytest.raises(Failure) as caught:
            cd.lines(rules("+c *:* rw; -c 1:11 r"))
        assert "cannot deny 'c 1:11 r' while a wider rule allows 'c *:* rw'" in caught.value.message
        with pytest.raises(Failure, match="cannot allow 'c 1:3 r' while a wider rule denies"):
            cd.lines(rules("+a; -c *:* r; +c 1:3 r"))


class TestParse:
    @pytest.mark.parametrize(
        ("given_rule", "pointer", "words"),
        [
            ({"allow": True, "type": "x", "access": "r"}, "/type", "invalid cgroup device type"),
            ({"allow": True, "type": "c", "access": ""}, "/access", "cannot be empty"),
            ({"allow": True, "type": "c"}, "/access", "cannot be empty"),
            ({"allow": True, "type": "c", "access": "a"}, "/access", "cannot be empty"),
            ({"allow": True, "type": "c", "access": "rx"}, "/access", "not made of r, w and m"),
            ({"allow": True, "type": "c", "access": "r", "major": -2}, "/major", "no device number"),
            ({"allow": True, "type": "c", "access": "r", "minor": 2**32}, "/minor", "no device number"),
        ],
    )
    def test_nonsense_has_a_place(self, given_rule: dict[str, Any], pointer: str, words: str) -> None:
        with pytest.raises(Failure, match=words) as caught:
            cd.parse([{"allow": False, "access": "rwm"}, given_rule])
        assert caught.value.pointer == "/linux/resources/devices/1" + pointer

    def test_it_starts_from_nothing_and_ends_with_the_defaults(self) -> None:
        parsed = cd.parse([])
        assert (parsed[0].allow, parsed[0].type) == (False, "a")
        assert [one.words() for one in parsed[1:]] == list(DEFAULT_DEVICES)
        assert parsed[0].words() == "a"

    @pytest.mark.parametrize(
        "limited", [{"access": "r"}, {"access": "rwm", "major": 1}, {"access": "rwm", "minor": 0}]
    )
    def test_all_devices_with_a_limit_are_two_rules(self, limited: dict[str, Any]) -> None:
        parsed = cd.asked([{"allow": True, "type": "a", **limited}])[1:]
        assert [one.type for one in parsed] == ["c", "b"]

    def test_letters_may_repeat_and_an_a_adds_nothing(self) -> None:
        assert cd.asked([{"allow": False, "type": "c", "access": "rwar"}])[1].access == cd.READ | cd.WRITE


def test_a_container_cannot_open_disks_by_default_but_null() -> None:
    program = cd.program(cd.parse([{"allow": False, "access": "rwm"}]))
    assert run(program, "c", 1, 3, ALL)
    assert run(program, "c", 136, 77, cd.READ | cd.WRITE)
    assert run(program, "b", 8, 0, cd.MKNOD)
    assert not run(program, "b", 8, 0, cd.READ)
    assert not run(program, "b", 8, 0, cd.READ | cd.MKNOD)
    assert not run(program, "c", 1, 1, cd.READ)


def test_a_program_of_no_rules_refuses() -> None:
    assert not run(cd.program([]), "c", 1, 3, cd.READ)
