"""The published lists of known failures: their format, and that no entry is out of date."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.suites import expected
from conformance.suites.expected import Entry

CONFORMANCE = Path(__file__).resolve().parents[3] / "conformance"


def entry(name: str, kind: str = "test") -> Entry:
    return Entry(name, kind, "because")


def test_a_list() -> None:
    text = '[[test]]\nname = "a.bats: b"\nkind = "host"\nreason = "no systemd"\n'
    assert expected.parse(text) == [Entry("a.bats: b", "host", "no systemd")]
    assert expected.parse("# nothing\n") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[test]]\nname = "a"\nkind = "test"\n', "entry 1 must have name, kind and reason"),
        ('[[test]]\nname = "a"\nkind = "test"\nreason = 3\n', "all text"),
        ('[[test]]\nname = "a"\nkind = "test"\nreason = "b"\nfile = "c"\n', "entry 1 must have"),
        (
            '[[test]]\nname = "a"\nkind = "flaky"\nreason = "b"\n',
            "a: kind 'flaky' is none of test, host, race, ours",
        ),
        ('[[test]]\nname = "a"\nkind = "test"\nreason = " "\n', "a: no reason"),
        ('[[test]]\nname = "a"\nkind = "test"\nreason = "b"\n' * 2, "more than one entry for: a"),
        ("[[test]\n", "line 1"),
    ],
)
def test_a_list_that_says_too_little(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expected.parse(text)


def test_all_is_as_expected() -> None:
    outcomes = {"passes": True, "fails": False, "skipped": None}
    assert expected.check([entry("fails")], outcomes) == []
    assert expected.check([entry("fails"), entry("skipped")], outcomes) == []


def test_a_failure_nobody_expected() -> None:
    assert expected.check([entry("a")], {"a": False, "b": False}) == ["unexpected failure: b"]


@pytest.mark.parametrize("kind", ["test", "ours"])
def test_an_entry_for_a_test_that_passes_is_stale(kind: str) -> None:
    assert expected.check([entry("a", kind)], {"a": True}) == ["stale entry: 'a' passes"]


@pytest.mark.parametrize("kind", ["host", "race"])
def test_what_one_machine_lacks_another_may_have(kind: str) -> None:
    assert expected.check([entry("a", kind)], {"a": True}) == []
    assert expected.check([entry("a", kind)], {"a": False}) == []


@pytest.mark.parametrize("kind", list(expected.KINDS))
def test_an_entry_for_no_test_is_stale(kind: str) -> None:
    assert expected.check([entry("gone", kind)], {"a": True}) == ["stale entry: there is no test 'gone'"]
    assert expected.check([entry("gone", kind)], {"a": True}, present=["a", "gone"]) == []


@pytest.mark.parametrize("name", ["runtime_tools/known.toml", "runc_suite/skips.toml"])
def test_our_own_lists_can_be_read(name: str) -> None:
    entries = expected.parse((CONFORMANCE / name).read_text())
    assert entries
    assert not [one for one in entries if one.reason.endswith(".")], "half a sentence, as a cell of a table"
