"""linux.resources: each limit is read back from the kernel; for the important ones the effect is tested."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import cgroups
from tests.support.containers import wait_for

if TYPE_CHECKING:
    from tests.support.containers import Bundle
    from tests.support.engine import Engine

MiB = 1 << 20


def block_device() -> str:
    """Return major:minor of a whole disk of the host, "" without one."""
    for name in sorted(os.listdir("/sys/block")):
        if Path("/sys/block", name, "device").exists() or name.startswith("loop"):
            return Path("/sys/block", name, "dev").read_text().strip()
    return ""


DISK = block_device()
MAJOR, _, MINOR = DISK.partition(":")
SWAP = any(
    Path(mount, file).exists()
    for mount, file in ((cgroups.FACTS.mounts.get("memory", ""), "memory.memsw.limit_in_bytes"),)
) or (cgroups.V2 and Path("/proc/swaps").exists())

# (section, controller, file, value) on version 1, (file, value) on version 2; the controller's other name
Row = tuple[dict[str, Any], str, str, str, str, str, str]
READ_BACK: list[Row] = [
    (
        {"memory": {"limit": 32 * MiB}},
        "memory",
        "memory.limit_in_bytes",
        "33554432",
        "",
        "memory.max",
        "33554432",
    ),
    (
        {"memory": {"limit": 32 * MiB, "reservation": 24 * MiB}},
        "memory",
        "memory.soft_limit_in_bytes",
        "25165824",
        "",
        "memory.low",
        "25165824",
    ),
    ({"cpu": {"shares": 200}}, "cpu", "cpu.shares", "200", "", "cpu.weight", "29"),
    (
        {"cpu": {"quota": 50000, "period": 200000}},
        "cpu",
        "cpu.cfs_quota_us",
        "50000",
        "",
        "cpu.max",
        "50000 200000",
    ),
    (
        {"cpu": {"quota": 50000, "period": 200000}},
        "cpu",
        "cpu.cfs_period_us",
        "200000",
        "",
        "cpu.max",
        "50000 200000",
    ),
    ({"cpu": {"period": 50000}}, "cpu", "cpu.cfs_period_us", "50000", "", "cpu.max", "max 50000"),
    (
        {"cpu": {"quota": 50000, "burst": 1000}},
        "cpu",
        "cpu.cfs_burst_us",
        "1000",
        "",
        "cpu.max.burst",
        "1000",
    ),
    ({"cpu": {"idle": 1}}, "cpu", "cpu.idle", "1", "", "cpu.idle", "1"),
    ({"cpu": {"shares": 300, "idle": 1}}, "cpu", "cpu.idle", "1", "", "cpu.idle", "1"),
    ({"cpu": {"cpus": "0"}}, "cpuset", "cpuset.cpus", "0", "", "cpuset.cpus", "0"),
    ({"cpu": {"mems": "0"}}, "cpuset", "cpuset.mems", "0", "", "cpuset.mems", "0"),
    ({"pids": {"limit": 20}}, "pids", "pids.max", "20", "", "pids.max", "20"),
    ({"pids": {"limit": 0}}, "pids", "pids.max", "1", "", "pids.max", "1"),
    ({"pids": {"limit": -1}}, "pids", "pids.max", "max", "", "pids.max", "max"),
    (
        {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MiB}]},
        "hugetlb",
        "hugetlb.2MB.limit_in_bytes",
        "4194304",
        "",
        "hugetlb.2MB.max",
        "4194304",
    ),
    (
        {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MiB}]},
        "hugetlb",
        "hugetlb.2MB.rsvd.limit_in_bytes",
        "4194304",
        "",
        "hugetlb.2MB.rsvd.max",
        "4194304",
    ),
]


@pytest.mark.parametrize("row", READ_BACK, ids=lambda row: f"{row[2]}-{row[3]}")
def test_a_limit_is_what_was_asked(engine: Engine, bundle: Bundle, row: Row) -> None:
    resources, controller, file, one, _, unified, two = row
    if not cgroups.has(controller):
        pytest.skip(f"this host has no {controller} controller")
    bundle.linux["resources"] = resources
    name = engine.create(bundle)
    expected = one if controller in cgroups.paths(engine, name) else two
    assert cgroups.read(engine, name, controller, file, unified) == expected


@pytest.mark.skipif(not SWAP, reason="this kernel does not account swap")
def test_swap_is_counted_with_memory_on_version_1_and_alone_on_version_2(
    engine: Engine, bundle: Bundle
) -> None:
    bundle.linux["resources"] = {"memory": {"limit": 32 * MiB, "swap": 48 * MiB}}
    name = engine.create(bundle)
    found = cgroups.read(engine, name, "memory", "memory.memsw.limit_in_bytes", "memory.swap.max")
    assert int(found) == (16 if cgroups.V2 else 48) * MiB


@pytest.mark.skipif(cgroups.V2, reason="version 1 only: the unified hierarchy has no such files")
@pytest.mark.parametrize(
    ("memory", "file", "expected"),
    [
        ({"swappiness": 7}, "memory.swappiness", "7"),
        ({"disableOOMKiller": True}, "memory.oom_control", "oom_kill_disable 1"),
        ({"useHierarchy": True}, "memory.use_hierarchy", "1"),
    ],
)
def test_what_only_version_1_has(
    engine: Engine, bundle: Bundle, memory: dict[str, Any], file: str, expected: str
) -> None:
    bundle.linux["resources"] = {"memory": memory}
    name = engine.create(bundle)
    assert cgroups.read(engine, name, "memory", file).splitlines()[0] == expected


@pytest.mark.skipif(not DISK or not cgroups.has("blkio", "io"), reason="needs a disk and its controller")
def test_throttles_of_one_device(engine: Engine, bundle: Bundle) -> None:
    entry = {"major": int(MAJOR), "minor": int(MINOR)}
    bundle.linux["resources"] = {
        "blockIO": {
            "throttleReadBpsDevice": [{**entry, "rate": 10485760}],
            "throttleWriteBpsDevice": [{**entry, "rate": 9437184}],
            "throttleReadIOPSDevice": [{**entry, "rate": 1000}],
            "throttleWriteIOPSDevice": [{**entry, "rate": 900}],
        }
    }
    name = engine.create(bundle)
    if cgroups.V2:
        limits = cgroups.read(engine, name, "blkio", "", "io.max")
        assert limits == f"{DISK} rbps=10485760 wbps=9437184 riops=1000 wiops=900"
        return
    for file, rate in (
        ("read_bps", 10485760),
        ("write_bps", 9437184),
        ("read_iops", 1000),
        ("write_iops", 900),
    ):
        assert cgroups.read(engine, name, "blkio", f"blkio.throttle.{file}_device") == f"{DISK} {rate}"


def test_the_weight_of_block_io_under_whatever_scheduler(engine: Engine, bundle: Bundle) -> None:
    if not cgroups.has("blkio", "io"):
        pytest.skip("this host has no controller of block I/O")
    bundle.linux["resources"] = {"blockIO": {"weight": 750}}
    name = engine.new_id()
    bundle.write()
    made = engine.call("create", "--bundle", str(bundle.path), name)
    if made.code:
        # Neither scheduler of weights is there: said, not ignored.
        made.fails("/linux/resources/blockIO/weight", "has no", "no such file or directory")
        return
    where = Path(
        next(iter(cgroups.paths(engine, name).values()))
        if cgroups.V2
        else cgroups.paths(engine, name)["blkio"]
    )
    values = [
        (where / file).read_text().strip()
        for file in ("blkio.weight", "blkio.bfq.weight", "io.bfq.weight", "io.weight")
        if (where / file).exists()
    ]
    assert any(value.split()[-1] in {"750", "7475"} for value in values), values


@pytest.mark.skipif(not cgroups.V2, reason="the unified hierarchy alone")
def test_unified_is_written_last_and_line_by_line(engine: Engine, bundle: Bundle) -> None:
    bundle.linux["resources"] = {
        "memory": {"limit": 32 * MiB},
        "unified": {"memory.max": "41943040", "memory.high": "20971520", "cgroup.max.depth": "3"},
    }
    name = engine.create(bundle)
    assert cgroups.read(engine, name, "", "memory.max") == "41943040"
    assert cgroups.read(engine, name, "", "memory.high") == "20971520"
    assert cgroups.read(engine, name, "", "cgroup.max.depth") == "3"


class TestFelt:
    def test_too_much_memory_ends_in_an_oom_kill_that_is_reported(
        self, engine: Engine, bundle: Bundle
    ) -> None:
        bundle.linux["resources"] = {
            "memory": {"limit": 16 * MiB, "swap": 16 * MiB} if SWAP else {"limit": 16 * MiB}
        }
        name = engine.start(bundle, "while [ ! -e /tmp/go ]; do sleep 0.05; done; tail /dev/zero; sleep 1000")
        events = engine.directory / "events"
        with events.open("wb") as out:
            watcher = engine.begin("events", "--interval", "50ms", name, stdout=out)
            assert wait_for(lambda: b'"stats"' in events.read_bytes())
            (bundle.rootfs / "tmp/go").write_text("")
            assert wait_for(lambda: b'"oom"' in events.read_bytes(), 30)
            engine.delete(name)
            assert watcher.wait(20) == 0
        kinds = [json.loads(line) for line in events.read_text().splitlines()]
        assert {"type": "oom", "id": name} in kinds

    def test_a_fork_too_many_fails(self, engine: Engine, bundle: Bundle) -> None:
        bundle.linux["resources"] = {"pids": {"limit": 3}}
        result = engine.front(bundle, "sleep 5 & sleep 5 & sleep 5 & sleep 5 & wait")
        assert "fork" in result.err
        assert result.code != 0

    def test_a_quota_throttles(self, engine: Engine, bundle: Bundle) -> None:
        bundle.linux["resources"] = {"cpu": {"quota": 2000, "period": 20000}}
        name = engine.start(bundle, "while :; do :; done")

        def throttled() -> bool:
            data = json.loads(engine.call("events", "--stats", name).ok().out)["data"]
            return bool(data["cpu"].get("throttling", {}).get("throttledPeriods", 0) > 3)

        assert wait_for(throttled, 20)

    def test_a_device_that_is_not_allowed_is_refused(self, engine: Engine, bundle: Bundle) -> None:
        bundle.capabilities("CAP_MKNOD")
        script = "mknod /tmp/mem c 1 1; mknod /tmp/null c 1 3; echo x > /tmp/null && echo null; cat /tmp/mem"
        result = engine.front(bundle, script)
        assert result.out == "null\n"
        assert "Operation not permitted" in result.err

    def test_a_device_that_is_allowed_may_be_opened(self, engine: Engine, bundle: Bundle) -> None:
        bundle.linux["resources"] = {
            "devices": [
                {"allow": False, "access": "rwm"},
                {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"},
            ]
        }
        bundle.capabilities("CAP_MKNOD", "CAP_SYSLOG")
        script = (
            "mknod /tmp/kmsg c 1 11; dd if=/tmp/kmsg of=/dev/null bs=8192 count=1 2>/dev/null && echo read;"
            "echo x > /tmp/kmsg"
        )
        result = engine.front(bundle, script)
        assert result.out == "read\n"
        assert "Operation not permitted" in result.err

    def test_an_empty_list_of_rules_is_no_deny_list(self, engine: Engine, bundle: Bundle) -> None:
        bundle.linux["resources"] = {"devices": []}
        bundle.capabilities("CAP_MKNOD")
        assert "Operation not permitted" in engine.front(bundle, "mknod /tmp/mem c 1 1; cat /tmp/mem").err

    def test_frozen_processes_do_not_go_on(self, engine: Engine, bundle: Bundle) -> None:
        name = engine.start(bundle, "while :; do echo x >> /tmp/log; done")
        log = bundle.rootfs / "tmp/log"
        assert wait_for(log.exists)
        engine.call("pause", name).ok()
        size = log.stat().st_size
        assert not wait_for(lambda: log.stat().st_size != size, 0.3)
        engine.call("resume", name).ok()
        assert wait_for(lambda: log.stat().st_size > size)


class TestRefusals:
    """One line has the place and the kernel's answer; the fixture checks that no cgroup is left."""

    @pytest.mark.parametrize(
        ("resources", "controller", "texts"),
        [
            ({"cpu": {"period": 100}}, "cpu", ("/linux/resources/cpu/period", "invalid argument")),
            ({"cpu": {"idle": 3}}, "cpu", ("/linux/resources/cpu/idle", "invalid argument")),
            ({"cpu": {"cpus": "4000"}}, "cpuset", ("/linux/resources/cpu/cpus",)),
            ({"cpu": {"cpus": "x"}}, "cpuset", ("/linux/resources/cpu/cpus", "invalid argument")),
            (
                {"cpu": {"quota": 5000, "burst": 6000}},
                "cpu",
                ("/linux/resources/cpu/burst", "larger than quota"),
            ),
            ({"memory": {"limit": MiB, "swap": 5}}, "memory", ("/linux/resources/memory/",)),
            (
                {"hugepageLimits": [{"pageSize": "3MB", "limit": 0}]},
                "hugetlb",
                ("/linux/resources/hugepageLimits/0/limit", "huge page sizes of this host: "),
            ),
        ],
        ids=str,
    )
    def test_one_line_with_the_place(
        self,
        engine: Engine,
        bundle: Bundle,
        resources: dict[str, Any],
        controller: str,
        texts: tuple[str, ...],
    ) -> None:
        if not cgroups.has(controller):
            pytest.skip(f"this host has no {controller} controller")
        bundle.linux["resources"] = resources
        engine.front(bundle, "true").fails(*texts)

    def test_a_controller_nobody_has(self, engine: Engine, bundle: Bundle) -> None:
        bundle.linux["resources"] = {"network": {"classID": 5}}
        expected = "no meaning in cgroup v2" if cgroups.V2 else "needs the cgroup controller net_cls"
        engine.front(bundle, "true").fails("/linux/resources/network/classID", expected)

    @pytest.mark.skipif(cgroups.V2, reason="version 1 only")
    def test_unified_on_version_1(self, engine: Engine, bundle: Bundle) -> None:
        bundle.linux["resources"] = {"unified": {"memory.min": "131072"}}
        engine.front(bundle, "true").fails("/linux/resources/unified/memory.min", "invalid configuration")

    @pytest.mark.skipif(cgroups.V2, reason="version 2 filters without such a limit")
    def test_a_hole_in_a_wider_device_rule(self, engine: Engine, bundle: Bundle) -> None:
        bundle.linux["resources"] = {
            "devices": [
                {"allow": True, "type": "c", "access": "rwm"},
                {"allow": False, "type": "c", "major": 1, "minor": 1, "access": "rwm"},
            ]
        }
        engine.front(bundle, "true").fails("/linux/resources/devices/1", "cgroup v1 cannot deny 'c 1:1 rwm'")


