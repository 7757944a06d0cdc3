"""Ask the host, once, what the planner may know.

Law 5: the parent knows. Nothing here is asked again later, and nothing else asks.
"""

from __future__ import annotations

import os
from errno import EBADF, EINVAL, ENOENT

from pyrunc import store
from pyrunc.apply.cgroups.hierarchies import cgroup_facts
from pyrunc.linux import _linux, flags
from pyrunc.plan.facts import Facts


def gather(rootless: str | None = None) -> Facts:
    """Return the facts about this host and this process.

    Args:
        rootless: "true" and "false" say whether to do without the cgroups one has no right to make; otherwise
            whoever is not the host's root does.

    """
    euid = os.geteuid()
    inside = store.in_user_namespace()
    version = kernel()
    lacking = missing()
    if lacking:
        from pyrunc.apply.mounts import classic

        classic.check(version, lacking)
    return Facts(
        kernel=version,
        statmount=_statmount(),
        euid=euid,
        in_user_namespace=inside,
        kcore=os.access("/proc/kcore", os.F_OK),
        capabilities=_linux.capget(0)[1],
        cgroup=cgroup_facts(rootless=rootless == "true" or (rootless != "false" and (inside or euid != 0))),
        missing=lacking,
    )


def host_root() -> bool:
    """Tell whether we are root of the initial user namespace."""
    return os.geteuid() == 0 and not store.in_user_namespace()


def kernel() -> tuple[int, int]:
    """Return major and minor of this kernel; releases look like "6.1.0-13-amd64" or "7.0-rc1"."""
    major, _, rest = os.uname().release.partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    return int(major), int(rest[:digits] or 0)


# A call with an argument that cannot be right is refused at once, for that and before any right is asked for:
# another answer means that it is not there (ENOSYS), or that a filter does not let it through. A kernel may
# know what the filter of a container around us does not.


def _statmount() -> bool:
    """Tell whether statmount(2) is there; no mount has the number 0."""
    try:
        _linux.statmount(0, flags.STATMOUNT_MNT_BASIC, 512)
    except OSError as exc:
        return exc.errno in (EINVAL, ENOENT)
    return True


def missing() -> tuple[str, ...]:
    """Return which calls of the new mount API cannot be had, asked by one of each kernel it came with.

    move_mount, fsopen, fsmount and fspick ask for rights first, so that they tell nothing; kernels and
    filters have them together with the two that do.
    """
    lacking = []
    try:
        _linux.open_tree(-1, "", flags.AT_EMPTY_PATH)
    except OSError as exc:
        if exc.errno != EBADF:
            lacking.append("open_tree")
    try:
        _linux.fsconfig(-1, 0, None, None, 0)
    except OSError as exc:
        if exc.errno != EINVAL:
            lacking.append("fsconfig")
    try:
        _linux.mount_setattr(-1, "", 0xFFFFFFFF, 0, 0, 0, -1)
    except OSError as exc:
        if exc.errno != EINVAL:
            lacking.append("mount_setattr")
    return tuple(lacking)
