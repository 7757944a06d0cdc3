"""Checkpoint and restore through engines, where CRIU works: what counted goes on counting, from memory.

The counter's number is in a variable of the shell: a container that began again would begin at 1.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from conformance.engines import host, images
from conformance.engines.client import COUNTER, read_count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.engines.containerd import Containerd
    from conformance.engines.docker import Docker
    from conformance.engines.podman import Podman


def unable() -> str:
    """Return why CRIU cannot work here, "" if it can."""
    if shutil.which("criu", path=host.PATH) is None:
        return "criu is not installed"
    done = host.call([host.program("criu"), "check"])
    return "" if done.code == 0 else "criu check: " + done.err.strip().partition("\n")[0]


WHY_NOT = unable()
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)

CAP_SYS_RESOURCE = 1 << 24
IMAGE = images.NAME
# It counts, and a file of its own layer has a word in it, which is there after a restore.
SCRIPT = f"echo kept > /word; {COUNTER}"


def passes(shared: str, number: int) -> None:
    """Wait until the counter is past a number."""
    host.wait_until(f"it counts past {number}", lambda: read_count(shared) > number, seconds=30)


@pytest.fixture
def archive(podman: Podman, name: str) -> Iterator[str]:
    """A path for an exported checkpoint."""
    path = f"{podman.directory}/{name}.tar.gz"
    yield path
    if os.path.exists(path):
        os.unlink(path)


def count_in(podman: Podman, name: str, shared: str, *options: str, script: str = SCRIPT) -> None:
    """Start a container that counts, and wait until it does."""
    podman.scripted(name, script, "--volume", f"{shared}:/mnt", *options)
    passes(shared, 3)


def goes_on(podman: Podman, name: str, shared: str, stopped: int) -> None:
    """It counts on from where it was stopped, and is a container like any other."""
    passes(shared, stopped + 3)
    assert podman.status(name) == "running 0"
    assert podman.execute(name, "cat /word; cat /mnt/file") == "kept\nfrom the host\n"


class TestPodman:
    """`podman container checkpoint` and `restore`."""

    def test_restore(self, podman: Podman, name: str, shared: str) -> None:
        """Twice; between them it is no longer there for the runtime; afterwards it stops as it should."""
        count_in(podman, name, shared)
        for _ in range(2):
            podman.succeed("container", "checkpoint", name)
            assert podman.status(name).startswith("exited")
            assert host.states(podman.runtime_root) == []
            stopped = read_count(shared)
            podman.succeed("container", "restore", name)
            assert read_count(shared) >= stopped
            goes_on(podman, name, shared, stopped)
        podman.succeed("pause", name)
        podman.succeed("unpause", name)
        podman.succeed("stop", "--time", "0", name)
        assert podman.status(name) == "exited 137"

    def test_leave_running(self, podman: Podman, name: str, shared: str) -> None:
        """`--leave-running`: it goes on."""
        count_in(podman, name, shared)
        podman.succeed("container", "checkpoint", "--leave-running", name)
        goes_on(podman, name, shared, read_count(shared))

    def test_keep(self, podman: Podman, name: str, shared: str) -> None:
        """`--keep`, `--print-stats`: CRIU's files stay beside the container, and its figures are shown."""
        count_in(podman, name, shared)
        said = podman.succeed("container", "checkpoint", "--keep", "--print-stats", name)
        (figures,) = json.loads(said)["container_statistics"]
        assert figures["criu_statistics"]["memdump_time"] > 0
        place = podman.inspect(name, "{{.State.CheckpointPath}}")
        assert "inventory.img" in os.listdir(place)
        assert os.path.exists(podman.inspect(name, "{{.State.CheckpointLog}}"))
        stopped = read_count(shared)
        podman.succeed("container", "restore", "--keep", name)
        assert os.path.exists(podman.inspect(name, "{{.State.RestoreLog}}"))
        goes_on(podman, name, shared, stopped)

    def test_export(self, podman: Podman, name: str, shared: str, archive: str) -> None:
        """`--export`, then `--import` after the container was removed: with its layer and its name."""
        count_in(podman, name, shared)
        podman.succeed("container", "checkpoint", "--export", archive, name)
        podman.succeed("rm", name)
        stopped = read_count(shared)
        podman.succeed("container", "restore", "--import", archive)
        goes_on(podman, name, shared, stopped)

    def test_export_for_several(self, podman: Podman, name: str, shared: str, archive: str) -> None:
        """`--import --name`: a second container from the checkpoint of one that goes on."""
        count_in(podman, name, shared)
        podman.succeed("container", "checkpoint", "--leave-running", "--export", archive, name)
        podman.succeed("container", "restore", "--import", archive, "--name", f"{name}-two")
        assert podman.status(f"{name}-two") == "running 0"
        assert podman.execute(f"{name}-two", "cat /word") == "kept\n"
        goes_on(podman, name, shared, read_count(shared))
        assert podman.pid(name) != podman.pid(f"{name}-two")

    def test_pre_checkpoint(self, podman: Podman, name: str, shared: str, archive: str) -> None:
        """`--pre-checkpoint`, then `--with-previous`: the memory that has not changed is of the first."""
        tracked = host.call([host.program("criu"), "check", "--feature", "mem_dirty_track"])
        if tracked.code != 0:
            pytest.skip("the kernel does not track which memory changes")
        count_in(podman, name, shared)
        before = f"{archive}.before"
        podman.succeed("container", "checkpoint", "--pre-checkpoint", "--export", before, name)
        assert podman.status(name) == "running 0"
        podman.succeed("container", "checkpoint", "--with-previous", "--export", archive, name)
        podman.succeed("rm", name)
        stopped = read_count(shared)
        words = ("--import", archive, "--import-previous", before)
        podman.succeed("container", "restore", *words)
        goes_on(podman, name, shared, stopped)

    def test_limits(self, podman: Podman, name: str, shared: str) -> None:
        """Limits, a tmpfs and protected paths come back."""
        options = ("--memory", "64m", "--pids-limit", "17", "--tmpfs", "/scratch")
        podman.scripted(name, f"echo kept >/scratch/word; {COUNTER}", "--volume", f"{shared}:/mnt", *options)
        passes(shared, 3)
        podman.succeed("container", "checkpoint", name)
        stopped = read_count(shared)
        podman.succeed("container", "restore", name)
        passes(shared, stopped + 3)
        assert podman.execute(name, "cat /scratch/word") == "kept\n"
        assert podman.setting(name, "pids.max", "pids.max") == "17"
        assert podman.setting(name, "memory.limit_in_bytes", "memory.max") == str(64 << 20)
        assert "Read-only" in podman.execute(name, "echo x 2>&1 >/proc/sys/kernel/domainname || true")

    def test_a_user(self, podman: Podman, name: str, shared: str) -> None:
        """A process of another user, with its groups and without capabilities, comes back as that."""
        with open("/proc/self/status", encoding="ascii") as file:
            (mine,) = [line for line in file if line.startswith("CapEff")]
        if not int(mine.split()[1], 16) & CAP_SYS_RESOURCE:
            pytest.skip("this machine lacks CAP_SYS_RESOURCE, which CRIU needs to read others' limits")
        count_in(podman, name, shared, "--user", "1000:1000", "--group-add", "7", script=COUNTER)
        podman.succeed("container", "checkpoint", name)
        stopped = read_count(shared)
        podman.succeed("container", "restore", name)
        passes(shared, stopped + 3)
        status = f"/proc/{podman.pid(name)}/status"
        with open(status, encoding="ascii") as file:
            found = dict(line.split(":", 1) for line in file)
        words = {key: found[key].split() for key in ("Uid", "Gid", "Groups", "CapEff")}
        assert words == {
            "Uid": ["1000"] * 4,
            "Gid": ["1000"] * 4,
            "Groups": ["7", "1000"],
            "CapEff": ["0" * 16],
        }

    def test_pod(self, podman: Podman, name: str, shared: str) -> None:
        """A member of a pod: it joins the pod's namespaces again."""
        parent = ("--cgroup-parent", f"/{podman.session.tag}")
        podman.succeed("pod", "create", "--name", name, *parent)
        member = f"{name}-member"
        words = ("--detach", "--pod", name, "--name", member, "--volume", f"{shared}:/mnt")
        podman.succeed("run", *words, IMAGE, "sh", "-c", SCRIPT)
        passes(shared, 3)
        before = podman.execute(member, "readlink /proc/self/ns/net")
        podman.succeed("container", "checkpoint", member)
        stopped = read_count(shared)
        podman.succeed("container", "restore", member)
        goes_on(podman, member, shared, stopped)
        assert podman.execute(member, "readlink /proc/self/ns/net") == before

    def test_what_cannot_be(self, podman: Podman, name: str, shared: str) -> None:
        """If CRIU fails, here for an option it does not know, that is told, and the container goes on."""
        with open(f"{shared}/criu.conf", "w", encoding="ascii") as file:
            file.write("no-such-option\n")
        count_in(podman, name, shared, "--annotation", f"org.criu.config={shared}/criu.conf")
        failed = podman.call("container", "checkpoint", name)
        assert failed.code != 0
        assert "criu" in failed.err.lower(), failed
        goes_on(podman, name, shared, read_count(shared))