# What a container of /bin/true needs to start, its init included; docs/limits.md has the measurements. On
# version 1 init joins its cgroups late. On version 2 it begins in its cgroup, so the pages of the init
# program count.
LEAST_MEMORY = 512 * 1024


@pytest.mark.parametrize("size", [6 * MiB, LEAST_MEMORY], ids=["runc", "least"])
def test_a_container_starts_in_little_memory(engine: Engine, bundle: Bundle, size: int) -> None:
    """The minimum that runc documents is 6 MiB."""
    if not cgroups.has("memory"):
        pytest.skip("this host has no memory controller")
    bundle.process["args"] = ["/bin/true"]
    bundle.linux["resources"] = {"memory": {"limit": size}}
    for _ in range(3):
        assert engine.front(bundle).ok().out == ""


def test_a_leaf_of_the_configuration_is_the_processs_cgroup(engine: Engine, bundle: Bundle) -> None:
    name = engine.new_id()
    bundle.linux["cgroupsPath"] = f"/{name}/inner"
    bundle.linux["namespaces"] = [n for n in bundle.linux["namespaces"] if n["type"] != "cgroup"]
    engine.create(bundle, name=name)
    pid = engine.state(name)["pid"]
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    found = {names: path for _number, names, path in lines}
    mounted = {key for key in cgroups.paths(engine, name) if not key.startswith("intel_rdt")}
    for names, path in found.items():
        if mounted & set(names.split(",")):
            assert path == f"/{name}/inner"
    engine.delete(name)
    for mount in set(cgroups.FACTS.mounts.values()):
        os.rmdir(f"{mount}/{name}")


def test_text_forms(engine: Engine, bundle: Bundle) -> None:
    """A path with ".." does not lead out: the cgroup is where it would be without a path."""
    name = engine.new_id()
    bundle.linux["cgroupsPath"] = f"../../{name}"
    engine.create(bundle, name=name)
    relative = cgroups.paths(engine, name)
    engine.delete(name)
    bundle.linux.pop("cgroupsPath")
    other = engine.create(bundle)
    default = cgroups.paths(engine, other)
    assert {key: re.sub(name, "X", path) for key, path in relative.items()} == {
        key: re.sub(other, "X", path) for key, path in default.items()
    }
