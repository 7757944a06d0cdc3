"""The kernel's mount table as data."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrunc.plan import mount_table
from pyrunc.plan.mount_table import Row

TEXT = (
    "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n"
    "37 36 0:5 /null /dev/null\\134x rw shared:3 master:7 propagate_from:2 - devtmpfs none rw\n"
    "38 36 0:6 / /mnt\\0402/a ro,nosuid unbindable - tmpfs  rw\n"
)


def row(number: int, parent: int, point: str) -> Row:
    return Row(id=number, parent=parent, root="/", point=point, fstype="tmpfs")


def test_every_field() -> None:
    first, second, third = mount_table.parse(TEXT)
    assert first == Row(
        id=36,
        parent=35,
        device="98:0",
        root="/mnt1",
        point="/mnt 2",
        options=("rw", "noatime"),
        master=1,
        fstype="ext3",
        source="/dev/root",
        data=("rw", "errors=continue"),
    )
    assert (second.point, second.root) == ("/dev/null\\x", "/null")
    assert (second.shared, second.master) == (3, 7)
    assert (third.unbindable, third.source, third.data) == (True, "", ("rw",))


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_escapes(text: str) -> None:
    written = "".join(f"\\{ord(c):03o}" if c in " \t\n\\" else c for c in text)
    assert mount_table.unescape(written) == text


def test_what_is_below_comes_later() -> None:
    """With MOVE_MOUNT_BENEATH, the table has the upper of two mounts first."""
    rows = [row(1, 0, "/"), row(5, 9, "/a"), row(7, 5, "/a/b"), row(9, 1, "/a"), row(3, 1, "/c")]
    assert [each.id for each in mount_table.in_order(rows)] == [1, 9, 5, 7, 3]


def test_a_root_that_is_its_own_parent() -> None:
    assert [each.id for each in mount_table.in_order([row(1, 1, "/"), row(2, 1, "/a")])] == [1, 2]


@pytest.mark.parametrize(
    ("path", "place", "expected"),
    [("/a/b", "/a", True), ("/a", "/a", True), ("/ab", "/a", False), ("/x", "/", True), ("/", "/a", False)],
)
def test_within(path: str, place: str, expected: bool) -> None:
    assert mount_table.within(path, place) is expected


@pytest.mark.parametrize(
    ("root", "point", "path", "expected"),
    [
        ("/", "/", "/srv/data", "/srv/data"),
        ("/", "/srv", "/srv/data", "/data"),
        ("/volumes", "/srv", "/srv/data", "/volumes/data"),
        ("/volumes", "/srv", "/srv", "/volumes"),
        ("/", "/srv", "/srv", "/"),
    ],
)
def test_part_of(root: str, point: str, path: str, expected: str) -> None:
    mount = Row(id=1, root=root, point=point, fstype="ext4")
    assert mount_table.part_of(mount, path) == expected
