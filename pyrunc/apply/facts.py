"""Ask the host, once, what the planner may know.

Law 5: the parent knows. Nothing here is asked again later, and nothing else asks.
"""

from __future__ import annotations

import os

from pyrunc.apply.cgroup_facts import cgroup_facts
from pyrunc.linux import _linux, flags
from pyrunc.plan.facts import Facts


def gather(rootless: str | None = None) -> Facts:
    """Return the facts about this host and this process.

    Args:
        rootless: "true" and "false" say whether to do without the cgroups one has no right to make; otherwise
            whoever is not the host's root does.

    """
    euid = os.geteuid()
    inside = _in_user_namespace()
    return Facts(
        kernel=_kernel(os.uname().release),
        statmount=_statmount(),
        euid=euid,
        in_user_namespace=inside,
        kcore=os.access("/proc/kcore", os.F_OK),
        capabilities=_linux.capget(0)[1],
        cgroup=cgroup_facts(rootless=rootless == "true" or (rootless != "false" and (inside or euid != 0))),
    )


def host_root() -> bool:
    """Tell whether we are root of the initial user namespace."""
    return os.geteuid() == 0 and not _in_user_namespace()


def _kernel(release: str) -> tuple[int, int]:
    """Return major and minor of a release such as "6.1.0-13-amd64" or "7.0-rc1"."""
    major, _, rest = release.partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    return int(major), int(rest[:digits] or 0)


def _statmount() -> bool:
    """Try it: a kernel may know statmount(2), and the filter of an outer container not let it through."""
    try:
        fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            mount, _is_root = _linux.statx_mnt(fd, flags.STATX_MNT_ID_UNIQUE)
            _linux.statmount(mount, flags.STATMOUNT_MNT_BASIC, 512)
        finally:
            os.close(fd)
    except OSError:
        return False
    return True


def _in_user_namespace() -> bool:
    try:
        fd = os.open("/proc/self/uid_map", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.read(fd, 4096).split() != [b"0", b"0", b"4294967295"]
    finally:
        os.close(fd)
