"""What the hot verbs import, compared with an allow-list. There is no clock in it, so it is not flaky.

Every call of an engine starts a new interpreter, so an import costs time in every call. In
milliseconds, on the machine where the budgets were set: os 1.4, collections 4, enum 4.5 to 6.5, re 8,
json 8, signal 8, typing 10 to 16, socket 12, pathlib 18, subprocess 19, logging 22, dataclasses 25,
click 45, jsonschema 75; each module of ours 0.12, each package 0.15. C modules cost next to nothing.

Each verb really does its work here, in a container, under tests/import_tracker.py. When this fails it prints
the module and its importer: import it inside the function that needs it, or find out whether it is needed.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
BUSYBOX = ROOT / "bundles" / "busybox"

# Modules that are there when the interpreter has started do not count. `os` brings five frozen ones with it.
OS = {"os", "abc", "stat", "_collections_abc", "posixpath", "genericpath"}
C_MODULES = {
    "_prctl",
    "_signal",
    "_socket",
    "_stat",
    "_struct",
    "errno",
    "fcntl",
    "posix",
    "select",
    "termios",
    "time",
}
ALLOWED = OS | C_MODULES | {"__future__"}

UNCOUNTED = {"pyrunc.__main__", "pyrunc.linux._linux"}

# How many modules of our own, __main__ and empty packages aside. The design's first numbers, 6 and 18, were
# for modules in files, at 0.12 ms each. The installed command has them in memory at 0.02 ms each
# (install/README.md), so files may stay small subjects; what is counted here may shrink at any time, and
# grow only together with a reason. The last ones: every verb reads small files and closes descriptors, which
# is a subject of its own (files); mounts are six subjects (sources, file systems, mount points, what both
# sides share, the check at the end, the table of steps), none of which exec imports. Create and run have
# grown by three of the init program's: how a program is made, how it is started, and the container's own;
# they have lost more than that since what prepares the mount tree is a program, too: what few containers
# need on the parent's side (namespaces to join, devices to bind, overlays, parts of volumes) is imported with
# the first of its kind. What two modules need of each other is in a third one (lowering, cgroup_plan). Delete
# and kill have grown by one: what they share with run, restore, checkpoint and stop is in life/, since no
# verb imports a verb.
BUDGET = {"state": 7, "start": 7, "kill": 8, "delete": 9, "exec": 29, "create": 51, "run": 54}

pytestmark = [
    pytest.mark.root,
    pytest.mark.container,
    pytest.mark.skipif(os.geteuid() != 0, reason="starts real containers, which takes root"),
]


class Import(NamedTuple):
    """A line of the tracker's log."""

    name: str
    kind: str
    by: str


class Runner:
    """Calls pyrunc under the tracker, as its launcher would, with a state directory of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0

    def __call__(self, *words: str, status: int = 0) -> list[Import]:
        self.count += 1
        log = self.folder / f"imports{self.count}"
        path = os.pathsep.join((str(ROOT), sysconfig.get_path("platlib")))
        command = [sys.executable, "-IS", str(ROOT / "tests/import_tracker.py"), str(log), path]
        command += ["--root", str(self.folder / "state"), *words]
        # Not a pipe: the container's process would hold it open.
        with (self.folder / "output").open("w+") as output:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=False,
                env={},
                timeout=60,
            )
            output.seek(0)
            assert done.returncode == status, output.read()
        return [Import(*line.split(" ", 2)) for line in log.read_text().splitlines()]


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Make a bundle like those that engines make; its process waits to be killed."""
    config = json.loads((BUSYBOX / "config.json").read_text())
    config["process"]["terminal"] = False
    config["process"]["args"] = ["sleep", "1000"]
    config["root"]["path"] = str(BUSYBOX / "rootfs")
    made = tmp_path / "bundle"
    made.mkdir()
    (made / "config.json").write_text(json.dumps(config))
    return made


def check(verb: str, imports: list[Import]) -> None:
    """Fail with the names of those who imported what they should not have, or with too long a list."""
    own = {found.name: found for found in imports if found.name.split(".")[0] == "pyrunc"}
    foreign = [
        found for found in imports if found.name.split(".")[0] != "pyrunc" and found.name not in ALLOWED
    ]
    assert not foreign, "not for the hot path:\n" + "\n".join(
        f"  {found.name}  by {found.by}" for found in foreign
    )
    missing = [found for found in own.values() if found.kind == "missing"]
    assert not missing, f"looked for in vain: {missing}"
    modules = [found for found in own.values() if found.kind == "module" and found.name not in UNCOUNTED]
    listing = "\n".join(f"  {found.name}  by {found.by}" for found in modules)
    count, budget = len(modules), BUDGET[verb]
    assert count <= budget, f"{verb}: {count} modules of our own, {budget} are the budget:\n{listing}"
    assert modules, "nothing was tracked"


def test_the_life_cycle(runner: Runner, bundle: Path, tmp_path: Path) -> None:
    pid_file = str(tmp_path / "pid")
    try:
        create = runner("create", "--bundle", str(bundle), "--pid-file", pid_file, "imports-1")
        start = runner("start", "imports-1")
        state = runner("state", "imports-1")
        execute = runner("exec", "imports-1", "true")
        kill = runner("kill", "imports-1", "KILL")
        wait_for_end(int(Path(pid_file).read_text()))
    finally:
        delete = runner("delete", "--force", "imports-1")
    check("create", create)
    check("start", start)
    check("state", state)
    check("exec", execute)
    check("kill", kill)
    check("delete", delete)


def test_run(runner: Runner, bundle: Path) -> None:
    config = json.loads((bundle / "config.json").read_text())
    config["process"]["args"] = ["true"]
    (bundle / "config.json").write_text(json.dumps(config))
    check("run", runner("run", "--bundle", str(bundle), "imports-2"))


def test_the_tracker_sees(runner: Runner) -> None:
    """A slow verb imports plenty; were the tracker blind, the tests above would show nothing."""
    names = {found.name for found in runner("--help")}
    assert "click" in names


def wait_for_end(pid: int) -> None:
    """Wait until a process that is not our child has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    select.select([descriptor], [], [], 10)
    os.close(descriptor)
