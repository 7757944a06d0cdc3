"""linux.resources.devices: the rules in order, as writes for cgroup v1 and as a BPF program for cgroup v2.

Law 1. The list starts with nothing allowed, whatever the configuration says (runc's advisory
GHSA-g54h-m393-cpwq: a list without a leading rule became a deny-list). The later of two rules wins,
separately for read, write and mknod; the default devices come last, as engines expect.

Version 1 keeps exceptions to one default and no order. A narrow rule that contradicts a wider one cannot be
expressed and is a Failure: to drop it, as the kernel does, would leave the device open.

Sources: Documentation/admin-guide/cgroup-v1/devices.rst, cgroup-v2.rst "Device controller",
security/device_cgroup.c, uapi/linux/bpf.h (struct bpf_cgroup_dev_ctx, BPF_DEVCG_*) of Linux 6.18.
"""

from __future__ import annotations

from pyrunc.errors import Failure
from pyrunc.plan.cgroup_plan import DEFAULT_DEVICES, RESOURCES
from pyrunc.plan.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    # (type, major, minor), -1 for any number
    Key: TypeAlias = tuple[str, int, int]

MKNOD, READ, WRITE = 1, 2, 4  # BPF_DEVCG_ACC_*
_BLOCK, _CHAR = 1, 2  # BPF_DEVCG_DEV_*
_ALL = MKNOD | READ | WRITE
_LETTERS = {"r": READ, "w": WRITE, "m": MKNOD}


class DeviceRule(Record):
    """One rule about character ("c"), block ("b") or all ("a") devices.

    Attributes:
        allow: allow rather than deny.
        type: "c", "b", or "a": every device and every access.
        major: -1 for any.
        minor: -1 for any.
        access: bits MKNOD, READ, WRITE.
        pointer: its place in config.json.

    """

    allow: bool
    type: str
    major: int
    minor: int
    access: int
    pointer: str

    def words(self) -> str:
        """Return the rule in the notation of cgroup v1 (devices.rst)."""
        if self.type == "a":
            return "a"
        letters = "".join(letter for letter, bit in _LETTERS.items() if self.access & bit)
        major, minor = ("*" if number < 0 else str(number) for number in (self.major, self.minor))
        return f"{self.type} {major}:{minor} {letters}"


def parse(rules: list[dict[str, Any]]) -> list[DeviceRule]:
    """Return the effective rules: nothing allowed, then the configuration's, then the default devices.

    Raises:
        Failure: an invalid type, number or access.

    """
    parsed = asked(rules)
    for line in DEFAULT_DEVICES:
        kind, numbers, letters = line.split(" ")
        major, _, minor = numbers.partition(":")
        parsed.append(
            DeviceRule(
                allow=True,
                type=kind,
                major=-1 if major == "*" else int(major),
                minor=-1 if minor == "*" else int(minor),
                access=_bits(letters, RESOURCES + "/devices"),
                pointer=RESOURCES + "/devices",
            )
        )
    return parsed


def asked(rules: list[dict[str, Any]]) -> list[DeviceRule]:
    """Return the configuration's rules, after one that allows nothing.

    Raises:
        Failure: as parse().

    """
    parsed = [
        DeviceRule(allow=False, type="a", major=-1, minor=-1, access=_ALL, pointer=RESOURCES + "/devices")
    ]
    for index, rule in enumerate(rules):
        parsed += _parse_one(rule, f"{RESOURCES}/devices/{index}")
    return parsed


