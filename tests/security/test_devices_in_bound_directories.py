"""Device nodes and links are made in a directory of the host: runc#80, runc#96, runc#1866.

The runtime makes devices in /dev unless something is bound there. Where the bind really is counts, not its
spelling in config.json, and no symlink of an image makes a bound directory /dev.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.containers import Bundle, Runtime


@pytest.fixture
def bound(tmp_path: Path) -> Path:
    made = tmp_path / "bound"
    made.mkdir()
    return made


SPELLINGS = ["/dev", "/dev/", "//dev", "/./dev", "/dev/.", "/bin/../dev", "/../dev", "dev", "{rootfs}/dev"]


@pytest.mark.parametrize("destination", SPELLINGS)
@pytest.mark.parametrize("words", [["bind"], ["rbind", ""], ["nosuid,rbind"]])
def test_a_bind_on_dev_however_it_is_spelled(
    bundle: Bundle, runtime: Runtime, bound: Path, destination: str, words: list[str]
) -> None:
    bundle.without_mount("/dev")
    bundle.mount(destination.format(rootfs=bundle.rootfs), bound, *words)
    assert runtime.output(bundle, "ls -A /dev | wc -l").splitlines()[-1] == "0"
    assert os.listdir(bound) == []


def test_a_bind_on_a_root_that_is_spelled_otherwise(bundle: Bundle, runtime: Runtime, bound: Path) -> None:
    bundle.without_mount("/dev")
    bundle.config["root"]["path"] = "./x/..//rootfs/"
    bundle.mount(f"{bundle.rootfs}/dev", bound, "bind")
    runtime.output(bundle, "ls /dev")
    assert os.listdir(bound) == []


@pytest.mark.parametrize("way", ["dev is a link", "the bind is on a link"])
def test_a_link_of_the_image(bundle: Bundle, runtime: Runtime, bound: Path, way: str) -> None:
    bundle.without_mount("/dev")
    if way == "dev is a link":
        (bundle.rootfs / "dev").rmdir()
        (bundle.rootfs / "dev").symlink_to("data")
    else:
        (bundle.rootfs / "data").symlink_to("dev")
    bundle.mount("/data", bound, "bind")
    done = runtime.run(bundle, "true")
    assert os.listdir(bound) == []
    assert done.returncode != 0
    assert f"/dev leads to {bound} of the host by a symlink" in done.stdout


def test_a_link_to_what_is_mounted_below_a_bind(bundle: Bundle, runtime: Runtime, bound: Path) -> None:
    """The mount came along with a recursive bind, so no entry of `mounts` names it."""
    bundle.without_mount("/dev")
    (bound / "sub").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "host", bound / "sub"], check=True)
    try:
        (bundle.rootfs / "dev").rmdir()
        (bundle.rootfs / "dev").symlink_to("data/sub")
        bundle.mount("/data", bound, "rbind")
        done = runtime.run(bundle, "true")
        assert os.listdir(bound / "sub") == []
        assert "of the host by a symlink in the root file system" in done.stdout
    finally:
        subprocess.run(["umount", bound / "sub"], check=True)


def test_a_root_whose_dev_is_a_mount(bundle: Bundle, runtime: Runtime) -> None:
    """The host has mounted it there before, so it belongs to the root file system."""
    bundle.without_mount("/dev")
    subprocess.run(["mount", "-t", "tmpfs", "host", bundle.rootfs / "dev"], check=True)
    try:
        assert runtime.output(bundle, "stat -c %t:%T /dev/null") == "1:3\n"
    finally:
        subprocess.run(["umount", bundle.rootfs / "dev"], check=True)


def test_devices_that_are_asked_for_by_another_spelling(bundle: Bundle, runtime: Runtime) -> None:
    bundle.linux["devices"] = [
        {"path": "//dev/./null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600},
        {"path": "/dev/x/../ptmx", "type": "c", "major": 5, "minor": 2},
    ]
    out = runtime.output(bundle, "stat -c %a /dev/null; readlink /dev/ptmx; ls /dev/x 2>&1 | wc -l")
    assert out.split() == ["600", "pts/ptmx", "1"]
