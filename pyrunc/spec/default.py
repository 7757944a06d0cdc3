"""A config.json to begin with, that runs on any host once there is a root file system.

It is the container an engine would make by default: few capabilities, no new privileges, its own namespaces,
the kernel's delicate files masked. Tests of other projects start from `runc spec`, so the properties they
change (process.args, root.readonly, terminal) are in the same places here.
"""

from __future__ import annotations

from pyrunc.versions import SPEC_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")

# destination, type, source, options
_MOUNTS = (
    ("/proc", "proc", "proc", ()),
    ("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    (
        "/dev/pts",
        "devpts",
        "devpts",
        ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
    ),
    ("/dev/shm", "tmpfs", "shm", ("nosuid", "noexec", "nodev", "mode=1777", "size=65536k")),  # noqa: S108
    ("/dev/mqueue", "mqueue", "mqueue", ("nosuid", "noexec", "nodev")),
    ("/sys", "sysfs", "sysfs", ("nosuid", "noexec", "nodev", "ro")),
    ("/sys/fs/cgroup", "cgroup", "cgroup", ("nosuid", "noexec", "nodev", "relatime", "ro")),
)

# Files of procfs and sysfs that tell about the host, or act on it, and belong to no namespace.
_MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",  # power use, measured finely enough to give keys away (CVE-2020-8694)
)
_READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def default(*, unified: bool) -> dict[str, Any]:
    """Return the configuration of a container that is made by root.

    Args:
        unified: the host has only cgroup v2, where a cgroup namespace hides the host's tree at no cost.

    """
    namespaces = ["pid", "network", "ipc", "uts", "mount"]
    if unified:
        namespaces.append("cgroup")
    return {
        "ociVersion": SPEC_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": list(_CAPABILITIES),
                "effective": list(_CAPABILITIES),
                "permitted": list(_CAPABILITIES),
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "pyrunc",
        "mounts": [_mount(*mount) for mount in _MOUNTS],
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": kind} for kind in namespaces],
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_READONLY),
        },
    }


def rootless(config: dict[str, Any], *, uid: int, gid: int) -> dict[str, Any]:
    """Return the configuration changed so that a user without privileges can run it.

    A new user namespace maps only that user, as root. The network stays the host's, because one that is the
    container's has no way out without privileges; a sysfs needs an own network namespace, so /sys is bound.
    The host's cgroups come along with it, and those that are delegated to the user are the user's to write
    to, root of the container included: all that is bound is read-only, and /sys/fs/cgroup is a mount of its
    own above it, as in runc's file.

    Args:
        config: what default() returned; it is changed in place.
        uid: the user's id on the host.
        gid: the group's id on the host.

    """
    linux = config["linux"]
    linux["namespaces"] = [entry for entry in linux["namespaces"] if entry["type"] != "network"]
    linux["namespaces"].append({"type": "user"})
    linux["uidMappings"] = [{"containerID": 0, "hostID": uid, "size": 1}]
    linux["gidMappings"] = [{"containerID": 0, "hostID": gid, "size": 1}]
    del linux["resources"]
    for index, mount in enumerate(config["mounts"]):
        if mount["destination"] == "/sys":
            # "ro" alone would leave what is mounted below /sys as it is on the host.
            options = ("rbind", "nosuid", "noexec", "nodev", "ro", "rro")
            config["mounts"][index] = _mount("/sys", "none", "/sys", options)
        elif "options" in mount:
            # gid 5 is not mapped, and a mount option naming it would be refused.
            mount["options"] = [
                option for option in mount["options"] if not option.startswith(("uid=", "gid="))
            ]
    return config


def _mount(destination: str, kind: str, source: str, options: tuple[str, ...]) -> dict[str, object]:
    mount: dict[str, object] = {"destination": destination, "type": kind, "source": source}
    if options:
        mount["options"] = list(options)
    return mount
