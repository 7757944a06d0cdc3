"""Law 2 for command lines: the strict matcher saves time and never changes the meaning."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pyrunc.cli.app import Words, parse
from pyrunc.cli.match import Command, match
from pyrunc.cli.verbs import (
    CHOICE,
    FLAG,
    GLOBALS,
    GROUPS,
    HELP,
    INTEGER,
    INTEGERS,
    MANY,
    OPTIONAL,
    SECONDS,
    TEXT,
    TRISTATE,
    VERBS,
    VERSION,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cli.verbs import Option

_ODD = st.one_of(
    st.sampled_from(
        ["", "007", "0x3", "0s", "1m", "T", "-", "--", "--root", "\u00b2", "\udcff", "5 ", "1_0", "xml"]
    ),
    st.text(max_size=4),
)
_GOOD = {
    TEXT: st.sampled_from(["/b", "-1", "", "x=y", "--debug", "-"]),
    OPTIONAL: st.sampled_from(["/b", "", "-", "true"]),
    MANY: st.sampled_from(["A=1", "CAP_KILL", "a,b"]),
    INTEGER: st.sampled_from(["0", "3", "-1"]),
    INTEGERS: st.sampled_from(["0", "5"]),
    SECONDS: st.sampled_from(["5s", "12s"]),
}


def _mostly(good: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Good values, and now and then an odd one: a line with one odd word in it is the interesting one."""
    return st.integers(0, 9).flatmap(lambda dice: good if dice else _ODD)


def _spelled(option: Option) -> st.SearchStrategy[list[str]]:
    """One option, spelled in the ways there are."""
    names, kind, _, metavar, _ = option
    word = st.builds(str.__add__, st.sampled_from(["-", "--"]), st.sampled_from(names))
    if kind == FLAG:
        values = _mostly(st.sampled_from(["true", "false"]))
        return st.builds(lambda a: [a], word) | st.builds(lambda a, b: [f"{a}={b}"], word, values)
    if kind == OPTIONAL:
        values = _mostly(_GOOD[kind])
        return st.builds(lambda a: [a], word) | st.builds(lambda a, b: [f"{a}={b}"], word, values)
    values = _mostly(st.sampled_from(metavar.split("|")) if kind in (CHOICE, TRISTATE) else _GOOD[kind])
    return st.builds(lambda a, b: [a, b], word, values) | st.builds(lambda a, b: [f"{a}={b}"], word, values)


def _line(verb: str) -> st.SearchStrategy[list[str]]:
    """A command line of one verb, right or nearly so."""
    _, _, attributes, least, _, _, options = VERBS[verb]
    before = st.lists(st.one_of([_spelled(row) for row in GLOBALS]), max_size=2)
    own = st.one_of([_spelled(row) for row in (*options, *GLOBALS)])
    word = _mostly(st.sampled_from(["ID", "9", "KILL", "ls"]))
    words = st.lists(word, min_size=least, max_size=len(attributes)).map(
        lambda found: [[one] for one in found]
    )
    after = st.tuples(st.lists(own, max_size=4), words, st.lists(own, max_size=2))
    extra = st.lists(_spelled(HELP) | _spelled(VERSION) | _ODD.map(lambda one: [one]), max_size=1)
    rare = st.integers(0, 9).flatmap(lambda dice: st.just([]) if dice else extra)
    return st.builds(
        lambda first, parts, last: [
            one for part in (*first, verb.split(" "), *parts[0], *parts[1], *parts[2], *last) for one in part
        ],
        before,
        after,
        rare,
    )


_LINES = st.one_of(
    st.one_of([_line(verb) for verb in VERBS]),
    st.lists(st.one_of(st.sampled_from(sorted({*VERBS, *GROUPS, "ls"})), _ODD), max_size=5),
)


@settings(max_examples=300, deadline=None)
@given(_LINES)
def test_what_the_matcher_takes_the_slow_path_takes_alike(argv: list[str]) -> None:
    before = list(argv)
    fast = match(argv)
    assert argv == before
    if fast is not None:
        slow = parse(Words(argv))
        assert vars(slow) == vars(fast)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(VERBS)), st.data())
def test_plain_lines_are_taken_fast(verb: str, data: st.DataObject) -> None:
    """The other direction, for the lines that matter: they may not fall to the slow path unnoticed."""
    _, _, attributes, least, _, _, options = VERBS[verb]
    flags = data.draw(st.lists(st.sampled_from([row[0][0] for row in options if row[1] == FLAG] or [""])))
    argv = [*verb.split(" "), *(f"--{name}" for name in flags if name), *("x" for _ in attributes[:least])]
    fast = match(argv)
    assert isinstance(fast, Command)
    assert all(getattr(fast, name.replace("-", "_")) is True for name in flags if name)
