"""Mount propagation: whether a later mount on one side appears on the other.

The host's side is a tmpfs of its own for each test, made shared: nothing reaches the rest of the host.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from pyrunc.linux import _linux, flags
from tests.support.forked import in_child
from tests.support.mounts import HostMounts, Row, table

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.containers import Bundle
    from tests.support.engine import Engine

SHARED, PRIVATE, SLAVE = flags.MS_SHARED, flags.MS_PRIVATE, flags.MS_SLAVE


@pytest.fixture
def source(place: Path, host: HostMounts) -> Path:
    """A shared file system of the host with another shared one below it, and places to mount on."""
    top = host.tmpfs(place / "source", propagation=SHARED)
    host.tmpfs(top / "below", propagation=SHARED)
    for name in ("outer", "inner", "below/outer", "below/inner"):
        (top / name).mkdir()
    return top


@pytest.fixture
def mounter(bundle: Bundle) -> Bundle:
    """A bundle whose process may mount."""
    bundle.capabilities("CAP_SYS_ADMIN")
    return bundle


class Flow:
    """Mounts on the host and inside, and who sees them."""

    def __init__(self, engine: Engine, bundle: Bundle, source: Path) -> None:
        """Start the container."""
        self.engine = engine
        self.source = source
        self.name = engine.start(bundle)
        self.pid: int = engine.state(self.name)["pid"]

    def inside(self) -> dict[str, Row]:
        """Return the container's mounts."""
        return table(self.pid)

    def inwards(self, where: str, target: str = "/data") -> bool:
        """Tell whether the container sees what the host mounts and unmounts."""
        place = self.source / where / "outer"
        seen = f"{target}/{where}/outer".replace("//", "/").replace("/./", "/")
        _linux.mount("tmpfs", str(place), "tmpfs", 0, None)
        try:
            found = seen in self.inside()
        finally:
            _linux.umount2(str(place), flags.MNT_DETACH)
        assert seen not in self.inside()
        return found

    def outwards(self, where: str, target: str = "/data") -> bool:
        """Tell whether the host sees what the container mounts and unmounts."""
        inside = f"{target}/{where}/inner"
        seen = os.path.normpath(self.source / where / "inner")
        self.engine.call("exec", self.name, "/bin/mount", "-t", "tmpfs", "none", inside).ok()
        assert os.path.normpath(inside) in self.inside()
        found = seen in table()
        self.engine.call("exec", self.name, "/bin/umount", inside).ok()
        assert seen not in table()
        return found


# What the words make of the top and of what is below: does it go in, does it come out?
FLOWS = {
    "shared": ((True, True), (True, False)),
    "rshared": ((True, True), (True, True)),
    "slave": ((True, False), (True, False)),
    "rslave": ((True, False), (True, False)),
    "private": ((False, False), (True, False)),
    "rprivate": ((False, False), (False, False)),
    "unbindable": ((False, False), (True, False)),
    "runbindable": ((False, False), (False, False)),
    "slave,shared": ((True, False), (True, False)),
}


@pytest.mark.parametrize("words", FLOWS)
def test_events_of_a_bind(engine: Engine, mounter: Bundle, source: Path, words: str) -> None:
    mounter.mount("/data", source, "rbind", *words.split(","))
    flow = Flow(engine, mounter, source)
    top, below = FLOWS[words]
    assert (flow.inwards("."), flow.outwards(".")) == top
    assert (flow.inwards("below"), flow.outwards("below")) == below


def test_without_a_word_mounts_flow_in_only(engine: Engine, mounter: Bundle, source: Path) -> None:
    mounter.mount("/data", source, "rbind")
    flow = Flow(engine, mounter, source)
    assert (flow.inwards("."), flow.outwards(".")) == (True, False)
    assert (flow.inwards("below"), flow.outwards("below")) == (True, False)


@pytest.mark.parametrize("first", [0, 1])
def test_one_shared_bind_among_private_ones(
    engine: Engine, mounter: Bundle, source: Path, place: Path, host: HostMounts, *, first: int
) -> None:
    """It stays shared, and the mounts beside it do not become shared."""
    other = host.tmpfs(place / "other", propagation=SHARED)
    for name in ("outer", "inner"):
        (other / name).mkdir()
    mounts = [("/data", source, "rshared"), ("/other", other, "rprivate")]
    for target, path, word in mounts[first:] + mounts[:first]:
        mounter.mount(target, path, "rbind", word)
    flow = Flow(engine, mounter, source)
    assert (flow.inwards("."), flow.outwards(".")) == (True, True)
    flow.source = other
    assert (flow.inwards(".", "/other"), flow.outwards(".", "/other")) == (False, False)


