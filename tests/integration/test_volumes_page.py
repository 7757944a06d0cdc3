"""docs/volumes.md and bundles/volumes, run: each command of the page, in its order, with its answers."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import DEADLINE, command
from tests.support.volumes import Volumes

if TYPE_CHECKING:
    from tests.support.engine import Engine

TOP = Path(__file__).resolve().parents[2]


def examples() -> list[tuple[str, str]]:
    """Return the commands of the page, each with what it answers."""
    found: list[tuple[str, str]] = []
    for line in (TOP / "docs/volumes.md").read_text().splitlines():
        if line.startswith("    $ "):
            found.append((line[6:], ""))
        elif line.startswith("    ") and found:
            said, answer = found[-1]
            found[-1] = (said, f"{answer}{line[4:]}\n")
    return found


def fits(answer: str, expected: str) -> bool:
    """Compare, with three dots for anything."""
    pattern = ".*".join(re.escape(part) for part in expected.split("..."))
    return re.fullmatch(pattern, answer, re.DOTALL) is not None


@pytest.mark.slow
def test_the_page(engine: Engine, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    words = [*command(), "--root", str(engine.root), "--volume-root", str(tmp_path / "volumes")]
    (tools / "pyrunc").write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    (tools / "sudo").write_text('#!/bin/sh\nexec "$@"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    shutil.copytree(TOP / "bundles/volumes", tmp_path / "work/bundles/volumes", symlinks=True)
    engine.ids += ["box", "another", "first", "second"]
    tried = 0
    for said, expected in examples():
        with (tmp_path / "answer").open("w") as out:  # not a pipe: a created container would keep it open
            subprocess.run(
                ["/bin/sh", "-c", said],
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                check=False,
                cwd=tmp_path / "work",
                env={"PATH": f"{tools}:/usr/bin:/bin"},
                timeout=DEADLINE,
            )
        answer = (tmp_path / "answer").read_text()
        assert fits(answer, expected), f"$ {said}\n{answer}\nexpected:\n{expected}"
        tried += 1
    assert tried > 30


def test_the_bundle_cannot_keep_anything_by_itself(engine: Engine) -> None:
    def listing() -> list[tuple[str, int]]:
        found = sorted((TOP / "bundles/volumes").rglob("*"))
        return [(str(path), path.lstat().st_size) for path in found]

    before = listing()
    volumes = Volumes(engine)
    bundle = str(TOP / "bundles/volumes")
    volumes.call("run", "--bundle", bundle, engine.new_id()).ok()
    volumes.call(
        "run", "--bundle", bundle, "-v", "visits:/data", "-v", "site:/srv/site", engine.new_id()
    ).ok()
    assert listing() == before
    assert (volumes.content("visits") / "visits").read_text() == "1\n"
    assert (volumes.content("site") / "pages/home.html").resolve().read_text() == "<h1>It works</h1>\n"
