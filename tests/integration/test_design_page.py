"""docs/design.md: its patches are applied to a copy of the code, and then its commands are run there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import sysconfig
from typing import TYPE_CHECKING

import pytest

from tests.support import pages
from tests.support.engine import FOREIGN

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.engine import Engine

PAGE = "docs/design.md"
# The tests that its patches add, and those it says will notice what is forgotten.
ADDED = (
    "test_inert_is_three_words_in_one",
    r"test_what_the_kernel_shows\[inert\]",
    "test_small_pages",
)
NAMED = ("test_every_option_has_a_case", "test_every_kind_of_step_has_words")


@pytest.mark.slow
@pytest.mark.skipif(FOREIGN, reason="it is about the code of our own")
def test_the_page(engine: Engine, place: Path) -> None:
    copy = place / "copy"
    changed = pages.patched(PAGE, copy)
    path = [str(copy), sysconfig.get_path("platlib")]
    start = f"import sys; sys.path[:0] = {path!r}; from pyrunc.__main__ import main; main()"
    words = [sys.executable, "-I", "-S", "-c", start, "--root", str(engine.root)]
    own = {"pyrunc": f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n'}
    engine.ids.append("box")
    assert pages.run(PAGE, engine, place, "hello", tools=own) == 5
    tests = [name for name in changed if name.startswith("tests/")]
    wanted = " or ".join(("inert", "small_pages", *NAMED))
    words = [sys.executable, "-m", "pytest", "-v", *tests, "tests/unit/plan/test_show.py", "-k", wanted]
    # It is the copy that is tested, whatever command this run is about.
    environment = {name: value for name, value in os.environ.items() if name != "INSTALLED_PYRUNC"}
    done = subprocess.run(words, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in (*ADDED, *NAMED):
        assert re.search(rf"::{name} PASSED", done.stdout), f"{name}\n{done.stdout}"
