"""Namespaces: which to make, which to enter, and in which order.

Source: runtime-spec config-linux.md "Namespaces", namespaces(7). The flags are clone(2)'s.
"""

from __future__ import annotations

from pyrunc.linux.flags import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
)
from pyrunc.plan.steps import Join, Namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.steps import IdMap
    from pyrunc.spec.types import Config

# In the order of entering: the user namespace first, because it owns the others; the mount namespace last.
FLAGS = {
    "user": CLONE_NEWUSER,
    "ipc": CLONE_NEWIPC,
    "uts": CLONE_NEWUTS,
    "network": CLONE_NEWNET,
    "pid": CLONE_NEWPID,
    "time": CLONE_NEWTIME,
    "cgroup": CLONE_NEWCGROUP,
    "mount": CLONE_NEWNS,
}


def lower(config: Config) -> Namespaces:
    """Return the namespaces step of a configuration."""
    linux = config.get("linux") or {}
    flags = 0
    joins: dict[str, Join] = {}
    for index, entry in enumerate(linux.get("namespaces") or ()):
        kind = entry["type"]
        path = entry.get("path") or ""
        if path:
            joins[kind] = Join(kind=kind, path=path, pointer=f"/linux/namespaces/{index}")
        else:
            flags |= FLAGS[kind]
    offsets = linux.get("timeOffsets") or {}
    return Namespaces(
        flags=flags,
        joins=tuple(joins[kind] for kind in FLAGS if kind in joins),
        time_offsets=tuple(
            (clock, int(offset.get("secs") or 0), int(offset.get("nanosecs") or 0))
            for clock, offset in sorted(offsets.items())
        ),
        pointer="/linux/namespaces",
    )


def paths(config: Config) -> dict[str, str]:
    """Return type -> path joined, "" for one made for the container; absent types are the runtime's own."""
    linux = config.get("linux") or {}
    return {entry["type"]: entry.get("path") or "" for entry in linux.get("namespaces") or ()}


def own_ids(config: Config) -> tuple[IdMap, IdMap]:
    """Return the user and group ids of the container's user namespace, (), () for none.

    Without such a namespace the configuration's mappings mean nothing (as in runc and crun).
    """
    if "user" not in paths(config):
        return (), ()
    linux = config.get("linux") or {}
    return id_maps(linux.get("uidMappings")), id_maps(linux.get("gidMappings"))


def warnings(config: Config) -> list[str]:
    """Return the warnings about values without the namespace that they are for."""
    linux = config.get("linux") or {}
    if "user" in paths(config):
        return []
    return [
        f"/linux/{key}: the container has no user namespace, so nothing is mapped"
        for key in ("uidMappings", "gidMappings")
        if linux.get(key)
    ]


def id_maps(entries: object) -> tuple[tuple[int, int, int], ...]:
    """Return uidMappings or gidMappings as (container id, host id, size) tuples."""
    if not isinstance(entries, list):
        return ()
    return tuple((entry["containerID"], entry["hostID"], entry["size"]) for entry in entries)
