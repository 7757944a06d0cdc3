"""The Debian packages: lintian finds no fault, and with autopkgtest they run a container in a new system."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from conformance.packaging.conftest import call

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        platform.freedesktop_os_release()["ID"] != "debian", reason="no Debian: the packages are Debian's"
    ),
]

# autopkgtest changes its root to the system, which is a mount point: pivot_root(2) wants to leave one.
TEST = """
mount --make-rprivate /
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
mount --rbind /sys "$1/sys"
mount --rbind /dev "$1/dev"
mount -t tmpfs tmpfs "$1/run"
mount -t tmpfs -o mode=1777 tmpfs "$1/tmp"
exec autopkgtest --ignore-restrictions=isolation-container --output-dir="$2" "$3"/*.deb "$4" -- chroot "$1"
"""


def test_lintian_finds_nothing(dist: Path) -> None:
    """Neither errors nor warnings nor hints, but for the two that are wrong."""
    (changes,) = dist.glob("*.changes")
    said = call(
        "lintian",
        "--allow-root",
        "--display-info",
        "--fail-on",
        "error,warning",
        "--tag-display-limit",
        "0",
        changes,
    )
    # It finds misspelled words in the program's bytes; the extension calls no function that can be fortified.
    # Where the command is the script, nothing is found that its overrides are about.
    ignored = ("spelling-error-in-binary", "hardening-no-fortify-functions", "unused-override", "N: ")
    assert [line for line in said.splitlines() if not any(word in line for word in ignored)] == []


def test_the_packages_run_a_container_in_a_system_of_their_own(dist: Path, tmp_path: Path) -> None:
    """With nothing in it but what the packages depend on."""
    release = platform.freedesktop_os_release()["VERSION_CODENAME"]
    system, out = tmp_path / "system", tmp_path / "out"
    words = ("mmdebstrap", "--quiet", "--variant=essential", "--include=apt", "--dpkgopt=force-unsafe-io")
    call(*words, "--skip=cleanup/apt/lists", release, system, "http://deb.debian.org/debian")
    source = tmp_path / "source"
    call("dpkg-source", "--extract", next(dist.glob("*.dsc")), source)
    inside = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", TEST, "sh")
    call(*inside, system, out, dist, source)
    assert dict(line.split() for line in (out / "summary").read_text().splitlines()) == {
        "container": "PASS",
        "module": "PASS",
    }
