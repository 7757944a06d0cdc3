"""A stand-in for CRIU in PATH, and functions that the tests of checkpoint and restore share."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    pass

FAKE = Path(__file__).with_name("fake_criu.py")
CRIU = shutil.which("criu")
DUMP, RESTORE, FEATURES, VERSION, PRE_DUMP = 1, 2, 9, 10, 4
COUNT = "i=0; while true; do i=$((i+1)); echo $i; sleep 0.05; done"


class Fake:
    """The stand-in's instructions, and the requests that it has saved."""

    def __init__(self, place: Path, work: Path) -> None:
        place.mkdir()
        self.place = place
        self.work = work
        self.answer()

    def answer(self, **answers: Any) -> None:
        (self.place / "answers.json").write_text(json.dumps(answers))

    def requests(self) -> list[dict[str, Any]]:
        files = sorted(self.place.glob("request-*.json"), key=lambda path: int(path.stem.partition("-")[2]))
        return [json.loads(path.read_text()) for path in files]

    def last(self, kind: int) -> dict[str, Any]:
        request = self.requests()[-1]
        assert request["type"] == kind
        return request


def stand_in(directory: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Put the stand-in into PATH."""
    made = Fake(directory, work)
    (made.place / "bin").mkdir()
    (made.place / "bin" / "criu").symlink_to(FAKE)
    monkeypatch.setenv("FAKE_CRIU", str(made.place))
    monkeypatch.setenv("PATH", f"{made.place}/bin:{os.environ['PATH']}")
    return made


def pairs(entries: list[dict[str, list[str]]]) -> dict[str, str]:
    """Return the two fields of each entry as key and value."""
    return {entry["1"][0]: entry["2"][0] for entry in entries}
