"""The messages of the slow path's JSON parser for texts that people write."""

from __future__ import annotations

import pytest

from pyrunc.jsonio import MAX_DEPTH
from pyrunc.spec.json_slow import Document, Malformed

MALFORMED = [
    # text, line, column, reason
    ("", 1, 1, "the text is empty"),
    (" \n ", 2, 2, "the text is empty"),
    ("\ufeff{}", 1, 1, "the text begins with a byte order mark, which JSON does not have"),
    ('{"a": 1,}', 1, 9, "there is a comma before this }, but no property follows it"),
    ('{\n  "a": 1,\n}', 3, 1, "there is a comma before this }, but no property follows it"),
    ("[1, 2, ]", 1, 8, "there is a comma before this ], but no value follows it"),
    ('{"a": 1\n "b": 2}', 1, 8, "a comma is missing here"),
    ("[1 2]", 1, 3, "a comma is missing here"),
    ('{"a": [1}', 1, 9, "[ of line 1 is closed by } instead of ]"),
    ('{\n"a": 1]', 2, 7, "{ of line 1 is closed by ] instead of }"),
    ('{\n"a": {"b": 1', 2, 13, "the text ends, but { of line 2 is not closed"),
    ("{", 1, 2, "the text ends, but { of line 1 is not closed"),
    ("[", 1, 2, "the text ends, but [ of line 1 is not closed"),
    ("[1,", 1, 4, "the text ends, but [ of line 1 is not closed"),
    ('{"a": 1,', 1, 9, "the text ends, but { of line 1 is not closed"),
    ('{"a" 1}', 1, 5, 'a colon is missing after the name "a"'),
    ('{"a": }', 1, 7, "a value is missing"),
    ('{"a":', 1, 6, "a value is missing"),
    ("{,}", 1, 2, "the name of a property is missing"),
    ("{a: 1}", 1, 2, 'the name of a property is quoted: "a"'),
    ("{'a': 1}", 1, 2, 'strings are quoted with " in JSON'),
    ("{\"a\": 'b'}", 1, 7, 'strings are quoted with " in JSON'),
    ('{"a": b}', 1, 7, 'a string is quoted: "b"'),
    ('{"a": True}', 1, 7, "true is written in small letters"),
    ('{"a": None}', 1, 7, "null is the word for nothing"),
    ('{"a": NaN}', 1, 7, "JSON has no NaN"),
    ('{"a": 1} // b', 1, 10, "JSON has no comments"),
    ('{"a": 1 # b\n}', 1, 8, "JSON has no comments"),
    ('{/* a */ "a": 1}', 1, 2, "JSON has no comments"),
    ("{} {}", 1, 4, "there is more text after the end of the value"),
    ("+1", 1, 1, "a number begins with a digit or with -"),
    (".5", 1, 1, "a number begins with a digit or with -"),
    ("0666", 1, 1, "a number has no leading zeros: an octal file mode is written in decimal, 0666 as 438"),
    ("-07", 1, 1, "a number has no leading zeros: an octal file mode is written in decimal, 0666 as 438"),
    ("0x1f", 1, 1, "a number is written in decimal digits"),
    ("1_000", 1, 1, "a number is written in decimal digits"),
    ("1.", 1, 1, "a number is written in decimal digits"),
    ("1" * 4301, 1, 1, "a number of more than 4300 digits"),
    ('"a', 1, 1, "this string has no closing quote on its line"),
    ('{"a": "b\n"}', 1, 7, "this string has no closing quote on its line"),
    ('"a\tb"', 1, 3, "a control character in a string is written as \\t"),
    ('"\\\\\x01"', 1, 4, "a control character in a string is written as \\u0001"),
    ('"C:\\data"', 1, 4, "'\\\\d' is no escape: a backslash itself is written twice"),
    ('"\\\\\\u12"', 1, 4, "'\\\\u' is no escape: a backslash itself is written twice"),
    ("[" * (MAX_DEPTH + 2), 1, MAX_DEPTH + 2, "values are nested more than 200 levels deep"),
]


@pytest.mark.parametrize(
    ("text", "line", "column", "reason"), MALFORMED, ids=[repr(row[0][:20]) for row in MALFORMED]
)
def test_why_a_text_is_not_json(text: str, line: int, column: int, reason: str) -> None:
    with pytest.raises(Malformed) as caught:
        Document(text)
    assert (caught.value.line, caught.value.column, caught.value.reason) == (line, column, reason)
    assert str(caught.value) == f"line {line}, column {column}: {reason}"


def test_values() -> None:
    text = '\n{"a": [1, -0.5, 1e2, true, false, null, "\\u00e9\\n\\ud83d\\ude00"], "b": {}, "c": []}\n'
    document = Document(text)
    assert document.value == {
        "a": [1, -0.5, 100.0, True, False, None, "\u00e9\n\U0001f600"],
        "b": {},
        "c": [],
    }
    assert document.lines[""] == 2


def test_lines() -> None:
    document = Document('{\n "a": [\n  1,\n  {"x/y~":\n   2}\n ],\n "b": 3\n}')
    assert document.lines == {"": 1, "/a": 2, "/a/0": 3, "/a/1": 4, "/a/1/x~1y~0": 4, "/b": 7}
    assert document.line("/a/1/nothing/there") == 4
    assert document.line("/c") == 1


def test_names_that_are_there_twice() -> None:
    document = Document('{"a": 1,\n"b": {"a": 1},\n"a": 2}')
    assert document.value == {"a": 2, "b": {"a": 1}}
    assert document.repeated == [("/a", 3)]
    assert document.lines["/a"] == 3
