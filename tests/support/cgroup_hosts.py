"""Hosts as the cgroup planner sees them."""

from __future__ import annotations

from typing import Any

from pyrunc.plan.facts import CgroupFacts

V1_NAMES = ("name=systemd", "pids", "blkio", "freezer", "devices", "memory", "cpuset", "cpuacct", "cpu")


def hybrid(inside: str = "/", **changes: Any) -> CgroupFacts:
    """Return a host with version 1 and also the unified hierarchy."""
    mounts = {name: "/sys/fs/cgroup/" + name.removeprefix("name=") for name in V1_NAMES}
    mounts[""] = "/sys/fs/cgroup/unified"
    values: dict[str, Any] = {"version": 1, "mounts": mounts, "own": dict.fromkeys(mounts, inside)}
    return CgroupFacts(**{**values, "controllers": ("hugetlb",), **changes})


def v2(inside: str = "/", **changes: Any) -> CgroupFacts:
    """Return a host with only the unified hierarchy."""
    controllers = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma")
    values: dict[str, Any] = {"version": 2, "mounts": {"": "/sys/fs/cgroup"}, "own": {"": inside}}
    return CgroupFacts(**{**values, "controllers": controllers, **changes})
