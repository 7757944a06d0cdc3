"""A JSON parser for messages: it knows the line of each value, and why a text is not JSON.

Law 2, the slow path: jsonio accepts exactly the same texts in a hundredth of the time (a property test
compares the two), but gives no reasons. This parser knows the line of every value, which names occur twice,
and what was probably meant by a `}` after a comma, or 0666 for a file mode. Source: RFC 8259.
"""

from __future__ import annotations

import json
import re

from pyrunc.jsonio import MAX_DEPTH
from pyrunc.spec.meaning import escape

MAX_DIGITS = 4300  # int() refuses more: sys.int_info.default_max_str_digits

_WHITE = re.compile(r"[ \t\n\r]*")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"')
_ESCAPE = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')
_NUMBER = re.compile(r"(-?(?:0|[1-9][0-9]*))(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WORD = re.compile(r"[A-Za-z_$][A-Za-z0-9_$.-]*")
_CONSTANTS = {"true": True, "false": False, "null": None}
_OTHER_WORDS = {
    "True": "true is written in small letters",
    "False": "false is written in small letters",
    "TRUE": "true is written in small letters",
    "FALSE": "false is written in small letters",
    "None": "null is the word for nothing",
    "nil": "null is the word for nothing",
    "undefined": "null is the word for nothing",
    "NaN": "JSON has no NaN",
    "Infinity": "JSON has no Infinity",
}


class Malformed(Exception):  # noqa: N818 - it describes the text, not a fault of the program
    """The text is not JSON: at this line and column (both from 1), for this reason."""

    def __init__(self, line: int, column: int, reason: str) -> None:
        """Keep line, column and reason."""
        super().__init__(f"line {line}, column {column}: {reason}")
        self.line = line
        self.column = column
        self.reason = reason


class Document:
    """A parsed text.

    value is the parsed text, lines has the line of each value by its JSON pointer (of a property: of its
    name), repeated the pointers of properties that occur more than once, with the line of each repetition.
    """

    def __init__(self, text: str) -> None:
        """Parse a text.

        Raises:
            Malformed: it is not JSON.

        """
        self.text = text
        self.lines: dict[str, int] = {}
        self.repeated: list[tuple[str, int]] = []
        self._counted, self._line = 0, 1
        if text.startswith("\ufeff"):
            raise self._malformed(0, "the text begins with a byte order mark, which JSON does not have")
        start = self._skip(0)
        if start == len(text):
            raise self._malformed(start, "the text is empty")
        self.lines[""] = self._line_of(start)
        self.value, end = self._value(start, "", 0)
        end = self._skip(end)
        if end < len(text):
            raise self._malformed(end, self._stray(end, "there is more text after the end of the value"))

    def line(self, pointer: str) -> int:
        """Return the line of a value, or of the nearest one around it if there is none."""
        while pointer not in self.lines:
            pointer = pointer.rpartition("/")[0]
        return self.lines[pointer]

    def _value(self, at: int, pointer: str, depth: int) -> tuple[object, int]:
        if depth > MAX_DEPTH:
            raise self._malformed(at, f"values are nested more than {MAX_DEPTH} levels deep")
        first = self.text[at : at + 1]
        if first == "{":
            return self._object(at, pointer, depth)
        if first == "[":
            return self._array(at, pointer, depth)
        if first == '"':
            return self._string(at)
        word = _WORD.match(self.text, at)
        if word and word[0] in _CONSTANTS:
            return _CONSTANTS[word[0]], word.end()
        number = _NUMBER.match(self.text, at)
        if number:
            return self._number(number), number.end()
        raise self._malformed(at, self._stray(at, "a value is missing"))

    def _object(self, at: int, pointer: str, depth: int) -> tuple[dict[str, object], int]:
        opened = at
        made: dict[str, object] = {}
        at = self._skip(at + 1)
        if self.text[at : at + 1] == "}":
            return made, at + 1
        while True:
            if self.text[at : at + 1] != '"':
                raise self._malformed(at, self._no_name(at, opened, first=not made))
            name_at = at
            name, at = self._string(at)
            inner = f"{pointer}/{escape(name)}"
            line = self._line_of(name_at)
            if name in made:
                self.repeated.append((inner, line))
            self.lines[inner] = line
            colon = self._skip(at)
            if self.text[colon : colon + 1] != ":":
                raise self._malformed(at, f"a colon is missing after the name {json.dumps(name)}")
            made[name], at = self._value(self._skip(colon + 1), inner, depth + 1)
            at, more = self._next(at, opened, "}")
            if not more:
                return made, at

    def _array(self, at: int, pointer: str, depth: int) -> tuple[list[object], int]:
        opened = at
        made: list[object] = []
        at = self._skip(at + 1)
        if self.text[at : at + 1] == "]":
            return made, at + 1
        while True:
            if self.text[at : at + 1] == "]":
                raise self._malformed(at, "there is a comma before this ], but no value follows it")
            if at == len(self.text):
                raise self._malformed(at, self._unclosed(opened))
            inner = f"{pointer}/{len(made)}"
            self.lines[inner] = self._line_of(at)
            item, at = self._value(at, inner, depth + 1)
            made.append(item)
            at, more = self._next(at, opened, "]")
            if not more:
                return made, at

    def _next(self, at: int, opened: int, closing: str) -> tuple[int, bool]:
        """Skip what follows a member: the comma (True), or the closing bracket (False)."""
        here = self._skip(at)
        found = self.text[here : here + 1]
        if found == ",":
            return self._skip(here + 1), True
        if found == closing:
            return here + 1, False
        if not found:
            raise self._malformed(here, self._unclosed(opened))
        if found in "]}":
            open_line = self._line_at(opened)
            text = f"{self.text[opened]} of line {open_line} is closed by {found} instead of {closing}"
            raise self._malformed(here, text)
        # A comma is missing where the value ended, often a line above.
        raise self._malformed(at, self._stray(here, "a comma is missing here"))

    def _string(self, at: int) -> tuple[str, int]:
        match = _STRING.match(self.text, at)
        if match:
            return json.loads(match[0]), match.end()
        place = at + 1
        while place < len(self.text) and self.text[place] not in '"\n':
            escape_here = _ESCAPE.match(self.text, place)
            if self.text[place] == "\\" and not escape_here:
                word = self.text[place : place + 2]
                raise self._malformed(place, f"{word!a} is no escape: a backslash itself is written twice")
            if self.text[place] < " ":
                written = json.dumps(self.text[place])[1:-1]
                raise self._malformed(place, f"a control character in a string is written as {written}")
            place = escape_here.end() if escape_here else place + 1
        raise self._malformed(at, "this string has no closing quote on its line")

    def _number(self, match: re.Match[str]) -> int | float:
        whole, fraction, exponent = match.groups()
        after = self.text[match.end() : match.end() + 1]
        if after and (after.isalnum() or after in "._"):
            text = "a number is written in decimal digits"
            if whole in ("0", "-0") and after.isdigit():
                text = "a number has no leading zeros: an octal file mode is written in decimal, 0666 as 438"
            raise self._malformed(match.start(), text)
        if fraction or exponent:
            return float(match[0])
        if len(whole) > MAX_DIGITS:
            raise self._malformed(match.start(), f"a number of more than {MAX_DIGITS} digits")
        return int(whole)

    def _no_name(self, at: int, opened: int, *, first: bool) -> str:
        """Report what is wrong where the name of a property is expected."""
        found = self.text[at : at + 1]
        if not found:
            return self._unclosed(opened)
        if found == "}" and not first:
            return "there is a comma before this }, but no property follows it"
        word = _WORD.match(self.text, at)
        if word:
            return f"the name of a property is quoted: {json.dumps(word[0])}"
        return self._stray(at, "the name of a property is missing")

    def _stray(self, at: int, otherwise: str) -> str:
        """Report what is wrong with the text at a place, if other languages have such a thing."""
        rest = self.text[at : at + 2]
        if rest[:1] == "#" or rest in ("//", "/*"):
            return "JSON has no comments"
        if rest[:1] == "'":
            return 'strings are quoted with " in JSON'
        if rest[:1] in ("+", "."):
            return "a number begins with a digit or with -"
        word = _WORD.match(self.text, at)
        if word and word[0] in _OTHER_WORDS:
            return _OTHER_WORDS[word[0]]
        if word and otherwise == "a value is missing":
            return f"a string is quoted: {json.dumps(word[0])}"
        return otherwise

    def _unclosed(self, opened: int) -> str:
        return f"the text ends, but {self.text[opened]} of line {self._line_at(opened)} is not closed"

    def _skip(self, at: int) -> int:
        match = _WHITE.match(self.text, at)
        assert match
        return match.end()

    def _line_of(self, at: int) -> int:
        # The parser only moves forward, so newlines are counted once.
        self._line += self.text.count("\n", self._counted, at)
        self._counted = at
        return self._line

    def _line_at(self, at: int) -> int:
        return self.text.count("\n", 0, at) + 1

    def _malformed(self, at: int, reason: str) -> Malformed:
        return Malformed(self._line_at(at), at - (self.text.rfind("\n", 0, at) + 1) + 1, reason)
