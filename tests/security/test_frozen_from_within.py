"""A container freezes its own processes, so that nobody can end them.

In version 1 of cgroups a frozen process dies only when it is let go on, and whoever has a cgroup mount of its
own can freeze what is below its cgroup, itself included.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.cgroups import paths
from tests.support.containers import wait_for
from tests.support.engine import alive
from tests.support.unified import cgroup_file, engines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.containers import Bundle
    from tests.support.engine import Engine

# One cgroup below another, both frozen, the process in the lower one.
FREEZE = """
top=/sys/fs/cgroup/freezer file=freezer.state word=FROZEN
test -e $top || top=/sys/fs/cgroup file=cgroup.freeze word=1
freeze() {
    mkdir -p $top/upper/lower
    echo $1 > $top/upper/lower/cgroup.procs
    echo > /ready
    echo $word > $top/upper/lower/$file
    echo $word > $top/upper/$file
    echo > /frozen
}
"""
# Whom it freezes: its init, or another process while init looks on.
WHOM = {"init": "freeze $$; sleep 1000", "another": "sleep 1000 & freeze $!; wait"}


@pytest.fixture(params=["this host", "version 2"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    made = engines(request.param, tmp_path)
    yield made
    made.close()


@pytest.fixture(params=["own", "host"])
def divided(request: pytest.FixtureRequest, bundle: Bundle) -> Bundle:
    """A bundle with a cgroup mount, and a pid namespace of its own or not."""
    bundle.mount("/sys/fs/cgroup", "cgroup", "rw", kind="cgroup")
    spaces = bundle.linux["namespaces"]
    spaces.append({"type": "cgroup"})
    if request.param == "host":
        spaces.remove({"type": "pid"})
    return bundle


def start(engine: Engine, bundle: Bundle, whom: str) -> tuple[str, list[int]]:
    """Start a container that freezes one of its processes; return its id and its processes."""
    name = engine.start(bundle, FREEZE + WHOM[whom])
    assert wait_for((bundle.rootfs / "ready").exists)
    assert wait_for(lambda: whom == "init" or (bundle.rootfs / "frozen").exists())
    found: list[int] = json.loads(engine.call("ps", "--format", "json", name).ok().out)
    assert found
    return name, found


@pytest.mark.parametrize("whom", WHOM)
def test_it_can_be_deleted(engine: Engine, divided: Bundle, whom: str) -> None:
    name, processes = start(engine, divided, whom)
    tops = paths(engine, name).values()
    assert None not in [cgroup_file(engine, path) for path in tops]
    engine.call("delete", "--force", name).ok()
    assert not any(map(alive, processes))
    assert {cgroup_file(engine, path) for path in tops} == {None}


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("words", [("KILL",), ("--all", "KILL")])
@pytest.mark.parametrize("whom", WHOM)
def test_it_can_be_killed(
    engine: Engine, divided: Bundle, whom: str, words: tuple[str, ...], *, paused: bool
) -> None:
    name, processes = start(engine, divided, whom)
    if paused:
        engine.call("pause", name).ok()
    options = [word for word in words if word.startswith("-")]
    engine.call("kill", *options, name, "KILL").ok()
    engine.until(name, "stopped")
    assert wait_for(lambda: not any(map(alive, processes)))
    engine.call("delete", name).ok()


def test_resuming_leaves_it_as_the_container_wants_it(engine: Engine, divided: Bundle) -> None:
    name, _processes = start(engine, divided, "another")
    where = paths(engine, name)
    top, file = (where["freezer"], "freezer.state") if "freezer" in where else (where[""], "cgroup.freeze")
    before = cgroup_file(engine, f"{top}/upper/{file}")
    assert before in {"FROZEN", "1"}
    engine.call("pause", name).ok()
    engine.call("resume", name).ok()
    assert cgroup_file(engine, f"{top}/upper/{file}") == before
