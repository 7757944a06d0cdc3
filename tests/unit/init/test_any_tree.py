"""The init program finds mount points in any tree where the model of the other resolver finds them."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import HealthCheck, given, settings

from pyrunc.plan.program import Program
from tests.fuzz.test_tree import CASES, ENTRIES, ROOTED
from tests.fuzz.tree_input import Entry, check
from tests.support.init_machine import STEP, as_root, carry_out

pytestmark = as_root


def make(root: int, path: str, _kind: str) -> int:
    """Let the init program resolve a directory, and make it where it is missing.

    Raises:
        OSError: what the init program reports.

    """
    made = Program()
    place = made.slot("place")
    made.add(STEP, "CHROOT", made.slot("root"))
    made.add(STEP, "ROOT_HERE")
    made.add(STEP, "PLACE", made.text(path), 0, place)
    made.add(STEP, "ASK", place, ord("p"), 7)
    outcome = carry_out(made, {"root": root}, answers={b"p": b"O"})
    if outcome.report is not None:
        assert outcome.report.name == "PLACE"
        assert outcome.report.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
        raise OSError(outcome.report.errno, os.strerror(outcome.report.errno))
    assert outcome.status == 0
    ((kind, payload, fd),) = outcome.told
    assert (kind, payload) == (b"p", b"\7\0\0\0")
    return fd


@given(ENTRIES, ROOTED)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_tree(entries: list[Entry], path: str) -> None:
    check(entries, path, "dir", make)


@pytest.mark.parametrize(("entries", "path"), CASES)
def test_known_corners(entries: list[Entry], path: str) -> None:
    check(entries, path, "dir", make)


LONG = "n" * 255


@pytest.mark.parametrize(
    ("entries", "path"),
    [
        ([], "/" + "/".join([LONG] * 15)),
        ([], "/" + "/".join("d" for _ in range(900))),
        ([("a", "/" + "/".join([LONG] * 15))], "/a/b"),
        ([("a", "/".join([".."] * 1000 + ["b"]))], "/a/c"),
    ],
    ids=["long", "deep", "long-link", "up"],
)
def test_extremes(entries: list[Entry], path: str) -> None:
    check(entries, path, "dir", make)


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("/" + "n" * 256, errno.ENAMETOOLONG),
        ("/a/" + "n" * 256, errno.ENAMETOOLONG),
        ("/" + "/".join([LONG] * 17), errno.ENAMETOOLONG),
    ],
)
def test_too_long(path: str, number: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = os.open(tmp_path_factory.mktemp("root"), os.O_PATH | os.O_DIRECTORY)
    try:
        with pytest.raises(OSError, match=os.strerror(number)):
            make(root, path, "dir")
    finally:
        os.close(root)
