"""update, pause, resume, ps, events, and what kill and delete do with whole cgroups."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import cgroups
from tests.support.containers import wait_for
from tests.support.engine import alive, kill_and_reap

if TYPE_CHECKING:
    from tests.support.containers import Bundle
    from tests.support.engine import Engine

MiB = 1 << 20
LIMITS = {
    "memory": {"limit": 32 * MiB, "reservation": 24 * MiB},
    "cpu": {"shares": 100, "quota": 500000, "period": 1000000},
    "pids": {"limit": 20},
}


@pytest.fixture
def limited(engine: Engine, bundle: Bundle) -> str:
    """Return a running container with limits."""
    if not all(cgroups.has(name) for name in ("memory", "cpu", "pids")):
        pytest.skip("this host lacks the controllers memory, cpu and pids")
    bundle.linux["resources"] = dict(LIMITS)
    return engine.start(bundle)


def found(engine: Engine, name: str) -> dict[str, str]:
    """Return the limits that the kernel has now."""
    return {
        "memory": cgroups.read(engine, name, "memory", "memory.limit_in_bytes", "memory.max"),
        "reservation": cgroups.read(engine, name, "memory", "memory.soft_limit_in_bytes", "memory.low"),
        "pids": cgroups.read(engine, name, "pids", "pids.max"),
        "shares": cgroups.read(engine, name, "cpu", "cpu.shares", "cpu.weight"),
        "cpu": cgroups.read(engine, name, "cpu", "", "cpu.max")
        if cgroups.V2
        else " ".join(
            cgroups.read(engine, name, "cpu", file) for file in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        ),
    }


BEGINNING = {
    "memory": "33554432",
    "reservation": "25165824",
    "pids": "20",
    "shares": "17" if cgroups.V2 else "100",
    "cpu": "500000 1000000",
}
NO_QUOTA = "max" if cgroups.V2 else "-1"


class TestUpdate:
    @pytest.mark.parametrize(
        ("options", "changes"),
        [
            (["--memory", "67108864"], {"memory": "67108864"}),
            (["--memory", "50M"], {"memory": "52428800"}),
            (["--memory-reservation", "33554432"], {"reservation": "33554432"}),
            (["--pids-limit", "10"], {"pids": "10"}),
            (["--pids-limit", "-1"], {"pids": "max"}),
            (["--pids-limit", "0"], {"pids": "1"}),
            (["--cpu-share", "200"], {"shares": "29" if cgroups.V2 else "200"}),
            (["--cpu-period", "900000"], {"cpu": "500000 900000"}),
            (["--cpu-quota", "600000"], {"cpu": "600000 1000000"}),
            (["--cpu-quota", "-1"], {"cpu": f"{NO_QUOTA} 1000000"}),
            (["--cpu-quota", "-1", "--cpu-period", "100000"], {"cpu": f"{NO_QUOTA} 100000"}),
            (["--cpu-period", "100000", "--cpu-quota", "2000"], {"cpu": "2000 100000"}),
            ([], {}),
        ],
        # Not by what changes: that differs between versions of cgroups, and a test has one name.
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_an_option_changes_what_it_names(
        self, engine: Engine, limited: str, options: list[str], changes: dict[str, str]
    ) -> None:
        assert found(engine, limited) == BEGINNING
        engine.call("update", *options, limited).ok()
        assert found(engine, limited) == {**BEGINNING, **changes}

    def test_from_a_file_and_from_standard_input(self, engine: Engine, limited: str) -> None:
        change = {"pids": {"limit": 7}, "cpu": {"cpus": "0"}}
        file = engine.directory / "resources.json"
        file.write_text(json.dumps(change))
        engine.call("update", "--resources", str(file), limited).ok()
        assert found(engine, limited) == {**BEGINNING, "pids": "7"}
        assert cgroups.read(engine, limited, "cpuset", "cpuset.cpus") == "0"
        file.write_text(json.dumps({"pids": {"limit": 9}, "memory": {"limit": 33554432}}))
        with file.open() as stdin:
            engine.call("update", "-r", "-", limited, stdin=stdin).ok()
        assert found(engine, limited) == {**BEGINNING, "pids": "9"}

    def test_it_is_kept_for_the_next_update(self, engine: Engine, limited: str) -> None:
        engine.call("update", "--cpu-quota", "300000", limited).ok()
        engine.call("update", "--cpu-period", "600000", limited).ok()
        assert found(engine, limited)["cpu"] == "300000 600000"
        kept = json.loads((engine.root / limited / "config.json").read_text())["linux"]["resources"]
        assert kept["cpu"] == {"shares": 100, "quota": 300000, "period": 600000}

    @pytest.mark.parametrize("burst", ["500000", "0"])
    def test_burst(self, engine: Engine, limited: str, burst: str) -> None:
        engine.call("update", "--cpu-period", "900000", "--cpu-burst", burst, limited).ok()
        assert cgroups.read(engine, limited, "cpu", "cpu.cfs_burst_us", "cpu.max.burst") == burst
        engine.call("update", "--memory", "40M", limited).ok()
        assert cgroups.read(engine, limited, "cpu", "cpu.cfs_burst_us", "cpu.max.burst") == burst

    def test_idle_comes_and_goes_and_stays(self, engine: Engine, limited: str) -> None:
        for idle in ("1", "0", "1"):
            engine.call("update", "--cpu-idle", idle, limited).ok()
            assert cgroups.read(engine, limited, "cpu", "cpu.idle") == idle
        engine.call("update", "--cpu-idle", "3", limited).fails("invalid value for cpu-idle: 3")
        engine.call("update", "--cpu-period", "10000", "--cpu-quota", "-1", limited).ok()
        assert cgroups.read(engine, limited, "cpu", "cpu.idle") == "1"

    def test_memory_and_swap_in_any_direction(self, engine: Engine, limited: str) -> None:
        if (
            not cgroups.V2
            and not Path(cgroups.paths(engine, limited)["memory"], "memory.memsw.limit_in_bytes").exists()
        ):
            pytest.skip("this kernel does not account swap")
        for memory, swap in ((30, 50), (60, 80), (20, 20), (70, 90)):
            engine.call("update", "--memory", f"{memory}M", "--memory-swap", f"{swap}M", limited).ok()
            assert found(engine, limited)["memory"] == str(memory * MiB)
            both = cgroups.read(engine, limited, "memory", "memory.memsw.limit_in_bytes", "memory.swap.max")
            assert int(both) == (swap - memory if cgroups.V2 else swap) * MiB
        engine.call("update", "--memory", "-1", limited).ok()
        unlimited = found(engine, limited)["memory"]
        assert unlimited == "max" if cgroups.V2 else int(unlimited) > 1 << 60

    def test_a_refused_value_leaves_all_as_it_was(self, engine: Engine, limited: str) -> None:
        words = ("--pids-limit", "5", "--cpu-share", "300", "--cpuset-cpus", "900")
        engine.call("update", *words, limited).fails("/linux/resources/cpu/cpus")
        assert found(engine, limited) == BEGINNING
        assert "900" not in (engine.root / limited / "config.json").read_text()

    def test_a_paused_container_stays_paused(self, engine: Engine, limited: str) -> None:
        engine.call("pause", limited).ok()
        engine.call("update", "--pids-limit", "30", limited).ok()
        assert engine.status(limited) == "paused"
        engine.call("resume", limited).ok()

    def test_devices_can_be_given_new_rules(self, engine: Engine, bundle: Bundle) -> None:
        bundle.capabilities("CAP_MKNOD", "CAP_SYSLOG")
        name = engine.start(bundle, "mknod /tmp/kmsg c 1 11; sleep 1000")
        assert wait_for((bundle.rootfs / "tmp/kmsg").exists)
        read = ("exec", name, "dd", "if=/tmp/kmsg", "of=/dev/null", "bs=8192", "count=1")
        assert "Operation not permitted" in engine.call(*read).err
        rules = [{"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"}]
        file = engine.directory / "resources.json"
        file.write_text(json.dumps({"devices": rules}))
        engine.call("update", "-r", str(file), name).ok()
        assert engine.call(*read).code == 0
        # The default devices are still there.
        assert engine.call("exec", name, "cat", "/dev/null").code == 0
        file.write_text(json.dumps({"devices": []}))
        engine.call("update", "-r", str(file), name).ok()
        assert "Operation not permitted" in engine.call(*read).err

    def test_a_wrong_file_is_explained(self, engine: Engine, limited: str) -> None:
        file = engine.directory / "resources.json"
        file.write_text('{"pids": {"limit": "5"}}')
        engine.call("update", "-r", str(file), limited).fails("/pids/limit")

    def test_only_a_living_container(self, engine: Engine, limited: str) -> None:
        engine.call("kill", limited, "KILL").ok()
        engine.until(limited, "stopped")
        engine.call("update", "--pids-limit", "5", limited).fails("container not running")
        engine.call("update", "--pids-limit", "5", "nobody").fails("container does not exist")

    @pytest.mark.skipif(not cgroups.V2, reason="version 1: the kernel itself refuses a limit below the usage")
    def test_check_before_update(self, engine: Engine, limited: str) -> None:
        file = engine.directory / "resources.json"
        for memory, text in (
            ({"limit": 1024}, "rejecting memory limit"),
            ({"limit": 1024, "swap": 2048}, "rejecting memory+swap limit"),
        ):
            file.write_text(json.dumps({"memory": {**memory, "checkBeforeUpdate": True}}))
            engine.call("update", "-r", str(file), limited).fails(text)
        assert engine.status(limited) == "running"

    @pytest.mark.skipif(cgroups.V2, reason="version 2 invokes the OOM killer instead")
    def test_a_limit_below_the_usage_names_the_usage(self, engine: Engine, limited: str) -> None:
        engine.call("update", "--memory", "4096", limited).fails(
            "unable to set memory limit to 4096 (current usage:"
        )


class TestPause:
    def test_created_and_running_containers(self, engine: Engine, bundle: Bundle) -> None:
        bundle.process["args"] = ["/bin/sleep", "1000"]
        name = engine.create(bundle)
        engine.call("pause", name).ok()
        assert engine.status(name) == "paused"
        engine.call("resume", name).ok()
        assert engine.status(name) == "created"
        engine.call("start", name).ok()
        engine.call("pause", name).ok()
        engine.call("pause", name).fails("container not running")
        engine.call("resume", name).ok()
        engine.call("resume", name).fails("container not paused")
        assert engine.status(name) == "running"

    def test_nobody_and_the_dead(self, engine: Engine, bundle: Bundle) -> None:
        engine.call("pause", "nobody").fails("container does not exist")
        engine.call("resume", "nobody").fails("container does not exist")
        name = engine.start(bundle)
        engine.call("kill", name, "KILL").ok()
        engine.until(name, "stopped")
        engine.call("pause", name).fails("container not running")
        engine.call("resume", name).fails("container not paused")

    def test_a_paused_container_can_be_killed_and_deleted(self, engine: Engine, bundle: Bundle) -> None:
        name = engine.start(bundle)
        engine.call("pause", name).ok()
        engine.delete(name)
        other = engine.start(bundle)
        engine.call("pause", other).ok()
        engine.call("kill", other, "KILL").ok()
        engine.until(other, "stopped")


class TestPs:
    def test_ids_and_the_hosts_table(self, engine: Engine, bundle: Bundle) -> None:
        name = engine.start(bundle, "sleep 1001 & sleep 1002 & wait")
        assert wait_for(lambda: len(json.loads(engine.call("ps", "--format", "json", name).ok().out)) == 3)
        pids = json.loads(engine.call("ps", "-f", "json", name).ok().out)
        assert engine.state(name)["pid"] in pids
        table = engine.call("ps", name).ok().out.splitlines()
        assert table[0].split()[:3] == ["UID", "PID", "PPID"]
        assert sorted(int(line.split()[1]) for line in table[1:]) == pids
        other = engine.call("ps", name, "-e", "-x").ok().out.splitlines()
        assert "STAT" in other[0]
        assert len(other) == 4

    def test_below_too(self, engine: Engine, bundle: Bundle) -> None:
        name = engine.start(bundle)
        pid = engine.state(name)["pid"]
        nested = [Path(path, "nested") for path in set(cgroups.paths(engine, name).values())]
        for path in nested:
            path.mkdir()
            if "/cpuset/" not in str(path):  # an empty cpuset takes no process
                (path / "cgroup.procs").write_text(str(pid))
        assert json.loads(engine.call("ps", "-f", "json", name).ok().out) == [pid]

    def test_the_stopped_have_none(self, engine: Engine, bundle: Bundle) -> None:
        name = engine.start(bundle)
        engine.call("kill", name, "KILL").ok()
        engine.until(name, "stopped")
        assert engine.call("ps", "-f", "json", name).ok().out == "[]\n"
        assert len(engine.call("ps", name).ok().out.splitlines()) == 1

    def test_what_is_refused(self, engine: Engine, bundle: Bundle) -> None:
        name = engine.start(bundle)
        engine.call("ps", "-f", "xml", name).fails("invalid format")
        engine.call("ps", "nobody").fails("container does not exist")
        engine.call("ps", name, "-o", "comm").fails("couldn't find PID field")
        engine.call("ps", name, "--no-such-option").fails("exit status 1")


class TestEvents:
    def test_one_record(self, engine: Engine, limited: str) -> None:
        out = engine.call("events", "--stats", limited).ok().out
        assert out.endswith("}\n")
        assert out.count("\n") == 1
        event = json.loads(out)
        assert (event["type"], event["id"]) == ("stats", limited)
        data = event["data"]
        assert list(data) == [
            "cpu",
            "cpuset",
            "memory",
            "pids",
            "blkio",
            "hugetlb",
            "intel_rdt",
            "network_interfaces",
        ]
        assert data["cpu"]["usage"]["total"] > 0
        assert data["memory"]["usage"]["limit"] == 32 * MiB
        assert 0 < data["memory"]["usage"]["usage"] < 32 * MiB
        assert data["memory"]["raw"]
        assert data["pids"] == {"current": 1, "limit": 20}
        assert data["network_interfaces"] is None

    def test_a_stream_that_ends_with_the_container(self, engine: Engine, bundle: Bundle) -> None:
        name = engine.start(bundle)
        out = engine.directory / "events"
        with out.open("wb") as file:
            watcher = engine.begin("events", "--interval=20ms", name, stdout=file)
            assert wait_for(lambda: out.read_bytes().count(b"\n") >= 3)
            engine.delete(name)
            assert watcher.wait(20) == 0
        for line in out.read_text().splitlines():
            assert json.loads(line)["type"] == "stats"

    def test_what_is_refused(self, engine: Engine, bundle: Bundle) -> None:
        engine.call("events", "nobody").fails("container does not exist")
        name = engine.start(bundle)
        engine.call("events", "--interval", "0s", name).fails("duration interval must be greater than 0")
        engine.call("kill", name, "KILL").ok()
        engine.until(name, "stopped")
        engine.call("events", "--stats", name).fails(f"container with id {name} is not running")


class TestWholeCgroups:
    def shared_pids(self, bundle: Bundle) -> None:
        """Leave out the pid namespace, so that the kernel does not kill the others with init."""
        bundle.linux["namespaces"] = [n for n in bundle.linux["namespaces"] if n["type"] != "pid"]

    def test_kill_all_reaches_processes_that_keep_forking(self, engine: Engine, bundle: Bundle) -> None:
        self.shared_pids(bundle)
        name = engine.start(bundle, "while :; do (sleep 0.02; sleep 0.02) & sleep 0.01; done")
        where = cgroups.paths(engine, name)
        engine.call("kill", "--all", name, "KILL").ok()
        engine.until(name, "stopped")
        for path in set(where.values()):
            assert wait_for(lambda path=path: not Path(path, "cgroup.procs").read_text().split())  # type: ignore[misc]

    def test_delete_ends_what_outlives_init(self, engine: Engine, bundle: Bundle) -> None:
        self.shared_pids(bundle)
        name = engine.start(bundle, "sleep 1003 & sleep 1004 & wait")
        assert wait_for(lambda: len(json.loads(engine.call("ps", "-f", "json", name).ok().out)) == 3)
        pids = json.loads(engine.call("ps", "-f", "json", name).ok().out)
        engine.call("kill", name, "KILL").ok()
        engine.until(name, "stopped")
        engine.call("delete", name).ok()
        assert not any(alive(pid) for pid in pids)

    def test_delete_removes_nested_cgroups(self, engine: Engine, bundle: Bundle) -> None:
        name = engine.start(bundle)
        tops = set(cgroups.paths(engine, name).values())
        for path in tops:
            Path(path, "a/b").mkdir(parents=True)
            Path(path, "c").mkdir()
        engine.delete(name)
        assert not any(Path(path).exists() for path in tops)

    def test_a_cgroup_that_is_in_use_is_refused(self, engine: Engine, bundle: Bundle) -> None:
        first = engine.new_id()
        bundle.linux["cgroupsPath"] = f"/{first}"
        engine.start(bundle, name=first)
        for verb in (("run",), ("run", "--detach"), ("create",)):
            engine.call(*verb, "--bundle", str(bundle.path), engine.new_id()).fails(
                "container's cgroup is not empty"
            )
        assert engine.status(first) == "running"

    def test_a_frozen_cgroup_is_refused(self, engine: Engine, bundle: Bundle) -> None:
        name = engine.new_id()
        mount, file, word = (
            ("freezer", "freezer.state", "FROZEN") if not cgroups.V2 else ("", "cgroup.freeze", "1")
        )
        path = Path(cgroups.FACTS.mounts[mount], name)
        path.mkdir()
        try:
            (path / file).write_text(word)
            bundle.linux["cgroupsPath"] = f"/{name}"
            bundle.write()
            engine.call("create", "--bundle", str(bundle.path), name).fails(
                "container's cgroup unexpectedly frozen"
            )
        finally:
            path.rmdir()

    def test_an_empty_cgroup_that_is_there_is_taken_over(self, engine: Engine, bundle: Bundle) -> None:
        """As with runc: its settings would apply to the next container, so it is removed with this one."""
        name = engine.new_id()
        paths = [Path(mount, name) for mount in sorted(set(cgroups.FACTS.mounts.values()))]
        bundle.linux["cgroupsPath"] = f"/{name}"
        for path in paths:
            path.mkdir()
        assert engine.front(bundle, "true").code == 0
        assert not any(path.exists() for path in paths)
        for path in paths:
            path.mkdir()
        engine.start(bundle, name=name)
        assert all(engine.state(name)["pid"] in members(path) for path in paths)
        engine.delete(name)
        assert not any(path.exists() for path in paths)

    def test_who_holds_a_cgroup_is_named(self, engine: Engine, bundle: Bundle) -> None:
        from pyrunc.apply.cgroups import cgroup
        from pyrunc.errors import Failure

        name = engine.start(bundle)
        where = cgroups.paths(engine, name)
        guest = subprocess.Popen(["sleep", "1005"])
        try:
            key = "freezer" if "freezer" in where else ""
            Path(where[key], "cgroup.procs").write_text(str(guest.pid))
            engine.call("kill", name, "KILL").ok()
            engine.until(name, "stopped")
            with pytest.raises(Failure, match=f"{guest.pid} .sleep.") as caught:
                cgroup.remove({key: where[key]}, seconds=0.05)
            assert "device or resource busy" in caught.value.text()
        finally:
            kill_and_reap(guest.pid)
            guest.wait()

    def test_a_signal_to_all_of_a_paused_container_waits_for_it(self, engine: Engine, bundle: Bundle) -> None:
        self.shared_pids(bundle)
        name = engine.start(
            bundle, "trap 'echo got > /tmp/got' USR1; echo x > /tmp/ready; while :; do sleep 0.05; done"
        )
        assert wait_for((bundle.rootfs / "tmp/ready").exists)
        engine.call("pause", name).ok()
        engine.call("kill", "--all", name, "USR1").ok()
        assert engine.status(name) == "paused"
        assert not (bundle.rootfs / "tmp/got").exists()
        engine.call("resume", name).ok()
        assert wait_for((bundle.rootfs / "tmp/got").exists)


def members(path: Path) -> list[int]:
    return [int(word) for word in (path / "cgroup.procs").read_text().split()]


class TestDisabled:
    def test_no_cgroup_at_all(self, engine: Engine, bundle: Bundle) -> None:
        name = engine.new_id()
        bundle.process["args"] = ["/bin/sleep", "1000"]
        bundle.linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
        bundle.write()
        engine.call("--cgroup-manager", "disabled", "run", "-d", "--bundle", str(bundle.path), name).ok()
        pid = engine.state(name)["pid"]
        assert Path(f"/proc/{pid}/cgroup").read_text() == Path("/proc/self/cgroup").read_text()
        assert json.loads(engine.call("ps", "-f", "json", name).ok().out) == [pid]
        engine.call("pause", name).fails("unable to freeze")
        engine.call("update", "--pids-limit", "5", name).fails("the container has no cgroup")
        engine.delete(name)

    def test_a_limit_is_not_forgotten_in_silence(self, engine: Engine, bundle: Bundle) -> None:
        bundle.linux["resources"] = {"pids": {"limit": 5}}
        bundle.write()
        engine.call(
            "--cgroup-manager", "disabled", "run", "--bundle", str(bundle.path), engine.new_id()
        ).fails("/linux/resources/pids", "the cgroup manager is disabled")


def test_systemd_is_needed_for_its_manager(engine: Engine, bundle: Bundle) -> None:
    if Path("/run/systemd/system").is_dir():
        pytest.skip("systemd runs here")
    bundle.write()
    engine.call("--systemd-cgroup", "run", "--bundle", str(bundle.path), engine.new_id()).fails(
        "systemd not running on this host"
    )


def test_limits_hold_before_the_first_instruction(engine: Engine, bundle: Bundle) -> None:
    """A startContainer hook runs before the container's program, and the limits already hold for it."""
    if not cgroups.has("pids"):
        pytest.skip("this host has no pids controller")
    bundle.linux["resources"] = {"pids": {"limit": 17}}
    bundle.linux["namespaces"] = [n for n in bundle.linux["namespaces"] if n["type"] != "cgroup"]
    hook: dict[str, Any] = {"path": "/bin/sh", "args": ["sh", "-c", "cat /proc/self/cgroup > /tmp/cgroup"]}
    bundle.config["hooks"] = {"startContainer": [hook]}
    name = engine.new_id()
    bundle.linux["cgroupsPath"] = f"/{name}"
    engine.start(bundle, name=name)
    joined = (bundle.rootfs / "tmp/cgroup").read_text().splitlines()
    assert len([line for line in joined if line.endswith(f":/{name}")]) == len(
        set(cgroups.paths(engine, name).values())
    )
