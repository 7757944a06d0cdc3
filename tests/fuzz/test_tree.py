"""The resolver of mount points compared with its model."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.tree_input import NAMES, Entry, check

PATHS = st.lists(st.sampled_from(NAMES), max_size=5).map("/".join)
ROOTED = st.tuples(st.sampled_from(["", "/"]), PATHS).map("".join)
ENTRIES = st.lists(st.tuples(PATHS, st.one_of(st.none(), st.just(b""), ROOTED)), max_size=8)


@given(ENTRIES, ROOTED, st.sampled_from(["dir", "file"]))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_tree(entries: list[Entry], path: str, kind: str) -> None:
    check(entries, path, kind)


CASES: list[tuple[list[Entry], str]] = [
    ([], "/"),
    ([], "/../.."),
    ([("a", "/")], "/a/b"),
    ([("a", "../../../../outside")], "/a/b"),
    ([("a", "b"), ("b", "a")], "/a"),
    ([("a", "a/a")], "/a"),
    ([("a", "b/c")], "/a/data"),
    ([("a/b", None), ("a/c", "../data")], "/a/c/../b"),
    ([("a", b"")], "/a/"),
    ([("a", b"")], "/a/b"),
    ([("a", b"")], "/a/.."),
    ([("a", "b"), ("b", b"")], "/a"),
    ([("a", "/proc/self/root")], "/a/b"),
]


@pytest.mark.parametrize(("entries", "path"), CASES)
@pytest.mark.parametrize("kind", ["dir", "file"])
def test_known_corners(entries: list[Entry], path: str, kind: str) -> None:
    check(entries, path, kind)
