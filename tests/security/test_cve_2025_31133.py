"""The file that masks others is the attacker's: CVE-2025-31133, youki CVE-2025-62161.

Without a new /dev the image's /dev/null was bound over masked files. A symlink in its place made any file of
the host's kernel writable at a path that the container can reach.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.containers import Bundle, Canary, Runtime


@pytest.fixture
def own_dev(bundle: Bundle) -> Bundle:
    """A bundle whose /dev is the image's own."""
    bundle.without_mount("/dev")
    return bundle


@pytest.mark.parametrize("target", ["/proc/sys/kernel/core_pattern", "/proc/self/environ", "HOST"])
def test_a_symlink_for_a_null_device(own_dev: Bundle, runtime: Runtime, canary: Canary, target: str) -> None:
    null = own_dev.rootfs / "dev/null"
    null.symlink_to(canary.path / "secret" if target == "HOST" else target)
    own_dev.linux["readonlyPaths"] = []
    shown = runtime.run(own_dev, "cat /proc/keys; head -c 64 /proc/timer_list; stat -c %t:%T /proc/keys")
    if shown.returncode == 0:
        assert shown.stdout == "1:3\n"
    assert canary.untouched()
    assert null.is_symlink() or null.is_char_device()


def test_another_device_for_a_null_device(own_dev: Bundle, runtime: Runtime) -> None:
    """The image has the device full (1:7) in place of the null device (1:3)."""
    import os

    os.mknod(own_dev.rootfs / "dev/null", 0o20666, os.makedev(1, 7))
    shown = runtime.run(own_dev, "stat -c %t:%T /proc/keys")
    if shown.returncode == 0:
        assert shown.stdout == "1:3\n"


def test_an_ordinary_file_for_a_null_device(own_dev: Bundle, runtime: Runtime) -> None:
    (own_dev.rootfs / "dev/null").write_text("content\n")
    shown = runtime.run(own_dev, "cat /proc/keys; stat -c %t:%T /proc/keys")
    if shown.returncode == 0:
        assert shown.stdout == "1:3\n"


def test_a_mask_is_the_null_device_and_an_empty_directory(bundle: Bundle, runtime: Runtime) -> None:
    (bundle.rootfs / "hidden").mkdir()
    (bundle.rootfs / "hidden/file").write_text("x")
    bundle.linux["maskedPaths"].append("/hidden")
    shown = runtime.output(
        bundle,
        "stat -c %t:%T /proc/keys; ls -A /hidden | wc -l; touch /hidden/x 2>/dev/null || echo read-only",
    )
    assert shown == "1:3\n0\nread-only\n"


def test_a_masked_directory_cannot_be_unmounted_without_rights(bundle: Bundle, runtime: Runtime) -> None:
    shown = runtime.run(bundle, "umount /proc/keys 2>&1; stat -c %t:%T /proc/keys")
    assert shown.stdout.endswith("1:3\n")
