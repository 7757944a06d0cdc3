"""Find out why a cgroup could not be made, limited or removed; only after a failure.

Law 2: this may be slow and must explain well. Every message names the limit and the file and, if it is the
cause, the parent.
"""

from __future__ import annotations

import os
from errno import EACCES, EBUSY, ENOENT, EOPNOTSUPP, EPERM, EROFS

from pyrunc import files
from pyrunc.errors import Failure
from pyrunc.plan import namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from pyrunc.plan.cgroup_plan import CgroupPlan, CgroupWrite

# Values that depend on the parent's: file -> what to say about the parent's.
_PARENTS = {
    "cpu.cfs_quota_us": ("cpu.cfs_quota_us", "cpu.cfs_period_us"),
    "cpu.cfs_period_us": ("cpu.cfs_quota_us", "cpu.cfs_period_us"),
    "cpu.rt_runtime_us": ("cpu.rt_runtime_us", "cpu.rt_period_us"),
    "cpu.rt_period_us": ("cpu.rt_runtime_us", "cpu.rt_period_us"),
    "cpuset.cpus": ("cpuset.cpus", "cpuset.cpus.effective"),
    "cpuset.mems": ("cpuset.mems", "cpuset.mems.effective"),
    "devices.allow": ("devices.list",),
}


def not_made(plan: CgroupPlan, path: str, errno: int) -> Failure:
    """Explain a directory that cannot be made."""
    if errno in (EPERM, EACCES, EROFS) and plan.optional:
        limits = ", ".join(
            dict.fromkeys(write.pointer.split("/")[3] for write in plan.writes if not write.optional)
        )
        return Failure(
            "rootless needs no limits + no cgrouppath when no permission is granted for cgroups"
            f" (limits: {limits}): make {path}",
            errno=errno,
            hint="let systemd delegate cgroups to you (--systemd-cgroup), or leave the limits out",
        )
    hint = "the cgroup mount is read-only" if errno == EROFS else ""
    return Failure(
        f"unable to apply cgroup configuration: make {path}",
        pointer="/linux/cgroupsPath",
        errno=errno,
        hint=hint,
    )


def not_applied(config: Mapping[str, Any], plan: CgroupPlan, paths: dict[str, str]) -> list[str]:
    """Return the warning about cgroups that there was no right to make.

    Args:
        config: what was asked for; limits would have been a failure, device rules are not.
        plan: the cgroups that were wanted.
        paths: those that could be made.

    """
    lost = [name or "unified" for name in plan.paths if name not in paths]
    found = []
    rules = ((config.get("linux") or {}).get("resources") or {}).get("devices")
    if rules and lost and not paths.get("devices") and not (plan.version == 2 and "" in paths):
        found.append(
            "/linux/resources/devices: not applied, there is no permission to make cgroups"
            f" ({', '.join(lost)})"
        )
    if not paths and namespaces.paths(config).get("pid") != "":  # type: ignore[arg-type]
        # runc's words, which people search for.
        found.append(
            "/linux/namespaces: creating a rootless container with no cgroup and no private pid namespace."
            " Such configuration is strongly discouraged (as it is impossible to properly kill all"
            " container's processes)"
        )
    return found


def no_controller(plan: CgroupPlan, path: str, name: str, pointer: str) -> Failure:
    """Explain a controller that is missing in the container's cgroup: find the parent that lacks it."""
    directory = plan.roots[""]
    offer = files.text(f"{directory}/cgroup.controllers")
    for part in path[len(directory) :].strip("/").split("/"):
        enabled = files.text(f"{directory}/cgroup.subtree_control")
        if name not in enabled.split():
            break
        directory += f"/{part}"
        offer = enabled
    hint = ""
    if name in offer.split():
        if files.text(f"{directory}/cgroup.procs") and directory != plan.roots[""]:
            hint = "it has processes of its own, so it cannot hand out controllers: give another cgroupsPath"
        else:
            hint = f"echo +{name} > {directory}/cgroup.subtree_control"
    return Failure(
        f"the limit needs the cgroup controller {name}; {directory} enables only:"
        f" {files.text(directory + '/cgroup.subtree_control') or 'none'}",
        pointer=pointer,
        hint=hint,
    )


def refused(write: CgroupWrite, paths: dict[str, str], errno: int) -> Failure:
    """Explain a value that the kernel has refused."""
    path = paths[write.controller]
    value = write.value.replace("\n", ", ")
    message = f"write {value!r} to {write.file} of cgroup {path}"
    hint = ""
    if errno == ENOENT:
        message, hint = _no_file(write, path)
    elif errno == EBUSY and write.file.startswith("memory."):
        usage = files.text(f"{path}/memory.usage_in_bytes")
        peak = files.text(f"{path}/memory.max_usage_in_bytes")
        return Failure(
            f"unable to set memory limit to {value} (current usage: {usage}, peak usage: {peak})",
            pointer=write.pointer,
        )
    elif errno == EOPNOTSUPP:
        hint = f"this kernel no longer limits {write.file}"
    else:
        hint = _parent_hint(write, path)
    return Failure(message, pointer=write.pointer, errno=errno, hint=hint)


def _no_file(write: CgroupWrite, path: str) -> tuple[str, str]:
    names = write.file if write.other is None else f"{write.file} nor {write.other[0]}"
    message = f"cgroup {path} has no {names}"
    if write.file.startswith("hugetlb."):
        sizes = sorted(
            name.split(".")[1] for name in _list(path) if name.startswith("hugetlb.") and "rsvd" not in name
        )
        return message, f"huge page sizes of this host: {', '.join(dict.fromkeys(sizes)) or 'none'}"
    prefix = write.file.partition(".")[0]
    if not write.controller and prefix not in ("cgroup", *files.text(f"{path}/cgroup.controllers").split()):
        return message, f"controller {prefix!r} not available"
    if "memsw" in write.file or "swap" in write.file:
        return message, "this kernel does not account swap (boot option swapaccount=1)"
    return message, "this kernel does not know that limit"


def _parent_hint(write: CgroupWrite, path: str) -> str:
    parent = path.rpartition("/")[0]
    found = [
        f"{file} = {text}"
        for file in _PARENTS.get(write.file, ())
        if (text := files.text(f"{parent}/{file}"))
    ]
    if not found and write.file == "cpu.max":
        found = [f"cpu.max = {text}"] if (text := files.text(f"{parent}/cpu.max")) else []
    if not found:
        return ""
    return f"its parent {parent} has {', '.join(found).replace(chr(10), ', ')}"


def in_use(path: str, pids: list[int]) -> Failure:
    """Return the message about processes that keep a cgroup from being removed."""
    holders = []
    for pid in pids:
        # A process chooses its own name: no newlines in a message, and no control characters for a terminal.
        name = files.text(f"/proc/{pid}/comm")
        name = name if name.isprintable() else ascii(name)[1:-1]
        holders.append(f"{pid} ({name})" if name else str(pid))
    who = ", ".join(holders[:10]) + (f" and {len(holders) - 10} more" if len(holders) > 10 else "")
    held = f"held by {who}" if holders else "no process in it has an id in this pid namespace"
    return Failure(f"remove cgroup {path}: {held}", errno=EBUSY)


def _list(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []
