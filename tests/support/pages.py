"""Pages of docs/ whose commands are run, each with the answer that the page shows."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.containers import DEADLINE, command

if TYPE_CHECKING:
    from tests.support.engine import Engine

TOP = Path(__file__).resolve().parents[2]


def examples(page: str) -> list[tuple[str, str]]:
    """Return the commands of a page, each with what it answers."""
    found: list[tuple[str, str]] = []
    for line in (TOP / page).read_text().splitlines():
        if line.startswith("    $ "):
            found.append((line[6:], ""))
        elif line.startswith("    ") and found:
            said, answer = found[-1]
            found[-1] = (said, f"{answer}{line[4:]}\n")
    return found


def fits(answer: str, expected: str) -> bool:
    """Compare, with three dots for anything, and some blanks for the gap between columns, however wide."""
    parts = (re.sub(r"(\\ ){2,}", " +", re.escape(part)) for part in expected.split("..."))
    pattern = ".*".join(parts)
    return re.fullmatch(pattern, answer, re.DOTALL) is not None


def run(page: str, engine: Engine, directory: Path, bundle: str = "volumes") -> int:
    """Run the commands of a page, in its order, in a directory with a copy of a bundle.

    Args:
        page: its path in the checkout.
        engine: whose state root is used; deletes the containers the page makes.
        directory: an empty one.
        bundle: its name in bundles/.

    Returns:
        How many commands there were.

    Raises:
        AssertionError: one answered something else.

    """
    tools = directory / "tools"
    tools.mkdir()
    words = [*command(), "--root", str(engine.root), "--volume-root", str(directory / "volumes")]
    (tools / "pyrunc").write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    (tools / "sudo").write_text('#!/bin/sh\nexec "$@"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    shutil.copytree(TOP / "bundles" / bundle, directory / "work/bundles" / bundle, symlinks=True)
    tried = 0
    for said, expected in examples(page):
        with (directory / "answer").open("w") as out:  # not a pipe: a created container would keep it open
            subprocess.run(
                ["/bin/sh", "-c", said],
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                check=False,
                cwd=directory / "work",
                env={"PATH": f"{tools}:/usr/bin:/bin"},
                timeout=DEADLINE,
            )
        answer = (directory / "answer").read_text()
        assert fits(answer, expected), f"$ {said}\n{answer}\nexpected:\n{expected}"
        tried += 1
    return tried
