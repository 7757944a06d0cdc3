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
    """Return the commands of a page, each with its answer."""
    found: list[tuple[str, str]] = []
    answers = False
    for line in (TOP / page).read_text().splitlines():
        if line.startswith("    $ "):
            found.append((line[6:], ""))
            answers = True
        elif line.startswith("    ") and answers:
            said, answer = found[-1]
            found[-1] = (said, f"{answer}{line[4:]}\n")
        elif line:
            answers = False  # the answer ends with its paragraph
    return found


def fits(answer: str, expected: str) -> bool:
    """Compare an answer; three dots stand for anything, two or more blanks for a gap of any width."""
    parts = (re.sub(r"(\\ ){2,}", " +", re.escape(part)) for part in expected.split("..."))
    pattern = ".*".join(parts)
    return re.fullmatch(pattern, answer, re.DOTALL) is not None


def run(
    page: str,
    engine: Engine,
    directory: Path,
    bundle: str = "volumes",
    *,
    tools: dict[str, str] | None = None,
) -> int:
    """Run the commands of a page, in its order, in a directory with a copy of a bundle.

    Args:
        page: its path in the checkout.
        engine: its state root is used; it deletes the containers that the page makes.
        directory: an empty directory.
        bundle: its name in bundles/.
        tools: scripts that replace programs that the page calls.

    Returns:
        How many commands there were.

    Raises:
        AssertionError: a command gave another answer.

    """
    place = directory / "tools"
    place.mkdir()
    words = [*command(), "--root", str(engine.root), "--volume-root", str(directory / "volumes")]
    scripts = {"pyrunc": f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', "sudo": '#!/bin/sh\nexec "$@"\n'}
    for name, text in {**scripts, **(tools or {})}.items():
        (place / name).write_text(text)
        (place / name).chmod(0o755)
    shutil.copytree(TOP / "bundles" / bundle, directory / "work/bundles" / bundle, symlinks=True)
    tried = 0
    for said, expected in examples(page):
        with (directory / "answer").open("w") as out:  # a created container would keep a pipe open
            subprocess.run(
                ["/bin/sh", "-c", said],
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                check=False,
                cwd=directory / "work",
                env={"PATH": f"{place}:/usr/bin:/bin"},
                timeout=DEADLINE,
            )
        answer = (directory / "answer").read_text()
        assert fits(answer, expected), f"$ {said}\n{answer}\nexpected:\n{expected}"
        tried += 1
    return tried


def patched(page: str, copy: Path) -> list[str]:
    """Make a copy of the code and its tests, and apply the patches of a page to it.

    The place of a change is found by the lines around it, which must be there exactly once. Line numbers are
    ignored, so that the page need not follow every change of the code.

    Args:
        page: its path in the checkout.
        copy: a directory to make.

    Returns:
        The files that were changed.

    Raises:
        AssertionError: a patch does not fit.

    """
    copy.mkdir()
    for name in ("pyrunc", "tests", "schema", "bundles"):
        shutil.copytree(TOP / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True)
    shutil.copy(TOP / "pyproject.toml", copy)
    changed: list[str] = []
    for patch in re.findall(r"^```diff\n(.*?)^```$", (TOP / page).read_text(), re.DOTALL | re.MULTILINE):
        for change in re.split(r"^--- a/.*\n", patch, flags=re.MULTILINE)[1:]:
            name, *hunks = re.split(r"^@@.*@@\n", change, flags=re.MULTILINE)
            changed.append(name.strip().removeprefix("+++ b/"))
            text = (copy / changed[-1]).read_text()
            for hunk in hunks:
                lines = hunk.splitlines(keepends=True)
                before = "".join(line[1:] for line in lines if line[0] != "+")
                assert text.count(before) == 1, f"{page}: {changed[-1]} has this not once:\n{before}"
                text = text.replace(before, "".join(line[1:] for line in lines if line[0] != "-"))
            (copy / changed[-1]).write_text(text)
    return changed
