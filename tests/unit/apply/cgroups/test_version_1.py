"""Which files of version 1's freezer are read and written, and how often."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pyrunc import files
from pyrunc.apply.cgroups import version_1
from pyrunc.errors import Failure

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def freezer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A freezer at tmp_path that stays in the state FREEZING.

    Return the list of the pauses of freeze(), in seconds.
    """
    slept: list[float] = []
    (tmp_path / "freezer.state").write_text("THAWED\n")
    monkeypatch.setattr(files, "read", lambda _path: b"FREEZING\n")
    monkeypatch.setattr("time.sleep", slept.append)
    return slept


def test_a_freezer_that_never_rests_is_left_as_it_was(tmp_path: Path, freezer: list[float]) -> None:
    with pytest.raises(Failure, match="unable to freeze"):
        version_1.freeze(str(tmp_path))
    assert (tmp_path / "freezer.state").read_bytes().startswith(b"THAWED")
    assert freezer.count(0.01) == 20, "now and then all run for a moment"


def test_who_waits_gives_up_the_processor(tmp_path: Path, freezer: list[float]) -> None:
    """The processes must run until they are frozen.

    If freeze() asked without a pause, it could keep them from running.
    """
    with pytest.raises(Failure):
        version_1.freeze(str(tmp_path))
    assert freezer.count(0.001) == 990, "every round after the first ten"
