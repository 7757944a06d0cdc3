"""The host's cgroup hierarchies, as facts for the planner.

Law 4: the kernel is asked on each call. This has to be fast, because every create does it. The usual mount
points of distributions are only checked (one stat each). The mount table, which grows with every container on
the host, is read only if one is elsewhere.

Sources: cgroups(7), proc_pid_cgroup(5), proc_pid_mountinfo(5).
"""

from __future__ import annotations

import os

from pyrunc import files
from pyrunc.files import closing
from pyrunc.linux import _linux, flags
from pyrunc.plan.facts import CgroupFacts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from pyrunc.plan.mount_table import Row

    # (controllers or "name=..." of one hierarchy; () for the unified one), pyrunc's own cgroup in it
    Hierarchy: TypeAlias = tuple[tuple[str, ...], str]

ROOT = "/sys/fs/cgroup"
RESCTRL = "/sys/fs/resctrl"
_RESCTRL_MAGIC = 0x7655821  # RDTGROUP_SUPER_MAGIC
_KERNFS_ROOT_INODE = 1


def cgroup_facts(*, rootless: bool) -> CgroupFacts:
    """Return the host's cgroup layout.

    Args:
        rootless: pyrunc does not have the host's full rights.

    """
    own = _hierarchies(files.text("/proc/self/cgroup"))
    found = _usual(own) or _searched(own)
    version, mounts, paths = found
    controllers: tuple[str, ...] = ()
    if "" in mounts:
        controllers = tuple(files.text(mounts[""] + "/cgroup.controllers").split())
    return CgroupFacts(
        version=version,
        mounts=mounts,
        own=paths,
        controllers=controllers,
        rootless=rootless,
        rdt=_resctrl(),
    )


def _resctrl() -> str:
    """Return where the resctrl file system is mounted, "" if it is not at its usual mount point."""
    try:
        fd = os.open(RESCTRL, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return ""
    with closing(fd):
        return RESCTRL if _linux.fstatfs(fd)[0] == _RESCTRL_MAGIC else ""


def _hierarchies(text: str) -> list[Hierarchy]:
    """Parse /proc/self/cgroup: lines of number:controllers:path, no controllers for the unified hierarchy."""
    found = []
    for line in (
        text.rstrip("\n").split("\n") if text else ()
    ):  # only a newline ends a line: a name may have all other characters
        _number, names, path = line.split(":", 2)
        found.append((tuple(names.split(",")) if names else (), path))
    return found


def _usual(own: list[Hierarchy]) -> tuple[int, dict[str, str], dict[str, str]] | None:
    """Return (version, mounts, own paths) if all hierarchies are at the usual mount points, else None."""
    try:
        fd = os.open(ROOT, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    with closing(fd):
        kind = _linux.fstatfs(fd)[0]
        device = os.fstat(fd).st_dev
    mounts: dict[str, str] = {}
    paths: dict[str, str] = {}
    for names, path in own:
        if kind == flags.CGROUP2_SUPER_MAGIC:
            if names:
                # A version 1 hierarchy beside a pure version 2 mount cannot limit anything.
                continue
            place = ROOT
        elif names:
            # A hierarchy of several controllers has a link for each; a named one is mounted under its name.
            place = f"{ROOT}/{names[0].removeprefix('name=')}"
        else:
            place = ROOT + "/unified"
        try:
            status = os.stat(place)
            if kind != flags.CGROUP2_SUPER_MAGIC and status.st_dev == device:
                raise FileNotFoundError(place)  # an ordinary directory: nothing is mounted there
            if status.st_ino != _KERNFS_ROOT_INODE:
                return None
            if path != "/":
                os.stat(place + path)  # if it does not exist, only a part of the hierarchy is mounted
        except OSError:
            if not names and kind != flags.CGROUP2_SUPER_MAGIC:
                # Some hosts with version 1 do not mount the unified hierarchy.
                continue
            return None
        for name in names or ("",):
            mounts[name] = place
            paths[name] = path
    if not mounts:
        return None
    return 2 if kind == flags.CGROUP2_SUPER_MAGIC else 1, mounts, paths


def _searched(own: list[Hierarchy]) -> tuple[int, dict[str, str], dict[str, str]]:
    """Return (version, mounts, own paths) from the mount table."""
    from pyrunc.plan import mount_table

    return from_table(mount_table.parse(files.text("/proc/self/mountinfo")), own)


def from_table(rows: list[Row], own: list[Hierarchy]) -> tuple[int, dict[str, str], dict[str, str]]:
    """Return (version, mounts, own paths) from a mount table.

    A mount may show only a part of its hierarchy (its root): own paths are then below that part. Where a
    hierarchy is mounted more than once the first mount counts.
    """
    places: dict[frozenset[str], tuple[str, str]] = {}
    for row in rows:
        if row.fstype in ("cgroup", "cgroup2"):
            options = frozenset(row.data if row.fstype == "cgroup" else ())
            places.setdefault(options, (row.root, row.point))
    mounts: dict[str, str] = {}
    paths: dict[str, str] = {}
    for names, path in own:
        for options, (root, place) in places.items():
            if options.issuperset(names) if names else not options:
                inside = path
                if root != "/" and (path + "/").startswith(root + "/"):
                    inside = path[len(root) :] or "/"
                for name in names or ("",):
                    mounts[name] = place
                    paths[name] = inside
                break
    version = 0 if not mounts else 2 if list(mounts) == [""] else 1
    return version, mounts, paths
