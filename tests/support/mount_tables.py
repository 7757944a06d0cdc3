"""Plans and mount tables as the kernel prints them, for tests without containers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyrunc.plan import build, mount_origins, mount_table, steps
from pyrunc.plan.facts import Request
from pyrunc.plan.mount_steps import Bind
from tests.support.programs import FACTS

if TYPE_CHECKING:
    from pyrunc.plan.mount_origins import Knowledge, Origins

# The mount table of a container of the configuration below, without unrelated mounts.
TABLE = """\
100 50 8:1 /images/box / rw,relatime - ext4 /dev/root rw
101 100 0:40 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
102 100 8:1 /srv/data /data ro,nosuid,relatime master:1 - ext4 /dev/root rw
103 102 0:50 / /data/inner ro,relatime master:7 - tmpfs inner rw,size=64k
104 100 0:41 / /run/cache rw,nodev,relatime - tmpfs tmpfs rw,size=1024k
105 101 0:40 /sys /proc/sys ro,nosuid,nodev,noexec,relatime - proc proc rw
106 101 0:5 /null /proc/keys rw,nosuid - devtmpfs devtmpfs rw,size=9k
107 101 0:42 / /proc/scsi ro,nosuid,nodev,noexec,relatime - tmpfs tmpfs ro,size=4k
"""
# The host it runs on.
HOST = """\
50 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw
51 50 0:50 / /srv/data/inner rw,relatime shared:7 - tmpfs inner rw,size=64k
"""
CONFIG: dict[str, Any] = {
    "ociVersion": "1.3.0",
    "root": {"path": "/images/box"},
    "process": {"cwd": "/", "args": ["sh"], "user": {"uid": 0, "gid": 0}},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "nodev", "noexec"]},
        {"destination": "/data", "source": "/srv/data", "options": ["rbind", "rslave", "rro", "nosuid"]},
        {"destination": "/var/run/cache", "type": "tmpfs", "source": "tmpfs", "options": ["nodev"]},
    ],
    "linux": {
        "namespaces": [{"type": kind} for kind in ("pid", "network", "mount", "ipc", "uts")],
        "readonlyPaths": ["/proc/sys", "/proc/nowhere"],
        "maskedPaths": ["/proc/keys", "/proc/scsi"],
    },
}


def plan(*more: dict[str, Any], **linux: Any) -> steps.Plan:
    """Return the plan of the configuration above, with more mounts or other properties of linux."""
    config: Any = {
        **CONFIG,
        "mounts": [*CONFIG["mounts"], *more],
        "linux": {**CONFIG["linux"], **linux},
    }
    return build.build(config, FACTS, Request(id="box", bundle="/b"))


def known(
    made: steps.Plan, table: str = TABLE, located: dict[str, str] | None = None, host: str = HOST
) -> Knowledge:
    """Return what the kernel would answer: where /var/run leads, and where the sources are on the host."""
    sources = {id(step): ("8:1", step.source, step.source) for step in made.child if isinstance(step, Bind)}
    return mount_origins.Knowledge(
        rows=mount_table.parse(table),
        located={"/var/run/cache": "/run/cache", **(located or {})},
        host=mount_table.parse(host),
        sources=sources,
    )


def origins(made: steps.Plan, what: Knowledge, **how: Any) -> Origins:
    """Return where the mounts of a plan come from."""
    return mount_origins.find(made, what, configured=len(CONFIG["mounts"]), **how)
