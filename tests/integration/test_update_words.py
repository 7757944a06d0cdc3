"""update refuses words that are not values, and changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import cgroups

if TYPE_CHECKING:
    from tests.support.containers import Bundle
    from tests.support.engine import Engine

LIMITS = ("pids.max", "cpu.shares", "cpu.weight", "memory.limit_in_bytes", "memory.max", "cpuset.cpus")


def files(engine: Engine, name: str) -> list[Path]:
    """Return the files with limits of a container's cgroups."""
    tops = set(cgroups.paths(engine, name).values())
    return [path for top in tops for limit in LIMITS if (path := Path(top, limit)).exists()]


def read(path: Path) -> str:
    return path.read_text()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--memory", "x"], "invalid value for memory: 'x'"),
        (["--cpu-share", "-1"], "invalid value for cpu-share: '-1'"),
        (["--cpu-quota", "1.5"], "invalid value for cpu-quota: '1.5'"),
        (["--pids-limit=-5"], "invalid value for pids-limit: -5; it is a number of processes, or -1"),
        (["--pids-limit", str(2**63)], "not an integer of 64 bits"),
        (["--cpu-quota=-2"], "invalid value for cpu-quota: -2; it is microseconds, or -1"),
        (["--cpu-rt-runtime=-2"], "invalid value for cpu-rt-runtime: -2"),
        (["--cpu-idle", "2"], "invalid value for cpu-idle: 2; it is 0 or 1"),
        (["--cpu-burst", str(2**64)], f"invalid value for cpu-burst: '{2**64}'"),
        (["--blkio-weight=-5"], "invalid value for blkio-weight: -5; it is 10 to 1000"),
        (["--blkio-weight", "5"], "invalid value for blkio-weight: 5; it is 10 to 1000"),
        (["--blkio-weight", "1001"], "invalid value for blkio-weight: 1001; it is 10 to 1000"),
        (["--memory=-5"], "invalid value for memory: '-5'; it is bytes, also with k, m or g"),
        (["--memory", "99999999999999g"], "invalid value for memory: "),
        (["--memory-swap", str(2**63)], f"invalid value for memory-swap: {2**63}"),
        (["--memory-reservation", "9" * 5000], "invalid value for memory-reservation: "),
        (["--cpuset-cpus", "caf\udce9"], "write 'caf\\udce9' to cpuset.cpus"),
        (["--resources", "/nowhere"], "/nowhere"),
        (["--l3-cache-schema", "L3:0=f"], "non-existent Intel RDT configuration"),
    ],
)
def test_words_that_are_no_values(engine: Engine, bundle: Bundle, options: list[str], text: str) -> None:
    name = engine.start(bundle)
    before = {path: read(path) for path in files(engine, name)}
    engine.call("update", *options, name).fails(text)
    assert {path: read(path) for path in files(engine, name)} == before


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"pids": {"limit": -5}}, "invalid value for pids.limit: -5; it is a number of processes, or -1"),
        ({"memory": {"limit": -5}}, "invalid value for memory.limit: -5; it is bytes"),
        ({"memory": {"swap": -2}}, "invalid value for memory.swap: -2; it is bytes"),
        ({"cpu": {"quota": -5}}, "invalid value for cpu.quota: -5; it is microseconds"),
        ({"blockIO": {"weight": 5}}, "invalid value for blockIO.weight: 5; it is 10 to 1000"),
    ],
)
def test_numbers_in_json_that_are_no_values(
    engine: Engine, bundle: Bundle, tmp_path: Path, change: dict[str, object], text: str
) -> None:
    """The rules are those for options: the kernel would take some of these numbers for no limit."""
    path = tmp_path / "change.json"
    path.write_text(json.dumps(change))
    name = engine.start(bundle)
    before = {path: read(path) for path in files(engine, name)}
    engine.call("update", "--resources", str(path), name).fails(text)
    assert {path: read(path) for path in files(engine, name)} == before


def test_a_weight_of_none_is_no_weight(engine: Engine, bundle: Bundle, tmp_path: Path) -> None:
    """Engines send it along with every change of another limit."""
    path = tmp_path / "change.json"
    path.write_text(json.dumps({"blockIO": {"weight": 0}, "pids": {"limit": 77}}))
    name = engine.start(bundle)
    engine.call("update", "--resources", str(path), name).ok()
    config = json.loads((engine.root / name / "config.json").read_text())
    assert config["linux"]["resources"]["pids"]["limit"] == 77
