"""Resctrl groups in a directory that behaves like that file system: a new group has its files at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pyrunc.apply import intel_rdt
from pyrunc.apply.cgroups import cgroup, hierarchies
from pyrunc.errors import Failure
from pyrunc.plan import intel_rdt as plan_rdt

DEFAULT = "    L3:0=fffff;1=fffff\n    MB:0=100;1=100\n"


class Resctrl:
    """A stand-in for the file system; `written` keeps each line that is written to a schemata file."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.mkdir = os.mkdir
        (root / "info").mkdir(parents=True)
        self.say("ok")
        self.fill(root)
        monkeypatch.setattr(os, "mkdir", self.make)

    def say(self, text: str) -> None:
        """Set what the kernel says about the last command."""
        (self.root / "info" / "last_cmd_status").write_text(text + "\n")

    def make(self, path: str, mode: int) -> None:
        self.mkdir(path, mode)
        self.fill(Path(path))

    def fill(self, group: Path) -> None:
        (group / "schemata").write_text(DEFAULT)
        (group / "tasks").write_text("")
        if group.parent.name != "mon_groups":
            self.mkdir(group / "mon_groups", 0o755)

    def group(self, name: str, schemata: str = DEFAULT) -> Path:
        made = self.root / name
        self.make(str(made), 0o755)
        (made / "schemata").write_text(schemata)
        return made

    def plan(self, container: str = "c1", **section: Any) -> plan_rdt.IntelRdtPlan:
        return plan_rdt.plan(section, str(self.root), container)


@pytest.fixture
def resctrl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Resctrl:
    return Resctrl(tmp_path / "resctrl", monkeypatch)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes]]:
    """Return (file, line) of every write: the real file system takes one line at a time."""
    found: list[tuple[str, bytes]] = []
    write = os.write

    def keep(fd: int, data: bytes) -> int:
        name = os.readlink(f"/proc/self/fd/{fd}")
        if name.endswith("/schemata"):
            found.append((Path(name).parent.name, data))
        return write(fd, data)

    monkeypatch.setattr(os, "write", keep)
    return found


def fails(plan: plan_rdt.IntelRdtPlan) -> str:
    with pytest.raises(Failure) as caught:
        intel_rdt.create(plan)
    return caught.value.text()


def test_a_group_of_its_own(resctrl: Resctrl, written: list[tuple[str, bytes]]) -> None:
    plan = resctrl.plan(memBwSchema="MB:0=20", l3CacheSchema="L3:0=f\nL3:1=ff", schemata=["L2:0=3", "L3:1=f"])
    assert intel_rdt.create(plan) == {"intel_rdt": f"{resctrl.root}/c1"}
    lines = [b"L3:0=f\n", b"L3:1=ff\n", b"MB:0=20\n", b"L2:0=3\n", b"L3:1=f\n"]
    assert written == [("c1", line) for line in lines]


def test_a_group_without_lines(resctrl: Resctrl, written: list[tuple[str, bytes]]) -> None:
    assert intel_rdt.create(resctrl.plan()) == {"intel_rdt": f"{resctrl.root}/c1"}
    assert not written
    assert (resctrl.root / "c1").is_dir()


def test_a_named_group_is_made_when_it_has_schemas(resctrl: Resctrl) -> None:
    plan = resctrl.plan(closID="gold", l3CacheSchema="L3:0=f")
    assert intel_rdt.create(plan) == {"intel_rdt_clos": f"{resctrl.root}/gold"}
    assert (resctrl.root / "gold").is_dir()


def test_a_named_group_without_schemas_has_to_be_there(resctrl: Resctrl) -> None:
    said = f"/linux/intelRdt/closID: resctrl group {resctrl.root}/gold does not exist"
    assert fails(resctrl.plan(closID="gold")) == said
    resctrl.group("gold")
    assert intel_rdt.create(resctrl.plan(closID="gold")) == {"intel_rdt_clos": f"{resctrl.root}/gold"}


def test_a_named_group_must_be_as_it_is_asked_for(resctrl: Resctrl) -> None:
    resctrl.group("gold", "    MB:0= 20;1=100\n    L3:0=0000f;1=fffff\n")
    plan = resctrl.plan(closID="gold", l3CacheSchema="L3:0=f;1=fffff", memBwSchema="MB:0=20")
    assert intel_rdt.create(plan) == {"intel_rdt_clos": f"{resctrl.root}/gold"}
    other = resctrl.plan(closID="gold", l3CacheSchema="L3:0=ff")
    path = f"{resctrl.root}/gold"
    resctrl.group("silver", "    L3:0=0000f;1=fffff\n")
    assert fails(resctrl.plan(closID="silver", l3CacheSchema="L3:0=ff")).startswith(
        f"/linux/intelRdt: resctrl group {resctrl.root}/silver has L3:0=f, not L3:0=ff"
    )
    (resctrl.root / "gold" / "schemata").write_text("    MB:0=20\n")
    assert fails(other) == f"/linux/intelRdt: resctrl group {path} has L3:0=nothing, not L3:0=ff"


