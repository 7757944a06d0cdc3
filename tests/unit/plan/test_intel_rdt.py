"""plan/intel_rdt: the group, whether pyrunc makes it, and its lines."""

from __future__ import annotations

from typing import Any

import pytest

from pyrunc.errors import Failure
from pyrunc.plan import intel_rdt

ROOT = "/sys/fs/resctrl"


def plan(**section: Any) -> intel_rdt.IntelRdtPlan:
    return intel_rdt.plan(section, ROOT, "id")


def test_without_closid_the_group_is_the_containers() -> None:
    made = plan(l3CacheSchema="L3:0=f", memBwSchema="MB:0=20", schemata=["L2:0=f"])
    assert (made.path, made.shared, made.create, made.compare) == (ROOT + "/id", False, True, ())
    assert [line for line, _pointer in made.lines] == ["L3:0=f", "MB:0=20", "L2:0=f"]
    assert made.lines[2][1] == "/linux/intelRdt/schemata/0"
    assert made.paths() == {"intel_rdt": ROOT + "/id"}
    assert made.describe() == ["resctrl group /sys/fs/resctrl/id", "L3:0=f", "MB:0=20", "L2:0=f"]
    assert plan().create


def test_a_named_group_without_schemas_has_to_be_there() -> None:
    made = plan(closID="gold")
    assert (made.path, made.shared, made.create, made.lines) == (ROOT + "/gold", True, False, [])
    assert made.paths() == {"intel_rdt_clos": ROOT + "/gold"}


def test_a_named_group_with_schemas_is_compared_with_the_two_named_ones() -> None:
    made = plan(closID="gold", l3CacheSchema="L3:0=f\nL3:1=f", schemata=["MB:0=20"])
    assert made.create
    assert made.compare == ("L3:0=f", "L3:1=f")


def test_the_root_group_is_never_made() -> None:
    made = plan(closID="/", schemata=["MB:0=20"])
    assert (made.path, made.shared, made.create) == (ROOT, True, False)


def test_monitoring_has_a_group_of_its_own() -> None:
    assert plan(enableMonitoring=True).paths() == {
        "intel_rdt": ROOT + "/id",
        "intel_rdt_mon": ROOT + "/id/mon_groups/id",
    }
    assert plan(closID="/", enableMonitoring=True).monitor == ROOT + "/mon_groups/id"
    assert plan(enableMonitoring=False).monitor == ""


@pytest.mark.parametrize(
    ("section", "pointer"),
    [
        ({"closID": ""}, "/closID"),
        ({"closID": ".."}, "/closID"),
        ({"closID": "a/b"}, "/closID"),
        ({"closID": "a\nb"}, "/closID"),
        ({"l3CacheSchema": "MB:0=1"}, "/l3CacheSchema"),
        ({"l3CacheSchema": "L3:0=1\nMB:0=1"}, "/l3CacheSchema"),
        ({"memBwSchema": "L3:0=1"}, "/memBwSchema"),
        ({"memBwSchema": "MB:0=1\nMB:1=1"}, "/memBwSchema"),
        ({"schemata": ["L3:0=1", "a\nb"]}, "/schemata/1"),
    ],
)
def test_nonsense_has_a_place(section: dict[str, Any], pointer: str) -> None:
    with pytest.raises(Failure) as caught:
        plan(**section)
    assert caught.value.pointer == "/linux/intelRdt" + pointer


def test_without_the_filesystem_it_says_what_to_do() -> None:
    with pytest.raises(Failure, match="needs a mounted resctrl") as caught:
        intel_rdt.plan({}, "", "id")
    assert "mount -t resctrl" in caught.value.hint
