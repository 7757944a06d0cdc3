"""Mount points with odd names: a path in a mount table may contain anything but a newline, a tab and a space.

Any user of the host may be able to mount something (FUSE). If such a name made the table unreadable, no
container could start.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyrunc.linux import flags
from tests.integration.test_verify_mounts import OlderEngine
from tests.support.mounts import HostMounts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.containers import Bundle
    from tests.support.engine import Engine

# What str.splitlines(), bytes.splitlines(), str.split() and a text file take for an end; escapes; no UTF-8
ODD = "a\x0bb\x0cc\rd\x1ce\x1df\x1eg\x85h\u2028i\u2029j k\tl\nm\\n\\040o#p" + os.fsdecode(b"\xff\xfe")


@pytest.fixture
def odd(place: Path) -> Iterator[Path]:
    """A shared mount of the host with such a name, and another one below it."""
    made = HostMounts()
    top = made.tmpfs(place / ODD, propagation=flags.MS_SHARED)
    made.tmpfs(top / ODD, propagation=flags.MS_SHARED)
    yield top
    made.close()


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("word", ["rslave", "shared", "private"])
def test_containers_start_all_the_same(
    engine: Engine, bundle: Bundle, odd: Path, word: str, *, older: bool
) -> None:
    asker = engine
    if older:
        asker = OlderEngine(engine.directory)
        asker.ids = engine.ids
    bundle.mount("/sys/fs/cgroup", "cgroup", "ro", kind="cgroup")
    link = bundle.path / "way"
    link.symlink_to(odd)
    bundle.mount("/data", link, "rbind", word)
    bundle.mount("/made here/a\x0cb\\", "tmpfs", "rw", kind="tmpfs")
    name = asker.start(bundle)
    table = Path(f"/proc/{asker.state(name)['pid']}/mountinfo").read_bytes()
    assert table.count(b" /data") == 2
    assert b"/made\\040here/a\x0cb\\134 " in table
    asker.delete(name)
    assert not (bundle.rootfs / "made here").exists()


def test_without_pivot_root(engine: Engine, bundle: Bundle, odd: Path) -> None:
    assert engine.front(bundle, "echo started", "--no-pivot").ok().out == "started\n"


@pytest.mark.parametrize("way", ["link", "a name with spaces and \\ in it"])
def test_without_pivot_root_the_containers_own_proc_stays(
    engine: Engine, bundle: Bundle, place: Path, way: str
) -> None:
    """The host's are removed first; the container's are recognised by the kernel's path of its root."""
    if way == "link":
        (place / way).symlink_to(bundle.path)
    else:
        bundle.path.rename(place / way)
    bundle.path = place / way
    bundle.rootfs = bundle.path / "rootfs"
    out = engine.front(bundle, "ls -d /proc/self /sys/kernel", "--no-pivot").ok().out
    assert out == "/proc/self\n/sys/kernel\n"


def test_mount_points_beside_those_of_others(engine: Engine, bundle: Bundle, odd: Path) -> None:
    """Delete reads the tables of all other containers, one of which has such a mount."""
    link = bundle.path / "way"
    link.symlink_to(odd)
    bundle.mount("/odd", link, "rbind")
    first = engine.start(bundle)
    bundle.config["mounts"][-1]["destination"] = "/other"
    second = engine.start(bundle)
    engine.delete(second)
    assert sorted(set(os.listdir(bundle.rootfs)) & {"odd", "other"}) == ["odd"]
    engine.delete(first)
