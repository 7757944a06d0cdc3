"""plan/cgroups: paths, default device rules, containers that may have no cgroup, the owner of a cgroup."""

from __future__ import annotations

from typing import Any

import pytest

from pyrunc.errors import Failure
from pyrunc.plan import cgroups
from pyrunc.plan.cgroup_plan import DEFAULT_DEVICES
from pyrunc.plan.facts import CgroupFacts
from tests.support.cgroup_hosts import hybrid, v2


def config(**linux: Any) -> dict[str, Any]:
    return {"linux": linux}


class TestPaths:
    @pytest.mark.parametrize(
        ("wanted", "own", "inner"),
        [
            ("/a/b", "/me", "/a/b"),
            ("//a/./b/", "/me", "/a/b"),
            ("/../../a", "/me", "/a"),
            ("a/b", "/me", "/me/a/b"),
            ("../../a", "/me", "/me/a"),
            ("", "/me", "/me/id"),
            ("", "/", "/id"),
            (None, "/me", "/me/id"),
        ],
    )
    def test_version_1_starts_at_the_mount_or_at_the_own_cgroup(
        self, wanted: str | None, own: str, inner: str
    ) -> None:
        made = cgroups.plan(config(cgroupsPath=wanted), hybrid(own), "id")
        assert made.paths["memory"] == "/sys/fs/cgroup/memory" + inner
        assert made.paths["name=systemd"] == "/sys/fs/cgroup/systemd" + inner
        assert made.paths[""] == "/sys/fs/cgroup/unified" + inner
        assert made.roots == hybrid().mounts

    @pytest.mark.parametrize(
        ("wanted", "own", "path"),
        [
            ("/a", "/user/shell.scope", "/sys/fs/cgroup/a"),
            ("a", "/user/shell.scope", "/sys/fs/cgroup/user/a"),
            ("", "/user/shell.scope", "/sys/fs/cgroup/user/id"),
            ("", "/shell", "/sys/fs/cgroup/id"),
            ("", "/", "/sys/fs/cgroup/id"),
        ],
    )
    def test_version_2_starts_beside_the_own_cgroup(self, wanted: str, own: str, path: str) -> None:
        assert cgroups.plan(config(cgroupsPath=wanted), v2(own), "id").paths == {"": path}

    @pytest.mark.parametrize("wanted", ["/", "/..", "/./", "..", ".", "./.."])
    def test_the_root_is_nobodys(self, wanted: str) -> None:
        with pytest.raises(Failure) as caught:
            cgroups.plan(config(cgroupsPath=wanted), v2(), "id")
        assert caught.value.pointer == "/linux/cgroupsPath"

    @pytest.mark.parametrize("wanted", ["/a\nb", "/" + 256 * "x", "/" + 128 * "ä", "/a\0"])
    def test_a_name_the_kernel_refuses_is_refused_before(self, wanted: str) -> None:
        with pytest.raises(Failure, match="cannot be a cgroup's name"):
            cgroups.plan(config(cgroupsPath=wanted), v2(), "id")

    def test_a_relative_path_needs_an_own_cgroup_inside_the_mount(self) -> None:
        with pytest.raises(Failure, match="outside what is mounted") as caught:
            cgroups.plan({}, v2("/../other/me"), "id")
        assert caught.value.hint == "give an absolute cgroupsPath"
        assert cgroups.plan(config(cgroupsPath="/a"), v2("/../other/me"), "id").paths == {
            "": "/sys/fs/cgroup/a"
        }

    def test_version_2_hands_down_every_controller_and_hybrid_none(self) -> None:
        assert cgroups.plan({}, v2(), "id").enable == v2().controllers
        assert cgroups.plan({}, hybrid(), "id").enable == ()


