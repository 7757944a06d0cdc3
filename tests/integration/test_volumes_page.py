"""docs/volumes.md and bundles/volumes: each command is run, in the page's order, and its answer compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import pages
from tests.support.volumes import Volumes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.engine import Engine


@pytest.mark.slow
def test_the_page(engine: Engine, tmp_path: Path) -> None:
    engine.ids += ["box", "another", "first", "second"]
    assert pages.run("docs/volumes.md", engine, tmp_path) > 30


def test_the_bundle_cannot_keep_anything_by_itself(engine: Engine) -> None:
    def listing() -> list[tuple[str, int]]:
        found = sorted((pages.TOP / "bundles/volumes").rglob("*"))
        return [(str(path), path.lstat().st_size) for path in found]

    before = listing()
    volumes = Volumes(engine)
    bundle = str(pages.TOP / "bundles/volumes")
    volumes.call("run", "--bundle", bundle, engine.new_id()).ok()
    volumes.call(
        "run", "--bundle", bundle, "-v", "visits:/data", "-v", "site:/srv/site", engine.new_id()
    ).ok()
    assert listing() == before
    assert (volumes.content("visits") / "visits").read_text() == "1\n"
    assert (volumes.content("site") / "pages/home.html").resolve().read_text() == "<h1>It works</h1>\n"
