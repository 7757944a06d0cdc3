"""The systemd cgroup manager, if systemd runs: unit and cgroup files agree, and both are removed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import cgroups
from tests.support.containers import wait_for

if TYPE_CHECKING:
    from tests.support.containers import Bundle
    from tests.support.engine import Engine, Result

pytestmark = pytest.mark.skipif(not Path("/run/systemd/system").is_dir(), reason="systemd does not run here")

MiB = 1 << 20


def unit(name: str, *properties: str) -> dict[str, str]:
    """Return properties of a unit as systemctl shows them."""
    words = [word for prop in properties for word in ("-p", prop)]
    shown = subprocess.run(
        ["systemctl", "show", name, *words], check=True, capture_output=True, text=True
    ).stdout
    return dict(line.split("=", 1) for line in shown.splitlines())


def detached(engine: Engine, bundle: Bundle, name: str) -> Result:
    """Run a container of the systemd manager."""
    bundle.process["args"] = ["/bin/sleep", "1000"]
    bundle.write()
    return engine.call("--systemd-cgroup", "run", "--detach", "--bundle", str(bundle.path), name)


def test_a_scope_with_limits(engine: Engine, bundle: Bundle) -> None:
    bundle.linux["resources"] = {
        "memory": {"limit": 32 * MiB, "reservation": 24 * MiB},
        "cpu": {"shares": 100, "quota": 50001, "period": 100000, "cpus": "0"},
        "pids": {"limit": 20},
        "unified": {"memory.high": "30000000"},
    }
    name = engine.new_id()
    bundle.linux["cgroupsPath"] = f"system.slice:pyrunc-test:{name}"
    detached(engine, bundle, name).ok()
    scope = f"pyrunc-test-{name}.scope"
    assert cgroups.paths(engine, name) == {"": f"/sys/fs/cgroup/system.slice/{scope}"}
    assert unit(
        scope, "ActiveState", "Delegate", "MemoryMax", "MemoryLow", "TasksMax", "CPUWeight", "MemoryHigh"
    ) == {
        "ActiveState": "active",
        "Delegate": "yes",
        "MemoryMax": str(32 * MiB),
        "MemoryLow": str(24 * MiB),
        "TasksMax": "20",
        "CPUWeight": "17",
        "MemoryHigh": "30000000",
    }
    assert unit(scope, "CPUQuotaPerSecUSec", "AllowedCPUs") == {
        "CPUQuotaPerSecUSec": "510ms",
        "AllowedCPUs": "0",
    }
    assert cgroups.read(engine, name, "", "cpu.max") == "51000 100000"
    assert cgroups.read(engine, name, "", "memory.max") == str(32 * MiB)
    # The process that held the scope while it was made has ended.
    assert cgroups.read(engine, name, "", "cgroup.procs").split() == [str(engine.state(name)["pid"])]
    engine.delete(name)
    assert unit(scope, "LoadState") == {"LoadState": "not-found"}


def test_an_update_tells_systemd(engine: Engine, bundle: Bundle) -> None:
    name = engine.new_id()
    detached(engine, bundle, name).ok()
    scope = Path(cgroups.paths(engine, name)[""]).name
    assert scope == f"pyrunc-{name}.scope"
    engine.call("update", "--memory", "50M", "--pids-limit", "7", "--cpu-quota", "20000", name).ok()
    assert unit(scope, "MemoryMax", "TasksMax", "CPUQuotaPerSecUSec") == {
        "MemoryMax": str(50 * MiB),
        "TasksMax": "7",
        "CPUQuotaPerSecUSec": "200ms",
    }
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    assert cgroups.read(engine, name, "", "memory.max") == str(50 * MiB)
    assert cgroups.read(engine, name, "", "pids.max") == "7"


def test_the_foreground_and_pause(engine: Engine, bundle: Bundle) -> None:
    bundle.process["args"] = ["/bin/sh", "-c", "exit 7"]
    bundle.write()
    name = engine.new_id()
    result = engine.call("--systemd-cgroup", "run", "--bundle", str(bundle.path), name)
    assert (result.code, result.err) == (7, "")
    other = engine.new_id()
    detached(engine, bundle, other).ok()
    engine.call("pause", other).ok()
    assert engine.status(other) == "paused"
    engine.call("resume", other).ok()
    assert json.loads(engine.call("ps", "-f", "json", other).ok().out) == [engine.state(other)["pid"]]


def test_annotations_become_properties(engine: Engine, bundle: Bundle) -> None:
    bundle.config["annotations"] = {
        "org.systemd.property.TimeoutStopUSec": "uint64 7000000",
        "org.systemd.property.CollectMode": "'inactive-or-failed'",
    }
    name = engine.new_id()
    detached(engine, bundle, name).ok()
    assert unit(f"pyrunc-{name}.scope", "TimeoutStopUSec", "CollectMode") == {
        "TimeoutStopUSec": "7s",
        "CollectMode": "inactive-or-failed",
    }


@pytest.mark.parametrize(
    ("changes", "texts"),
    [
        (
            {"annotations": {"org.systemd.property.NoSuchThing": "true"}},
            ["unable to start unit", "NoSuchThing"],
        ),
        ({"annotations": {"org.systemd.property.Foo": "what"}}, ["/annotations/org.systemd.property.Foo"]),
        ({"linux": {"cgroupsPath": "/a/b"}}, ['format "slice:prefix:name"']),
        ({"linux": {"cgroupsPath": "a--b.slice:p:n"}}, ["invalid slice name"]),
        (
            {"linux": {"resources": {"cpu": {"period": 100}}}},
            ["/linux/resources/cpu/period", "invalid argument"],
        ),
    ],
    ids=str,
)
def test_refusals_leave_no_unit(
    engine: Engine, bundle: Bundle, changes: dict[str, Any], texts: list[str]
) -> None:
    bundle.config["annotations"] = changes.get("annotations", {})
    bundle.linux.update(changes.get("linux", {}))
    name = engine.new_id()
    detached(engine, bundle, name).fails(*texts)
    assert unit(f"pyrunc-{name}.scope", "LoadState") == {"LoadState": "not-found"}


def test_a_failed_unit_that_was_left_over_is_replaced(engine: Engine, bundle: Bundle) -> None:
    name = engine.new_id()
    scope = f"pyrunc-{name}.scope"
    subprocess.run(["systemd-run", "--scope", "-q", f"--unit={scope}", "true"], check=False)
    detached(engine, bundle, name).ok()
    assert unit(scope, "ActiveState") == {"ActiveState": "active"}


def test_a_container_that_ends_by_itself_leaves_no_scope(engine: Engine, bundle: Bundle) -> None:
    name = engine.new_id()
    detached(engine, bundle, name).ok()
    scope = f"pyrunc-{name}.scope"
    engine.call("kill", name, "KILL").ok()
    engine.until(name, "stopped")
    engine.call("delete", name).ok()
    assert wait_for(lambda: unit(scope, "LoadState") == {"LoadState": "not-found"})


def test_delegation_to_a_user_namespace(engine: Engine, bundle: Bundle) -> None:
    """A writable cgroup mount of a cgroup namespace belongs to the container's root (runtime-spec)."""
    bundle.user_namespace()
    bundle.linux["namespaces"].append({"type": "cgroup"})
    bundle.mount("/sys/fs/cgroup", "cgroup", "rw", "nosuid", kind="cgroup")
    name = engine.new_id()
    detached(engine, bundle, name).ok()
    path = Path(cgroups.paths(engine, name)[""])
    assert path.stat().st_uid == 100000
    assert (path / "cgroup.procs").stat().st_uid == 100000
    assert (path / "memory.max").stat().st_uid == 0
    engine.call("exec", name, "mkdir", "/sys/fs/cgroup/mine").ok()
    engine.delete(name)
    assert not path.exists()


