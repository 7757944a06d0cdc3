"""Words of other tools: for each, the message says what to do in pyrunc."""

from __future__ import annotations

import pytest

from pyrunc.cli import app, elsewhere
from pyrunc.cli.verbs import GLOBALS, GROUPS, VERBS


def test_what_is_the_same_is_a_verb() -> None:
    assert set(elsewhere.SAME.values()) <= set(VERBS)
    assert not (set(elsewhere.SAME) | set(elsewhere.INSTEAD)) & {*VERBS, *GROUPS}, (
        "these are verbs of ours now"
    )


def test_no_option_of_ours_is_explained_away() -> None:
    for verb, options in elsewhere.OPTIONS.items():
        own = {name for row in (*VERBS[verb][6], *GLOBALS) for name in row[0]}
        assert not own & set(options), verb


@pytest.mark.parametrize("word", elsewhere.INSTEAD)
def test_a_verb_of_others(word: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert app.read([word, "x"]) == 3
    assert capfd.readouterr().err == f"No help topic for '{word}'; {elsewhere.INSTEAD[word]}\n"


@pytest.mark.parametrize(
    ("verb", "name"), [(verb, name) for verb, names in elsewhere.OPTIONS.items() for name in names]
)
def test_an_option_of_others(verb: str, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    dashes = "-" if len(name) == 1 else "--"
    assert app.read([verb, dashes + name, "box"]) == 1
    said = capfd.readouterr().err
    assert said == f"flag provided but not defined: -{name}; {elsewhere.OPTIONS[verb][name]}\n"


@pytest.mark.parametrize("name", ["it", "ti", "itd", "dit"])
def test_letters_in_any_order(name: str) -> None:
    assert "terminal" in elsewhere.option("run", name)
    assert elsewhere.option("exec", name).startswith("write -t")


def test_all_else_has_no_answer() -> None:
    assert elsewhere.option("run", "td") == ""
    assert elsewhere.option("state", "it") == ""
    assert elsewhere.option("", "x") == ""
