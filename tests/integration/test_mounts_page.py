"""docs/mounts.md: each command of the page is run, in its order, and its answer compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import pages
from tests.support.engine import FOREIGN

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.engine import Engine


@pytest.mark.slow
@pytest.mark.skipif(FOREIGN, reason="a verb of our own")
def test_the_page(engine: Engine, place: Path) -> None:
    engine.ids += ["box", "second"]
    assert pages.run("docs/mounts.md", engine, place) > 20