class TestWithoutCgroups:
    def test_disabled_makes_none(self) -> None:
        made = cgroups.plan(
            config(resources={"devices": [{"allow": False, "access": "rwm"}]}), v2(), "id", "disabled"
        )
        assert (made.paths, made.roots, made.writes, made.devices) == ({}, {}, [], b"")
        assert made.describe() == []

    @pytest.mark.parametrize(
        ("facts", "manager", "why"),
        [
            (v2(), "disabled", "manager is disabled"),
            (hybrid(mounts={}, own={}), "cgroupfs", "hierarchy is mounted"),
        ],
    )
    def test_a_limit_without_cgroups_is_refused(self, facts: CgroupFacts, manager: str, why: str) -> None:
        with pytest.raises(Failure, match=why) as caught:
            cgroups.plan(config(resources={"memory": {"limit": 5}}), facts, "id", manager)
        assert caught.value.pointer == "/linux/resources/memory"

    def test_sections_that_ask_for_nothing_are_no_limits(self) -> None:
        nothing = {
            "memory": {},
            "cpu": {"shares": 0, "cpus": ""},
            "blockIO": {"weightDevice": []},
            "pids": None,
        }
        assert cgroups.plan(config(resources=nothing), v2(), "id", "disabled").writes == []

    def test_a_host_without_any_hierarchy(self) -> None:
        empty = CgroupFacts(version=0, mounts={}, own={})
        with pytest.raises(Failure, match="no cgroup hierarchy is mounted"):
            cgroups.plan({}, empty, "id")
        empty.rootless = True
        assert cgroups.plan({}, empty, "id").paths == {}

    @pytest.mark.parametrize(
        ("rootless", "wanted", "optional"), [(True, "", True), (True, "/a", False), (False, "", False)]
    )
    def test_only_a_rootless_container_that_names_no_cgroup_may_do_without(
        self, rootless: bool, wanted: str, optional: bool
    ) -> None:
        facts = v2(rootless=rootless)
        assert cgroups.plan(config(cgroupsPath=wanted), facts, "id").optional is optional

    @pytest.mark.parametrize(
        ("facts", "spared"),
        [(hybrid(rootless=True), ("",)), (hybrid(), ()), (v2(rootless=True), ()), (v2(), ())],
    )
    def test_the_unified_one_beside_version_1_is_spared(
        self, facts: CgroupFacts, spared: tuple[str, ...]
    ) -> None:
        """An ordinary user's container does without the unified cgroup, even if a cgroup was named."""
        assert cgroups.plan(config(cgroupsPath="/a"), facts, "id").spared == spared


class TestDevicesByDefault:
    @pytest.mark.parametrize(
        "resources",
        [
            None,
            {},
            {"devices": None},
            {"devices": []},
            {"devices": [{"allow": False, "access": "rwm"}]},
            {"devices": [{"allow": False, "type": "a", "major": -1, "minor": -1, "access": "rwm"}]},
            {"devices": [{"allow": False, "access": "mwr"}]},
        ],
    )
    def test_all_are_denied_then_the_harmless_ones_allowed(self, resources: dict[str, Any] | None) -> None:
        made = cgroups.plan(config(resources=resources), hybrid(), "id")
        assert [(w.controller, w.file) for w in made.writes] == [
            ("devices", "devices.deny"),
            ("devices", "devices.allow"),
        ]
        assert made.writes[0].value == "a"
        assert sorted(made.writes[1].value.split("\n")) == sorted(DEFAULT_DEVICES)
        assert {w.pointer for w in made.writes} == {"/linux/resources/devices"}

    def test_a_configurations_own_rules_come_between(self) -> None:
        rule = {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"}
        made = cgroups.plan(config(resources={"devices": [rule]}), hybrid(), "id")
        assert made.writes[1].value.split("\n")[0] == "c 10:229 rw"

    def test_version_2_gets_a_program_and_no_writes(self) -> None:
        made = cgroups.plan({}, v2(), "id")
        assert made.writes == []
        assert made.devices
        assert not made.devices_optional
        assert cgroups.plan({}, v2(rootless=True), "id").devices_optional

    def test_a_host_without_the_controller_cannot_be_trusted_with_devices(self) -> None:
        facts = hybrid(mounts={"pids": "/sys/fs/cgroup/pids"}, own={"pids": "/"})
        with pytest.raises(Failure, match="device access cannot be restricted"):
            cgroups.plan({}, facts, "id")
        facts.rootless = True
        assert cgroups.plan({}, facts, "id").writes == []

    def test_rootless_rules_may_be_refused(self) -> None:
        made = cgroups.plan({}, hybrid(rootless=True), "id")
        assert {w.optional for w in made.writes} == {"denied"}


MOUNT = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["rw"]}
MAPS = [{"containerID": 0, "hostID": 100000, "size": 1000}, {"containerID": 1000, "hostID": 5000, "size": 1}]