def test_the_root_group(resctrl: Resctrl) -> None:
    plan = resctrl.plan(closID="/", enableMonitoring=True)
    found = intel_rdt.create(plan)
    assert found == {
        "intel_rdt_clos": str(resctrl.root),
        "intel_rdt_mon": f"{resctrl.root}/mon_groups/c1",
    }
    assert (resctrl.root / "mon_groups" / "c1").is_dir()


def test_monitoring(resctrl: Resctrl) -> None:
    found = intel_rdt.create(resctrl.plan(enableMonitoring=True))
    # The order is that of joining: a monitoring group takes only members of the group around it.
    assert list(found.items()) == [
        ("intel_rdt", f"{resctrl.root}/c1"),
        ("intel_rdt_mon", f"{resctrl.root}/c1/mon_groups/c1"),
    ]
    assert Path(found["intel_rdt_mon"]).is_dir()


def test_a_refused_line_names_its_place_and_the_kernels_reason_and_leaves_nothing(
    resctrl: Resctrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    resctrl.say("Unknown or unsupported resource name 'L9'")

    def refuse(_fd: int, _data: bytes) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "write", refuse)
    # What a real rmdir takes along.
    monkeypatch.setattr(os, "rmdir", lambda path: os.rename(path, f"{resctrl.root}/gone"))
    assert fails(resctrl.plan(schemata=["L9:0=f"])) == (
        f"/linux/intelRdt/schemata/0: write 'L9:0=f' to {resctrl.root}/c1/schemata: invalid argument; "
        "Unknown or unsupported resource name 'L9'"
    )
    assert not (resctrl.root / "c1").exists()


def test_no_more_groups(resctrl: Resctrl, monkeypatch: pytest.MonkeyPatch) -> None:
    resctrl.say("Out of CLOSIDs")

    def full(_path: str, _mode: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "mkdir", full)
    assert fails(resctrl.plan()) == (
        f"/linux/intelRdt: make resctrl group {resctrl.root}/c1: no space left on device; Out of CLOSIDs"
    )


def test_a_failing_monitoring_group_takes_the_group_along(
    resctrl: Resctrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[str] = []
    monkeypatch.setattr(os, "rmdir", removed.append)
    plan = resctrl.plan(enableMonitoring=True)
    make = os.mkdir

    def only_groups(path: str, mode: int) -> None:
        if "/mon_groups/" in path:
            raise OSError(28, "No space left on device")
        make(path, mode)

    monkeypatch.setattr(os, "mkdir", only_groups)
    assert "make resctrl group" in fails(plan)
    assert removed == [f"{resctrl.root}/c1"]


def test_update(resctrl: Resctrl, written: list[tuple[str, bytes]]) -> None:
    section: dict[str, Any] = {"l3CacheSchema": "L3:0=f"}
    for paths in (intel_rdt.create(resctrl.plan(**section)), {"intel_rdt_clos": str(resctrl.group("gold"))}):
        written.clear()
        intel_rdt.update(paths, section, "L3:0=ff", "MB:0=50")
        assert [data for _group, data in written] == [b"L3:0=ff\n", b"MB:0=50\n"]
    assert section == {"l3CacheSchema": "L3:0=ff", "memBwSchema": "MB:0=50"}
    intel_rdt.update({"intel_rdt": f"{resctrl.root}/c1"}, section, None, "MB:0=60")
    assert section["memBwSchema"] == "MB:0=60"


@pytest.mark.parametrize(("paths", "section"), [({}, {}), ({"intel_rdt": "/x"}, None), ({"": "/x"}, {})])
def test_update_of_a_container_without_a_group(paths: dict[str, str], section: Any) -> None:
    with pytest.raises(Failure, match="updating a non-existent Intel RDT configuration is not supported"):
        intel_rdt.update(paths, section, "L3:0=f", None)


def test_a_process_joins_outer_group_first(resctrl: Resctrl) -> None:
    paths = intel_rdt.create(resctrl.plan(enableMonitoring=True))
    fds = cgroup.join_fds(paths)
    assert [os.readlink(f"/proc/self/fd/{fd}") for fd in fds] == [f"{path}/tasks" for path in paths.values()]
    cgroup.join_self(fds)
    assert [Path(path, "tasks").read_text() for path in paths.values()] == ["0", "0"]


def test_only_what_is_the_containers_is_removed(tmp_path: Path) -> None:
    for name in ("own", "mon", "gold"):
        (tmp_path / name).mkdir()
    own = {"intel_rdt": f"{tmp_path}/own", "intel_rdt_mon": f"{tmp_path}/mon"}
    cgroup.remove(own, seconds=0)
    cgroup.remove({"intel_rdt_clos": f"{tmp_path}/gold"}, seconds=0)
    assert os.listdir(tmp_path) == ["gold"]


def test_where_resctrl_is_not_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hierarchies, "RESCTRL", str(tmp_path))
    assert hierarchies.cgroup_facts(rootless=False).rdt == ""  # a directory, but no resctrl
    with pytest.raises(Failure) as caught:
        plan_rdt.plan({"closID": "gold"}, "", "c1")
    assert caught.value.text() == (
        "/linux/intelRdt: intelRdt needs a mounted resctrl filesystem; "
        "on a processor that has it: mount -t resctrl resctrl /sys/fs/resctrl"
    )
