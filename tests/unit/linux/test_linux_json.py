"""The extension's JSON compared with Python's: the same texts have the same values, and are written alike."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrunc import jsonio
from pyrunc.linux import _linux

# Any characters, also halves of surrogate pairs, which json.dumps() writes and reads.
TEXTS = st.text(st.characters(), max_size=12) | st.text(
    st.sampled_from('"\\/\b\x00\x1f\x7fé€\U0001f600\ud83d\ude00')
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


@given(value=VALUES, ascii_only=st.booleans())
def test_values(value: object, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert _linux.read_json(text) == json.loads(text)


@given(TEXTS)
def test_strings_are_written_as_json_writes_them(text: str) -> None:
    assert _linux.quote_json(text) == json.dumps(text)


@pytest.mark.parametrize(
    "text",
    [
        " \t\r\n1 ",
        "-0",
        "0.0",
        "-0.0",
        "1e5",
        "1E+5",
        "1.5e-5",
        "1e999",
        "999999999999999999",
        "-999999999999999999",
        "1000000000000000000",
        "9223372036854775808",
        "1" * 4300,
        '"\\u00e9\\u20AC\\uD83D\\uDE00"',
        '"\\ud83d"',
        '"\\ud83d\\ud83d\\ude00"',
        '"\\ude00\\ud83d"',
        '"\\ud83d\ude00"',
        '"\ud83d\\ude00"',
        '"\\"\\\\\\/\\b\\f\\n\\r\\t"',
        '{"a":1,"b":{"a":2},"a":3}',
        '{"aa":1,"aA":2,"Aa":3,"\\u0061a":4}',
        '{"":[{},[],""]}',
    ],
)
def test_edges(text: str) -> None:
    found, expected = _linux.read_json(text), json.loads(text)
    assert (repr(found), type(found)) == (repr(expected), type(expected))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\x00",
        "{}\x00",
        "\ufeff{}",
        "nul",
        "nulls",
        "-",
        "+1",
        "01",
        "-01",
        "1.",
        ".5",
        "1e",
        "1e+",
        "1_000",
        "0x1f",
        "\u0661",
        "-Infinity",
        '"',
        '"\\"',
        '"\\',
        '"\\u12"',
        '"\\u12g4"',
        '"\\u+123"',
        '"\\ud83d\\u12"',
        '"\\x41"',
        '"\\\u20ac"',
        '"a\nb"',
        "[",
        "[1",
        "[1,",
        "[,1]",
        "[1 2]",
        "{",
        '{"a"',
        '{"a":',
        '{"a":1',
        '{"a":1,',
        '{"a":1,}',
        '{"a",1}',
        "{1:1}",
        "1" * 4301,
    ],
)
def test_what_is_no_json(text: str) -> None:
    with pytest.raises(ValueError):
        json.loads(text, parse_constant=int)
    with pytest.raises(ValueError):
        _linux.read_json(text)


def test_a_name_that_occurs_again_is_the_same_object() -> None:
    found = _linux.read_json('[{"names":1},{"names":2}]')
    assert isinstance(found, list)
    (one,), (other,) = found
    assert one is other


def test_the_depth_is_jsonio_s() -> None:
    deepest = "[" * jsonio.MAX_DEPTH
    assert _linux.read_json(deepest + "1" + "]" * jsonio.MAX_DEPTH)
    with pytest.raises(ValueError, match=f"more than {jsonio.MAX_DEPTH} levels"):
        _linux.read_json("[" + deepest + "1" + "]" * (jsonio.MAX_DEPTH + 1))


@pytest.mark.parametrize("call", [_linux.read_json, _linux.quote_json])
def test_only_texts(call: object) -> None:
    assert callable(call)
    for wrong in (b"1", None, 1):
        with pytest.raises(TypeError):
            call(wrong)
