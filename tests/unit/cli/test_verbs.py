"""The verbs table: complete, and without conflicts."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from pyrunc.cli.verbs import CHOICE, FLAG, GLOBALS, GROUPS, HELP, INTEGERS, MANY, TRISTATE, VERBS, VERSION


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_its_module(verb: str) -> None:
    assert find_spec(f"pyrunc.verbs.{verb.partition(' ')[0]}") is not None


def test_groups_are_no_verbs() -> None:
    assert {verb.partition(" ")[0] for verb in VERBS if " " in verb} == set(GROUPS)
    assert not set(GROUPS) & set(VERBS)


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_no_name_means_two_options(verb: str) -> None:
    rows = (*(VERBS[verb][6] if verb else (*GLOBALS, VERSION)), HELP)
    names = [name for row in rows for name in row[0]]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_defaults_fit_their_kind(verb: str) -> None:
    for names, kind, default, metavar, _ in VERBS[verb][6] if verb else GLOBALS:
        assert len(names[0]) > 1, f"{names}: the long name comes first, it becomes the attribute"
        assert (kind == FLAG) == (default is False) == (metavar == "")
        assert (kind in (MANY, INTEGERS)) == (default == ())
        if kind in (CHOICE, TRISTATE):
            assert default is None or default in metavar.split("|")


@pytest.mark.parametrize("verb", VERBS)
def test_counts_fit_the_attributes(verb: str) -> None:
    _, _, attributes, least, most, stops, options = VERBS[verb]
    assert least <= len(attributes)
    assert most in (-1, len(attributes))
    assert not stops or most < 0
    assert not {row[0][0] for row in options} & set(attributes)
