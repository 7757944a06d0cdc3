"""The fast acceptor and jsonschema read the same schemas: they may never disagree (law 2)."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyrunc.spec import accept, load, meaning
from pyrunc.spec.problems import Report
from schema import gen_accept
from tests.support.schemas import damaged, definitions, everything, is_valid, values

FUNCTIONS = {(file, name): function for function, file, name, _ in gen_accept.ROOTS}
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
FEW = settings(max_examples=10, deadline=None, suppress_health_check=SLOW)
MANY = settings(max_examples=25, deadline=None, suppress_health_check=SLOW)


def accepts(value: object, file: str, name: str) -> bool:
    function = FUNCTIONS.get((file, name)) or "_" + gen_accept.snake(name)
    answer = getattr(accept, function)(value)
    assert isinstance(answer, bool)
    return answer


@pytest.mark.parametrize(("file", "name"), sorted(definitions()))
@FEW
@given(data=st.data())
def test_both_take_what_the_schema_allows(file: str, name: str, data: st.DataObject) -> None:
    value = data.draw(values({"$ref": f"#/$defs/{name}"}, file))
    assert accepts(value, file, name)
    assert is_valid(value, file, name)


@pytest.mark.parametrize(("file", "name"), sorted(definitions()))
@MANY
@given(data=st.data())
def test_both_say_the_same_of_damaged_values(file: str, name: str, data: st.DataObject) -> None:
    value = data.draw(damaged(values({"$ref": f"#/$defs/{name}"}, file)))
    assert accepts(value, file, name) == is_valid(value, file, name)


@pytest.mark.parametrize(("file", "name"), sorted(definitions()))
def test_both_look_at_every_property(file: str, name: str) -> None:
    whole = everything({"$ref": f"#/$defs/{name}"}, file)
    assert accepts(whole, file, name)
    for key in whole:
        wrong = {**whole, key: 1.5}
        assert not accepts(wrong, file, name), key
        assert not is_valid(wrong, file, name), key


@pytest.mark.parametrize("pattern", sorted(gen_accept.PATTERNS))
@given(text=st.text(st.sampled_from("\0\n\t./: 02KMGBab"), max_size=18))
def test_patterns_mean_what_is_generated_for_them(pattern: str, text: str) -> None:
    expression = gen_accept.PATTERNS[pattern]
    generated = eval(expression, {**vars(accept), "v": text})
    assert generated == bool(re.search(pattern.replace("$", r"\Z"), text))


@MANY
@given(value=damaged(values({"$ref": "#/$defs/Config"}, "config.json")))
def test_what_is_taken_fast_is_taken_slowly(value: Any) -> None:
    """The contract of the two sides, on whole files: a fast yes is a slow yes."""
    raw = json.dumps(value).encode()
    scanned = load.scan(raw)
    report = Report(raw, "config")
    if accept.accept(scanned) and not meaning.check(scanned):  # type: ignore[arg-type]
        assert report.problems == []
        assert report.value == scanned
    else:
        assert report.problems or scanned != report.value


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    )
)
def test_nothing_makes_the_acceptor_raise(value: object) -> None:
    for function in FUNCTIONS.values():
        assert getattr(accept, function)(value) in (True, False)
