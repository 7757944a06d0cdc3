"""apply/intel_rdt with a directory in place of the filesystem: no test machine has the hardware."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pyrunc.apply import intel_rdt
from pyrunc.errors import Failure
from pyrunc.plan import intel_rdt as plan_rdt

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def gold(tmp_path: Path) -> Path:
    """A group that is there."""
    path = tmp_path / "gold"
    (path / "mon_groups").mkdir(parents=True)
    (path / "schemata").write_text("    L3:0=00f;1=f\n    MB:0=100\n")
    return path


def plan(root: Path, **section: Any) -> plan_rdt.IntelRdtPlan:
    return plan_rdt.plan(section, str(root), "id")


def test_a_group_that_is_there_is_joined_and_written(tmp_path: Path, gold: Path) -> None:
    made = plan(tmp_path, closID="gold", l3CacheSchema="L3:0=f", schemata=["MB:0=70"], enableMonitoring=True)
    assert intel_rdt.create(made) == {
        "intel_rdt_clos": str(gold),
        "intel_rdt_mon": str(gold / "mon_groups/id"),
    }
    assert (gold / "schemata").read_text().startswith("MB:0=70\n")
    assert (gold / "mon_groups/id").is_dir()


@pytest.mark.parametrize("schema", ["L3:0=e", "L3:2=f", "L3CODE:0=f"])
def test_a_group_that_is_set_otherwise_is_refused(tmp_path: Path, gold: Path, schema: str) -> None:
    before = (gold / "schemata").read_text()
    with pytest.raises(Failure, match=r"resctrl group .*gold has"):
        intel_rdt.create(plan(tmp_path, closID="gold", l3CacheSchema=schema))
    assert (gold / "schemata").read_text() == before


def test_a_group_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="does not exist") as caught:
        intel_rdt.create(plan(tmp_path, closID="silver"))
    assert caught.value.pointer == "/linux/intelRdt/closID"
    assert intel_rdt.create(plan(tmp_path)) == {"intel_rdt": str(tmp_path / "id")}


def test_a_refused_line_leaves_no_group(tmp_path: Path) -> None:
    (tmp_path / "info").mkdir()
    (tmp_path / "info/last_cmd_status").write_text("unknown resource name 'L9'\n")
    with pytest.raises(Failure) as caught:
        intel_rdt.create(plan(tmp_path, schemata=["L9:0=f"]))
    assert caught.value.pointer == "/linux/intelRdt/schemata/0"
    assert caught.value.hint == "unknown resource name 'L9'"
    assert not (tmp_path / "id").exists()


def test_a_group_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "info").mkdir()
    (tmp_path / "info/last_cmd_status").write_text("ok\n")
    with pytest.raises(Failure, match="make resctrl group") as caught:
        intel_rdt.create(plan(tmp_path / "nowhere"))
    assert caught.value.errno
    assert caught.value.hint == ""


def test_update(gold: Path) -> None:
    section = {"closID": "gold", "l3CacheSchema": "L3:0=f"}
    intel_rdt.update({"intel_rdt_clos": str(gold)}, section, None, "MB:0=50")
    assert (gold / "schemata").read_text().startswith("MB:0=50\n")
    assert section == {"closID": "gold", "l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=50"}
    for paths, present in (({}, section), ({"intel_rdt": str(gold)}, None)):
        with pytest.raises(Failure, match="non-existent Intel RDT"):
            intel_rdt.update(paths, present, "L3:0=1", None)
