"""The reader of TAP, with real outputs of suites."""

from __future__ import annotations

import pytest

from conformance.suites import tap


def test_a_plain_stream() -> None:
    report = tap.read(
        "1..3\nok 1 first\nnot ok 2 second\n# because\n# of that\nok 3 third # skip no such kernel\n"
    )
    assert (report.passed, report.failed, report.skipped) == (1, 1, 1)
    first, second, third = report.points
    assert first == tap.Point(ok=True, name="first")
    assert second.comments == ["because", "of that"]
    assert (third.name, third.directive, third.reason) == ("third", "skip", "no such kernel")
    assert report.problems() == ["not ok: second"]


@pytest.mark.parametrize(
    ("line", "name", "directive", "reason"),
    [
        ("ok 1 - has expected hostname", "has expected hostname", "", ""),
        ("ok 1 -", "", "", ""),
        ("ok 309 # SKIP process.ApparmorProfile not set", "", "skip", "process.ApparmorProfile not set"),
        ("ok 4 name # skip", "name", "skip", ""),
        ("ok 4 name #skip: why", "name", "skip", "why"),
        ("ok", "", "", ""),
        ("ok no number", "no number", "", ""),
        ("not ok 2 later # TODO some day", "later", "todo", "some day"),
        ("ok 7 issue #4047 [host pidns + init gone]", "issue #4047 [host pidns + init gone]", "", ""),
        ("ok 7 a # skipped word", "a # skipped word", "", ""),
    ],
)
def test_test_lines(line: str, name: str, directive: str, reason: str) -> None:
    (point,) = tap.read(line).points
    assert (point.name, point.directive, point.reason) == (name, directive, reason)
    assert point.ok is not line.startswith("not")
    assert not point.failed, "neither an ok nor a failure that is expected"


@pytest.mark.parametrize("text", ["", "starting\n", "okay\nnothing here\n 1..4\n", "TAP version 13\n"])
def test_what_is_no_tap_is_left_out(text: str) -> None:
    report = tap.read(text)
    assert report.points == []
    assert report.problems() == []


def test_indented_lines_are_another_tests_output() -> None:
    report = tap.read("ok 1 - outer\n    not ok 1 - inner\n    1..7\n1..1\n")
    assert [point.name for point in report.points] == ["outer"]
    assert report.problems() == []


def test_the_plan_may_come_last_or_never_and_0_is_no_plan() -> None:
    assert tap.read("ok 1\nok 2\n1..2\n").problems() == []
    assert tap.read("ok 1\nok 2\n").problems() == []
    assert tap.read("TAP version 13\n1..0\nok 1\n").problems() == []
    assert tap.read("TAP version 13\n1..0\n").problems() == []


def test_a_plan_that_is_not_kept() -> None:
    assert tap.read("1..3\nok 1\nok 2\n").problems() == ["3 tests planned, 2 reported"]
    assert tap.read("1..1\n").problems() == ["1 tests planned, 0 reported"]


def test_each_version_line_counts_from_the_start() -> None:
    text = "TAP version 13\nok 1 - a\nok 2 - b\n1..2\nTAP version 13\nnot ok 1 - c\n1..1\n"
    report = tap.read(text)
    assert [len(stream.points) for stream in report.streams] == [2, 1]
    assert report.problems() == ["not ok: c"]


ERROR = """TAP version 13
  ---
  {
    "error": "hooks MUST be called\\nRefer to: config.md"
  }
  ...
1..0
"""


def test_a_test_that_only_reports_an_error_has_failed() -> None:
    assert tap.read(ERROR).problems() == ["hooks MUST be called"]


def test_an_error_beside_test_lines_is_a_remark_on_them() -> None:
    assert tap.read("ok 1 - generates an error\n" + ERROR.removeprefix("TAP version 13\n")).problems() == []
    assert tap.read(ERROR.replace("hooks MUST be called\\nRefer to: config.md", "")).problems() == []


@pytest.mark.parametrize("block", ["[1]", "not json", '{"error": 3}', '{"reference": "x"}'])
def test_other_blocks_say_nothing(block: str) -> None:
    assert tap.read(f"TAP version 13\n  ---\n  {block}\n  ...\n1..0\n").problems() == []


def test_what_stands_in_a_block_is_not_read_as_tap() -> None:
    report = tap.read("ok 1\n  ---\nnot ok 2\n1..9\n  ...\nok 2\n")
    assert (report.passed, report.failed) == (2, 0)
    assert report.problems() == []


def test_bail_out() -> None:
    assert tap.read("1..2\nok 1\nBail out! no more disk\n").problems() == [
        "bailed out: no more disk",
        "2 tests planned, 1 reported",
    ]
    assert tap.read("Bail out!\n").problems() == ["bailed out"]
