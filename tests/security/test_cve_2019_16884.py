"""Volumes over /proc: CVE-2019-16884 (runc, crun), CVE-2015-3631, and the files in it.

An image can ask for a volume (VOLUME /proc). If it were mounted there, the runtime would take the attacker's
files for the kernel's: a label written to /proc/self/attr/exec would have no effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.containers import Bundle, Runtime


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    directory = tmp_path / "volume"
    for name in ("self/attr", "sys/kernel", "1", "tty"):
        (directory / name).mkdir(parents=True)
    for name in ("self/attr/exec", "self/attr/current", "sys/kernel/hostname", "cpuinfo"):
        (directory / name).write_text("")
    return directory


DESTINATIONS = [
    "/proc",
    "/proc/",
    "//proc",
    "/./proc",
    "/tmp/../proc",
    "/proc/self",
    "/proc/sys",
    "/proc/tty",
]


@pytest.mark.parametrize("destination", DESTINATIONS)
@pytest.mark.parametrize("order", ["after", "before"])
def test_a_volume_over_proc_is_refused(
    bundle: Bundle, runtime: Runtime, volume: Path, destination: str, order: str
) -> None:
    if order == "before" and destination.strip("/.") not in ("proc", "tmp/../proc"):
        destination = "/proc"
    bundle.mount(destination, volume)
    if order == "before":
        bundle.config["mounts"].insert(0, bundle.config["mounts"].pop())
        bundle.without_mount("/proc")
        bundle.mount(destination, volume)
    result = runtime.run(bundle, "echo started")
    assert result.returncode != 0
    assert "started" not in result.stdout
    assert "/proc" in result.stdout


@pytest.mark.parametrize("destination", ["/proc", "/proc/sys", "/proc/tty"])
def test_a_tmpfs_over_proc_is_refused(bundle: Bundle, runtime: Runtime, destination: str) -> None:
    bundle.mount(destination, "tmpfs", "nosuid", kind="tmpfs")
    result = runtime.run(bundle, "echo started")
    assert result.returncode != 0
    assert "started" not in result.stdout


def test_a_volume_that_reaches_proc_through_a_link_of_the_image(
    bundle: Bundle, runtime: Runtime, volume: Path
) -> None:
    (bundle.rootfs / "way").symlink_to("/proc")
    bundle.mount("/way/sys", volume)
    result = runtime.run(bundle, "echo started")
    assert result.returncode != 0
    assert "started" not in result.stdout


def test_files_that_resource_views_replace_may_be_covered(
    bundle: Bundle, runtime: Runtime, volume: Path
) -> None:
    (volume / "cpuinfo").write_text("one small processor\n")
    bundle.mount("/proc/cpuinfo", volume / "cpuinfo", "bind", "ro")
    assert runtime.output(bundle, "cat /proc/cpuinfo") == "one small processor\n"


def test_the_hosts_proc_may_be_bound_on_proc(bundle: Bundle, runtime: Runtime) -> None:
    """Engines do this for --pid=host."""
    bundle.without_mount("/proc")
    bundle.linux["namespaces"] = [space for space in bundle.linux["namespaces"] if space["type"] != "pid"]
    bundle.mount("/proc", "/proc", "rbind")
    assert runtime.output(bundle, "test -e /proc/self/status && echo there") == "there\n"
