"""docs/ends.md and docs/doctor.md: each command is run, in the page's order, and its answer compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pyrunc.apply import exit_status, facts
from tests.support import pages
from tests.support.engine import FOREIGN

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.engine import Engine

if FOREIGN:
    pytest.skip("these verbs are pyrunc's alone", allow_module_level=True)


@pytest.mark.slow
@pytest.mark.skipif(
    facts.kernel() < (6, 15) and not exit_status.listens(),
    reason="before Linux 6.15, and without the process connector",
)
def test_how_containers_end(engine: Engine, tmp_path: Path) -> None:
    engine.ids += ["box"]
    assert pages.run("docs/ends.md", engine, tmp_path) > 15


def test_the_doctor(engine: Engine, tmp_path: Path) -> None:
    assert pages.run("docs/doctor.md", engine, tmp_path) == 2
