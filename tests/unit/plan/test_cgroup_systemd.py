"""plan/cgroup_systemd: names, slices, properties, annotations."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrunc.errors import Failure
from pyrunc.plan import cgroup_systemd as sd
from tests.support.cgroup_hosts import hybrid, v2

INFINITY = 2**64 - 1


class TestNames:
    @pytest.mark.parametrize(
        ("wanted", "rootless", "pair"),
        [
            ("", False, ("system.slice", "pyrunc-id.scope")),
            ("", True, ("user.slice", "pyrunc-id.scope")),
            ("a.slice:pre:name", False, ("a.slice", "pre-name.scope")),
            ("a.slice::name", False, ("a.slice", "name.scope")),
            (":pre:name", False, ("system.slice", "pre-name.scope")),
            (":pre:name", True, ("user.slice", "pre-name.scope")),
            ("a.slice:pre:b.slice", False, ("a.slice", "b.slice")),
        ],
    )
    def test_pairs(self, wanted: str, rootless: bool, pair: tuple[str, str]) -> None:
        assert sd.names(wanted, "id", rootless=rootless) == pair

    @pytest.mark.parametrize("wanted", ["/a/b", "a:b", "a:b:c:d", "a.slice:b:c/d", "a.slice:b:"])
    def test_other_forms_are_refused(self, wanted: str) -> None:
        with pytest.raises(Failure) as caught:
            sd.names(wanted, "id", rootless=False)
        assert caught.value.pointer == "/linux/cgroupsPath"

    def test_the_words_are_runcs(self) -> None:
        with pytest.raises(
            Failure, match='expected cgroupsPath to be of format "slice:prefix:name" for systemd'
        ):
            sd.names("/x", "id", rootless=False)


class TestSlices:
    @pytest.mark.parametrize(
        ("name", "path"),
        [
            ("a.slice", "/a.slice"),
            ("a-b-c.slice", "/a.slice/a-b.slice/a-b-c.slice"),
            ("-.slice", ""),
        ],
    )
    def test_expanded(self, name: str, path: str) -> None:
        assert sd.expand(name) == path

    @pytest.mark.parametrize(
        "name", ["", "a", ".slice", "-a.slice", "a-.slice", "a--b.slice", "a/b.slice", "a.scope"]
    )
    def test_refused(self, name: str) -> None:
        with pytest.raises(Failure, match="invalid slice name"):
            sd.expand(name)

    def test_paths_of_the_system_manager(self) -> None:
        assert sd.paths(v2(), "", "id") == {"": "/sys/fs/cgroup/system.slice/pyrunc-id.scope"}
        found = sd.paths(hybrid(), "a-b.slice:p:n", "id")
        assert found["memory"] == "/sys/fs/cgroup/memory/a.slice/a-b.slice/p-n.scope"
        assert found["name=systemd"] == "/sys/fs/cgroup/systemd/a.slice/a-b.slice/p-n.scope"

    def test_paths_of_a_users_manager(self) -> None:
        mine = "/user.slice/user-1000.slice/user@1000.service/app.slice/shell.scope"
        assert sd.paths(v2(mine, rootless=True), "", "id") == {
            "": "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/user.slice/pyrunc-id.scope"
        }
        with pytest.raises(Failure, match="no systemd user manager above"):
            sd.paths(v2("/user.slice/session-1.scope", rootless=True), "", "id")


def properties(resources: dict[str, Any], version: int = 2) -> list[tuple[str, object]]:
    return [(name, value) for name, _sign, value, _since in sd.limits(resources, version)]


class TestLimits:
    @pytest.mark.parametrize(
        ("resources", "expected"),
        [
            ({}, []),
            ({"memory": {"limit": 5}}, [("MemoryMax", 5)]),
            ({"memory": {"limit": -1}}, [("MemoryMax", INFINITY), ("MemorySwapMax", INFINITY)]),
            ({"memory": {"limit": 5, "swap": 7}}, [("MemoryMax", 5), ("MemorySwapMax", 2)]),
            ({"memory": {"limit": 5, "swap": -1}}, [("MemoryMax", 5), ("MemorySwapMax", INFINITY)]),
            ({"memory": {"reservation": 5}}, [("MemoryLow", 5)]),
            ({"cpu": {"shares": 1024}}, [("CPUWeight", 100)]),
            ({"cpu": {"shares": 1024, "idle": 1}}, [("CPUWeight", 0)]),
            ({"cpu": {"idle": 0}}, []),
            ({"cpu": {"quota": 5000}}, [("CPUQuotaPerSecUSec", 50000)]),
            ({"cpu": {"quota": 5001}}, [("CPUQuotaPerSecUSec", 60000)]),
            (
                {"cpu": {"quota": 5000, "period": 50000}},
                [("CPUQuotaPeriodUSec", 50000), ("CPUQuotaPerSecUSec", 100000)],
            ),
            ({"cpu": {"quota": -1}}, [("CPUQuotaPerSecUSec", INFINITY)]),
            ({"cpu": {"period": 9}}, [("CPUQuotaPeriodUSec", 9), ("CPUQuotaPerSecUSec", INFINITY)]),
            (
                {"cpu": {"cpus": "0-3,7", "mems": "1"}},
                [("AllowedCPUs", b"\x8f"), ("AllowedMemoryNodes", b"\x02")],
            ),
            ({"pids": {"limit": 20}}, [("TasksMax", 20)]),
            ({"pids": {"limit": 0}}, [("TasksMax", 1)]),
            ({"pids": {"limit": -1}}, [("TasksMax", INFINITY)]),
            ({"blockIO": {"weight": 50}}, []),
        ],
        ids=str,
    )
    def test_version_2(self, resources: dict[str, Any], expected: list[tuple[str, object]]) -> None:
        assert properties(resources) == expected

    @pytest.mark.parametrize(
        ("resources", "expected"),
        [
            ({"memory": {"limit": 5, "reservation": 3, "swap": 9}}, [("MemoryLimit", 5)]),
            ({"cpu": {"shares": 1024, "cpus": "1", "idle": 1}}, [("CPUShares", 1024)]),
            ({"blockIO": {"weight": 50}}, [("BlockIOWeight", 50)]),
        ],
        ids=str,
    )
    def test_version_1(self, resources: dict[str, Any], expected: list[tuple[str, object]]) -> None:
        assert properties(resources, 1) == expected

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ({"cpu.idle": "1", "cpu.weight": "8"}, [("CPUWeight", 0)]),
            ({"cpu.idle": "0", "cpu.weight": " 8\n"}, [("CPUWeight", 8)]),
            ({"cpu.max": "max 50000"}, [("CPUQuotaPeriodUSec", 50000), ("CPUQuotaPerSecUSec", INFINITY)]),
            ({"cpu.max": "10000 100000"}, [("CPUQuotaPeriodUSec", 100000), ("CPUQuotaPerSecUSec", 100000)]),
            ({"cpu.max": "10000"}, [("CPUQuotaPeriodUSec", 100000), ("CPUQuotaPerSecUSec", 100000)]),
            ({"cpu.max": "nonsense"}, []),
            ({"cpu.max": "5 x"}, []),
            ({"cpuset.cpus": "5-8"}, [("AllowedCPUs", b"\xe0\x01")]),
            ({"cpuset.mems": "0"}, [("AllowedMemoryNodes", b"\x01")]),
            (
                {"memory.min": "131072", "memory.high": "max"},
                [("MemoryMin", 131072), ("MemoryHigh", INFINITY)],
            ),
            (
                {"memory.swap.max": "7", "memory.low": "1", "memory.max": "9"},
                [("MemorySwapMax", 7), ("MemoryLow", 1), ("MemoryMax", 9)],
            ),
            ({"pids.max": "0"}, [("TasksMax", 1)]),
            ({"pids.max": "x"}, []),
            ({"memory.zswap.max": "1"}, []),
        ],
        ids=str,
    )
    def test_files_of_the_unified_hierarchy(
        self, values: dict[str, str], expected: list[tuple[str, object]]
    ) -> None:
        assert properties({"unified": values}) == expected

    @given(st.sets(st.integers(min_value=0, max_value=300), min_size=1))
    def test_a_mask_has_the_listed_bits(self, numbers: set[int]) -> None:
        mask = int.from_bytes(sd.bits(",".join(map(str, sorted(numbers)))), "little")
        assert {n for n in range(301) if mask >> n & 1} == numbers

    @pytest.mark.parametrize("nonsense", ["", "x", "1-x", "-"])
    def test_nonsense_is_an_empty_mask(self, nonsense: str) -> None:
        assert sd.bits(nonsense) == b""

    @given(st.integers(min_value=1, max_value=10**7), st.integers(min_value=1000, max_value=10**6))
    def test_rounded_quota_is_never_less_and_a_whole_percent(self, quota: int, period: int) -> None:
        rounded = sd.round_quota({"cpu": {"quota": quota, "period": period}})["cpu"]["quota"]
        assert quota - period // 100 <= rounded
        per_second = dict(properties({"cpu": {"quota": quota, "period": period}}))["CPUQuotaPerSecUSec"]
        assert rounded == per_second * period // 1_000_000  # type: ignore[operator]

    def test_no_quota_is_not_rounded(self) -> None:
        for resources in ({}, {"cpu": {"quota": -1}}, {"cpu": {"shares": 5}}):
            assert sd.round_quota(resources) is resources


class TestUnit:
    def test_a_scope(self) -> None:
        config = {"linux": {"cgroupsPath": "a.slice:p:n", "resources": {"pids": {"limit": 5}}}}
        unit = sd.unit(config, v2(), "id")
        assert unit.name == "p-n.scope"
        assert not unit.user
        found = {name: value for name, _sign, value, _since in unit.properties}
        assert found["Slice"] == "a.slice"
        assert found["Delegate"] is True
        assert found["DefaultDependencies"] is False
        assert found["IOAccounting"] is found["MemoryAccounting"] is True
        assert found["TasksMax"] == 5
        assert unit.describe()[0] == "systemd unit p-n.scope"
        assert "TasksMax=5" in unit.describe()

    def test_a_slice(self) -> None:
        unit = sd.unit({"linux": {"cgroupsPath": "a.slice:p:b.slice"}}, hybrid(), "id")
        found = {name: value for name, _sign, value, _since in unit.properties}
        assert found["Wants"] == ["a.slice"]
        assert "Delegate" not in found
        assert found["BlockIOAccounting"] is True

    @pytest.mark.parametrize(("group", "policy"), [("1", "kill"), ("0", "continue")])
    def test_the_oom_policy_is_set_at_the_start_only(self, group: str, policy: str) -> None:
        config = {"linux": {"resources": {"unified": {"memory.oom.group": group}}}}
        assert ("OOMPolicy", "s", policy, 253) in sd.unit(config, v2(), "id").properties

    def test_annotations_come_last(self) -> None:
        config = {"annotations": {"org.systemd.property.TimeoutStopUSec": "uint64 7", "other": "x"}}
        unit = sd.unit(config, v2("/user@7.service/x", rootless=True), "id")
        assert unit.properties[-1] == ("TimeoutStopUSec", "t", 7, 0)
        assert unit.user


class TestAnnotations:
    @pytest.mark.parametrize(
        ("name", "text", "expected"),
        [
            ("Foo", "true", ("Foo", "b", True)),
            ("Foo", "false", ("Foo", "b", False)),
            ("Foo", "'it''", None),
            ("Foo", "'it'", ("Foo", "s", "it")),
            ("Foo", '"a\\"b\\n"', ("Foo", "s", 'a"b\n')),
            ("Foo", "7", ("Foo", "i", 7)),
            ("Foo", "-7", ("Foo", "i", -7)),
            ("Foo", "0x1f", ("Foo", "i", 31)),
            ("Foo", "1.5", ("Foo", "d", 1.5)),
            ("Foo", "2e3", ("Foo", "d", 2000.0)),
            ("Foo", "uint64 18446744073709551615", ("Foo", "t", INFINITY)),
            ("Foo", "byte 7", ("Foo", "y", 7)),
            ("Foo", "double 7", ("Foo", "d", 7.0)),
            ("Foo", "@t 9", ("Foo", "t", 9)),
            ("Foo", "@as []", ("Foo", "as", [])),
            ("Foo", "['a', 'b']", ("Foo", "as", ["a", "b"])),
            ("Foo", "[1,2]", ("Foo", "ai", [1, 2])),
            ("TimeoutStopSec", "5", ("TimeoutStopUSec", "t", 5_000_000)),
            ("TimeoutStopSec", "uint64 5", ("TimeoutStopUSec", "t", 5_000_000)),
            ("TimeoutStopSec", "1.5", ("TimeoutStopUSec", "t", 1_500_000)),
            ("Foo", "", None),
            ("Foo", "nonsense", None),
            ("Foo", "'open", None),
            ("Foo", "['a' 'b']", None),
            ("Foo", "['a',", None),
            ("Foo", "1 2", None),
            ("Foo", "uint64 18446744073709551616", None),
            ("Foo", "2147483648", None),
            ("Foo", "int64 2147483648", ("Foo", "x", 2147483648)),
            ("Foo", "byte 256", None),
            ("Foo", "int16 -32769", None),
            ("Foo", "uint32 'a'", None),
            ("Foo", "double 'a'", None),
            ("Foo", "@b true", ("Foo", "b", True)),
            ("Foo", "@s 'a'", ("Foo", "s", "a")),
            ("Foo", "@zz 5", None),
            ("Foo", "9" * 5000, None),
            ("Foo", "[" * 2000, None),
            ("Foo", "byte " * 2000, None),
            ("TimeoutStopSec", "1e999", None),
            ("TimeoutStopSec", "-1", None),
            ("TimeoutStopSec", "['a']", ("TimeoutStopSec", "as", ["a"])),
            ("Fo", "1", None),
            ("Foo_Bar", "1", None),
            ("Foö", "1", None),
            # What reaches beyond the container's own unit is for its caller to ask systemd, not for an image.
            ("OnFailure", "['x.service']", None),
            ("ControlGroup", "'/'", None),
        ],
    )
    def test_values(self, name: str, text: str, expected: tuple[str, str, object] | None) -> None:
        values = {"org.systemd.property." + name: text}
        if expected is None:
            with pytest.raises(Failure) as caught:
                sd.asked(values)
            assert caught.value.pointer == "/annotations/org.systemd.property." + name
        else:
            assert sd.asked(values) == [(*expected, 0)]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"cpu.max": "9" * 5000}, []),
        ({"cpu.max": f"max {2**64}"}, []),
        ({"cpu.max": "\u0665 100000"}, []),
        ({"pids.max": str(2**64)}, []),
        ({"cpuset.cpus": "9" * 5000}, [("AllowedCPUs", "ay", b"", 244)]),
        (
            {"cpu.max": f"{2**63} 1"},
            [("CPUQuotaPeriodUSec", "t", 1, 242), ("CPUQuotaPerSecUSec", "t", INFINITY, 0)],
        ),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_numbers_the_bus_has_no_room_for(values: dict[str, str], found: list[object]) -> None:
    assert sd.unified(values) == found
