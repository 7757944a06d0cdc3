"""docs/README.md, run: each command of the page, in its order, with its answers."""

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
def test_the_page(engine: Engine, place: Path) -> None:
    engine.ids.append("box")
    assert pages.run("docs/README.md", engine, place, "hello") == 15
