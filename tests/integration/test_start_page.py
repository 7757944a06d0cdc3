"""README.md and docs/README.md: each command is run, in its order, and its answer compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import pages
from tests.support.engine import FOREIGN

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.engine import Engine


@pytest.mark.slow
@pytest.mark.skipif(FOREIGN, reason="it has verbs of our own")
@pytest.mark.parametrize(("page", "commands"), [("README.md", 1), ("docs/README.md", 15)])
def test_the_page(engine: Engine, place: Path, page: str, commands: int) -> None:
    engine.ids += ["box", "hello"]
    assert pages.run(page, engine, place, "hello") == commands
