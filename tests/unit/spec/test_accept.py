"""The hand-written helpers of the generated acceptor; the rest is compared with the schemas."""

from __future__ import annotations

import pytest

from pyrunc.spec import accept


@pytest.mark.parametrize(
    ("value", "taken"),
    [
        ([], True),
        (["a", ""], True),
        (["a\0"], False),
        (["a", 1], False),
        ([None], False),
        ("ab", False),
        (None, False),
    ],
)
def test_texts(value: object, *, taken: bool) -> None:
    assert accept._texts(value) is taken


@pytest.mark.parametrize(
    ("value", "taken"),
    [
        ({}, True),
        ({"a": ""}, True),
        ({"a\0": ""}, False),
        ({"a": "\0"}, False),
        ({"a": 1}, False),
        ([], False),
    ],
)
def test_text_maps(value: object, *, taken: bool) -> None:
    assert accept._text_map(value) is taken