class TestOwner:
    def full(self, **changes: Any) -> dict[str, Any]:
        made: dict[str, Any] = {
            "mounts": [{"destination": "/proc", "source": "proc"}, MOUNT],
            "process": {"user": {"uid": 7}},
            "linux": {
                "namespaces": [{"type": "pid"}, {"type": "cgroup"}, {"type": "user"}],
                "uidMappings": MAPS,
            },
        }
        made.update(changes)
        return made

    def test_the_process_user_as_the_host_sees_it(self) -> None:
        assert cgroups.plan(self.full(), v2(), "id").owner == 100007
        assert cgroups.plan(self.full(process={"user": {"uid": 1000}}), v2(), "id").owner == 5000
        assert cgroups.plan(self.full(process=None), v2(), "id").owner == 100000

    def test_an_unmapped_user_gets_nothing(self) -> None:
        assert cgroups.plan(self.full(process={"user": {"uid": 1001}}), v2(), "id").owner == -1

    def test_without_a_user_namespace(self) -> None:
        spaces = {"namespaces": [{"type": "cgroup"}]}
        assert cgroups.plan(self.full(linux=spaces), v2(), "id").owner == 7
        assert cgroups.plan(self.full(linux=spaces, process={"user": {"uid": 0}}), v2(), "id").owner == -1
        # Mappings that nothing is mapped by.
        assert cgroups.plan(self.full(linux={**spaces, "uidMappings": MAPS}), v2(), "id").owner == 7

    @pytest.mark.parametrize(
        "changes",
        [
            {"destination": "//sys/./fs/cgroup/"},
            {"options": ["nosuid,rw"]},
            {"options": None},
        ],
    )
    def test_however_the_mount_is_spelled(self, changes: dict[str, Any]) -> None:
        assert cgroups.plan(self.full(mounts=[{**MOUNT, **changes}]), v2(), "id").owner == 100007

    @pytest.mark.parametrize(
        "changes",
        [
            {"mounts": []},
            {"mounts": [{**MOUNT, "options": ["ro"]}]},
            {"mounts": [{**MOUNT, "options": ["nosuid,ro"]}]},
            {"mounts": [{**MOUNT, "options": ["rro"]}]},
            {"mounts": [{**MOUNT, "destination": "/sys//fs/cgroup", "options": ["ro"]}]},
            {"mounts": [{**MOUNT, "source": "tmpfs"}]},
            {"linux": {"namespaces": [{"type": "cgroup", "path": "/proc/1/ns/cgroup"}], "uidMappings": MAPS}},
            {"linux": {"uidMappings": MAPS}},
        ],
    )
    def test_only_with_an_own_namespace_and_a_writable_mount(self, changes: dict[str, Any]) -> None:
        assert cgroups.plan(self.full(**changes), v2(), "id").owner == -1

    def test_never_on_version_1(self) -> None:
        assert cgroups.plan(self.full(), hybrid(), "id").owner == -1


def test_a_plan_can_be_read() -> None:
    resources = {"memory": {"limit": 4096}, "hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}
    lines = cgroups.plan(config(cgroupsPath="/a", resources=resources), hybrid(), "id").describe()
    assert "cgroup /sys/fs/cgroup/memory/a" in lines
    assert "memory: memory.limit_in_bytes = 4096" in lines
    assert "unified: hugetlb.2MB.max = 0" in lines
    assert any(line.startswith("devices: devices.allow = c *:* m, b *:* m, ") for line in lines)
    own = TestOwner().full()
    own["linux"]["cgroupsPath"] = "/a"
    lines = cgroups.plan(own, v2(), "id").describe()
    assert lines[0] == "cgroup /sys/fs/cgroup/a"
    assert "owner of the cgroup: uid 100007" in lines
    assert any(line.startswith("device filter: ") for line in lines)


def test_intel_rdt_joins_the_paths() -> None:
    made = cgroups.plan(config(intelRdt={"closID": "gold"}), v2(rdt="/sys/fs/resctrl"), "id")
    assert made.paths == {"": "/sys/fs/cgroup/id", "intel_rdt_clos": "/sys/fs/resctrl/gold"}
    assert made.roots == {"": "/sys/fs/cgroup"}
    assert "resctrl group /sys/fs/resctrl/gold" in made.describe()
    with pytest.raises(Failure, match="resctrl"):
        cgroups.plan(config(intelRdt={}), v2(), "id")


def test_systemd_decides_on_the_unit() -> None:
    resources = {"cpu": {"quota": 50001, "period": 100000}}
    facts = v2()
    made = cgroups.plan(config(cgroupsPath="a-b.slice:p:n", resources=resources), facts, "id", "systemd")
    assert made.paths == {"": "/sys/fs/cgroup/a.slice/a-b.slice/p-n.scope"}
    assert made.unit is not None
    assert made.unit.name == "p-n.scope"
    # systemd knows whole percents only, and the file has to agree with it.
    assert [w.value for w in made.writes] == ["51000 100000"]
    assert "systemd unit p-n.scope" in made.describe()