class TestDocker:
    """`docker checkpoint` and `docker start --checkpoint`, which are experimental."""

    def test_restore(self, docker: Docker, name: str, shared: str) -> None:
        """The container is started from a checkpoint, twice from the same one."""
        docker.scripted(name, SCRIPT, "--volume", f"{shared}:/mnt", "--security-opt", "seccomp=unconfined")
        passes(shared, 3)
        docker.succeed("checkpoint", "create", name, "one")
        docker.wait_for_status(name, "exited 137")
        stopped = read_count(shared)
        for _ in range(2):
            docker.succeed("start", "--checkpoint", "one", name)
            passes(shared, stopped + 3)
            assert docker.execute(name, "cat /word; cat /mnt/file") == "kept\nfrom the host\n"
            docker.succeed("stop", "--time", "0", name)
        assert docker.succeed("checkpoint", "ls", name).split()[-1] == "one"
        docker.succeed("checkpoint", "rm", name, "one")

    def test_leave_running(self, docker: Docker, name: str, shared: str) -> None:
        """`--leave-running`: it goes on."""
        docker.scripted(name, SCRIPT, "--volume", f"{shared}:/mnt", "--security-opt", "seccomp=unconfined")
        passes(shared, 3)
        docker.succeed("checkpoint", "create", "--leave-running", name, "one")
        passes(shared, read_count(shared) + 3)
        assert docker.status(name) == "running 0"


