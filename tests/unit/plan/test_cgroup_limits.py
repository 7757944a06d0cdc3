"""plan/cgroup_limits: every property of linux.resources on both versions, as tables; conversions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrunc.errors import Failure
from pyrunc.plan import cgroup_limits, cgroups
from tests.support.cgroup_hosts import hybrid, v2

if TYPE_CHECKING:
    from pyrunc.plan.cgroup_plan import CgroupPlan, CgroupWrite
    from pyrunc.plan.facts import CgroupFacts

MiB = 1 << 20
R = "/linux/resources/"


def limits(resources: dict[str, Any], facts: CgroupFacts, *, update: bool = False) -> CgroupPlan:
    """Return the writes for these resources, without the device rules."""
    made = cgroups.plan({"linux": {"cgroupsPath": "/c"}}, facts, "id")
    made.writes = []
    cgroup_limits.add(made, resources, facts, update=update)
    return made


def lines(writes: list[CgroupWrite]) -> list[str]:
    return [f"{w.controller}|{w.file}={w.value}" for w in writes]


# (resources, version 1, version 2); None: refused
TABLE: list[tuple[dict[str, Any], list[str] | None, list[str] | None]] = [
    ({"memory": {"limit": 5 * MiB}}, ["memory|memory.limit_in_bytes=5242880"], ["|memory.max=5242880"]),
    ({"memory": {"limit": 0, "swap": 0, "reservation": 0}}, [], []),
    (
        {"memory": {"limit": -1}},
        ["memory|memory.memsw.limit_in_bytes=-1", "memory|memory.limit_in_bytes=-1"],
        ["|memory.swap.max=max", "|memory.max=max"],
    ),
    (
        {"memory": {"limit": 100, "swap": 300}},
        ["memory|memory.limit_in_bytes=100", "memory|memory.memsw.limit_in_bytes=300"],
        ["|memory.swap.max=200", "|memory.max=100"],
    ),
    (
        {"memory": {"limit": 100, "swap": 100}},
        ["memory|memory.limit_in_bytes=100", "memory|memory.memsw.limit_in_bytes=100"],
        ["|memory.swap.max=0", "|memory.max=100"],
    ),
    (
        {"memory": {"limit": 100, "swap": -1}},
        ["memory|memory.limit_in_bytes=100", "memory|memory.memsw.limit_in_bytes=-1"],
        ["|memory.swap.max=max", "|memory.max=100"],
    ),
    ({"memory": {"swap": -1}}, ["memory|memory.memsw.limit_in_bytes=-1"], ["|memory.swap.max=max"]),
    ({"memory": {"swap": 300}}, ["memory|memory.memsw.limit_in_bytes=300"], None),
    (
        {"memory": {"limit": 300, "swap": 100}},
        ["memory|memory.limit_in_bytes=300", "memory|memory.memsw.limit_in_bytes=100"],
        None,
    ),
    (
        {"memory": {"limit": -1, "swap": 100}},
        ["memory|memory.limit_in_bytes=-1", "memory|memory.memsw.limit_in_bytes=100"],
        None,
    ),
    (
        {"memory": {"limit": 100, "swap": -2}},
        ["memory|memory.limit_in_bytes=100", "memory|memory.memsw.limit_in_bytes=-2"],
        None,
    ),
    ({"memory": {"reservation": 7}}, ["memory|memory.soft_limit_in_bytes=7"], ["|memory.low=7"]),
    ({"memory": {"reservation": -1}}, ["memory|memory.soft_limit_in_bytes=-1"], ["|memory.low=max"]),
    ({"memory": {"swappiness": 0}}, ["memory|memory.swappiness=0"], None),
    ({"memory": {"swappiness": 100}}, ["memory|memory.swappiness=100"], None),
    ({"memory": {"swappiness": 101}}, None, None),
    ({"memory": {"kernel": -1, "kernelTCP": 0}}, [], []),
    ({"memory": {"kernel": 9}}, ["memory|memory.kmem.limit_in_bytes=9"], None),
    ({"memory": {"kernelTCP": 9}}, ["memory|memory.kmem.tcp.limit_in_bytes=9"], None),
    ({"memory": {"useHierarchy": True}}, ["memory|memory.use_hierarchy=1"], []),
    ({"memory": {"useHierarchy": False, "disableOOMKiller": False}}, [], []),
    ({"memory": {"disableOOMKiller": True}}, ["memory|memory.oom_control=1"], None),
    ({"cpu": {"shares": 1024}}, ["cpu|cpu.shares=1024"], ["|cpu.weight=100"]),
    ({"cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": ""}}, [], []),
    ({"cpu": {"shares": 1}}, None, ["|cpu.weight=1"]),
    ({"cpu": {"shares": 262145}}, None, ["|cpu.weight=10000"]),
    (
        {"cpu": {"quota": 50000, "period": 200000}},
        ["cpu|cpu.cfs_period_us=200000", "cpu|cpu.cfs_quota_us=50000"],
        ["|cpu.max=50000 200000"],
    ),
    ({"cpu": {"quota": 5000}}, ["cpu|cpu.cfs_quota_us=5000"], ["|cpu.max=5000 100000"]),
    ({"cpu": {"quota": -1}}, ["cpu|cpu.cfs_quota_us=-1"], ["|cpu.max=max 100000"]),
    ({"cpu": {"period": 5000}}, ["cpu|cpu.cfs_period_us=5000"], ["|cpu.max=max 5000"]),
    ({"cpu": {"burst": 0}}, ["cpu|cpu.cfs_burst_us=0"], ["|cpu.max.burst=0"]),
    (
        {"cpu": {"burst": 5, "quota": 5}},
        ["cpu|cpu.cfs_quota_us=5", "cpu|cpu.cfs_burst_us=5"],
        ["|cpu.max=5 100000", "|cpu.max.burst=5"],
    ),
    ({"cpu": {"burst": 6, "quota": 5}}, None, None),
    (
        {"cpu": {"burst": 6, "quota": -1}},
        ["cpu|cpu.cfs_quota_us=-1", "cpu|cpu.cfs_burst_us=6"],
        ["|cpu.max=max 100000", "|cpu.max.burst=6"],
    ),
    ({"cpu": {"idle": 0}}, ["cpu|cpu.idle=0"], ["|cpu.idle=0"]),
    (
        {"cpu": {"idle": 1, "shares": 2}},
        ["cpu|cpu.shares=2", "cpu|cpu.idle=1"],
        ["|cpu.weight=1", "|cpu.idle=1"],
    ),
    (
        {"cpu": {"realtimePeriod": 8, "realtimeRuntime": 7}},
        ["cpu|cpu.rt_period_us=8", "cpu|cpu.rt_runtime_us=7"],
        None,
    ),
    ({"cpu": {"realtimePeriod": 8}}, ["cpu|cpu.rt_period_us=8"], None),
    (
        {"cpu": {"cpus": "0-1,3", "mems": "0"}},
        ["cpuset|cpuset.cpus=0-1,3", "cpuset|cpuset.mems=0"],
        ["|cpuset.cpus=0-1,3", "|cpuset.mems=0"],
    ),
    ({"pids": {"limit": 20}}, ["pids|pids.max=20"], ["|pids.max=20"]),
    ({"pids": {"limit": -1}}, ["pids|pids.max=max"], ["|pids.max=max"]),
    ({"pids": {"limit": 0}}, ["pids|pids.max=1"], ["|pids.max=1"]),
    ({"pids": {"limit": None}}, [], []),
    ({"blockIO": {"weight": 10}}, ["blkio|blkio.weight=10"], ["|io.bfq.weight=10"]),
    ({"blockIO": {"weight": 9}}, ["blkio|blkio.weight=9"], None),
    ({"blockIO": {"weight": 1001}}, ["blkio|blkio.weight=1001"], None),
    ({"blockIO": {"weight": 0, "weightDevice": []}}, [], []),
    ({"blockIO": {"leafWeight": 10}}, ["blkio|blkio.leaf_weight=10"], None),
    (
        {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 500, "leafWeight": 0}]}},
        ["blkio|blkio.weight_device=8:0 500"],
        ["|io.bfq.weight=8:0 500"],
    ),
    (
        {
            "blockIO": {
                "weightDevice": [{"major": 8, "minor": 0, "leafWeight": 300}, {"major": 8, "minor": 1}]
            }
        },
        ["blkio|blkio.leaf_weight_device=8:0 300"],
        None,
    ),
    (
        {
            "blockIO": {
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}],
                "throttleWriteBpsDevice": [
                    {"major": 8, "minor": 0, "rate": 2},
                    {"major": 9, "minor": 1, "rate": 0},
                ],
                "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 3}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 4}],
            }
        },
        [
            "blkio|blkio.throttle.read_bps_device=8:0 1",
            "blkio|blkio.throttle.write_bps_device=8:0 2",
            "blkio|blkio.throttle.write_bps_device=9:1 0",
            "blkio|blkio.throttle.read_iops_device=8:0 3",
            "blkio|blkio.throttle.write_iops_device=8:0 4",
        ],
        [
            "|io.max=8:0 rbps=1",
            "|io.max=8:0 wbps=2",
            "|io.max=9:1 wbps=max",
            "|io.max=8:0 riops=3",
            "|io.max=8:0 wiops=4",
        ],
    ),
    (
        {"hugepageLimits": [{"pageSize": "2MB", "limit": 4}]},
        ["|hugetlb.2MB.max=4", "|hugetlb.2MB.rsvd.max=4"],
        ["|hugetlb.2MB.max=4", "|hugetlb.2MB.rsvd.max=4"],
    ),
    ({"hugepageLimits": [{"pageSize": "2MB/../x", "limit": 4}]}, None, None),
    ({"hugepageLimits": [{"pageSize": "MB", "limit": 4}]}, None, None),
    ({"hugepageLimits": [{"pageSize": "2TB", "limit": 4}]}, None, None),
    ({"hugepageLimits": [{"pageSize": "²MB", "limit": 4}]}, None, None),
    ({"blockIO": {"weightDevice": [{"major": 8, "minor": 1}]}}, [], []),
    ({"network": {"classID": 0, "priorities": []}}, [], []),
    ({"network": {"classID": 5}}, None, None),
    ({"network": {"priorities": [{"name": "eth0", "priority": 5}]}}, None, None),
    ({"network": {"priorities": [{"name": "eth 0", "priority": 5}]}}, None, None),
    ({"network": {"priorities": [{"name": "", "priority": 5}]}}, None, None),
    (
        {"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 4294967295}, "rxe": {"hcaObjects": 0}}},
        None,
        ["|rdma.max=mlx5_1 hca_handle=3 hca_object=max", "|rdma.max=rxe hca_object=0"],
    ),
    ({"rdma": {"mlx": {}}}, None, None),
    ({"rdma": {"m x": {"hcaObjects": 0}}}, None, None),
    (
        {"unified": {"memory.high": "5", "cgroup.max.depth": "2"}},
        None,
        ["|memory.high=5", "|cgroup.max.depth=2"],
    ),
    ({"unified": {"irq.pressure": "0"}}, None, ["|irq.pressure=0"]),
    ({"unified": {"io.max": "8:0 rbps=1\n8:1 rbps=2"}}, None, ["|io.max=8:0 rbps=1\n8:1 rbps=2"]),
    ({"unified": {"hugetlb.2MB.max": "0"}}, ["|hugetlb.2MB.max=0"], ["|hugetlb.2MB.max=0"]),
    ({"unified": {"misc.max": "x 1"}}, None, None),
    ({"unified": {"../memory.max": "1"}}, None, None),
    ({"unified": {"a/b": "1"}}, None, None),
    ({"unified": {"memory": "1"}}, None, None),
    ({"unified": {"memory.": "1"}}, None, None),
    ({"unified": {".max": "1"}}, None, None),
    ({"unified": {"..": "1"}}, None, None),
    ({"unified": {"cgroup.procs": "1"}}, None, None),
    ({"unified": {"cgroup.kill": "1"}}, None, None),
    ({"unified": {"cgroup.threads": "1"}}, None, None),
]


@pytest.mark.parametrize(("resources", "one", "two"), TABLE, ids=lambda value: str(value)[:60])
def test_table(resources: dict[str, Any], one: list[str] | None, two: list[str] | None) -> None:
    for facts, wanted in ((hybrid(), one), (v2(), two)):
        if wanted is None:
            with pytest.raises(Failure) as caught:
                limits(resources, facts)
            assert caught.value.pointer.startswith(R + next(iter(resources)))
        else:
            made = limits(resources, facts)
            assert lines(made.writes) == wanted
            assert all(w.pointer.startswith(R + next(iter(resources))) for w in made.writes)


class TestWords:
    """What a refusal says."""

    @pytest.mark.parametrize(
        ("resources", "facts", "words", "pointer"),
        [
            ({"memory": {"swap": 5}}, v2(), "unable to set swap limit without memory limit", "memory/swap"),
            ({"memory": {"limit": 6, "swap": 5}}, v2(), "should be >= memory limit", "memory/swap"),
            (
                {"memory": {"swappiness": 5}},
                v2(),
                "swappiness has no meaning in cgroup v2",
                "memory/swappiness",
            ),
            ({"cpu": {"realtimeRuntime": 5}}, v2(), "no meaning in cgroup v2", "cpu/realtimeRuntime"),
            ({"blockIO": {"leafWeight": 5}}, v2(), "no meaning in cgroup v2", "blockIO/leafWeight"),
            ({"cpu": {"shares": 1}}, hybrid(), "the minimum allowed cpu-shares is 2", "cpu/shares"),
            ({"cpu": {"shares": 300000}}, hybrid(), "the maximum allowed cpu-shares is 262144", "cpu/shares"),
            (
                {"unified": {"memory.min": "1"}},
                hybrid(),
                "invalid configuration: cannot use unified",
                "unified/memory.min",
            ),
            ({"unified": {"misc.max": "1"}}, v2(), "controller 'misc' not available", "unified/misc.max"),
            ({"unified": {"a/b~c": "1"}}, v2(), "no slashes", "unified/a~1b~0c"),
        ],
    )
    def test_it_names_the_place(
        self, resources: dict[str, Any], facts: CgroupFacts, words: str, pointer: str
    ) -> None:
        with pytest.raises(Failure, match=words) as caught:
            limits(resources, facts)
        assert caught.value.pointer == R + pointer

    def test_a_missing_controller_is_named_with_those_there_are(self) -> None:
        with pytest.raises(Failure) as caught:
            limits({"blockIO": {"weight": 500}}, v2(controllers=("cpu", "memory", "pids")))
        assert caught.value.text() == (
            "/linux/resources/blockIO/weight: the limit needs the cgroup controller io,"
            " which /sys/fs/cgroup does not offer (it has: cpu memory pids)"
        )
        with pytest.raises(Failure, match=r"does not offer \(it has: none\)"):
            limits({"pids": {"limit": 5}}, v2(controllers=()))
        with pytest.raises(
            Failure, match=r"controller net_cls, which this host does not offer.*blkio cpu cpuacct"
        ):
            limits({"network": {"classID": 5}}, hybrid())
        nothing = hybrid(
            mounts={"devices": "/d", "name=systemd": "/s"}, own={"devices": "/", "name=systemd": "/"}
        )
        with pytest.raises(Failure, match=r"controller cpu, .*it has: devices"):
            limits({"cpu": {"shares": 5}}, nothing)


class TestNeeds:
    def test_the_first_limit_that_needs_a_controller_is_remembered(self) -> None:
        made = limits({"memory": {"limit": 5}, "unified": {"memory.high": "3", "cpu.weight": "5"}}, v2())
        assert made.needed == {"memory": R + "memory/limit", "cpu": R + "unified/cpu.weight"}
        assert made.enable == v2().controllers

    def test_hybrid_enables_only_what_is_asked_for(self) -> None:
        made = limits({"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]}, hybrid())
        assert made.needed == {"hugetlb": R + "hugepageLimits/0/pageSize"}
        assert made.enable == ("hugetlb",)

    def test_version_1_goes_first_where_both_have_a_controller(self) -> None:
        both = hybrid(
            mounts={**hybrid().mounts, "hugetlb": "/sys/fs/cgroup/hugetlb", "rdma": "/sys/fs/cgroup/rdma"},
            own={**hybrid().own, "hugetlb": "/", "rdma": "/"},
        )
        made = limits(
            {"hugepageLimits": [{"pageSize": "1GB", "limit": 1}], "rdma": {"m": {"hcaHandles": 1}}}, both
        )
        assert lines(made.writes) == [
            "hugetlb|hugetlb.1GB.limit_in_bytes=1",
            "hugetlb|hugetlb.1GB.rsvd.limit_in_bytes=1",
            "rdma|rdma.max=m hca_handle=1",
        ]
        assert made.needed == {}

    def test_network_on_version_1(self) -> None:
        names = ("net_cls", "net_prio")
        facts = hybrid(
            mounts={n: "/sys/fs/cgroup/" + n for n in names}, own=dict.fromkeys(names, "/"), rootless=True
        )
        network = {
            "classID": 1048577,
            "priorities": [{"name": "eth0", "priority": 5}, {"name": "lo", "priority": 0}],
        }
        assert lines(limits({"network": network}, facts).writes) == [
            "net_cls|net_cls.classid=1048577",
            "net_prio|net_prio.ifpriomap=eth0 5",
            "net_prio|net_prio.ifpriomap=lo 0",
        ]


class TestFallbacks:
    def test_the_same_weight_under_another_scheduler(self) -> None:
        one, two = (limits({"blockIO": {"weight": 750}}, facts).writes[0] for facts in (hybrid(), v2()))
        assert one.other == ("blkio.bfq.weight", "750")
        assert two.other == ("io.weight", "7475")
        device = {"blockIO": {"weightDevice": [{"major": 8, "minor": 16, "weight": 10}]}}
        one, two = (limits(device, facts).writes[0] for facts in (hybrid(), v2()))
        assert one.other == ("blkio.bfq.weight_device", "8:16 10")
        assert two.other == ("io.weight", "8:16 1")

    @pytest.mark.parametrize(
        ("resources", "optional"),
        [
            ({"memory": {"limit": 5, "swap": 5}}, ["missing", ""]),
            ({"memory": {"limit": 5, "swap": 6}}, ["", ""]),
            ({"memory": {"limit": -1}}, ["missing", ""]),
            ({"cpu": {"burst": 0, "idle": 0}}, ["missing", "missing"]),
            ({"cpu": {"burst": 1, "idle": 1}}, ["", ""]),
            ({"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]}, ["", "missing"]),
        ],
    )
    def test_a_file_may_be_missing_only_where_that_changes_nothing(
        self, resources: dict[str, Any], optional: list[str]
    ) -> None:
        assert [w.optional for w in limits(resources, v2()).writes] == optional

    def test_the_same_on_version_1(self) -> None:
        assert [w.optional for w in limits({"memory": {"limit": 5, "swap": -1}}, hybrid()).writes] == [
            "",
            "missing",
        ]
        assert [w.optional for w in limits({"memory": {"limit": 5, "swap": 5}}, hybrid()).writes] == ["", ""]


class TestCheckBeforeUpdate:
    def test_version_2_checks_itself(self) -> None:
        asked = {"memory": {"limit": 5, "swap": 9, "checkBeforeUpdate": True}}
        assert limits(asked, v2()).check == (5, 9)
        assert limits(asked, hybrid()).check == (0, 0)
        assert limits({"memory": {"limit": -1, "checkBeforeUpdate": True}}, v2()).check == (0, 0)
        assert limits({"memory": {"limit": 5, "checkBeforeUpdate": False}}, v2()).check == (0, 0)


def test_an_update_can_let_the_oom_killer_return() -> None:
    asked = {"memory": {"disableOOMKiller": False}}
    assert lines(limits(asked, hybrid(), update=True).writes) == ["memory|memory.oom_control=0"]
    assert limits(asked, v2(), update=True).writes == []


def test_unified_has_the_last_word() -> None:
    made = limits({"unified": {"memory.max": "9"}, "memory": {"limit": 5}, "pids": {"limit": 1}}, v2())
    assert lines(made.writes) == ["|pids.max=1", "|memory.max=5", "|memory.max=9"]


SHARES = st.integers(min_value=0, max_value=1 << 20)


class TestWeight:
    @pytest.mark.parametrize(
        ("shares", "weight"),
        [
            (0, 1),
            (2, 1),
            (3, 2),
            (512, 59),
            (1024, 100),
            (2048, 174),
            (3333, 256),
            (262144, 10000),
            (1 << 40, 10000),
        ],
    )
    def test_known_pairs(self, shares: int, weight: int) -> None:
        assert cgroup_limits.weight(shares) == weight

    @given(SHARES, SHARES)
    def test_more_shares_never_weigh_less(self, one: int, two: int) -> None:
        low, high = sorted((one, two))
        assert 1 <= cgroup_limits.weight(low) <= cgroup_limits.weight(high) <= 10000


@given(st.integers(min_value=10, max_value=1000), st.integers(min_value=10, max_value=1000))
def test_io_weight_keeps_the_order_and_the_ends(one: int, two: int) -> None:
    def made(value: int) -> int:
        other = limits({"blockIO": {"weight": value}}, v2()).writes[0].other
        assert other is not None
        return int(other[1])

    low, high = sorted((one, two))
    assert 1 == made(10) <= made(low) <= made(high) <= made(1000) == 10000


@given(st.integers(min_value=1, max_value=1 << 62), st.integers(min_value=0, max_value=1 << 62))
def test_memory_and_swap_together_stay_what_was_asked(limit: int, more: int) -> None:
    made = {w.file: w.value for w in limits({"memory": {"limit": limit, "swap": limit + more}}, v2()).writes}
    assert int(made["memory.max"]) + int(made["memory.swap.max"]) == limit + more
