"""A container's cgroup as a test sees it: the same question on version 1, hybrid and version 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pyrunc.apply.cgroups.hierarchies import cgroup_facts

if TYPE_CHECKING:
    from tests.support.engine import Engine

FACTS = cgroup_facts(rootless=False)
V2 = FACTS.version == 2


def has(controller: str, unified: str | None = None) -> bool:
    """Tell whether the host has a controller. The unified hierarchy may have another name for it."""
    return controller in FACTS.mounts or (unified or controller) in FACTS.controllers


def paths(engine: Engine, name: str) -> dict[str, str]:
    """Return a container's directories, as its record has them."""
    found: dict[str, str] = json.loads((engine.root / name / "state.json").read_text())["cgroup"]
    return found


def read(engine: Engine, name: str, controller: str, file: str, unified: str | None = None) -> str:
    """Return a file of a container's cgroup.

    Args:
        engine: whose container.
        name: its id.
        controller: the hierarchy of version 1.
        file: the file's name there.
        unified: its name in the unified hierarchy, if that has the controller.

    """
    where = paths(engine, name)
    directory, wanted = (where[controller], file) if controller in where else (where[""], unified or file)
    return Path(directory, wanted).read_text().strip()
