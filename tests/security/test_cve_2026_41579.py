"""Devices are made where /dev points: CVE-2026-41579 (runc), CVE-2026-47766 (crun), crun CVE-2025-24965.

The runtime makes device nodes and links, and removes an old ptmx, in the directory that /dev is. An image
whose /dev leads elsewhere must not cause anything to be made or removed outside its root.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.containers import Bundle, Canary, Runtime


@pytest.mark.parametrize("climb", [False, True])
def test_a_dev_that_leads_to_the_host(
    bundle: Bundle, runtime: Runtime, canary: Canary, *, climb: bool
) -> None:
    bundle.without_mount("/dev")
    (bundle.rootfs / "dev").rmdir()
    goal = str(canary.path)
    (bundle.rootfs / "dev").symlink_to("../" * 40 + goal.lstrip("/") if climb else goal)
    runtime.run(bundle, "true")
    assert canary.untouched()


def test_a_ptmx_of_the_host_is_not_removed(bundle: Bundle, runtime: Runtime, canary: Canary) -> None:
    (canary.path / "ptmx").write_text("precious")
    bundle.without_mount("/dev")
    (bundle.rootfs / "dev").rmdir()
    (bundle.rootfs / "dev").symlink_to(canary.path)
    runtime.run(bundle, "true")
    assert (canary.path / "ptmx").read_text() == "precious"
    assert sorted(os.listdir(canary.path)) == ["ptmx", "secret"]


@pytest.mark.parametrize("name", ["null", "zero", "fd", "ptmx", "stdin", "tty"])
def test_an_entry_that_leads_to_the_host(bundle: Bundle, runtime: Runtime, canary: Canary, name: str) -> None:
    bundle.without_mount("/dev")
    (bundle.rootfs / "dev" / name).symlink_to(canary.path / "made")
    runtime.run(bundle, "true")
    assert canary.untouched()


def test_a_device_below_a_link(bundle: Bundle, runtime: Runtime, canary: Canary) -> None:
    bundle.without_mount("/dev")
    (bundle.rootfs / "dev/net").symlink_to(canary.path)
    bundle.linux["devices"] = [
        {"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 0o666}
    ]
    runtime.run(bundle, "true")
    assert canary.untouched()


def test_a_device_that_is_another_one_already(bundle: Bundle, runtime: Runtime) -> None:
    """An existing node counts only if it is the right one."""
    bundle.without_mount("/dev")
    os.mknod(bundle.rootfs / "dev/random", 0o20666, os.makedev(1, 5))
    result = runtime.run(bundle, "stat -c %t:%T /dev/random")
    assert result.stdout != "1:5\n"
