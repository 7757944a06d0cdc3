"""JSON without the json module.

Law 2: json imports re and costs about 8 ms of start-up, and its C half _json is a library that takes 0.6 ms
to load. The extension, which is there anyway, reads a text; what it refuses is a ValueError, and the slow
path (spec/json_slow.py) finds out why.
"""

from __future__ import annotations

from pyrunc.linux import _linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# The deepest nesting of arrays and objects, also in the extension (linux/_json.c). Code that walks through it
# has the 1000 calls of Python's stack, and json_slow.py makes two for each level.
MAX_DEPTH = 200
_SHOWN = 120  # characters of a text that a message repeats


def loads(text: str) -> object:
    """Return the value of a JSON text.

    Raises:
        ValueError: the text is not JSON, or nested too deeply.

    """
    return _linux.read_json(text)


def decimal(text: str, most: int) -> int | None:
    """Return a number from plain decimal digits, None for anything else or more than `most`.

    isdecimal() alone takes digits of other scripts, and int() refuses more than 4300.
    """
    if not (text.isascii() and text.isdecimal()):
        return None
    digits = text.lstrip("0") or "0"
    return int(digits) if len(digits) <= len(str(most)) and int(digits) <= most else None


def quoted(text: str) -> str:
    """Return a text as JSON for a message, cut to a readable length."""
    shown = dumps(text)
    return shown if len(shown) <= _SHOWN else shown[: _SHOWN - 4] + '..."'


def dumps(value: object) -> str:
    """Return the compact JSON text of a value made of dict, list, tuple, str, int, float, bool and None."""
    return _dump(value, "", "", ",", ":")


def dumps_indent(value: object, indent: str = "  ") -> str:
    """Return the JSON text of a value, one member a line, each level indented by indent."""
    return _dump(value, indent, "\n", ",", ": ")


def _quote(text: str) -> str:
    return _linux.quote_json(text)


def _dump(value: object, indent: str, newline: str, comma: str, colon: str) -> str:
    if isinstance(value, str):
        return _quote(value)
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, (int, float)):
        # 1e999 is JSON, and read as an infinity, which has no other form in JSON.
        return repr(value).replace("inf", "1e999")
    inner = newline + indent if newline else ""
    if isinstance(value, dict):
        if not value:
            return "{}"
        members = [
            _quote(str(key)) + colon + _dump(item, indent, inner, comma, colon) for key, item in value.items()
        ]
        return "{" + inner + (comma + inner).join(members) + newline + "}"
    if isinstance(value, (list, tuple)):
        if not value:
            return "[]"
        items = [_dump(item, indent, inner, comma, colon) for item in value]
        return "[" + inner + (comma + inner).join(items) + newline + "]"
    msg = f"{type(value).__name__} has no JSON form"
    raise TypeError(msg)


def drop_nulls(value: object, maps: Sequence[str]) -> None:
    """Remove properties that are null from a parsed text, in place.

    Args:
        value: what loads() returned.
        maps: properties with data for names: a null there stays.

    """
    todo = [value]
    while todo:
        found = todo.pop()
        if type(found) is list:
            todo += found
        elif type(found) is dict:
            for name in [name for name, inner in found.items() if inner is None]:
                del found[name]
            for name, inner in found.items():
                if name not in maps:
                    todo.append(inner)
                elif type(inner) is dict:
                    todo += inner.values()
