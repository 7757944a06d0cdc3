"""The bundles that are measured: one root file system with busybox, many config.json beside it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BUSYBOX = ROOT / "bundles" / "busybox"


def make(folder: Path, name: str, *args: str, binds: int = 0) -> Path:
    """Make a bundle like bundles/busybox, without terminal and limits, with some more bind mounts.

    It has no limits, because the cgroup v2 that crun gets on a hybrid host has no controllers, and crun's
    device rules need CAP_SYS_RESOURCE, which not every machine has. Mount points exist already, so that only
    the mounts are measured.
    """
    rootfs = folder / "rootfs"
    if not rootfs.exists():
        shutil.copytree(BUSYBOX / "rootfs", rootfs, symlinks=True)
    config: dict[str, Any] = json.loads((BUSYBOX / "config.json").read_text())
    config["process"]["terminal"] = False
    config["process"]["args"] = list(args)
    del config["process"]["rlimits"]  # not every machine may raise them
    config["root"]["path"] = str(rootfs)
    del config["linux"]["resources"]
    for number in range(binds):
        source = folder / "sources" / str(number)
        target = f"/mnt/{number}"
        source.mkdir(parents=True, exist_ok=True)
        (rootfs / target[1:]).mkdir(parents=True, exist_ok=True)
        config["mounts"].append(
            {
                "destination": target,
                "type": "bind",
                "source": str(source),
                "options": ["rbind", "ro", "nosuid", "nodev"],
            }
        )
    bundle = folder / name
    bundle.mkdir(parents=True)
    (bundle / "config.json").write_text(json.dumps(config))
    return bundle
