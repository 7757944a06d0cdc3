"""Each fuzzer for a limited time, which FUZZ_SECONDS makes longer; and a limited round without atheris.

All inputs that were ever found are in corpus/ and tried each time.
"""

from __future__ import annotations

import importlib.util
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import command, config_input, targets

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


KEPT = [(kind, path) for kind in targets.TARGETS for path in sorted((targets.CORPUS / kind).iterdir())]


@pytest.mark.parametrize(("kind", "path"), KEPT, ids=[f"{kind}-{path.name}" for kind, path in KEPT])
def test_what_was_found_stays_right(kind: str, path: Path) -> None:
    check, _ = targets.TARGETS[kind]
    check(path.read_bytes(), explain=True)
    check(path.read_bytes(), explain=False)


@pytest.mark.parametrize("kind", targets.TARGETS)
def test_a_short_round(kind: str) -> None:
    """The same each time: another one is for `make fuzz`."""
    dice = random.Random(kind)
    start = targets.seeds(kind)
    check, _ = targets.TARGETS[kind]
    for number in range(400):
        check(targets.mutated(kind, dice, start), explain=number % targets.EXPLAINED == 0)


@pytest.mark.root
@pytest.mark.container
@pytest.mark.skipif(os.geteuid() != 0, reason="containers are tried as real root here")
@pytest.mark.timeout(300)
def test_the_command() -> None:
    """What is kept, and a short round, through the real command; nothing may be left behind."""
    runtime = command.Command()
    try:
        for kind, path in KEPT:
            if kind in command.KINDS:
                runtime.check(kind, path.read_bytes())
        dice = random.Random("command")
        start = {kind: targets.seeds(kind) for kind in targets.TARGETS}
        for _ in range(25):
            runtime.check(*command.round_(runtime, dice, start))
    finally:
        runtime.close()
