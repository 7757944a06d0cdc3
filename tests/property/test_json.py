"""Two readers of JSON, a fast one and one that knows places: they read the same texts, with one meaning."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrunc import jsonio
from pyrunc.spec.json_slow import Document, Malformed
from pyrunc.spec.meaning import escape

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)
TEXTS = st.builds(
    lambda value, indent, ascii_only: json.dumps(value, indent=indent, ensure_ascii=ascii_only),
    VALUES,
    st.sampled_from([None, 0, 2]),
    st.booleans(),
)
TOKENS = st.sampled_from(
    [
        *'{}[],:"\\ \n\t/#',
        "'",
        "0",
        "1",
        "-",
        "+",
        ".",
        "e",
        "true",
        "null",
        "NaN",
        '"a"',
        "\\u00",
        "\ufeff",
        "\x01",
    ]
)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    text = draw(TEXTS)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(TOKENS | st.just("")) + text[at + draw(st.integers(0, 2)) :]
    return text


def malformed(text: str) -> Malformed | None:
    try:
        Document(text)
    except Malformed as exc:
        return exc
    return None


@given(text=TEXTS | damaged() | st.lists(TOKENS, max_size=12).map("".join))
def test_both_take_the_same_texts(text: str) -> None:
    why = malformed(text)
    if why is None:
        assert Document(text).value == jsonio.loads(text)
    else:
        assert 1 <= why.line <= text.count("\n") + 1
        assert why.column >= 1
        assert why.reason
        with pytest.raises(ValueError, match="JSON"):
            jsonio.loads(text)


@pytest.mark.parametrize("depth", [1, 199, 200, 201, 202, 900, 1000, 100_000])
@pytest.mark.parametrize("shape", ["[]", "{}", "[1]", '{"a":1}', "[{}]", '{"a":[]}'])
def test_both_go_as_deep(depth: int, shape: str) -> None:
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        text = opening * depth + shape + closing * depth
        why = malformed(text)
        fits = depth + (shape not in ("[]", "{}")) <= jsonio.MAX_DEPTH
        assert (why is None) == fits
        if fits:
            assert jsonio.loads(text) == Document(text).value
        else:
            with pytest.raises(ValueError, match="JSON"):
                jsonio.loads(text)


@given(value=VALUES)
def test_every_value_has_the_line_it_stands_on(value: object) -> None:
    """Written with one token a line, a value's line is the number of the lines before it."""
    lines: dict[str, int] = {}
    text: list[str] = []

    def write(inner: Any, pointer: str, name: str = "") -> None:
        if name:
            lines[pointer] = len(text) + 1
            text.extend([name, ":"])
        lines.setdefault(pointer, len(text) + 1)
        if isinstance(inner, (dict, list)):
            members = list(inner.items() if isinstance(inner, dict) else enumerate(inner))
            text.append("{" if isinstance(inner, dict) else "[")
            for number, (step, member) in enumerate(members):
                place = f"{pointer}/{escape(str(step))}"
                write(member, place, json.dumps(step) if isinstance(inner, dict) else "")
                text.extend([","] if number + 1 < len(members) else [])
            text.append("}" if isinstance(inner, dict) else "]")
        else:
            text.append(json.dumps(inner))

    write(value, "")
    document = Document("\n".join(text))
    assert document.lines == lines
    assert document.repeated == []
    assert document.line("/no/such/place") == 1 or "/no" in lines


@given(number=st.floats(allow_nan=False))
def test_both_read_numbers_alike(number: float) -> None:
    for text in (repr(number), f"{number:.3e}"):
        if not math.isinf(number):
            assert Document(text).value == jsonio.loads(text) == float(text)
