"""Values made from the schemas: everything that a definition allows, and such values with mistakes."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from pyrunc.spec.problems import _resolve, _validator
from pyrunc.spec.schemas import schemas

if TYPE_CHECKING:
    from collections.abc import Iterator

# Files the acceptor is generated from; state.json and features.json say what pyrunc itself prints.
FILES = ("config.json", "process.json", "linux.json", "resources.json", "seccomp.json", "platforms.json")

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)

# Values that replace another one: near every type and limit.
ODDITIES: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    5,
    6,
    100,
    101,
    1.0,
    0.5,
    1001,
    -1000,
    65535,
    65536,
    10**9,
    2**32 - 2,
    2**32 - 1,
    2**32,
    -(2**31),
    -(2**31) - 1,
    2**63 - 1,
    2**63,
    -(2**63),
    -(2**63) - 1,
    2**64 - 1,
    2**64,
    "",
    "\0",
    "a\0",
    "a",
    "a\n",
    "/",
    "a/b",
    ".",
    "..",
    "...",
    "2MB",
    "02MB",
    "2MB\n",
    "2mB",
    "sixteen_letters_",
    "eth 0",
    "SCMP_ACT_ALLOW",
    [],
    {},
    [None],
    [""],
    ["\0"],
    [1],
    [{}],
    {"": ""},
    {"a": None},
    {"a": "\0"},
    {"a/b": "c"},
    {"a": {}},
    {"monotonic": {"nanosecs": 10**9}},
]


def definitions() -> Iterator[tuple[str, str]]:
    """Yield file and name of every definition of an object with named properties."""
    for file in FILES:
        for name, schema in schemas()[file]["$defs"].items():
            if "properties" in schema:
                yield file, name


def is_valid(value: object, file: str, name: str) -> bool:
    """Ask jsonschema about a value, with the strictness problems.py gives it."""
    valid: bool = _validator(file, name).is_valid(value)
    return valid


def values(schema: dict[str, Any], file: str) -> st.SearchStrategy[Any]:
    """Return a strategy for the values a schema allows."""
    schema, file = _resolve(schema, file)
    kind = schema["type"]
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if kind == "integer":
        return st.integers(schema["minimum"], schema["maximum"])
    if kind == "boolean":
        return st.booleans()
    if kind == "string":
        if schema["pattern"] == r"^[^\u0000]*$":
            return TEXT
        return st.from_regex(re.compile(schema["pattern"]), fullmatch=True)
    if kind == "array":
        return st.lists(values(schema["items"], file), min_size=schema.get("minItems", 0), max_size=2)
    if "properties" in schema:
        made = {name: values(inner, file) for name, inner in schema["properties"].items()}
        required = schema.get("required", ())
        return st.fixed_dictionaries(
            {name: made[name] for name in required},
            optional={name: made[name] for name in made if name not in required},
        )
    if "additionalProperties" in schema:
        names = values(schema["propertyNames"], file)
        return st.dictionaries(names, values(schema["additionalProperties"], file), max_size=2)
    return st.just({})


def everything(schema: dict[str, Any], file: str) -> Any:
    """Return one value that has all properties, with the last word of every enum."""
    schema, file = _resolve(schema, file)
    kind = schema["type"]
    if "enum" in schema:
        return schema["enum"][-1]
    if kind == "string":
        return "2MB"
    if kind in ("integer", "boolean"):
        return schema.get("maximum", True)
    if kind == "array":
        return [everything(schema["items"], file)]
    if "properties" in schema:
        return {name: everything(inner, file) for name, inner in schema["properties"].items()}
    if "additionalProperties" in schema:
        return {everything(schema["propertyNames"], file): everything(schema["additionalProperties"], file)}
    return {}


def places(value: object) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of every value inside a value."""
    members: Any = ()
    if isinstance(value, dict):
        members = value.items()
    elif isinstance(value, list):
        members = enumerate(value)
    for step, inner in members:
        yield (step,)
        for rest in places(inner):
            yield (step, *rest)


@st.composite
def damaged(draw: st.DrawFn, valid: st.SearchStrategy[Any]) -> Any:
    """Return a strategy for valid values in which one to three places were changed."""
    value = copy.deepcopy(draw(valid))
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(value))
        if not found:
            return draw(st.sampled_from(ODDITIES))
        *around, last = draw(st.sampled_from(found))
        inner = value
        for step in around:
            inner = inner[step]
        if draw(st.integers(0, 3)):
            inner[last] = copy.deepcopy(draw(st.sampled_from(ODDITIES)))
        else:
            del inner[last]
    return value
