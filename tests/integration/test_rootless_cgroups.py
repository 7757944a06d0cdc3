"""Cgroups of an ordinary user's containers: none, other users', delegated ones (cgroups(7) "delegation")."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.cgroups import FACTS, V2, has
from tests.support.containers import wait_for
from tests.support.engine import FOREIGN, alive
from tests.support.ordinary import UID, Ordinary, give

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.containers import Bundle

pytestmark = pytest.mark.skipif(FOREIGN, reason="words and places of our own")


@pytest.fixture
def bundle(bundle: Bundle) -> Bundle:
    give(bundle)
    return bundle


def cgroup_of(user: Ordinary, name: str) -> dict[str, str]:
    found: dict[str, str] = json.loads((user.root / name / "state.json").read_text())["cgroup"]
    return found


def test_without_a_cgroup(user: Ordinary, bundle: Bundle) -> None:
    """The user may not make one. The container has none, and what needs one says why it does not work."""
    name = user.start(bundle)
    assert cgroup_of(user, name) == {}
    user.call("pause", name).fails("unable to freeze: the container has no freezer cgroup")
    user.call("update", "--pids-limit", "10", name).fails(
        "cannot set pids limits: the container has no cgroup"
    )
    assert user.status(name) == "running"
    user.call("kill", name, "KILL").ok()
    user.until(name, "stopped")


def test_all_its_processes_are_found_without_a_cgroup(user: Ordinary, bundle: Bundle) -> None:
    name = user.start(bundle, "sleep 1001 & (sleep 1002 & exec sleep 1003) & touch /tmp/up; exec sleep 1000")
    user.call("exec", "--detach", name, "/bin/sleep", "1004").ok()
    table = user.call("ps", name, "-eo", "pid,args").ok().out
    assert [f"sleep 100{number}" in table for number in range(5)] == [True] * 5
    pids = json.loads(user.call("ps", "--format", "json", name).ok().out)
    assert len(pids) == 5
    assert user.state(name)["pid"] in pids
    user.call("kill", "--all", name, "0").ok()
    assert all(alive(pid) for pid in pids)
    user.call("kill", "--all", name, "KILL").ok()
    user.until(name, "stopped")
    assert wait_for(lambda: not any(alive(pid) for pid in pids))
    user.call("kill", "--all", name, "KILL").ok()


@pytest.mark.parametrize("verb", [("kill", "--all"), ("kill",), ("delete", "--force")])
def test_all_are_killed_without_a_pid_namespace_of_its_own(
    user: Ordinary, bundle: Bundle, verb: tuple[str, ...]
) -> None:
    """Only the descendants of init are known to belong to the container."""
    bundle.linux["namespaces"] = [each for each in bundle.linux["namespaces"] if each["type"] != "pid"]
    bundle.without_mount("/proc")
    bundle.mount("/proc", "/proc", "rbind")
    bundle.linux["maskedPaths"] = bundle.linux["readonlyPaths"] = []
    script = "sleep 1001 & (sleep 1002 & exec sleep 1003) & touch /tmp/up; exec sleep 1000"
    bundle.process["args"] = ["/bin/sh", "-c", script]
    bundle.write()
    name = user.new_id()
    created = user.call("create", "--bundle", str(bundle.path), name)
    assert created.code == 0, created
    assert created.err.count("\n") == 1
    assert "with no cgroup and no private pid namespace. Such configuration is strongly dis" in created.err
    user.call("start", name).ok()
    assert wait_for((bundle.rootfs / "tmp/up").exists)
    assert wait_for(lambda: user.call("ps", name, "-eo", "pid,args").out.count(" sleep 100") == 4)
    pids = json.loads(user.call("ps", "--format", "json", name).ok().out)
    user.call(*verb, name, *(["KILL"] if verb[0] == "kill" else [])).ok()
    assert wait_for(lambda: not any(alive(pid) for pid in pids))


def test_what_is_not_applied_is_listed(user: Ordinary, bundle: Bundle) -> None:
    bundle.linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    bundle.process["oomScoreAdj"] = -10
    done = user.front(bundle, "echo in")
    assert (done.code, done.out) == (0, "in\n"), done
    first, second = done.err.splitlines()
    assert first.startswith("warning: /linux/resources/devices: not applied, there is no permission")
    assert second.startswith("warning: /process/oomScoreAdj: not applied, lowering it to -10 needs")


def test_limits_without_permission(user: Ordinary, bundle: Bundle) -> None:
    bundle.linux["resources"] = {"pids": {"limit": 10}, "memory": {"limit": 1 << 28}}
    words = "rootless needs no limits + no cgrouppath when no permission is granted for cgroups"
    user.front(bundle, "exit 0").fails(words, "(limits: pids, memory)", "permission denied")


def test_a_cgroup_by_name_without_permission(user: Ordinary, bundle: Bundle) -> None:
    bundle.linux["cgroupsPath"] = f"/test-of-{os.getpid()}/inner"
    user.front(bundle, "exit 0").fails("unable to apply cgroup configuration", "permission denied")


def test_no_word_of_rootless_cgroups(user: Ordinary, bundle: Bundle) -> None:
    """With --rootless=false a container must have its cgroups."""
    bundle.write()
    failed = user.call("--rootless", "false", "run", "--bundle", str(bundle.path), user.new_id())
    failed.fails("unable to apply cgroup configuration", "permission denied")


@pytest.fixture
def taken(user: Ordinary) -> Iterator[tuple[str, list[str]]]:
    """An id of the user's. Cgroups with this name belong to root, and have a process of root's in them."""
    name = user.new_id()
    guest = subprocess.Popen(["sleep", "1006"])
    made = []
    for controller, mount in FACTS.mounts.items():
        own = FACTS.own[controller]
        path = f"{mount}{(own.rpartition('/')[0] if V2 else own).rstrip('/')}/{name}"
        if path not in made:
            os.mkdir(path)
            made.append(path)
            if controller == "cpuset":
                for file in ("cpuset.cpus", "cpuset.mems"):
                    Path(path, file).write_text(Path(path, "..", file).read_text())
            Path(path, "cgroup.procs").write_text(str(guest.pid))
    yield name, made
    user.close()
    user.ids.clear()
    kept = all(Path(path, "cgroup.procs").read_text() == f"{guest.pid}\n" for path in made)
    alive_still = guest.poll() is None
    guest.kill()
    guest.wait()
    for path in made:
        assert wait_for(lambda path=path: _removed(path))  # type: ignore[misc]
    assert kept
    assert alive_still


def _removed(path: str) -> bool:
    try:
        os.rmdir(path)
    except OSError:
        return False
    return True


def test_a_cgroup_of_its_name_that_is_somebody_elses(
    user: Ordinary, bundle: Bundle, taken: tuple[str, list[str]]
) -> None:
    """The container gets no cgroup, as without permission, and the cgroups of others are not changed."""
    name, _paths = taken
    bundle.process["args"] = ["/bin/sleep", "1000"]
    user.create(bundle, name=name)
    assert cgroup_of(user, name) == {}
    user.call("delete", "--force", name).ok()
    bundle.process["args"] = ["/bin/echo", "in"]
    bundle.write()
    done = user.call("run", "--bundle", str(bundle.path), name).ok()
    assert done.out == "in\n"


def test_limits_where_the_cgroup_is_somebody_elses(
    user: Ordinary, bundle: Bundle, taken: tuple[str, list[str]]
) -> None:
    name, _paths = taken
    bundle.linux["resources"] = {"pids": {"limit": 10}}
    bundle.write()
    failed = user.call("run", "--bundle", str(bundle.path), name)
    failed.fails("rootless needs no limits + no cgrouppath", "permission denied")
    user.call("state", name).fails("container does not exist")


def test_a_record_of_a_creator_that_was_killed_before_it_looked(
    user: Ordinary, bundle: Bundle, taken: tuple[str, list[str]]
) -> None:
    """The cgroup existed already. Delete removes the container, and leaves the cgroup as it is."""
    name, paths = taken
    directory = user.root / name
    directory.mkdir(parents=True)
    record = {"id": name, "pid": 0, "start": 0, "bundle": str(bundle.path), "namespaces": {"pid": ""}}
    cgroup = {str(number): path for number, path in enumerate(paths)}
    (directory / "state.json").write_text(
        json.dumps({**record, "cgroup": cgroup, "extra": {"found_cgroups": paths}})
    )
    for path in (user.root, directory, directory / "state.json"):
        os.chown(path, UID, UID)
    user.call("delete", "--force", name).ok()
    assert not directory.exists()


@pytest.fixture
def delegated(user: Ordinary) -> Iterator[None]:
    """Cgroups that belong to the user, who is in them.

    On version 2 the user is in a leaf, beside the container's cgroup.
    """
    made: list[str] = []
    for controller, mount in FACTS.mounts.items():
        top = f"{mount}{FACTS.own[controller].rstrip('/')}/test-delegated-{os.getpid()}"
        for path in (top, top + "/leaf") if V2 else (top,):
            if path not in made:
                os.mkdir(path)
                made.append(path)
            if controller == "cpuset":
                for file in ("cpuset.cpus", "cpuset.mems"):
                    Path(path, file).write_text(Path(path, "..", file).read_text())
            for file in ("", "tasks", "cgroup.procs", "cgroup.subtree_control"):
                if os.path.exists(f"{path}/{file}"):
                    os.chown(f"{path}/{file}", UID, UID)
    user.cgroups = [path for path in dict.fromkeys(made) if not V2 or path.endswith("/leaf")]
    yield
    user.close()
    user.ids.clear()
    for path in reversed(made):
        os.rmdir(path)


@pytest.mark.usefixtures("delegated")
@pytest.mark.skipif(not has("pids"), reason="this host cannot limit the number of processes")
def test_a_delegated_cgroup(user: Ordinary, bundle: Bundle) -> None:
    """It is used, limits are set in it, and what needs a cgroup works."""
    if V2 and "pids" not in Path(user.cgroups[0], "..", "cgroup.controllers").read_text():
        pytest.skip("the controller pids is not handed down to here")
    bundle.linux["resources"] = {"pids": {"limit": 17}}
    name = user.start(bundle)
    where = cgroup_of(user, name)
    directory = Path(where.get("pids") or where[""])
    assert f"/test-delegated-{os.getpid()}/" in str(directory)
    assert (directory / "pids.max").read_text() == "17\n"
    user.call("update", "--pids-limit", "18", name).ok()
    assert (directory / "pids.max").read_text() == "18\n"
    user.call("pause", name).ok()
    assert user.status(name) == "paused"
    user.call("resume", name).ok()
    assert user.call("exec", name, "/bin/cat", "/proc/self/cgroup").ok().out.count(name) >= 1
    user.delete(name)
    assert not directory.exists()


@pytest.mark.usefixtures("delegated")
@pytest.mark.skipif(V2, reason="there is no other hierarchy on pure version 2")
def test_a_cgroup_by_name_where_the_unified_one_is_not_delegated(user: Ordinary, bundle: Bundle) -> None:
    """Beside version 1 nobody delegates it; the mount shows the caller's there, and is no failure."""
    unified = next(path for path in user.cgroups if path.startswith(FACTS.mounts[""] + "/"))
    os.chown(unified, 0, 0)
    os.chown(f"{unified}/cgroup.procs", 0, 0)
    bundle.linux["cgroupsPath"] = "by-name"
    bundle.mount("/sys/fs/cgroup", "cgroup", "ro", kind="cgroup")
    bundle.linux["resources"] = {"pids": {"limit": 17}}
    script = "cat /sys/fs/cgroup/pids/pids.max; ls -d /sys/fs/cgroup/unified/cgroup.procs"
    done = user.front(bundle, script).ok()
    assert done.out == "17\n/sys/fs/cgroup/unified/cgroup.procs\n"


@pytest.mark.usefixtures("delegated")
def test_what_spec_writes_leaves_the_hosts_cgroups_closed(user: Ordinary, bundle: Bundle) -> None:
    """What is delegated to the user is the user's to write to, and root of the container is that user."""
    user.call("spec", "--rootless", "--bundle", str(bundle.path)).ok()
    bundle.config = json.loads((bundle.path / "config.json").read_text())
    bundle.process["terminal"] = False
    bundle.process["env"] = ["PATH=/bin"]
    places = " ".join(user.cgroups)
    script = f"""
    for place in {places} /sys/fs/cgroup /sys/fs/cgroup/*; do
        test -d $place || continue
        mkdir $place/made-inside 2>/dev/null && echo made in $place
        echo 0 2>/dev/null > $place/cgroup.procs && echo moved to $place
    done
    grep -E '^([^ ]+ ){{4}}/sys' /proc/self/mountinfo | grep -vE '^([^ ]+ ){{5}}ro' || echo all closed
    """
    assert user.front(bundle, script).ok().out == "all closed\n"
