"""docs/python.md, run: each example of the page, in its order, with its answers."""

from __future__ import annotations

import doctest
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import TOP
from tests.support.engine import FOREIGN

if TYPE_CHECKING:
    from tests.support.containers import Bundle
    from tests.support.engine import Engine


@pytest.mark.skipif(FOREIGN, reason="the interface is pyrunc's alone")
def test_the_page(bundle: Bundle, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(path: str) -> None:
        shutil.copytree(bundle.rootfs, path, symlinks=True)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pyrunc.store.default_root", lambda: str(engine.root))
    text = (TOP / "docs/python.md").read_text().replace("\n```\n", "\n\n")
    test = doctest.DocTestParser().get_doctest(text, {"fill": fill}, "docs/python.md", "docs/python.md", 0)
    assert len(test.examples) > 15
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.FAIL_FAST)
    result = runner.run(test, out=said.append)
    assert result.failed == 0, "".join(said)
