"""docs/overlay.md and bundles/overlay: each command is run, in the page's order, and its answer compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import pages
from tests.support.trees import listing

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.engine import Engine


@pytest.mark.slow
def test_the_page(engine: Engine, tmp_path: Path) -> None:
    engine.ids += ["box"]
    assert pages.run("docs/overlay.md", engine, tmp_path, "overlay") > 12


def test_the_bundle_stays_as_it_is(engine: Engine) -> None:
    before = listing(pages.TOP / "bundles/overlay")
    words = ("run", "--bundle", str(pages.TOP / "bundles/overlay"), "--overlay", engine.new_id())
    said = engine.call(*words).ok().out.splitlines()
    assert said[0].endswith("visit number 1, noted in a layer that is deleted with the container")
    assert [line.split(maxsplit=1) for line in said[1:4]] == [
        ["/app/index.html", "page of the site"],
        ["/app/script.js", "script of the base"],
        ["/app/style.css", "style of the theme"],
    ]
    assert listing(pages.TOP / "bundles/overlay") == before
