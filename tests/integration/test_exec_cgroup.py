"""`exec` if the container's cgroup takes no process, because it passes controllers on (cgroups(7))."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import cgroups

if TYPE_CHECKING:
    from tests.support.containers import Bundle
    from tests.support.engine import Engine

pytestmark = pytest.mark.skipif(not cgroups.V2, reason="version 1 lets processes into any cgroup")


@pytest.fixture
def moved(engine: Engine, bundle: Bundle) -> str:
    """A container whose init has moved to a cgroup below its own."""
    name = engine.start(bundle)
    own = Path(cgroups.paths(engine, name)[""])
    (own / "inner").mkdir()
    (own / "inner/cgroup.procs").write_text(str(engine.state(name)["pid"]))
    (own / "cgroup.subtree_control").write_text("+pids")
    return name


def where(engine: Engine, name: str, *options: str) -> str:
    """Return the last part of the cgroup a process of `exec` is in."""
    out = engine.directory / f"pid{len(options)}"
    words = ["exec", "--detach", "--pid-file", str(out), *options, name, "sleep", "1000"]
    engine.call(*words).ok()
    return Path(f"/proc/{out.read_text()}/cgroup").read_text().strip().rpartition("/")[2]


def test_it_goes_where_init_is(engine: Engine, moved: str) -> None:
    assert where(engine, moved) == "inner"


def test_not_if_the_cgroup_was_asked_for(engine: Engine, moved: str) -> None:
    engine.call("exec", "--cgroup", "/", moved, "true").fails(
        "adding pid of the process to cgroups", "device or resource busy", "--cgroup", code=255
    )
    assert where(engine, moved, "--cgroup", "inner") == "inner"