class TestContainerd:
    """`ctr task checkpoint`, `ctr container checkpoint` and `restore`."""

    def counter(self, containerd: Containerd, name: str, shared: str) -> None:
        """Start a container that counts, without the streams of `ctr`, which end with it."""
        bind = f"type=bind,src={shared},dst=/mnt,options=rbind:rw"
        options = ["--mount", bind, "--log-uri", f"file://{containerd.directory}/{name}.log"]
        containerd.start_task(name, "sh", "-c", SCRIPT, options=options)
        passes(shared, 3)

    def test_task(self, containerd: Containerd, name: str, shared: str) -> None:
        """`task checkpoint --image-path`: CRIU's files are there, and the task goes on."""
        self.counter(containerd, name, shared)
        place = f"{containerd.directory}/{name}"
        done = containerd.ctr("task", "checkpoint", "--image-path", place, name)
        assert done.code == 0, done
        assert "inventory.img" in os.listdir(place)
        passes(shared, read_count(shared) + 3)
        assert containerd.status(name) == "RUNNING"
        assert containerd.execute(name, "true").code == 0

    def test_task_that_ends(self, containerd: Containerd, name: str, shared: str) -> None:
        """`task checkpoint --exit`: the task ends."""
        self.counter(containerd, name, shared)
        place = f"{containerd.directory}/{name}"
        done = containerd.ctr("task", "checkpoint", "--exit", "--image-path", place, name)
        assert done.code == 0, done
        host.wait_until("it has ended", lambda: containerd.status(name) == "STOPPED")

    def test_restore(self, containerd: Containerd, name: str, shared: str) -> None:
        """`container checkpoint` makes an image of the task and its layer; `restore` goes on."""
        self.counter(containerd, name, shared)
        image = f"localhost/{name}:checkpoint"
        done = containerd.ctr("container", "checkpoint", "--rw", "--image", "--task", name, image)
        assert done.code == 0, done
        containerd.ctr("task", "kill", "--signal", "KILL", name)
        host.wait_until("it has ended", lambda: containerd.status(name) == "STOPPED")
        stopped = read_count(shared)
        assert containerd.ctr("task", "delete", name).code in {0, 137}
        assert containerd.ctr("container", "delete", name).code == 0
        done = containerd.ctr("container", "restore", "--rw", "--live", name, image)
        assert done.code == 0, done
        passes(shared, stopped)
        assert containerd.status(name) == "RUNNING"
        assert "kept" in containerd.execute(name, "cat", "/word").out
