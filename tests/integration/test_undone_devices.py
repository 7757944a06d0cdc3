"""Devices in a root file system: removed if the creation fails, left by a container that was created."""

from __future__ import annotations

import os
import shutil
import signal
from typing import TYPE_CHECKING

import pytest

from tests.integration.test_mountpoints import entries, spoil_hook, spoil_mount, spoil_program
from tests.support.containers import Bundle
from tests.support.engine import FOREIGN

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.engine import Engine

pytestmark = pytest.mark.skipif(FOREIGN, reason="what we promise; others leave them")


def without_dev(bundle: Bundle) -> None:
    """Let the files that belong in /dev be made in the root file system."""
    bundle.without_mount("/dev")
    shutil.rmtree(bundle.rootfs / "dev")
    (bundle.rootfs / "dev-of-the-image").mkdir()
    os.mknod(bundle.rootfs / "dev-of-the-image/zero", 0o20666, os.makedev(1, 5))
    (bundle.rootfs / "dev-of-the-image/fd").symlink_to("/proc/self/fd")
    bundle.linux["devices"] = [
        {"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200},
        {"path": "/etc/pipe", "type": "p"},
        {"path": "/data/null", "type": "c", "major": 1, "minor": 3},
    ]


@pytest.mark.parametrize("spoil", [spoil_mount, spoil_program, spoil_hook])
@pytest.mark.parametrize("own", [False, True])
def test_devices_of_a_creation_that_fails(
    engine: Engine, bundle: Bundle, source: Path, spoil: Callable[[Bundle], None], *, own: bool
) -> None:
    """Devices that were made are removed, also in a volume; devices of the image stay."""
    without_dev(bundle)
    if own:
        (bundle.rootfs / "dev-of-the-image").rename(bundle.rootfs / "dev")
    bundle.mount("/data", source, "bind")
    (source / "link").symlink_to("file")
    bundle.mount("/link", source / "link", "bind", "copy-symlink")
    spoil(bundle)
    bundle.write()
    before = entries(bundle.rootfs), entries(source)
    failed = engine.call("create", "--bundle", str(bundle.path), engine.new_id())
    assert failed.code == 1, failed
    assert (entries(bundle.rootfs), entries(source)) == before


@pytest.mark.parametrize("elsewhere", [False, True])
def test_devices_that_another_container_may_use_stay(
    engine: Engine, bundle: Bundle, place: Path, *, elsewhere: bool
) -> None:
    """Another container with the same root file system, by whatever path, has found them there."""
    without_dev(bundle)
    bundle.linux["devices"] = []
    name = engine.start(bundle)
    made = sorted(os.listdir(bundle.rootfs / "dev"))
    assert {"null", "fd", "ptmx"} <= set(made)
    engine.call("delete", "--force", name).ok()
    assert sorted(os.listdir(bundle.rootfs / "dev")) == made, "a container that was created leaves them"
    shutil.rmtree(bundle.rootfs / "dev")
    other = Bundle(place / "other")
    other.config["root"]["path"] = str(bundle.rootfs)
    if elsewhere:
        (place / "way").symlink_to(bundle.path)
        other.config["root"]["path"] = str(place / "way/rootfs")
    holder = engine.start(other)
    other.config["process"]["args"] = ["/nosuch"]
    bundle.process["args"] = ["/nosuch"]
    bundle.write()
    assert engine.call("create", "--bundle", str(bundle.path), engine.new_id()).code == 1
    assert sorted(os.listdir(bundle.rootfs / "dev")) == made
    engine.call("delete", "--force", holder).ok()


def test_devices_of_a_creation_that_is_killed(engine: Engine, bundle: Bundle, source: Path) -> None:
    """A hook stops the creation after all devices are made; `delete --force` removes them."""
    without_dev(bundle)
    bundle.mount("/data", source, "bind")
    gate = bundle.path / "gate"
    os.mkfifo(gate)
    bundle.config["hooks"] = {"createRuntime": [{"path": "/bin/cat", "args": ["cat", str(gate)]}]}
    bundle.write()
    before = entries(bundle.rootfs), entries(source)
    name = engine.new_id()
    call = engine.begin("create", "--bundle", str(bundle.path), name, stderr=-3)
    held = gate.open("wb", buffering=0)  # returns when the hook has opened it, too
    try:
        assert os.path.lexists(bundle.rootfs / "dev/ptmx")
        assert (source / "null").exists()
    finally:
        call.send_signal(signal.SIGKILL)
        call.wait(60)
        held.close()
    engine.delete(name)
    assert (entries(bundle.rootfs), entries(source)) == before
