"""Each fuzzer for a bounded time; FUZZ_SECONDS makes it longer. Without atheris only the seeds are tried."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import config_input

TOP = Path(__file__).resolve().parents[2]
SECONDS = int(os.environ.get("FUZZ_SECONDS", "10"))


@pytest.mark.parametrize("number", range(len(config_input.seeds())))
def test_the_seeds_are_good(number: int) -> None:
    seed = config_input.seeds()[number]
    config_input.check(seed, explain=True)
    for cut in range(0, len(seed), 97):
        config_input.check(seed[:cut])


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 110)
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="needs atheris (pip install atheris)")
@pytest.mark.parametrize("name", ["fuzz_config", "fuzz_tree"])
def test_fuzz(name: str, tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-m",
        f"tests.fuzz.{name}",
        f"-max_total_time={SECONDS}",
        f"-artifact_prefix={tmp_path}/",
    ]
    found = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False, cwd=TOP)
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-3000:]
    assert "Done" in found.stderr
