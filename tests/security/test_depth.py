"""Things that a container nests very deeply: cgroups, mounts, processes, directories.

A recursive function ends at a thousand levels; a descriptor for each level ends at the limit of descriptors;
a path with all their names ends at 4,095 bytes. If a container could make a command fail in this way, it
could not be listed or removed.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.cgroups import paths
from tests.support.containers import wait_for
from tests.support.unified import cgroup_file, engines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.containers import Bundle
    from tests.support.engine import Engine

DEPTH = 1100  # more than Python has calls within each other, and than there are descriptors
# Makes a chain of directories in each of some places, and enters the last of each as a cgroup.
NESTER = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int main(int count, char **words)
{
    int depth = atoi(words[1]);
    char name[256] = {0};
    memset(name, 'n', atoi(words[2]));
    for (int i = 3; i < count; i++) {
        int fd = open(words[i], O_RDONLY | O_DIRECTORY);
        if (fd < 0)
            continue;
        for (int level = 0; level < depth; level++) {
            mkdirat(fd, name, 0755);
            int inner = openat(fd, name, O_RDONLY | O_DIRECTORY);
            if (inner < 0)
                return perror(words[i]), 1;
            close(fd);
            fd = inner;
        }
        int procs = openat(fd, "cgroup.procs", O_WRONLY);
        if (procs >= 0 && write(procs, "0", 1) != 1)
            perror("not joined"); /* a new cpuset takes nobody */
        close(procs);
        close(fd);
    }
    close(open("/nested", O_CREAT | O_WRONLY, 0600));
    return pause();
}
"""


@pytest.fixture(params=["this host", "version 2"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    made = engines(request.param, tmp_path)
    yield made
    made.close()


@pytest.fixture
def nester(bundle: Bundle, compiled: Callable[..., Path]) -> None:
    """The program that nests, in the image."""
    program = bundle.rootfs / "nest"
    program.write_bytes(compiled("nest", NESTER).read_bytes())
    program.chmod(0o755)


def of_cgroups(bundle: Bundle) -> None:
    """Let a container make cgroups below its own."""
    bundle.mount("/sys/fs/cgroup", "cgroup", "rw", kind="cgroup")
    bundle.linux["namespaces"].append({"type": "cgroup"})


@pytest.mark.parametrize(("depth", "length"), [(DEPTH, 1), (40, 200)], ids=["many levels", "a long path"])
@pytest.mark.usefixtures("nester")
def test_cgroups(engine: Engine, bundle: Bundle, depth: int, length: int) -> None:
    of_cgroups(bundle)
    name = engine.start(bundle, f"/nest {depth} {length} /sys/fs/cgroup /sys/fs/cgroup/* & sleep 1000; true")
    assert wait_for((bundle.rootfs / "nested").exists, 60)
    tops = paths(engine, name).values()
    assert None not in [cgroup_file(engine, path) for path in tops]
    assert len(json.loads(engine.call("ps", "--format", "json", name).ok().out)) == 3
    assert "/nest" in engine.call("ps", name).ok().out
    engine.call("events", "--stats", name).ok()
    engine.call("pause", name).ok()
    engine.call("resume", name).ok()
    engine.call("kill", "--all", name, "KILL").ok()
    engine.until(name, "stopped")
    engine.call("delete", name).ok()
    assert {cgroup_file(engine, path) for path in tops} == {None}


@pytest.mark.usefixtures("nester")
def test_directories(engine: Engine, bundle: Bundle, tmp_path: Path) -> None:
    """One tree is in a volume that is given to another user, one in a layer that is deleted."""
    volume = tmp_path / "volume"
    volume.mkdir()
    try:
        name = engine.start(bundle, f"/nest {DEPTH} 9 /data /tmp", "--overlay", "-v", f"{volume}:/data")
        assert wait_for(lambda: engine.call("exec", name, "/bin/test", "-e", "/nested").code == 0)
        bundle.process["user"] = {"uid": 7, "gid": 7}
        other = engine.start(bundle, "sleep 1000", "-v", f"{volume}:/data:U")
        assert volume.stat().st_uid == 7
        for each in (name, other):
            engine.call("delete", "--force", each).ok()
        assert os.listdir(bundle.rootfs / "tmp") == []
    finally:
        # What tidies up after tests knows no depth, either.
        subprocess.run(["rm", "-rf", volume], check=True)
    assert [entry for entry in os.listdir(engine.root) if entry != "@cache"] == []


STACKER = r"""
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

/* One mount on another at one place, and one in another below it. */
int main(int count, char **words)
{
    int depth = atoi(words[1]);
    for (int level = 0; level < depth; level++)
        if (mount("none", "/tmp", "tmpfs", 0, "size=4k"))
            return perror("stack"), 1;
    mkdir("/chain", 0755);
    chdir("/chain");
    for (int level = 0; level < depth; level++)
        if (mkdir("n", 0755) || mount("none", "n", "tmpfs", 0, "size=16k") || chdir("n"))
            return perror("chain"), 1;
    close(open("/stacked", O_CREAT | O_WRONLY, 0600));
    return pause();
}
"""


@pytest.mark.parametrize("user_namespace", [False, True])
def test_mounts(
    engine: Engine,
    bundle: Bundle,
    compiled: Callable[..., Path],
    tmp_path: Path,
    *,
    user_namespace: bool,
) -> None:
    program = bundle.rootfs / "stack"
    program.write_bytes(compiled("stack", STACKER).read_bytes())
    program.chmod(0o755)
    bundle.capabilities("CAP_SYS_ADMIN")
    if user_namespace:
        bundle.user_namespace()
    name = engine.start(bundle, f"/stack {DEPTH}")
    assert wait_for((bundle.rootfs / "stacked").exists)
    rows = json.loads(engine.call("mounts", "--json", name).ok().out)
    assert len(rows) > 2 * DEPTH
    table = engine.call("mounts", name).ok().out.splitlines()
    assert len(table) == len(rows) + 1
    drifts = engine.call("mounts", "--check", name)
    assert (drifts.code, len(drifts.out.splitlines())) == (1, 2 * DEPTH)
    (tmp_path / "volume").mkdir()
    engine.call("mounts", name, "--add", f"{tmp_path}/volume:/tmp/volume").ok()
    engine.call("mounts", name, "--remove", "/tmp/volume").ok()
    engine.call("exec", name, "/bin/true").ok()
    engine.call("delete", "--force", name).ok()
