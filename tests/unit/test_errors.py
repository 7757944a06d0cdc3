"""Failure: one line for people, and its fields on the way from the container's side."""

from __future__ import annotations

import errno
import os
import pickle

import pytest

from pyrunc.errors import Failure, excerpt, failing, from_facts, printable, shortened, strerror, worded


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (Failure("it broke"), "it broke"),
        (Failure("open /x", errno=errno.ENOENT), "open /x: no such file or directory"),
        (Failure("gone", step="c1"), "c1: gone"),
        (Failure("bad", step="mount", pointer="/mounts/3"), "mount /mounts/3: bad"),
        (
            Failure("bad", pointer="/a", errno=errno.EPERM, hint="try"),
            "/a: bad: operation not permitted; try",
        ),
    ],
)
def test_text(failure: Failure, text: str) -> None:
    assert failure.text() == text


def test_facts_survive_the_way() -> None:
    failure = Failure("m", step="s", pointer="/p", errno=2, hint="h", code=255)
    assert from_facts(failure.facts()).facts() == failure.facts()


@pytest.mark.parametrize(
    "facts",
    [
        None,
        [],
        "x",
        [1, "s", "/p", 2, "h", 1],
        ["m", "s", "/p", "2", "h", 1],
        ["m"] * 5,
        # A status that says it went well, or that is none; an error number that is none.
        ["m", "s", "/p", 2, "h", 0],
        ["m", "s", "/p", 2, "h", 256],
        ["m", "s", "/p", 2, "h", -(10**30)],
        ["m", "s", "/p", 10**30, "h", 1],
        ["m", "s", "/p", -1, "h", 1],
    ],
)
def test_a_malformed_report_is_itself_a_failure(facts: object) -> None:
    assert "malformed" in from_facts(facts).message


def test_a_report_of_several_lines_stays_one_through_pickle() -> None:
    report = Failure("a\nb", code=3)
    report.lines = True
    found = pickle.loads(pickle.dumps(report))
    assert (found.facts(), found.lines) == (report.facts(), True)
    assert not pickle.loads(pickle.dumps(Failure("a"))).lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, with spaces, and ünïcode", "plain, with spaces, and ünïcode"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x9b\x07\x00", r"\x9b\x07\x00"),
        ("\u202e\u2028\ufeff", r"\u202e\u2028\ufeff"),
        (os.fsdecode(b"\xff"), r"\udcff"),
    ],
)
def test_what_others_wrote_does_not_steer_a_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown
    assert printable("a\n\x1b", keep="\n") == "a\n\\x1b"


def test_strerror_has_the_spelling_engines_match_on() -> None:
    assert strerror(errno.ENOENT) == "no such file or directory"
    assert strerror(errno.EIO) == "input/output error"
    assert strerror(errno.EXDEV) == "invalid cross-device link"


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Failure("m", step="s"), "s: m"),
        (PermissionError(errno.EPERM, "Operation not permitted"), "do it: operation not permitted"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/x"), "do it: no such file or directory"),
        (OSError("no number"), "do it: internal error: OSError: no number"),
        (ValueError("bad"), "do it: internal error: ValueError: bad"),
        (KeyboardInterrupt(), "do it: internal error: KeyboardInterrupt: "),
    ],
)
def test_an_exception_is_told_in_words(problem: BaseException, text: str) -> None:
    """The message has the kernel's words, and not Python's form "PermissionError(1, ...)"."""
    assert worded(problem, "do it").text() == text


def test_a_message_does_not_repeat_a_whole_book() -> None:
    assert shortened("a " * 1000) == "a " * 1000
    assert shortened("no " + "x" * 400) == "no " + "x" * 400
    assert shortened("no " + "x" * 5000 + " here") == f"no {'x' * 120}...(4840 more)...{'x' * 40} here"


def test_a_value_in_quotes_is_cut_whatever_is_in_it() -> None:
    words = "a b " * 100
    for quote in "'\"":
        said = shortened(f"write {quote}{words}{quote} to cpuset.cpus of the container's cgroup")
        assert said.startswith(f"write {quote}a b a b")
        assert "...(320 more)..." in said
        assert said.endswith(f"a b {quote} to cpuset.cpus of the container's cgroup")
    for text in ("it's " + words + "isn't", f'"{"x" * 100}" and "{"y" * 100}"', f'"{words}\n"'):
        assert shortened(text) == text
    escaped = '"' + '\\"' * 200 + '"'
    assert shortened(escaped).count('"') < 100


def test_excerpt() -> None:
    assert excerpt("x" * 80) == "x" * 80
    assert excerpt("x" * 100) == "x" * 60 + "...(20 more)..." + "x" * 20


def test_failing_makes_the_kernels_refusal_a_failure() -> None:
    with pytest.raises(Failure) as caught, failing("open it", step="begin", pointer="/root", hint="look"):
        raise FileNotFoundError(errno.ENOENT, "no words")
    assert caught.value.facts() == ["open it", "begin", "/root", errno.ENOENT, "look", 1]
    assert caught.value.__suppress_context__, "the traceback is ours, not the kernel's"


@pytest.mark.parametrize("problem", [ValueError("mine"), Failure("said already"), KeyboardInterrupt()])
def test_failing_leaves_the_rest_alone(problem: BaseException) -> None:
    with pytest.raises(type(problem)) as caught, failing("open it"):
        raise problem
    assert caught.value is problem


def test_failing_is_silent_when_nothing_fails() -> None:
    with failing("open it"):
        done = True
    assert done
