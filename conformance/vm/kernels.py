"""The kernels for a virtual machine: that of this machine's package, and those of other Debian suites."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NamedTuple

from conformance import debian

PACKAGE = "linux-image-amd64"


class Kernel(NamedTuple):
    """A kernel and its modules."""

    release: str
    image: Path
    modules: Path  # as in /lib/modules/RELEASE


def installed() -> Kernel | None:
    """Return the newest of Debian's kernels here that has its modules, None without one."""
    images = sorted(Path("/boot").glob("vmlinuz-*-amd64"), key=lambda path: path.stat().st_mtime)
    for image in reversed(images):
        release = image.name.removeprefix("vmlinuz-")
        modules = Path("/lib/modules", release)
        if (modules / "modules.dep").exists():
            return Kernel(release, image, modules)
    return None


def of(suite: str) -> Kernel:
    """Return the kernel of a suite of Debian's ("bullseye", "sid"), fetched if need be.

    Raises:
        debian.UnavailableError: it cannot be had.

    """
    source = debian.Suite(suite)
    # A suite's newer kernels are in parts: linux-image-* needs linux-binary-* and linux-modules-*.
    names = [name for name in source.needed(PACKAGE, "linux-") if "-amd64" in name and name != PACKAGE]
    release = next(name for name in names if name.startswith("linux-image-")).removeprefix("linux-image-")
    with debian.locked(f"kernels/{release}") as directory:
        if not (directory / "whole").exists():
            shutil.rmtree(directory)
            source.unpack([name for name in names if name.endswith(release)], directory)
            if not (directory / "lib").exists():
                (directory / "lib").symlink_to("usr/lib")
            debian.call(["depmod", "-b", str(directory), release])
            (directory / "whole").touch()
    return found(directory, release)


def found(directory: Path, release: str) -> Kernel:
    """Return the kernel in a directory: its image is in /boot or, from Linux 7 on, beside its modules."""
    modules = directory / "lib/modules" / release
    places = (directory / f"boot/vmlinuz-{release}", modules / "vmlinuz")
    image = next((place for place in places if os.path.exists(place)), None)
    if image is None:
        raise debian.UnavailableError(f"there is no image of the kernel {release} in {directory}")
    return Kernel(release, image, modules)
