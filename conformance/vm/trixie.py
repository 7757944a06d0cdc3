"""A root file system of Debian 13 for a guest: its systemd and its engines, with this checkout installed.

Podman 5 has Quadlet there, and CRIU works with that suite's kernel. The root is kept in the cache; only the
checkout in it is brought up to date.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from conformance import debian
from conformance.distributions.engines import listed
from conformance.distributions.root import CHECKOUT, TOP, Root, make
from conformance.vm import kernels

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CHECKOUT", "root", "versions"]

SUITE = "trixie"
LISTS = (TOP / "conformance/packages.txt", Path(__file__).with_name("packages_trixie.txt"))
HOUR = 3600


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of packages there, without what Debian adds to them."""
    place = debian.CACHE / "vm" / SUITE / "root/var/lib/dpkg"
    said = debian.call(["dpkg-query", f"--admindir={place}", "-W", "-f=${Package} ${Version}\n", *packages])
    found = dict(line.split() for line in said.splitlines())
    return {name: re.split(r"[+~-]", version)[0] for name, version in found.items()}


def root() -> tuple[Path, kernels.Kernel]:
    """Return the directory and its kernel; the checkout in it is as this one is now.

    Raises:
        debian.UnavailableError: it cannot be had.

    """
    kernel = kernels.of(SUITE)
    packages = [name for path in LISTS for name in listed(path)]
    with debian.locked(f"vm/{SUITE}") as directory:
        told = directory / "made.json"
        if not told.exists() or json.loads(told.read_text())["packages"] != packages:
            made = make(SUITE, "", packages)
            shutil.rmtree(directory)
            made.directory.rename(directory)
            what = {"packages": packages, "environment": made.environment, "binds": made.binds}
            told.write_text(json.dumps(what, indent=1))
        what = json.loads(told.read_text())
        made = Root(directory, what["environment"], what["binds"])
        modules = made.file(f"/usr/lib/modules/{kernel.release}")
        if not modules.exists():  # a newer kernel
            modules.parent.mkdir(exist_ok=True)
            debian.call(["cp", "-a", "--reflink=auto", str(kernel.modules), str(modules)])
        made.check_out()
        made.succeed("make", "install", ".venv/ready", seconds=HOUR)
        return made.path, kernel