def test_a_slice_of_its_own_is_below_its_parents(engine: Engine, bundle: Bundle) -> None:
    """A dash in a slice's name is one level (systemd.slice(5)).

    Slices that were made for a container are removed with it.
    """
    name = engine.new_id()
    bundle.linux["cgroupsPath"] = f"pyrunctest-inner.slice:prefix:{name}"
    detached(engine, bundle, name).ok()
    scope = f"prefix-{name}.scope"
    assert cgroups.paths(engine, name) == {
        "": f"/sys/fs/cgroup/pyrunctest.slice/pyrunctest-inner.slice/{scope}"
    }
    assert unit(scope, "Slice") == {"Slice": "pyrunctest-inner.slice"}
    engine.delete(name)
    subprocess.run(["systemctl", "stop", "pyrunctest.slice"], check=True)
    assert not Path("/sys/fs/cgroup/pyrunctest.slice").exists()


def test_a_container_that_is_a_slice(engine: Engine, bundle: Bundle) -> None:
    """A unit for other units, as engines name pods; the container's process is in it nevertheless."""
    name = engine.new_id()
    wanted = f"pyrunctest{os.getpid()}.slice"
    bundle.linux["cgroupsPath"] = f"-.slice::{wanted}"
    bundle.linux["resources"] = {"pids": {"limit": 20}}
    detached(engine, bundle, name).ok()
    assert cgroups.paths(engine, name) == {"": f"/sys/fs/cgroup/{wanted}"}
    assert unit(wanted, "ActiveState", "TasksMax") == {"ActiveState": "active", "TasksMax": "20"}
    assert cgroups.read(engine, name, "", "cgroup.procs").split() == [str(engine.state(name)["pid"])]
