"""The output of `pyrunc mounts`, and programs in a container's mount namespace with the host's rights."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

from pyrunc import store

if TYPE_CHECKING:
    from tests.support.engine import Engine, Result

    Row = dict[str, Any]


def rows(engine: Engine, name: str) -> dict[str, Row]:
    """Return mount point -> its object of --json; of several mounts on one place the topmost."""
    found: list[Row] = json.loads(engine.call("mounts", name, "--json").ok().out)
    return {row["target"]: row for row in found}


def drifts(engine: Engine, name: str) -> list[tuple[str, str | None, str]]:
    result = engine.call("mounts", "--check", "--json", name)
    found = json.loads(result.out)
    assert result.code == (1 if found else 0), result
    return [(row["kind"], row["pointer"], row["target"]) for row in found]


def clean(engine: Engine, name: str) -> None:
    assert engine.call("mounts", "--check", name).ok().out == "no drift\n"


def enter(engine: Engine, name: str, *words: str) -> None:
    """Run a program of the image in a container's mount namespace, with the rights of the host."""
    pid = engine.state(name)["pid"]
    done = subprocess.run(
        ["nsenter", "-t", str(pid), "-m", "-p", "/bin/busybox", *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 0, done.stderr


def execute(engine: Engine, name: str, script: str) -> Result:
    return engine.call("exec", name, "/bin/sh", "-c", script)


def changes(engine: Engine, name: str) -> dict[str, Any]:
    """Return the changes that the record contains."""
    record = store.open_container(str(engine.root), name)
    kept: Any = record.extra.get("mounts") or {}
    return dict(kept)
