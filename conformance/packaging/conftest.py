"""Shared by the checks of packaging: the files that `make dist` makes, made once."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]


def call(*words: str | Path, **environment: str) -> str:
    """Run a program and return what it says; if it fails, what it has said is the check's message."""
    done = subprocess.run(
        [str(word) for word in words],
        cwd=TOP,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(map(str, words))}: {done.returncode}\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make source archive, wheel, Debian packages and sums."""
    if os.geteuid() != 0:
        pytest.exit("packages are installed and run, which takes root: sudo make conformance", 2)
    out = tmp_path_factory.mktemp("dist")
    call("install/dist", sys.executable, out)
    return out


@pytest.fixture(scope="session")
def commit(dist: Path) -> str:
    """The commit that the source archive names."""
    with tarfile.open(next(dist.glob("pyrunc-*.tar.gz"))) as archive:
        name = next(name for name in archive.getnames() if name.endswith("/pyrunc/commit.txt"))
        file = archive.extractfile(name)
        assert file is not None
        text = file.read().decode().strip()
    assert re.fullmatch("[0-9a-f]{40}", text)
    return text


def runs_a_container(command: Path, root: Path) -> None:
    """Let a command run the first example, and see that nothing of it is left."""
    said = call(command, "--root", root, "run", "--bundle", TOP / "bundles/hello", "hello")
    assert re.search(r"^  process +number 1, of 1 there are$", said, re.MULTILINE), said
    assert call(command, "--root", root, "list", "--quiet") == ""
