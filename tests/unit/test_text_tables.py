"""Tables that fit a terminal: wrapped, then shortened, then with fewer columns; never cut without need."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pyrunc import text_tables

ROWS = [
    ("ID", "PATH", "WHAT"),
    ("1", "/srv/containers/with/a/long/path/rootfs", "make it and mount a tmpfs over all of it, read-only"),
    ("2", "/short", "nothing"),
]
KINDS = (text_tables.WHOLE, text_tables.MIDDLE, text_tables.FOLD)


def drawn(width: int, **how: object) -> list[str]:
    return text_tables.table(ROWS, KINDS, width, **how).splitlines()  # type: ignore[arg-type]


def test_with_room_for_all_nothing_happens() -> None:
    lines = drawn(120)
    assert len(lines) == 3
    assert lines[1].split("  ", 1)[1].strip() == "  ".join(ROWS[1][1:])


def test_first_text_is_folded() -> None:
    lines = drawn(90)
    assert max(map(len, lines)) <= 90
    assert ROWS[1][1] in lines[1]
    assert lines[2].strip() == "read-only"
    assert lines[3].endswith("nothing")


def test_then_paths_lose_their_middle() -> None:
    lines = drawn(50)
    assert max(map(len, lines)) <= 50
    assert "/srv/..." in lines[1]
    assert "/rootfs  " in lines[1]


def test_columns_are_dropped_last() -> None:
    assert len(drawn(50, drop=(1,))[0].split()) == 3
    narrow = drawn(30, drop=(1,))
    assert narrow[0].split() == ["ID", "WHAT"]
    assert max(map(len, narrow)) <= 30
    # Nothing more may go: then lines are as long as they have to be.
    assert drawn(5, drop=(1, 2)) == ["ID", "1", "2"]


def test_numbers_to_the_right_and_a_tree_that_goes_on() -> None:
    lines = text_tables.table(
        [("A", "N", "TEXT"), ("├─x", "7", "one two three four five six seven eight nine"), ("└─y", "10", "")],
        (text_tables.WHOLE, text_tables.WHOLE, text_tables.FOLD),
        34,
        right=(1,),
        below=("", "│", ""),
    ).splitlines()
    assert lines[0] == "A     N  TEXT"
    assert lines[1].startswith("├─x   7  one")
    assert lines[2].startswith("│        ")
    assert lines[-1] == "└─y  10"


def test_what_is_painted_is_measured_without_its_colours() -> None:
    bare = drawn(60)
    painted = drawn(60, paint=lambda text, row, column: f"<{text}>" if row and not column else text)
    assert [line.replace("<", "").replace(">", "").rstrip() for line in painted] == bare


def test_an_end_is_cut() -> None:
    rows = [("TIME",), ("2026-01-01T00:00:00.123456789Z",)]
    assert text_tables.table(rows, (text_tables.END,), 20).splitlines()[1] == "2026-01-01T00:00:..."


def test_middle() -> None:
    assert text_tables.middle("/a/b", 10) == "/a/b"
    assert text_tables.middle("/aaaaaaaaaa/bbbbbbbbbb", 12) == "/aa...bbbbbb"


def test_a_word_without_blanks_is_broken_where_it_can_be() -> None:
    assert text_tables.fold("rw,nosuid,nodev,noexec", 12) == ["rw,nosuid,", "nodev,noexec"]
    assert text_tables.fold("x" * 25, 10) == ["x" * 10, "x" * 10, "x" * 5]
    assert text_tables.fold("", 10) == [""]


@given(st.text("ab ,/", min_size=1, max_size=200), st.integers(8, 60))
def test_folding_loses_nothing_but_blanks(text: str, width: int) -> None:
    lines = text_tables.fold(text, width)
    assert max(map(len, lines)) <= width
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


@given(
    st.lists(st.tuples(*[st.text("ab /", max_size=40)] * 3), min_size=1, max_size=4),
    st.integers(60, 120),
)
def test_what_can_fit_fits(rows: list[tuple[str, str, str]], width: int) -> None:
    kinds = (text_tables.MIDDLE, text_tables.FOLD, text_tables.MIDDLE)
    lines = text_tables.table([("A", "B", "C"), *rows], kinds, width).splitlines()
    assert max(map(len, lines)) <= width