def _parse_one(rule: dict[str, Any], pointer: str) -> list[DeviceRule]:
    """Return one rule, or two if "all devices" is limited in number or access.

    In version 1 the kernel always takes "a" for every device and every access, which would allow more than
    was asked for.
    """
    kind = rule.get("type") or "a"
    if kind not in ("a", "b", "c"):
        raise Failure(f"invalid cgroup device type {kind!r}", pointer=pointer + "/type", hint="use a, b or c")
    access = _bits(rule.get("access") or "", pointer)
    numbers = []
    for name in ("major", "minor"):
        number = rule.get(name)
        number = -1 if number is None else number
        if not -1 <= number < 2**32:
            raise Failure(f"{number} is no device number", pointer=f"{pointer}/{name}")
        numbers.append(number)
    major, minor = numbers
    kinds = (kind,) if kind != "a" or (access == _ALL and major < 0 and minor < 0) else ("c", "b")
    return [
        DeviceRule(
            allow=bool(rule.get("allow")), type=kind, major=major, minor=minor, access=access, pointer=pointer
        )
        for kind in kinds
    ]


def _bits(letters: str, pointer: str) -> int:
    """Return the access bits; an "a" among them adds nothing (runc's test suite writes "rwa")."""
    bits = 0
    for letter in letters:
        if letter not in "rwma":
            raise Failure(f"device access {letters!r} is not made of r, w and m", pointer=pointer + "/access")
        bits |= _LETTERS.get(letter, 0)
    if not bits:
        raise Failure(
            "device access cannot be empty", pointer=pointer + "/access", hint="use some of r, w and m"
        )
    return bits


# ---------------------------------------------------------------------------------------- cgroup v1


def exceptions(rules: list[DeviceRule]) -> tuple[bool, dict[Key, int]]:
    """Return the rules for version 1: whether the default is to allow, and the exceptions from it.

    Raises:
        Failure: a rule is narrower than an earlier, opposite one, so that no set of exceptions is equal to
            the list.

    """
    allows = False
    kept: dict[Key, int] = {}
    for rule in rules:
        key = (rule.type, rule.major, rule.minor)
        if rule.type == "a":
            allows, kept = rule.allow, {}
        elif rule.allow != allows:
            kept[key] = kept.get(key, 0) | rule.access
        else:
            for other, bits in list(kept.items()):
                if not bits & rule.access or not _overlap(key, other):
                    continue
                if not _covers(key, other):
                    wide = _words(other, bits)
                    verb, opposite = ("allow", "denies") if rule.allow else ("deny", "allows")
                    raise Failure(
                        f"cgroup v1 cannot {verb} {rule.words()!r} while a wider rule {opposite} {wide!r}",
                        pointer=rule.pointer,
                        hint="list what is allowed instead, or use cgroup v2",
                    )
                if bits & ~rule.access:
                    kept[other] = bits & ~rule.access
                else:
                    del kept[other]
    return allows, kept


def _covers(wide: Key, narrow: Key) -> bool:
    (kind, major, minor), (other, other_major, other_minor) = wide, narrow
    return kind == other and major in (-1, other_major) and minor in (-1, other_minor)


def _overlap(one: Key, two: Key) -> bool:
    kinds, *numbers = zip(one, two, strict=True)
    return len({*kinds}) == 1 and all(each == other or -1 in (each, other) for each, other in numbers)


def lines(rules: list[DeviceRule]) -> list[tuple[str, str]]:
    """Return (file, lines) for a new cgroup of version 1."""
    allows, kept = exceptions(rules)
    first, second = ("devices.allow", "devices.deny") if allows else ("devices.deny", "devices.allow")
    made = [(first, "a")]
    if kept:
        made.append((second, "\n".join(_words(key, bits) for key, bits in kept.items())))
    return made


def _words(key: Key, bits: int) -> str:
    kind, major, minor = key
    return DeviceRule(allow=True, type=kind, major=major, minor=minor, access=bits, pointer="").words()


