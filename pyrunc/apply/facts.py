"""Ask the host what the planner may know, once.

Law 5: the parent collects these facts before it plans. No other code asks the host for them.
"""

from __future__ import annotations

import os
from errno import EBADF, EINVAL, ENOENT

from pyrunc import store
from pyrunc.apply.cgroups.hierarchies import cgroup_facts
from pyrunc.errors import Failure
from pyrunc.linux import _linux, flags
from pyrunc.plan.facts import Facts


def gather(rootless: str | None = None) -> Facts:
    """Return the facts about this host and this process.

    Args:
        rootless: "true": do without the cgroups that cannot be made for want of rights. "false": fail then.
            Any other value: "true" for everybody but the host's root.

    Raises:
        Failure: there is no /proc, from which most facts come.

    """
    kcore = os.access("/proc/kcore", os.F_OK)
    if not kcore and not os.path.lexists("/proc/self"):
        raise Failure("no procfs is mounted on /proc", hint="mount -t proc proc /proc")
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
        kcore=kcore,
        capabilities=_linux.capget(0)[1],
        cgroup=cgroup_facts(rootless=rootless == "true" or (rootless != "false" and (inside or euid != 0))),
        missing=lacking,
    )


def host_root() -> bool:
    """Tell whether this process is root in the initial user namespace."""
    return os.geteuid() == 0 and not store.in_user_namespace()


def kernel() -> tuple[int, int]:
    """Return major and minor of this kernel; releases look like "6.1.0-13-amd64" or "7.0-rc1"."""
    major, _, rest = os.uname().release.partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    return int(major), int(rest[:digits] or 0)


# The kernel refuses a call with a wrong argument before it checks the rights. Another answer means that the
# call does not exist (ENOSYS), or that a seccomp filter refuses it. A kernel may know a call that the filter
# of a surrounding container does not.


def _statmount() -> bool:
    """Tell whether statmount(2) can be used; no mount has the id 0."""
    try:
        _linux.statmount(0, flags.STATMOUNT_MNT_BASIC, 512)
    except OSError as exc:
        return exc.errno in (EINVAL, ENOENT)
    return True


def missing() -> tuple[str, ...]:
    """Return the names of the calls of the new mount API that cannot be used.

    One call of each kernel version is tried. move_mount, fsopen, fsmount and fspick check rights first, so a
    trial shows nothing. Kernels and filters have them together with the two that are tried.
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
