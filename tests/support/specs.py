"""Configs for tests: a small valid one, and one like those of engines."""

from __future__ import annotations

import copy
from typing import Any


def small(**changes: Any) -> dict[str, Any]:
    """Return a config with all namespaces except user and time; changes replace whole sections."""
    config: dict[str, Any] = {
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs"},
        "process": {"cwd": "/", "args": ["sh"], "user": {"uid": 0, "gid": 0}},
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "network", "mount", "ipc", "uts", "cgroup")]
        },
    }
    config.update(copy.deepcopy(changes))
    return config


def with_linux(
    *, without: tuple[str, ...] = (), also: tuple[Any, ...] = (), **section: Any
) -> dict[str, Any]:
    """Return the small config with properties of its linux section, and with fewer or more namespaces."""
    config = small()
    linux = config["linux"]
    linux["namespaces"] = [space for space in linux["namespaces"] if space["type"] not in without]
    linux["namespaces"] += [{"type": space} if isinstance(space, str) else space for space in also]
    linux.update(copy.deepcopy(section))
    return config


def with_process(**section: Any) -> dict[str, Any]:
    """Return the small config with properties of its process."""
    config = small()
    config["process"].update(copy.deepcopy(section))
    return config


def engine() -> dict[str, Any]:
    """Return a config of the size and shape Docker writes for a container with default settings."""
    capabilities = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW"]
    config = with_linux(
        sysctl={"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"},
        resources={
            "devices": [
                {"allow": False, "access": "rwm"},
                {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "rwm"},
            ],
            "memory": {"limit": 67108864, "swap": 134217728, "disableOOMKiller": False},
            "cpu": {"shares": 0, "quota": 100000, "period": 100000},
            "pids": {"limit": 50},
            "blockIO": {"weight": 0},
        },
        cgroupsPath="/docker/0123",
        seccomp={
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 1,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [
                {"names": [f"call{number}" for number in range(400)], "action": "SCMP_ACT_ALLOW"},
                {
                    "names": ["personality"],
                    "action": "SCMP_ACT_ALLOW",
                    "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}],
                },
                {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
            ],
        },
        maskedPaths=["/proc/kcore", "/sys/firmware"],
        readonlyPaths=["/proc/sys"],
    )
    config["process"].update(
        terminal=True,
        consoleSize={"height": 24, "width": 80},
        env=["PATH=/usr/bin:/bin", "HOSTNAME=0123", "EMPTY="],
        capabilities=dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
        rlimits=[{"type": "RLIMIT_NOFILE", "hard": 1048576, "soft": 1024}],
        apparmorProfile="docker-default",
        oomScoreAdj=0,
        noNewPrivileges=False,
    )
    config["hostname"] = "0123"
    config["mounts"] = [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {
            "destination": "/etc/hosts",
            "type": "bind",
            "source": "/var/x/hosts",
            "options": ["rbind", "rprivate"],
        },
    ]
    config["hooks"] = {"prestart": [{"path": "/usr/bin/dockerd", "args": ["libnetwork-setkey", "0123"]}]}
    return config
