"""JSON without the json module.

Law 2: json imports re and costs about 8 ms of start-up; its C scanner and escaper cost nothing. What the
scanner refuses is a ValueError; the slow path then uses json itself to find out why.
"""

from __future__ import annotations

import _json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class _Context:
    """The options make_scanner reads: the same that json.loads has by default, without NaN and infinities."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    memo: dict[str, str] = {}  # noqa: RUF012 - the scanner wants the attribute, typing.ClassVar costs an import

    @staticmethod
    def parse_constant(name: str) -> object:
        """Refuse NaN and Infinity, which JSON does not have."""
        raise ValueError(name)


# The deepest nesting of arrays and objects. Code that walks through it has the 1000 calls of Python's stack,
# and json_slow.py makes two for each level.
MAX_DEPTH = 200
_SHOWN = 120  # characters of a text that a message repeats

_scanner: list[Callable[[str, int], tuple[object, int]]] = []  # one, once it is wanted: it lives in a library
_WHITE = " \t\n\r"


def loads(text: str) -> object:
    """Return the value of a JSON text.

    Raises:
        ValueError: the text is not JSON (json can tell the position), or nested too deeply.

    """
    stripped = text.strip(_WHITE)
    if not _scanner:
        _scanner.append(_json.make_scanner(_Context()))  # type: ignore[arg-type]
    try:
        value, end = _scanner[0](stripped, 0)
    except (StopIteration, ValueError, RecursionError, SystemError) as exc:
        # The scanner tries to import json.decoder for its messages, and on 3.11 may raise SystemError
        # instead.
        msg = "not JSON"
        raise ValueError(msg) from exc
    if end != len(stripped):
        msg = "more text after the JSON value"
        raise ValueError(msg)
    if text.count("[") + text.count("{") > MAX_DEPTH and _too_deep(value):
        msg = f"JSON values are nested more than {MAX_DEPTH} levels deep"
        raise ValueError(msg)
    return value


def _too_deep(value: object) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        inner: list[object] = []
        for found in level:
            if type(found) is list:
                inner += found
            elif type(found) is dict:
                inner += found.values()
        if not inner:
            return False
        level = inner
    return True


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
    return _json.encode_basestring_ascii(text)


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
        return repr(value)
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
