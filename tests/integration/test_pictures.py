"""The pictures of README.md: the program that draws them works, and draws the same pictures."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import DEADLINE, TOP

if TYPE_CHECKING:
    from pathlib import Path

PICTURES = TOP / "docs/pictures"
# What has to be on each, on whatever machine it is drawn.
SHOWN = {
    "plan": ("$", "sudo pyrunc plan -b hello", "bring lo up", "rbind /usr on /usr"),
    "mounts": ("$", "sudo pyrunc mounts hello", "PROPAGATION", "/srv/hello/rootfs", "/mounts/6"),
    "error": ("$", "sudo pyrunc run -b broken box", "RLIMIT_NOFILES", "/mounts/0/options/2"),
}


def words(picture: Path) -> str:
    """Return what can be read on a picture, a line for each group of words."""
    return "\n".join(each.text or "" for each in ET.parse(picture).iter("{http://www.w3.org/2000/svg}text"))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("pictures")
    program = [sys.executable, str(PICTURES / "draw.py"), str(into)]
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=DEADLINE)
    assert (done.returncode, done.stderr) == (0, "")
    return into


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="making a container takes root")
def test_each_is_drawn(drawn: Path) -> None:
    assert {path.stem for path in drawn.iterdir()} == set(SHOWN)
    for name, texts in SHOWN.items():
        found = words(drawn / f"{name}.svg")
        assert [text for text in texts if text not in found] == [], name


@pytest.mark.parametrize("name", SHOWN)
def test_what_is_there_was_drawn_by_it(name: str) -> None:
    found = words(PICTURES / f"{name}.svg")
    assert [text for text in SHOWN[name] if text not in found] == []
    assert f"docs/pictures/{name}.svg" in (TOP / "README.md").read_text()