def test_a_private_mount_inside_a_shared_one(
    engine: Engine, mounter: Bundle, source: Path, host: HostMounts
) -> None:
    """It is attached to a shared mount, so the kernel makes it shared; it is set back to what was asked."""
    (source / "point").mkdir()
    mounter.mount("/data", source, "rbind", "rshared")
    mounter.mount("/data/point", "tmpfs", "rprivate", kind="tmpfs")
    flow = Flow(engine, mounter, source)
    assert flow.inside()["/data/point"].propagation == "private"
    assert flow.inside()["/data"].propagation == "shared"
    # Being attached to a shared mount it went to the host as well, as anything mounted there does, and stays.
    assert table()[f"{source}/point"].kind == "tmpfs"
    _linux.umount2(str(source / "point"), flags.MNT_DETACH)


# -- the two cases of a CRI's node tests


def test_bidirectional(engine: Engine, mounter: Bundle, source: Path) -> None:
    """With rshared, each side sees the mounts of the other."""
    mounter.linux["rootfsPropagation"] = "rshared"
    mounter.mount("/data", source, "rbind", "rshared")
    flow = Flow(engine, mounter, source)
    assert (flow.inwards("."), flow.outwards(".")) == (True, True)
    assert (flow.inwards("below"), flow.outwards("below")) == (True, True)


def test_host_to_container(engine: Engine, mounter: Bundle, source: Path) -> None:
    """With rslave, the container sees the host's mounts, and the host does not see the container's."""
    mounter.linux["rootfsPropagation"] = "rslave"
    mounter.mount("/data", source, "rbind", "rslave")
    flow = Flow(engine, mounter, source)
    assert (flow.inwards("."), flow.outwards(".")) == (True, False)
    assert (flow.inwards("below"), flow.outwards("below")) == (True, False)


# -- the root file system

# The word -> what the root mount is, what a tmpfs in it is, what a bind of a shared file system in it is
ROOTS = {
    "": ("private", "private", "master"),
    "shared": ("shared", "private", "master"),
    "slave": ("private", "private", "master"),
    "private": ("private", "private", "private"),
    "unbindable": ("unbindable", "private", "private"),
    "rshared": ("shared", "shared", "shared+master"),
    "rslave": ("private", "private", "master"),
    "rprivate": ("private", "private", "private"),
    "runbindable": ("unbindable", "unbindable", "unbindable"),
}


@pytest.mark.parametrize("word", ROOTS)
def test_rootfs_propagation(engine: Engine, bundle: Bundle, source: Path, word: str) -> None:
    bundle.linux["rootfsPropagation"] = word
    bundle.mount("/data", source, "rbind")
    flow = Flow(engine, bundle, source)
    found = flow.inside()
    assert [found[at].propagation for at in ("/", "/dev", "/data")] == list(ROOTS[word])


@pytest.mark.parametrize("word", [word for word in ROOTS if word])
def test_rootfs_propagation_of_a_root_that_is_shared(
    engine: Engine, bundle: Bundle, place: Path, host: HostMounts, word: str
) -> None:
    """With engines the bundle is on a shared mount. No mount of the container may reach the host."""
    top = host.tmpfs(place / "engine", data="mode=755,size=64m", propagation=SHARED)
    bundle.linux["rootfsPropagation"] = word
    moved = top / "bundle"
    shutil.copytree(bundle.path, moved, symlinks=True)
    bundle.path = moved
    bundle.rootfs = moved / "rootfs"
    flow = Flow(engine, bundle, top)
    root = flow.inside()["/"]
    wanted = {"slave": "master"}.get(word.removeprefix("r"), ROOTS[word][0])
    assert root.propagation == wanted
    assert [at for at in table() if at.startswith(str(place))] == [str(top)]


@pytest.mark.parametrize("word", ["rprivate", "runbindable", "rslave", "rshared"])
def test_words_of_a_mount_beat_the_roots(engine: Engine, mounter: Bundle, source: Path, word: str) -> None:
    mounter.linux["rootfsPropagation"] = word
    mounter.mount("/data", source, "rbind", "rshared")
    mounter.mount("/slave", source, "rbind", "rslave")
    mounter.mount("/private", source, "rbind", "rprivate")
    mounter.mount("/loose", source, "rbind", "runbindable")
    flow = Flow(engine, mounter, source)
    found = flow.inside()
    for suffix in ("", "/below"):
        assert found["/slave" + suffix].propagation == "master"
        assert found["/private" + suffix].propagation == "private"
        assert found["/loose" + suffix].propagation == "unbindable"
    assert (flow.inwards("."), flow.outwards(".")) == (True, True)
    assert (flow.inwards("below"), flow.outwards("below")) == (True, True)


