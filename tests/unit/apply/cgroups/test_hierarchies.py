"""hierarchies: mount tables with unusual mount points, and the one of this host."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyrunc.apply.cgroups import hierarchies as facts
from pyrunc.plan import mount_table

OWN = """\
5:cpu,cpuacct:/docker/x
4:memory:/docker/x
2:name=systemd:/docker/x
0::/docker/x
"""
V1 = """\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpuacct,cpu
33 31 0:30 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory
34 31 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
42 31 0:30 / /mnt/second rw - cgroup cgroup rw,memory
"""


def test_hierarchies() -> None:
    assert facts._hierarchies(OWN) == [
        (("cpu", "cpuacct"), "/docker/x"),
        (("memory",), "/docker/x"),
        (("name=systemd",), "/docker/x"),
        ((), "/docker/x"),
    ]
    assert facts._hierarchies("3:pids:/a:b\n") == [(("pids",), "/a:b")]
    odd = "/a\r\x0b\x1c\x85\u2028\udcff"
    assert facts._hierarchies(f"3:pids:{odd}\n0::{odd}\n") == [(("pids",), odd), ((), odd)]
    assert facts._hierarchies("") == []


def test_version_1_with_the_first_mount_of_each() -> None:
    version, mounts, own = facts.from_table(mount_table.parse(V1), facts._hierarchies(OWN))
    assert version == 1
    assert mounts == {
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "memory": "/sys/fs/cgroup/memory",
        "name=systemd": "/sys/fs/cgroup/systemd",
        "": "/sys/fs/cgroup/unified",
    }
    assert set(own.values()) == {"/docker/x"}


def test_a_part_of_a_hierarchy_makes_own_paths_shorter() -> None:
    table = V1.replace("0:30 / /sys", "0:30 /docker/x /sys").replace("0:38 / /sys", "0:38 /dock /sys")
    _version, _mounts, own = facts.from_table(mount_table.parse(table), facts._hierarchies(OWN))
    assert own["memory"] == "/"
    assert own["cpu"] == "/docker/x"
    # "/dock" is another directory than "/docker".
    assert own[""] == "/docker/x"


def test_version_2_and_nothing() -> None:
    table = "40 23 0:38 / /cg\\040roup rw - cgroup2 none rw,nsdelegate\n"
    assert facts.from_table(mount_table.parse(table), [((), "/me")]) == (2, {"": "/cg roup"}, {"": "/me"})
    assert facts.from_table([], [((), "/me")]) == (0, {}, {})


def test_this_host_is_found_the_same_both_ways() -> None:
    own = facts._hierarchies(Path("/proc/self/cgroup").read_text())
    usual = facts._usual(own)
    assert usual is None or usual == facts._searched(own)
    found = facts.cgroup_facts(rootless=True)
    assert found.rootless
    for name, mount in found.mounts.items():
        assert Path(mount, "cgroup.procs").exists()
        assert Path(mount + found.own[name], "cgroup.procs").exists()


def test_a_plain_directory_is_no_hierarchy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(facts, "ROOT", str(tmp_path))
    (tmp_path / "memory").mkdir()
    assert facts._usual([(("memory",), "/")]) is None
    assert facts._usual([((), "/")]) is None
    monkeypatch.setattr(facts, "ROOT", str(tmp_path / "nowhere"))
    assert facts._usual([((), "/")]) is None


def test_resctrl_has_to_be_what_it_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(facts, "RESCTRL", str(tmp_path))
    assert facts._resctrl() == ""
    monkeypatch.setattr(facts, "RESCTRL", str(tmp_path / "nowhere"))
    assert facts._resctrl() == ""
