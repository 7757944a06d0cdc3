"""The files that engines write are accepted by the fast path."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from pyrunc.spec import default, load, meaning
from pyrunc.spec.accept import accept

if TYPE_CHECKING:
    from pathlib import Path

# Programs that print a config or write one; what the rules say about it, if anything.
WRITERS: list[tuple[list[str], list[str]]] = [
    (["runc", "spec"], []),
    (["runc", "spec", "--rootless"], []),
    (["crun", "spec"], []),
    # crun makes up the mappings from /etc/subuid, which neither the specification nor runc knows of.
    (["crun", "spec", "--rootless"], ["/linux/uidMappings"]),
    # A template: the program to run is still missing.
    (["ctr", "oci", "spec"], ["/process/args"]),
]


@pytest.mark.parametrize(("command", "places"), WRITERS, ids=[" ".join(command) for command, _ in WRITERS])
def test_configs_of_others(tmp_path: Path, command: list[str], places: list[str]) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    raw = done.stdout.strip() or (tmp_path / "config.json").read_bytes()
    config = load.scan(raw)
    assert accept(config)
    assert [place for place, _ in meaning.check(config)] == places  # type: ignore[arg-type]


@pytest.mark.parametrize("unified", [True, False])
def test_our_own(unified: bool) -> None:
    config = default.default(unified=unified)
    assert accept(config)
    assert meaning.check(config) == []  # type: ignore[arg-type]
    config = default.rootless(config, uid=1000, gid=1000)
    assert accept(config)
    assert meaning.check(config) == []  # type: ignore[arg-type]
