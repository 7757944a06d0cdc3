"""The ids of an image's users for an ordinary user: subordinate ids, if there are enough uids and gids."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pyrunc.images import owners

if TYPE_CHECKING:
    from pathlib import Path

FILE = """\
other:100000:65536
me:200000:1000

me:300000:24
1234:400000:1
:500000:5
me:none:7
me:600000:0
"""


@pytest.mark.parametrize(
    ("name", "uid", "wanted"),
    [
        ("me", 1, ((1, 200000, 1000), (1001, 300000, 24))),
        ("me", 1234, ((1, 200000, 1000), (1001, 300000, 24), (1025, 400000, 1))),
        ("nobody", 1, ()),
        ("", 1234, ((1, 400000, 1),)),
    ],
)
def test_ranges_go_on_where_the_last_one_ended(
    tmp_path: Path, name: str, uid: int, wanted: tuple[tuple[int, int, int], ...]
) -> None:
    (tmp_path / "subuid").write_text(FILE)
    assert owners._ranges(str(tmp_path / "subuid"), name, uid) == wanted


def test_no_file_no_ranges(tmp_path: Path) -> None:
    assert owners._ranges(str(tmp_path / "subuid"), "me", 1) == ()


@pytest.mark.parametrize("lacks", ["newuidmap", "newgidmap", "subuid", "subgid"])
def test_what_is_missing_leaves_one_id(lacks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ((1, 200000, 10),)
    monkeypatch.setattr(owners, "_ranges", lambda path, *_who: () if path.endswith(lacks) else lines)
    monkeypatch.setattr(owners, "_found", lambda helper: helper != lacks)
    found = owners.mappings()
    assert [len(found.uids), len(found.gids)] == [1, 1]
    assert [found.uids[0][0], found.uids[0][2]] == [0, 1]


def test_with_all_of_it_there_are_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "_ranges", lambda *_: ((1, 200000, 10),))
    monkeypatch.setattr(owners, "_found", lambda _: True)
    assert owners.mappings().uids[1:] == ((1, 200000, 10),)
