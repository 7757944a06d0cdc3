"""jsonio compared with json: texts that both accept mean the same, unusual ones are refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrunc import jsonio

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_what_is_written_can_be_read_by_both(value: object) -> None:
    for text in (jsonio.dumps(value), jsonio.dumps_indent(value), jsonio.dumps_indent(value, "\t")):
        assert json.loads(text) == value
        assert jsonio.loads(text) == value


@given(VALUES)
def test_what_json_writes_can_be_read(value: object) -> None:
    assert jsonio.loads(json.dumps(value, indent=1)) == value


@pytest.mark.parametrize(
    "text", ["", " ", "{", "[1,]", "{'a': 1}", "1 2", "NaN", "Infinity", "nul", '{"a" 1}', '"\x01"']
)
def test_what_is_no_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        jsonio.loads(text)


def test_deep_nesting_is_refused_not_fatal() -> None:
    with pytest.raises(ValueError):
        jsonio.loads("[" * 100_000 + "]" * 100_000)


def test_layout() -> None:
    assert jsonio.dumps({"a": [1, None], "b": {}}) == '{"a":[1,null],"b":{}}'
    assert jsonio.dumps_indent({"a": [1], "b": []}, "  ") == '{\n  "a": [\n    1\n  ],\n  "b": []\n}'


def test_a_number_beyond_all_stays_json() -> None:
    """It may be in a property that no one reads, in a configuration that `update` writes again."""
    assert jsonio.dumps(jsonio.loads("[1e999, -1e999, 1e-999]")) == "[1e999,-1e999,0.0]"


def test_what_has_no_json_form_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="set has no JSON form"):
        jsonio.dumps({1, 2})


def test_a_text_in_a_message_is_cut() -> None:
    assert jsonio.quoted('a"') == '"a\\""'
    assert jsonio.quoted("x" * 200) == '"' + "x" * 115 + '..."'
    assert len(jsonio.quoted("x" * 118)) == 120


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("007", 7),
        ("64", 64),
        ("65", None),
        ("", None),
        ("-1", None),
        ("9" * 5000, None),
        ("0" * 5000, 0),
        ("\u0665", None),
        (" 1", None),
        ("\u00b2", None),
    ],
)
def test_plain_numbers(text: str, number: int | None) -> None:
    assert jsonio.decimal(text, 64) == number
