"""A container freezes its own processes, so that they cannot be ended.

In version 1 of cgroups a frozen process dies only after it is thawed, and a process with a cgroup mount of
its own can freeze everything below its cgroup, itself included.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyrunc.apply.cgroups import cgroup
from tests.support.cgroups import FACTS, paths
from tests.support.containers import wait_for
from tests.support.engine import alive
from tests.support.unified import cgroup_file, engines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
    """A bundle with a cgroup mount, with or without a pid namespace of its own."""
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


# Moves whatever comes into the container's cgroup to a frozen one below it.
CATCHER = r"""
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int ice(const char *top, const char *file, const char *word)
{
    char path[200];
    snprintf(path, sizeof path, "%s/ice", top);
    mkdir(path, 0755);
    snprintf(path, sizeof path, "%s/ice/%s", top, file);
    int fd = open(path, O_WRONLY);
    return fd < 0 || write(fd, word, strlen(word)) < 0 || close(fd);
}

int main(void)
{
    const char *top = "/sys/fs/cgroup/freezer", *list = "tasks";
    if (ice(top, "freezer.state", "FROZEN")) {
        top = "/sys/fs/cgroup";
        list = "cgroup.procs";
        if (ice(top, "cgroup.freeze", "1"))
            return 1;
    }
    char from[100], to[100], text[4096];
    snprintf(from, sizeof from, "%s/%s", top, list);
    snprintf(to, sizeof to, "%s/ice/%s", top, list);
    close(open("/ready", O_CREAT | O_WRONLY, 0600));
    for (;;) {
        int in = open(from, O_RDONLY), out = open(to, O_WRONLY);
        ssize_t length = read(in, text, sizeof text - 1);
        text[length > 0 ? length : 0] = 0;
        for (char *pid = strtok(text, "\n"); pid; pid = strtok(NULL, "\n"))
            if (atoi(pid) > 1 && write(out, pid, strlen(pid)) > 0)
                close(open("/caught", O_CREAT | O_WRONLY, 0600));
        close(in);
        close(out);
    }
}
"""


@pytest.mark.parametrize("controller", [name for name in ("freezer", "") if name in FACTS.mounts])
def test_a_frozen_process_is_known(controller: str) -> None:
    """The parent of a process that enters can tell that it does not answer because it is frozen."""
    top = Path(FACTS.mounts[controller], f"test-{os.getpid()}-{os.urandom(4).hex()}")
    file, words = ("freezer.state", ("FROZEN", "THAWED")) if controller else ("cgroup.freeze", ("1", "0"))
    where = {controller: str(top)}
    (top / "ice").mkdir(parents=True)
    with subprocess.Popen(["sleep", "1000"]) as one, subprocess.Popen(["sleep", "1000"]) as two:
        try:
            (top / "cgroup.procs").write_text(str(one.pid))
            (top / "ice/cgroup.procs").write_text(str(two.pid))
            assert not cgroup.is_frozen(where, two.pid)
            (top / "ice" / file).write_text(words[0])
            assert wait_for(lambda: cgroup.is_frozen(where, two.pid))
            assert not cgroup.is_frozen(where, one.pid)
            (top / "ice" / file).write_text(words[1])
            assert wait_for(lambda: not cgroup.is_frozen(where, two.pid))
        finally:
            cgroup.kill_all(where, signal.SIGKILL)
            cgroup.remove(where)
    assert not cgroup.is_frozen(where, two.pid)
    assert not cgroup.is_frozen({}, two.pid)


def test_exec_is_not_held_up_on_its_way(
    engine: Engine, bundle: Bundle, compiled: Callable[..., Path]
) -> None:
    """It succeeds, or reports what happened.

    Once its program has started, it can be frozen like any other.
    """
    program = bundle.rootfs / "catch"
    program.write_bytes(compiled("catch", CATCHER).read_bytes())
    program.chmod(0o755)
    bundle.mount("/sys/fs/cgroup", "cgroup", "rw", kind="cgroup")
    bundle.linux["namespaces"].append({"type": "cgroup"})
    name = engine.start(bundle, "exec /catch")
    assert wait_for((bundle.rootfs / "ready").exists)
    for _ in range(5):
        done = engine.call("exec", "--detach", name, "/bin/sleep", "1000")
        if done.code:
            done.fails("the process on its way into the container was frozen there", code=255)
    assert wait_for((bundle.rootfs / "caught").exists)
    engine.delete(name)
