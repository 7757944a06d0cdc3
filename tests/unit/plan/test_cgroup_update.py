"""plan/cgroup_update: what an update writes, what it keeps, how sizes are printed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrunc.errors import Failure
from pyrunc.plan import cgroup_update
from tests.support.cgroup_hosts import hybrid, v2

if TYPE_CHECKING:
    from pyrunc.plan.facts import CgroupFacts


def paths(facts: CgroupFacts) -> dict[str, str]:
    return {name: mount + "/c" for name, mount in facts.mounts.items()}


def update(
    old: dict[str, Any], change: dict[str, Any], facts: CgroupFacts, **how: Any
) -> tuple[list[str], dict[str, Any]]:
    """Return the writes as text, and the new section."""
    made, merged = cgroup_update.plan(paths(facts), old, change, facts, manager="cgroupfs", **how)
    return [f"{w.file}={w.value}" for w in made.writes], merged


OLD = {
    "memory": {"limit": 33554432, "reservation": 25165824},
    "cpu": {"shares": 100, "quota": 500000, "period": 1000000},
    "pids": {"limit": 20},
    "devices": [{"allow": False, "access": "rwm"}],
}


class TestWrites:
    @pytest.mark.parametrize(
        ("change", "one", "two"),
        [
            ({}, [], []),
            ({"pids": {"limit": 10}}, ["pids.max=10"], ["pids.max=10"]),
            (
                {"cpu": {"period": 900000}},
                ["cpu.cfs_period_us=900000", "cpu.cfs_quota_us=500000"],
                ["cpu.max=500000 900000"],
            ),
            (
                {"cpu": {"quota": 600000}},
                ["cpu.cfs_period_us=1000000", "cpu.cfs_quota_us=600000"],
                ["cpu.max=600000 1000000"],
            ),
            (
                {"cpu": {"quota": -1}},
                ["cpu.cfs_period_us=1000000", "cpu.cfs_quota_us=-1"],
                ["cpu.max=max 1000000"],
            ),
            ({"cpu": {"shares": 200}}, ["cpu.shares=200"], ["cpu.weight=29"]),
            ({"cpu": {"idle": 1}}, ["cpu.idle=1"], ["cpu.idle=1"]),
            ({"cpu": {"burst": 5}}, ["cpu.cfs_burst_us=5"], ["cpu.max.burst=5"]),
            ({"cpu": {"cpus": "1"}}, ["cpuset.cpus=1"], ["cpuset.cpus=1"]),
            ({"memory": {"limit": 50}}, ["memory.limit_in_bytes=50"], ["memory.max=50"]),
            (
                {"memory": {"limit": -1}},
                ["memory.memsw.limit_in_bytes=-1", "memory.limit_in_bytes=-1"],
                ["memory.swap.max=max", "memory.max=max"],
            ),
            (
                {"memory": {"swap": 33554440}},
                ["memory.limit_in_bytes=33554432", "memory.memsw.limit_in_bytes=33554440"],
                ["memory.swap.max=8", "memory.max=33554432"],
            ),
            ({"memory": {"reservation": 7}}, ["memory.soft_limit_in_bytes=7"], ["memory.low=7"]),
            ({"memory": {"kernel": 7, "kernelTCP": 7}}, [], []),
            ({"memory": None, "cpu": {"quota": None}}, [], []),
        ],
        ids=str,
    )
    def test_only_what_is_named_with_its_partner(
        self, change: dict[str, Any], one: list[str], two: list[str]
    ) -> None:
        assert update(OLD, change, hybrid())[0] == one
        assert update(OLD, change, v2())[0] == two

    def test_a_new_limit_keeps_the_old_sum_with_swap(self) -> None:
        old = {"memory": {"limit": 10, "swap": 30}}
        assert update(old, {"memory": {"limit": 20}}, v2())[0] == ["memory.swap.max=10", "memory.max=20"]
        with pytest.raises(Failure, match="should be >= memory limit"):
            update(old, {"memory": {"limit": 40}}, v2())

    def test_lifting_memory_lifts_swap_too(self) -> None:
        old = {"memory": {"limit": 10, "swap": 30}}
        writes, merged = update(old, {"memory": {"limit": -1}}, v2())
        assert writes == ["memory.swap.max=max", "memory.max=max"]
        assert merged["memory"] == {"limit": -1, "swap": 0}

    def test_nothing_old_at_all(self) -> None:
        assert update({}, {"cpu": {"period": 50000}}, hybrid())[0] == ["cpu.cfs_period_us=50000"]
        assert update({}, {"cpu": {"quota": 30000}}, v2())[0] == ["cpu.max=30000 100000"]


class TestMerge:
    def test_values_are_laid_over_the_old_ones(self) -> None:
        _writes, merged = update(OLD, {"cpu": {"shares": 200, "cpus": None}, "pids": None}, v2())
        assert merged == {**OLD, "cpu": {"shares": 200, "quota": 500000, "period": 1000000}}
        assert OLD["cpu"] == {"shares": 100, "quota": 500000, "period": 1000000}

    def test_entries_by_device_are_replaced_by_number(self) -> None:
        old = {
            "blockIO": {
                "weight": 100,
                "throttleReadBpsDevice": [
                    {"major": 8, "minor": 0, "rate": 1},
                    {"major": 8, "minor": 0, "rate": 2},
                    {"major": 8, "minor": 16, "rate": 3},
                ],
                "weightDevice": [{"major": 8, "minor": 0, "weight": 10, "leafWeight": 20}],
            }
        }
        change = {
            "blockIO": {
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 9}],
                "weightDevice": [
                    {"major": 8, "minor": 0, "weight": 30},
                    {"major": 9, "minor": 0, "weight": 1},
                ],
            }
        }
        writes, merged = update(old, change, hybrid())
        assert writes == [
            "blkio.weight_device=8:0 30",
            "blkio.weight_device=9:0 1",
            "blkio.throttle.read_bps_device=8:0 9",
        ]
        assert merged["blockIO"] == {
            "weight": 100,
            "throttleReadBpsDevice": [
                {"major": 8, "minor": 0, "rate": 9},
                {"major": 8, "minor": 16, "rate": 3},
            ],
            "weightDevice": [
                {"major": 8, "minor": 0, "weight": 30, "leafWeight": 20},
                {"major": 9, "minor": 0, "weight": 1},
            ],
        }

    def test_a_section_that_was_not_there(self) -> None:
        assert update({}, {"unified": {"memory.high": "5"}}, v2())[1] == {"unified": {"memory.high": "5"}}


class TestDevices:
    def test_without_new_rules_nothing_is_touched(self) -> None:
        made, _merged = cgroup_update.plan(paths(v2()), OLD, {"pids": {"limit": 1}}, v2(), manager="cgroupfs")
        assert made.devices == b""

    def test_version_1_goes_from_list_to_list(self) -> None:
        allow = {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"}
        present = (
            "c *:* m\nb *:* m\nc 1:3 rwm\nc 1:5 rwm\nc 1:7 rwm\nc 1:8 rwm\nc 1:9 rwm\nc 5:0 rwm\nc 5:2 rwm\n"
        )
        present += "c 136:* rwm\nc 10:200 rwm\nc 1:1 r\n"
        writes, merged = update(OLD, {"devices": [allow]}, hybrid(), devices_list=present)
        assert writes == ["devices.allow=c 10:229 rw", "devices.deny=c 1:1 r"]
        assert merged["devices"] == [allow]

    def test_version_2_gets_a_new_program(self) -> None:
        made, _merged = cgroup_update.plan(paths(v2()), OLD, {"devices": []}, v2(), manager="cgroupfs")
        assert made.devices


def test_a_container_without_cgroup_has_nothing_to_update() -> None:
    with pytest.raises(Failure, match="the container has no cgroup"):
        cgroup_update.plan({}, OLD, {"pids": {"limit": 1}}, v2(), manager="cgroupfs")
    made, merged = cgroup_update.plan({}, OLD, {"pids": {}}, v2(), manager="cgroupfs")
    assert made.writes == []
    assert merged == OLD


def test_systemd_hears_of_it_too() -> None:
    change = {"cpu": {"quota": 60001}}
    made, merged = cgroup_update.plan(paths(v2()), OLD, change, v2(), manager="systemd")
    assert made.unit is not None
    assert ("CPUQuotaPerSecUSec", "t", 70000, 0) in made.unit.properties
    assert [w.value for w in made.writes] == ["70000 1000000"]
    assert merged["cpu"]["quota"] == 60001


class TestSize:
    @pytest.mark.parametrize(
        ("text", "size"),
        [
            ("52428800", 52428800),
            ("0", 0),
            ("-1", -1),
            ("7b", 7),
            ("64k", 65536),
            ("10KB", 10240),
            ("50M", 52428800),
            ("1.5g", 1610612736),
            ("512MiB", 536870912),
            ("2 t", 2199023255552),
            ("1p", 1125899906842624),
            ("9007199254740993", 9007199254740993),
        ],
    )
    def test_it_is_read(self, text: str, size: int) -> None:
        assert cgroup_update.size(text) == size

    @pytest.mark.parametrize(
        "text", ["", "x", "5x", "1.", ".", "1e3", "5bk", "ib", "-5", "+5", "1_0", "٣", "1.5.5", "--1"]
    )
    def test_it_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError):
            cgroup_update.size(text)

    @given(st.integers(min_value=0, max_value=1 << 70))
    def test_any_number_is_itself(self, number: int) -> None:
        assert cgroup_update.size(str(number)) == number
