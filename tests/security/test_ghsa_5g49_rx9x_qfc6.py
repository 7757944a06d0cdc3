"""Names that lead out of a cgroup: GHSA-5g49-rx9x-qfc6 (unified), and exec --cgroup of crun.

The name of a cgroup's file is one path component, a sub-cgroup is below the container's, and a cgroup path
has no "..".
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.containers import Bundle, Runtime


@pytest.mark.parametrize(
    "key",
    ["../cgroup.procs", "a/../../memory.max", "/etc/passwd", "..", ".", "", "memory.max/../../x", "x\ny"],
)
def test_a_unified_key_is_one_name(bundle: Bundle, runtime: Runtime, key: str) -> None:
    bundle.linux["resources"] = {"unified": {key: "1"}}
    result = runtime.run(bundle, "echo started")
    assert result.returncode != 0
    assert "started" not in result.stdout


@pytest.mark.parametrize("size", ["../../x", "2MB/../../x", ""])
def test_a_huge_page_size_is_one_name(bundle: Bundle, runtime: Runtime, size: str) -> None:
    bundle.linux["resources"] = {"hugepageLimits": [{"pageSize": size, "limit": 1}]}
    result = runtime.run(bundle, "echo started")
    assert result.returncode != 0
    assert "started" not in result.stdout


@pytest.mark.parametrize(
    "path", ["..", "../..", "/..", "a/../..", "../../../../..", "/../../../../../../tmp"]
)
def test_exec_stays_below_the_containers_cgroup(bundle: Bundle, runtime: Runtime, path: str) -> None:
    name = runtime.started(bundle)
    result = runtime("exec", "--cgroup", path, name, "/bin/sh", "-c", "echo ran")
    assert result.returncode != 0
    assert "ran" not in result.stdout.splitlines()


@pytest.mark.parametrize(
    "path", ["/../../../../../..{}/made", "../../../../../..{}/made", "/a/../../../..{}/made"]
)
def test_a_cgroup_path_does_not_leave_the_hierarchy(
    bundle: Bundle, runtime: Runtime, tmp_path: Path, path: str
) -> None:
    bundle.linux["cgroupsPath"] = path.format(tmp_path)
    runtime.run(bundle, "true")
    assert not os.path.exists(tmp_path / "made")
    assert not list(tmp_path.rglob("cgroup.procs"))
