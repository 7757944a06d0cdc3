"""Every integer of config.json, taken from the schemas, each in a small configuration."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyrunc.spec.problems import _resolve
from pyrunc.spec.schemas import schemas

if TYPE_CHECKING:
    from collections.abc import Iterator

# Sections of other systems, which are never planned.
FOREIGN = ("vm", "windows", "solaris", "zos", "freebsd")
# Valid texts for required properties, so that no rule beyond the schema refuses them.
WORDS = {
    "ociVersion": "1.0.2",
    "destination": "/tmp",
    "cwd": "/",
    "path": "/bin/true",
    "name": "lo",
    "type": "RLIMIT_NOFILE",
}
# Where signed, unsigned and wider numbers end.
EDGES = sorted(
    {0, 1, 99, 100, 1023, 1024}
    | {
        sign * 2**bits + off
        for bits in (7, 8, 12, 15, 16, 20, 31, 32, 63, 64)
        for off in (-1, 0, 1)
        for sign in (1, -1)
    }
)


@dataclass
class Leaf:
    """An integer.

    Attributes:
        path: the properties of its path; "*" is an item of a list or of a map with free names.
        low: the smallest number that the schema accepts.
        high: the largest.
        shape: the value that contains it: the required properties of its path, None at its place.

    """

    path: tuple[str, ...]
    low: int
    high: int
    shape: Any

    @property
    def pointer(self) -> str:
        """Where it is, for messages."""
        return "/" + "/".join(self.path)

    def accepted(self) -> list[int]:
        """Return its limit values that the schema accepts."""
        return sorted({self.low, self.high, *(edge for edge in EDGES if self.low <= edge <= self.high)})

    def refused(self) -> list[int]:
        """Return numbers just outside."""
        return sorted(
            {self.low - 1, self.high + 1, *(edge for edge in EDGES if not self.low <= edge <= self.high)}
        )

    def filled(self, number: int, *, around: bool = False) -> Any:
        """Return the value with a number in its place; around: also in the required integers beside it."""
        return _filled(self.shape, number, around=around)


HERE = object()  # the integer itself, in a shape


def _filled(value: Any, number: int, *, around: bool) -> Any:
    if value is HERE:
        return number
    if isinstance(value, _Other):
        return min(max(number, value.low), value.high) if around else min(max(0, value.low), value.high)
    if isinstance(value, dict):
        return {key: _filled(inner, number, around=around) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, number, around=around) for inner in value]
    return value


@dataclass
class _Other:
    """A required integer beside the one that is tested."""

    low: int
    high: int


def leaves(file: str = "config.json", name: str = "Config") -> list[Leaf]:
    """Return all integers below a definition."""
    return list(_walk(schemas()[file]["$defs"][name], file, ()))


def _walk(schema: dict[str, Any], file: str, path: tuple[str, ...]) -> Iterator[Leaf]:
    schema, file = _resolve(schema, file)
    kind = schema["type"]
    if kind == "integer":
        yield Leaf(path, schema["minimum"], schema["maximum"], HERE)
    elif kind == "array":
        for leaf in _walk(schema["items"], file, (*path, "*")):
            leaf.shape = [leaf.shape]
            yield leaf
    elif "properties" in schema:
        for key, inner in schema["properties"].items():
            if key in FOREIGN:
                continue
            for leaf in _walk(inner, file, (*path, key)):
                beside = _required(schema, file)
                leaf.shape = {**beside, key: leaf.shape}
                yield leaf
    elif "additionalProperties" in schema:
        for leaf in _walk(schema["additionalProperties"], file, (*path, "*")):
            leaf.shape = {_least(schema["propertyNames"], file): leaf.shape}
            yield leaf


def _required(schema: dict[str, Any], file: str) -> dict[str, Any]:
    """Return the properties an object must have."""
    return {
        key: _least(schema["properties"][key], file, key)
        for key in schema.get("required", ())
        if key != "names"
    } | ({"names": ["getppid"]} if "names" in schema.get("required", ()) else {})


def _least(schema: dict[str, Any], file: str, key: str = "") -> Any:
    """Return the smallest value that a required property can have."""
    schema, file = _resolve(schema, file)
    kind = schema["type"]
    if kind == "integer":
        return _Other(schema["minimum"], schema["maximum"])
    if kind == "boolean":
        return False
    if kind == "object":
        return _required(schema, file)
    if "enum" in schema:
        return WORDS[key] if WORDS.get(key) in schema["enum"] else schema["enum"][0]
    return "2MB" if "[KMG]B" in schema["pattern"] else WORDS.get(key, "x")


def laid_over(base: Any, value: Any) -> Any:
    """Return base, with its parts replaced by those of value; lists of base are replaced as a whole."""
    if isinstance(base, dict) and isinstance(value, dict):
        return {**base, **{key: laid_over(base.get(key), inner) for key, inner in value.items()}}
    return copy.deepcopy(value)


def variants(leaf: Leaf, number: int, *, around: bool = False) -> list[dict[str, Any]]:
    """Return changes to a configuration so that it has the number there, and all that the number requires."""
    value = leaf.filled(number, around=around)
    linux = value.get("linux", {})
    for mount in value.get("mounts", ()):
        mount.update(source="/srv", options=["bind"])
    for owner in (*value.get("mounts", ()), linux):
        for one, other in (("uidMappings", "gidMappings"), ("gidMappings", "uidMappings")):
            if one in owner:
                owner.setdefault(other, copy.deepcopy(owner[one]))
    _complete(linux)
    found = [value]
    for place, name, words in (
        ("scheduler", "policy", ("SCHED_OTHER", "SCHED_FIFO", "SCHED_DEADLINE")),
        ("rlimits", "type", ("RLIMIT_NOFILE", "RLIMIT_AS", "RLIMIT_RTTIME")),
    ):
        if place in value.get("process", {}):
            found = []
            for word in words:
                other = copy.deepcopy(value)
                inner = other["process"][place]
                (inner[0] if isinstance(inner, list) else inner)[name] = word
                found.append(other)
    return found


def _complete(linux: dict[str, Any]) -> None:
    """Add to a linux section what its properties require."""
    spaces = [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")]
    if "uidMappings" in linux:
        linux["namespaces"] = [*spaces, {"type": "user"}]
    if "timeOffsets" in linux:
        linux["namespaces"] = [*spaces, {"type": "time"}]
    for device in linux.get("devices", ()):
        device["path"] = "/dev/edge"
        device.setdefault("major", 1)
        device.setdefault("minor", 3)
    for rule in linux.get("resources", {}).get("devices", ()):
        rule.update(access="rwm", type="c")
    for weight in linux.get("resources", {}).get("blockIO", {}).get("weightDevice", ()):
        weight.setdefault("weight", 100)
    if "seccomp" in linux:
        linux["seccomp"].setdefault("defaultAction", "SCMP_ACT_ALLOW")
        if "defaultErrnoRet" in linux["seccomp"]:
            linux["seccomp"]["defaultAction"] = "SCMP_ACT_ERRNO"
            linux["seccomp"]["syscalls"] = []
        for rule in linux["seccomp"].get("syscalls", ()):
            rule["action"] = "SCMP_ACT_ERRNO"
