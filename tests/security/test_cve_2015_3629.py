"""Mount points that are symlinks: CVE-2015-3629 (respawn), LXC CVE-2015-1335, crun CVE-2019-18837.

The image decides every part of the path of a mount point. Whatever it has there, the mount and everything
made for it must stay inside the root file system.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.containers import Bundle, Canary, Runtime


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    directory = tmp_path / "volume"
    directory.mkdir()
    (directory / "mark").write_text("volume\n")
    return directory


def climbing(path: Path) -> str:
    """Return a relative link target that climbs out of any root to a path of the host."""
    return "../" * 40 + str(path).lstrip("/")


@pytest.mark.parametrize("climb", [False, True])
@pytest.mark.parametrize("destination", ["/data", "/data/below", "/data/below/deeper"])
def test_a_link_on_the_way_stays_inside(
    bundle: Bundle, runtime: Runtime, canary: Canary, volume: Path, *, destination: str, climb: bool
) -> None:
    (bundle.rootfs / "data").symlink_to(climbing(canary.path) if climb else canary.path)
    bundle.mount(destination, volume)
    result = runtime.run(bundle, f"cat {destination}/mark; ls {canary.path}")
    assert canary.untouched()
    assert "secret" not in result.stdout
    if result.returncode == 0:
        assert "volume\n" in result.stdout


@pytest.mark.parametrize("climb", [False, True])
def test_a_dangling_link_makes_nothing_on_the_host(
    bundle: Bundle, runtime: Runtime, canary: Canary, volume: Path, *, climb: bool
) -> None:
    goal = canary.path / "made" / "by" / "mount"
    (bundle.rootfs / "data").symlink_to(climbing(goal) if climb else goal)
    bundle.mount("/data", volume)
    runtime.run(bundle, "true")
    assert canary.untouched()


def test_a_file_mount_through_a_link_makes_nothing_on_the_host(
    bundle: Bundle, runtime: Runtime, canary: Canary, volume: Path
) -> None:
    (bundle.rootfs / "data").symlink_to(climbing(canary.path / "made"))
    bundle.mount("/data", volume / "mark", "bind")
    runtime.run(bundle, "true")
    assert canary.untouched()


@pytest.mark.parametrize("magic", ["/proc/self/root", "/proc/1/root", "/proc/self/cwd", "/proc/self/fd/3"])
def test_a_magic_link_is_no_way_out(
    bundle: Bundle, runtime: Runtime, canary: Canary, volume: Path, magic: str
) -> None:
    (bundle.rootfs / "data").symlink_to(f"{magic}{canary.path}")
    bundle.mount("/data", volume)
    runtime.run(bundle, "true")
    assert canary.untouched()


def test_links_planted_by_the_previous_run(
    bundle: Bundle, runtime: Runtime, canary: Canary, volume: Path
) -> None:
    bundle.mount("/data", volume)
    plant = f"rm -rf /data2 /lib; ln -s {climbing(canary.path)} /data2; ln -s {canary.path} /lib"
    assert runtime.output(bundle, f"cat /data/mark; {plant}") == "volume\n"
    bundle.mount("/data2", volume)
    bundle.mount("/lib/x", volume)
    runtime.run(bundle, "true")
    assert canary.untouched()


def test_a_loop_of_links_ends(bundle: Bundle, runtime: Runtime, volume: Path) -> None:
    (bundle.rootfs / "data").symlink_to("other")
    (bundle.rootfs / "other").symlink_to("data")
    bundle.mount("/data", volume)
    result = runtime.run(bundle, "true")
    assert result.returncode != 0
    assert "too many" in result.stdout


@pytest.mark.parametrize(
    "destination", ["/../../../../../../../../../..{}", "{}/../../../../../../../../..{}"]
)
def test_dots_in_a_destination_stay_inside(
    bundle: Bundle, runtime: Runtime, canary: Canary, volume: Path, destination: str
) -> None:
    bundle.mount(destination.format(canary.path, canary.path), volume)
    runtime.run(bundle, "true")
    assert canary.untouched()