def test_more_mounts_with_words_of_their_own_than_are_sent_at_once(
    engine: Engine, bundle: Bundle, source: Path
) -> None:
    """Mounts of every batch keep their own propagation.

    rootfsPropagation changes all of them first.
    """
    bundle.linux["rootfsPropagation"] = "rshared"
    count = 32 + 64 + 2  # opened beforehand, one batch, and the beginning of the next one
    for number in range(count):
        bundle.mount(f"/many/{number}", source, "bind", "rslave" if number % 2 else "private")
    found = table(engine.state(engine.start(bundle))["pid"])
    wanted = {f"/many/{number}": "master" if number % 2 else "private" for number in range(count)}
    assert {place: found[place].propagation for place in wanted} == wanted


def test_a_line_of_the_mount_table_may_be_long(
    engine: Engine, bundle: Bundle, source: Path, place: Path
) -> None:
    """The line of an overlay names all its layers. The table is searched for mounts below another mount."""
    layers = [place / ("l" * 200) / str(number) for number in range(200)]
    for layer in layers:
        layer.mkdir(parents=True)
    bundle.mount("/many", "overlay", "lowerdir=" + ":".join(map(str, layers)), kind="overlay")
    bundle.mount("/data", source, "rbind", "shared")
    found = table(engine.state(engine.start(bundle))["pid"])
    assert [found[at].propagation for at in ("/data", "/data/below")] == ["shared", "master"]


def test_a_shared_root_shares_inside(engine: Engine, bundle: Bundle, place: Path) -> None:
    """A mount in a copy of the container's mount namespace appears in the container, not on the host."""
    bundle.linux["rootfsPropagation"] = "rshared"
    name = engine.start(bundle)
    pid = engine.state(name)["pid"]

    def mount() -> None:
        space = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
        _linux.setns(space, flags.CLONE_NEWNS)
        _linux.unshare(flags.CLONE_NEWNS)
        _linux.mount("tmpfs", "/root", "tmpfs", 0, None)

    assert in_child(mount) is None
    assert table(pid)["/root"].kind == "tmpfs"
    assert not [at for at in table() if at.startswith(str(place))]


# -- what cannot be


def test_an_unbindable_source_cannot_be_bound(
    engine: Engine, bundle: Bundle, place: Path, host: HostMounts
) -> None:
    closed = host.tmpfs(place / "closed", propagation=flags.MS_UNBINDABLE)
    bundle.mount("/data", closed, "rbind")
    engine.front(bundle, "exit 0").fails("/mounts/5", str(closed), "invalid argument")


def test_an_unbindable_mount_inside_is_left_out_of_a_bind(
    engine: Engine, bundle: Bundle, source: Path, place: Path, host: HostMounts
) -> None:
    (source / "closed").mkdir()
    host.tmpfs(source / "closed", propagation=flags.MS_UNBINDABLE)
    bundle.mount("/data", source, "rbind")
    found = Flow(engine, bundle, source).inside()
    assert "/data/below" in found
    assert "/data/closed" not in found


def test_a_slave_of_nothing_is_private(engine: Engine, bundle: Bundle, place: Path, host: HostMounts) -> None:
    """The source is private. It is no error to ask for a slave, and all engines do."""
    alone = host.tmpfs(place / "alone", propagation=PRIVATE)
    bundle.mount("/data", alone, "rbind", "rslave")
    assert Flow(engine, bundle, alone).inside()["/data"].propagation == "private"


def test_a_slave_source(engine: Engine, mounter: Bundle, source: Path, place: Path, host: HostMounts) -> None:
    """The source is a slave of a mount on the host, and so is a bind of it."""
    slave = host.bind(source, place / "slave", propagation=SLAVE)
    mounter.mount("/data", slave, "rbind", "rslave")
    flow = Flow(engine, mounter, source)
    assert flow.inside()["/data"].propagation == "master"
    assert (flow.inwards("."), flow.outwards(".")) == (True, False)


def test_an_unknown_word(engine: Engine, bundle: Bundle) -> None:
    bundle.linux["rootfsPropagation"] = "rslaev"
    engine.front(bundle, "exit 0").fails("/linux/rootfsPropagation", "rslaev")


@pytest.mark.parametrize("word", ["rshared", "rslave", "rprivate", "shared"])
def test_in_a_user_namespace(engine: Engine, mounter: Bundle, source: Path, word: str) -> None:
    """The host sees no mount of the container: the kernel sends no events out of a user namespace."""
    mounter.user_namespace()
    mounter.mount("/data", source, "rbind", word)
    for path in (source, source / "below"):
        path.chmod(0o777)
    flow = Flow(engine, mounter, source)
    inwards = word != "rprivate"
    assert flow.inwards(".") is inwards
    assert flow.outwards(".") is (word in ("rshared", "shared"))
