"""The suggested word: two letters that changed places are one mistake."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrunc.cli.verbs import VERBS
from pyrunc.near import mistakes, nearest

VERB_MISTAKES = {
    "strat": "start",
    "stat": "state",
    "stae": "state",
    "exce": "exec",
    "kil": "kill",
    "klil": "kill",
    "lsit": "list",
    "psuse": "pause",
    "delte": "delete",
    "delet": "delete",
    "udpate": "update",
    "valdiate": "validate",
    "fetaures": "features",
    "chekcpoint": "checkpoint",
    "RUN": "run",
}


@pytest.mark.parametrize(("word", "meant"), VERB_MISTAKES.items())
def test_verbs(word: str, meant: str) -> None:
    assert nearest(word, VERBS) == meant


@pytest.mark.parametrize("word", ["", "x", "zzzzzz", "frobnicate", "x" * 100])
def test_nothing_is_near(word: str) -> None:
    assert nearest(word, VERBS) == ""


def test_more_letters_than_are_counted() -> None:
    long = "a" * 70
    assert nearest(long + "b", [long, "b"]) == long


def test_the_known_spelling_is_returned() -> None:
    assert nearest("noNewPrivilges", ["noNewPrivileges"]) == "noNewPrivileges"
    assert nearest("NONEWPRIVILEGES", ["noNewPrivileges"]) == "noNewPrivileges"


@pytest.mark.parametrize(
    ("one", "other", "count"),
    [
        ("", "", 0),
        ("abc", "abc", 0),
        ("abc", "acb", 1),
        ("abc", "ab", 1),
        ("abc", "abcd", 1),
        ("abc", "xyz", 3),
    ],
)
def test_mistakes(one: str, other: str, count: int) -> None:
    assert mistakes(one, other) == count


@given(st.text("abc", max_size=6), st.text("abc", max_size=6))
def test_mistakes_are_a_distance(one: str, other: str) -> None:
    count = mistakes(one, other)
    assert count == mistakes(other, one)
    assert (count == 0) == (one == other)
    assert abs(len(one) - len(other)) <= count <= max(len(one), len(other))