def transition(present: str, rules: list[DeviceRule]) -> list[tuple[str, str]]:
    """Return (file, lines) that change devices.list from its present content to the rules.

    A container in use must always be able to open /dev/null, so exceptions are added before others are
    removed. This is not possible if the default itself changes.
    """
    allows, kept = exceptions(rules)
    now: dict[Key, int] = {}
    for line in present.splitlines():
        kind, numbers, letters = line.split(" ")
        if kind == "a":
            # devices.list of a cgroup that allows by default does not show its exceptions (device_cgroup.c).
            return lines(rules)
        major, _, minor = numbers.partition(":")
        key = (kind, -1 if major == "*" else int(major), -1 if minor == "*" else int(minor))
        now[key] = now.get(key, 0) | _bits(letters, "")
    if allows:
        return lines(rules)
    made = []
    more = [_words(key, bits & ~now.get(key, 0)) for key, bits in kept.items() if bits & ~now.get(key, 0)]
    less = [_words(key, bits & ~kept.get(key, 0)) for key, bits in now.items() if bits & ~kept.get(key, 0)]
    if more:
        made.append(("devices.allow", "\n".join(more)))
    if less:
        made.append(("devices.deny", "\n".join(less)))
    return made


# ---------------------------------------------------------------------------------------- cgroup v2

# Registers of the program: r1 is the context that the kernel passes.
_TYPE, _ACCESS, _MAJOR, _MINOR = 2, 3, 4, 5


def _op(code: int, register: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    """Return one instruction: struct bpf_insn of uapi/linux/bpf.h, little-endian (as amd64 and arm64 are)."""
    return (
        bytes((code, register | source << 4))
        + offset.to_bytes(2, "little", signed=True)
        + (value & 0xFFFFFFFF).to_bytes(4, "little")
    )


_LOAD, _AND, _SHIFT, _MOVE, _EXIT = 0x61, 0x54, 0x74, 0xB4, 0x95  # ldxw, and32, rsh32, mov32 #, exit
_UNLESS_EQUAL, _IF_BITS = 0x56, 0x46  # jne32 #, jset32 #


def program(rules: list[DeviceRule]) -> bytes:
    """Return the filter for BPF_CGROUP_DEVICE: 1 allows an access, 0 refuses it.

    An open for reading and writing asks for two bits at once. So the rules are checked from the last to the
    first: a deny rule that matches any undecided bit refuses; an allow rule decides its bits; when all bits
    are decided the access is allowed. So the later rule wins for each bit.
    """
    last = max((i for i, rule in enumerate(rules) if rule.type == "a"), default=-1)
    allows = last >= 0 and rules[last].allow
    blocks = [
        _op(_LOAD, _TYPE, 1, 0),
        _op(_LOAD, _ACCESS, 1, 0),
        _op(_AND, _TYPE, value=0xFFFF),
        _op(_SHIFT, _ACCESS, value=16),
        _op(_LOAD, _MAJOR, 1, 4),
        _op(_LOAD, _MINOR, 1, 8),
    ]
    blocks += [_block(rule) for rule in reversed(rules[last + 1 :])]
    blocks += [_op(_MOVE, 0, value=int(allows)), _op(_EXIT)]
    return b"".join(blocks)


def _block(rule: DeviceRule) -> bytes:
    """Return the instructions of one rule; if it does not decide, they end at the next rule."""
    tests = [(_TYPE, _CHAR if rule.type == "c" else _BLOCK)]
    if rule.major >= 0:
        tests.append((_MAJOR, rule.major))
    if rule.minor >= 0:
        tests.append((_MINOR, rule.minor))
    if rule.allow:
        # bits &= ~access; if (bits == 0) return 1
        tail = [
            _op(_AND, _ACCESS, value=~rule.access),
            _op(_UNLESS_EQUAL, _ACCESS, offset=2, value=0),
            _op(_MOVE, 0, value=1),
            _op(_EXIT),
        ]
    else:
        # if (bits & access) return 0
        tail = [
            _op(_IF_BITS, _ACCESS, offset=1, value=rule.access),
            _op(0x05, offset=2),  # ja: over the refusal
            _op(_MOVE, 0, value=0),
            _op(_EXIT),
        ]
    size = len(tests) + len(tail)
    head = [
        _op(_UNLESS_EQUAL, register, offset=size - i - 1, value=value)
        for i, (register, value) in enumerate(tests)
    ]
    return b"".join(head + tail)
