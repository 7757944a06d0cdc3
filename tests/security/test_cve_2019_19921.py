"""False /proc and /sys: CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, youki CVE-2025-54867.

An image whose /proc is a symlink would have the real procfs mounted elsewhere, and what the runtime then
writes to /proc/self/attr (labels) or /proc/sys (sysctls) would go to files of the image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.containers import Bundle, Canary, Runtime


@pytest.mark.parametrize("name", ["proc", "sys"])
@pytest.mark.parametrize("target", ["/fake", "fake", "/tmp/../fake", "HOST"])
def test_a_symlink_in_its_place_is_refused(
    bundle: Bundle, runtime: Runtime, canary: Canary, name: str, target: str
) -> None:
    (bundle.rootfs / name).rmdir()
    (bundle.rootfs / "fake").mkdir()
    (bundle.rootfs / name).symlink_to(canary.path if target == "HOST" else target)
    result = runtime.run(bundle, "echo started")
    assert result.returncode != 0
    assert "started" not in result.stdout
    assert f"/{name}" in result.stdout
    assert canary.untouched()


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_a_file_in_its_place_is_refused(bundle: Bundle, runtime: Runtime, name: str) -> None:
    (bundle.rootfs / name).rmdir()
    (bundle.rootfs / name).write_text("")
    result = runtime.run(bundle, "echo started")
    assert result.returncode != 0
    assert "started" not in result.stdout


def test_a_link_on_the_way_to_it_is_refused(bundle: Bundle, runtime: Runtime) -> None:
    (bundle.rootfs / "fake").mkdir()
    (bundle.rootfs / "way").symlink_to("fake")
    bundle.mount("/way/proc", "proc", "nosuid", kind="proc")
    result = runtime.run(bundle, "echo started")
    assert result.returncode != 0
    assert "started" not in result.stdout


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_one_that_is_missing_is_made(bundle: Bundle, runtime: Runtime, name: str) -> None:
    (bundle.rootfs / name).rmdir()
    assert runtime.output(bundle, "test -d /proc/self && test -d /sys/kernel && echo both") == "both\n"
