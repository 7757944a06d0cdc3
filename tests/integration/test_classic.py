"""The tree made with mount(2): the same, to the last flag, as with the new mount API.

It runs under a seccomp filter that answers as an old kernel (ENOSYS), or as the filter of an outer container
(EPERM). Source: mount(2), mount_setattr(2), seccomp(2).
"""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import refuse
from tests.support.containers import wait_for
from tests.support.engine import FOREIGN
from tests.support.mounts import on_the_root_mount, parse_rows, read_rows
from tests.support.refused import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.containers import Bundle
    from tests.support.engine import Engine

pytestmark = pytest.mark.skipif(FOREIGN, reason="a fallback of our own")


@pytest.fixture
def refused(engine: Engine) -> Callable[..., Engine]:
    """Return a function that makes callers whose system calls fail."""
    return lambda answer="ENOSYS", *calls: Refused(engine, answer, *calls)


@pytest.fixture
def source(place: Path) -> Iterator[Path]:
    """A directory with a file and a mount; in that mount there is another one."""
    made = place / "source"
    (made / "sub").mkdir(parents=True)
    (made / "file").write_text("content\n")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nosuid,noatime", "one", made / "sub"], check=True)
    (made / "sub" / "deep").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nodev", "two", made / "sub/deep"], check=True)
    yield made
    subprocess.run(["umount", "-R", made / "sub"], check=True)


Row = tuple[str, str, str, str, str, str]


def tree(table: str, place: Path) -> list[Row]:
    """Return a mount table, without what differs between two containers of the same kind.

    For each mount: where, what part of it, how, with whom, which file system and with which options. A peer
    group of the test's own mounts keeps its number, one of the container's is only "shared".
    """
    host = {
        group
        for row in read_rows()
        for kind, group in row.tags.items()
        if row.place.startswith(str(place)) and kind in ("shared", "master")
    }
    rows = []
    for row in parse_rows(table):
        peers = [
            f"{kind}:{group}" if group in host else kind
            for kind, group in row.tags.items()
            if kind != "propagate_from"
        ]
        rows.append((row.place, row.root, row.options, " ".join(peers), row.kind, row.superblock))
    return sorted(rows, key=lambda row: row[0])


def mounted(engine: Engine, bundle: Bundle) -> list[Row]:
    result = engine.front(bundle, "cat /proc/self/mountinfo")
    assert result.code == 0, result
    return tree(result.out, bundle.path.parent)


def plain(_bundle: Bundle, _source: Path, _shared: Path) -> None:
    """Change nothing: the container has /dev, masked and read-only paths as engines ask for them."""


def binds(bundle: Bundle, source: Path, _shared: Path) -> None:
    bundle.mount("/a", source, "bind", "ro")
    bundle.mount("/b", source, "rbind", "ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime")
    bundle.mount("/c", source / "file", "bind", "ro", "nosymfollow", "strictatime")
    bundle.mount("/d", source / "sub", "rbind", "ro", "relatime")
    bundle.mount("/e", source / "sub", "bind")
    bundle.mount("/d/deep/f", "/dev/null", "bind", "noexec")
    bundle.mount("/g", bundle.rootfs / "etc", "bind", "ro")


def deep(bundle: Bundle, source: Path, _shared: Path) -> None:
    bundle.mount("/a", source, "rbind", "rro")
    bundle.mount("/b", source, "rbind", "rnosuid", "rnodev", "rnoexec", "rstrictatime", "rnosymfollow")
    bundle.mount("/c", source, "rbind", "rro", "rw", "rrelatime")
    bundle.mount("/d", source / "sub", "rbind", "rsuid", "rdev", "rnodiratime")


def binds_of_a_user(bundle: Bundle, source: Path, shared: Path) -> None:
    bundle.mount("/a", source, "rbind", "ro", "nosuid", "nodev", "noexec")
    bundle.mount("/b", source / "file", "bind", "ro")
    bundle.mount("/c", source, "rbind", "rro", "rnosymfollow")
    bundle.mount("/d", shared, "bind", "rslave")
    bundle.mount("/f", source, "rbind", "rprivate")
    bundle.mount("/d/f", "/dev/null", "bind", "noexec")


def propagation(bundle: Bundle, source: Path, shared: Path) -> None:
    for kind in ("shared", "slave", "private", "unbindable"):
        bundle.mount(f"/on-{kind}", shared, "bind", kind)
        bundle.mount(f"/off-{kind}", source, "bind", kind)
        bundle.mount(f"/on-r{kind}", shared, "rbind", f"r{kind}")
        bundle.mount(f"/off-r{kind}", source, "rbind", f"r{kind}")
    bundle.mount("/plain", shared, "bind")
    bundle.mount("/both", shared, "bind", "slave", "shared")


def private_root(bundle: Bundle, source: Path, shared: Path) -> None:
    bundle.linux["rootfsPropagation"] = "private"
    bundle.mount("/a", shared, "rbind", "rslave")
    bundle.mount("/b", shared, "rbind")
    bundle.mount("/c", source, "rbind", "rshared", "ro")


def shared_root(bundle: Bundle, _source: Path, shared: Path) -> None:
    bundle.linux["rootfsPropagation"] = "rshared"
    bundle.mount("/a", shared, "rbind", "rslave")
    bundle.mount("/b", shared, "rbind", "rprivate")


def shared_part(bundle: Bundle, _source: Path, shared: Path) -> None:
    (shared / "part").mkdir()
    bundle.mount("/a", shared, "bind", "shared", "subpath=part")


def new(bundle: Bundle, _source: Path, _shared: Path) -> None:
    for name in ("filled", "s", "t"):
        (bundle.rootfs / name).mkdir()
    (bundle.rootfs / "filled/file").write_text("copied up\n")
    bundle.mount("/t", "tmpfs", "size=1m", "nr_inodes=50", "mode=711", "ro", "noatime", kind="tmpfs")
    bundle.mount("/filled", "tmpfs", "tmpcopyup", "nosuid", "nodev", kind="tmpfs")
    bundle.mount("/s", "tmpfs", "sync", "dirsync", "lazytime", "noexec", "shared", kind="tmpfs")
    bundle.mount("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev", kind="mqueue")


def remounts(bundle: Bundle, source: Path, _shared: Path) -> None:
    (bundle.rootfs / "t").mkdir()
    bundle.mount("/t", "tmpfs", "size=1m", "nosuid", kind="tmpfs")
    bundle.mount("/t", "", "remount", "size=2m", "sync", "nosuid", "nodev", kind="tmpfs")
    bundle.mount("/a", source, "rbind")
    bundle.mount("/a", "", "bind", "remount", "ro", "noexec")


def readonly(bundle: Bundle, source: Path, _shared: Path) -> None:
    bundle.config["root"]["readonly"] = True
    bundle.config["mounts"][1]["options"].append("ro")
    bundle.linux["readonlyPaths"] += ["/proc/sys", "/tree"]
    bundle.linux["maskedPaths"] += ["/tree/sub", "/tree/file", "/etc/passwd", "/sys/kernel"]
    bundle.mount("/tree", source, "rbind")


def cgroups(bundle: Bundle, _source: Path, _shared: Path) -> None:
    bundle.linux["cgroupsPath"] = f"/pyrunc-classic-{os.getpid()}"
    bundle.mount("/sys/fs/cgroup", "cgroup", "ro", "nosuid", "noexec", "nodev", "relatime", kind="cgroup")


def own_cgroups(bundle: Bundle, source: Path, shared: Path) -> None:
    bundle.linux["namespaces"].append({"type": "cgroup"})
    cgroups(bundle, source, shared)


def device(bundle: Bundle, _source: Path, _shared: Path) -> None:
    bundle.config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"})
    bundle.linux["devices"] = [
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666, "uid": 0, "gid": 0}
    ]


CHANGES = [
    plain,
    binds,
    deep,
    propagation,
    private_root,
    shared_root,
    shared_part,
    new,
    remounts,
    readonly,
    cgroups,
    own_cgroups,
    device,
]
IN_USER_NAMESPACE = [plain, binds_of_a_user, private_root, new, readonly, own_cgroups]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("answer", ["ENOSYS", "EPERM"])
def test_the_tree_is_the_same(  # noqa: PLR0917 - fixtures
    answer: str,
    change: Callable[[Bundle, Path, Path], None],
    engine: Engine,
    refused: Callable[..., Engine],
    bundle: Bundle,
    source: Path,
    shared: Path,
) -> None:
    change(bundle, source, shared)
    before = mounted(engine, bundle)
    assert mounted(refused(answer), bundle) == before


@pytest.mark.parametrize("change", IN_USER_NAMESPACE, ids=lambda change: change.__name__)
def test_the_tree_is_the_same_in_a_user_namespace(  # noqa: PLR0917 - fixtures
    change: Callable[[Bundle, Path, Path], None],
    engine: Engine,
    refused: Callable[..., Engine],
    bundle: Bundle,
    source: Path,
    shared: Path,
) -> None:
    bundle.user_namespace()
    change(bundle, source, shared)
    before = mounted(engine, bundle)
    assert mounted(refused("EPERM"), bundle) == before


def test_what_a_user_namespace_does_not_share_is_said(
    refused: Callable[..., Engine], bundle: Bundle, shared: Path
) -> None:
    bundle.user_namespace()
    bundle.mount("/e", shared, "rbind", "rshared")
    result = refused().front(bundle, "cat /proc/self/mountinfo")
    assert "warning: /mounts/5: mounts made inside do not reach the host" in result.err
    assert result.err.count("\n") == 1
    (row,) = [row for row in tree(result.out, bundle.path.parent) if row[0] == "/e"]
    assert row[3].startswith("shared master:")


def test_below_a_bind_in_a_user_namespace_nothing_can_be_left_out(
    refused: Callable[..., Engine], bundle: Bundle, source: Path
) -> None:
    bundle.user_namespace()
    bundle.mount("/a", source, "bind")
    refused().front(bundle, "true").fails("/mounts/5", "invalid argument", "use rbind")


def test_a_source_out_of_the_users_reach(refused: Callable[..., Engine], bundle: Bundle, place: Path) -> None:
    """The parent opens it, in the mount namespace of the container."""
    closed = place / "closed"
    (closed / "open").mkdir(parents=True)
    (closed / "open/file").write_text("reached\n")
    closed.chmod(0o700)
    bundle.user_namespace()
    bundle.mount("/a", closed / "open", "rbind", "ro")
    assert refused().front(bundle, "cat /a/file").ok().out == "reached\n"


def test_a_root_file_system_out_of_the_users_reach(
    refused: Callable[..., Engine], bundle: Bundle, place: Path
) -> None:
    bundle.user_namespace()
    engine = refused()
    reached = mounted(engine, bundle)
    place.chmod(0o700)
    assert mounted(engine, bundle) == reached, "nothing of the host's tree is left over or under it"


def test_events_flow_both_ways(refused: Callable[..., Engine], bundle: Bundle, shared: Path) -> None:
    (shared / "out").mkdir()
    (shared / "in").mkdir()
    bundle.mount("/a", shared, "rbind", "rshared")
    bundle.mount("/b", shared, "rbind", "rslave")
    bundle.capabilities("CAP_SYS_ADMIN")
    engine = refused()
    name = engine.start(bundle, "mount -t tmpfs inside /a/in && touch /a/in/mark; sleep 1000")
    subprocess.run(["mount", "-t", "tmpfs", "outside", shared / "out"], check=True)
    (shared / "out/mark").touch()
    assert wait_for((shared / "in/mark").exists)
    seen = engine.call("exec", name, "ls", "/a/out", "/b/out", "/b/in").ok()
    assert seen.out.count("mark") == 3
    engine.delete(name)


@pytest.fixture
def beside_the_root() -> Iterator[Path]:
    with on_the_root_mount() as made:
        yield made


def test_below_a_shared_root(refused: Callable[..., Engine], bundle: Bundle, beside_the_root: Path) -> None:
    """A bind from the very mount that the staging place would be on: the state directory's takes its place.

    In a mount namespace of its own, where everything is shared, as on a host with systemd.
    """
    place = beside_the_root
    (place / "volume").mkdir()
    state = place / "state"
    state.mkdir()
    bundle.mount("/a", place / "volume", "rbind", "rshared")
    bundle.capabilities("CAP_SYS_ADMIN")
    engine = refused()
    inside = "mount -t tmpfs inside /a && touch /a/mark"
    bundle.process["args"] = ["/bin/sh", "-c", inside]
    bundle.write()

    def script(before: str) -> subprocess.CompletedProcess[str]:
        # Shared, and no peer of the host's mounts: what happens here stays here.
        call = shlex.join(engine.argv("--root", str(state), "run", "--bundle", str(bundle.path), "c"))
        text = (
            f"mount --make-rprivate / && mount --make-rshared / && {before} {call} && ls {place}/volume"
            f" && umount {place}/volume && grep -c {place} /proc/self/mountinfo"
        )
        return subprocess.run(
            ["unshare", "--mount", "sh", "-c", text], check=False, capture_output=True, text=True, timeout=60
        )

    own = script(f"mount -t tmpfs state {state} &&")
    assert own.returncode == 0, own
    assert own.stdout.split() == ["mark", "1"], "the volume's mount arrived, and nothing else is left"
    same = script("")
    assert "state directory (--root) on another file system" in same.stderr


def test_a_covered_mount_is_not_skipped(refused: Callable[..., Engine], bundle: Bundle, source: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "cover", source / "sub"], check=True)
    try:
        bundle.mount("/a", source, "rbind", "rro")
        refused().front(bundle, "true").fails("another mount covers the one at /sub", "mount_setattr(2)")
    finally:
        subprocess.run(["umount", source / "sub"], check=True)


def test_a_source_that_is_not_what_it_was(
    refused: Callable[..., Engine], bundle: Bundle, place: Path
) -> None:
    """A link of the host leads to a place that an early mount of the container has covered."""
    (bundle.rootfs / "over").mkdir()
    (place / "link").symlink_to(bundle.rootfs / "over")
    bundle.mount("/over", "tmpfs", "size=1m", kind="tmpfs")
    bundle.mount("/a", place / "link", "bind")
    refused().front(bundle, "true").fails("/mounts/6", "stale")


def test_missing_sources_are_told_before_anything_happens(
    refused: Callable[..., Engine], bundle: Bundle
) -> None:
    bundle.mount("/a", "/nowhere", "bind")
    refused().front(bundle, "true").fails("/mounts/5", "bind source /nowhere does not exist")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda b: b.mount("/a", "/tmp", "rbind", "idmap=uids=0-1-1;gids=0-1-1"), "takes mount_setattr(2)"),
        (lambda b: b.mount("/a", "t", "mpol=bind:0,1", kind="tmpfs"), "/mounts/5/options/0"),
        (lambda b: b.mount("/a", "o", "x" * 5000, kind="tmpfs"), "no more than 4095 bytes"),
    ],
)
def test_what_cannot_be_had_is_refused_by_name(
    change: Callable[[Bundle], None], said: str, refused: Callable[..., Engine], bundle: Bundle
) -> None:
    change(bundle)
    refused().front(bundle, "true").fails("open_tree(2)", said)


@pytest.mark.parametrize("call", ["openat2", "close_range"])
def test_what_there_is_no_other_way_for(call: str, refused: Callable[..., Engine], bundle: Bundle) -> None:
    refused("EPERM", *refuse.NEW_MOUNT_API, call).front(bundle, "true").fails(f"{call}(2)", "seccomp filter")


def test_an_older_kernel_that_only_lacks_mount_setattr(
    refused: Callable[..., Engine], bundle: Bundle, source: Path
) -> None:
    bundle.mount("/a", source, "rbind", "rro")
    engine = refused("ENOSYS", "mount_setattr")
    assert engine.front(bundle, "touch /a/sub/x 2>&1 || echo no").ok().out.endswith("no\n")
    plan = engine.call("plan", "--bundle", str(bundle.path)).ok().out
    assert "make the mounts with mount(2), without mount_setattr(2)" in plan


def test_the_log_says_it(refused: Callable[..., Engine], bundle: Bundle) -> None:
    bundle.process["args"] = ["/bin/true"]
    bundle.write()
    engine = refused()
    said = engine.call("--debug", "run", "--bundle", str(bundle.path), engine.new_id()).err
    assert "mounts are made with mount(2)" in said


@pytest.mark.parametrize(("part", "kind"), [("", "bind"), ("sub", "rbind")])
def test_unbindable_mounts_stay_so(  # noqa: PLR0917 - fixtures
    part: str, kind: str, refused: Callable[..., Engine], bundle: Bundle, source: Path, shared: Path
) -> None:
    place = source / part if part else shared
    subprocess.run(["mount", "--make-unbindable", place], check=True)
    bundle.mount("/a", source if part else shared, kind)
    refused().front(bundle, "true").fails("/mounts/5", f"{place} is an unbindable mount", "invalid argument")


@pytest.mark.parametrize("answer", ["ENOSYS", "EPERM"])
@pytest.mark.parametrize("user", [False, True])
def test_without_clone3(answer: str, user: bool, engine: Engine, bundle: Bundle) -> None:
    """Filters of container engines refuse clone3(2), because they cannot check its arguments."""
    if user:
        bundle.user_namespace()
    calls = Refused(engine, answer, "clone3")
    name = calls.start(bundle)
    pid = calls.state(name)["pid"]
    other = engine.start(bundle)

    def places(pid: int, name: str) -> str:
        return Path(f"/proc/{pid}/cgroup").read_text().replace(name, "")

    assert places(pid, name) == places(engine.state(other)["pid"], other)
    assert calls.call("exec", name, "cat", "/proc/self/cgroup").ok().out == calls.call(
        "exec", other, "cat", "/proc/self/cgroup"
    ).ok().out.replace(other, name)


def test_without_pidfd_open(engine: Engine, bundle: Bundle) -> None:
    name = engine.start(bundle)
    calls = Refused(engine, "ENOSYS", "pidfd_open")
    for words in (("kill", name, "KILL"), ("delete", "--force", name), ("exec", name, "true")):
        result = calls.call(*words)
        assert result.code != 0
        assert "system call" in result.err or "function not implemented" in result.err
    assert engine.status(name) == "running"


@pytest.mark.parametrize("answer", ["ENOSYS", "EPERM"])
def test_an_image_is_copied_into_a_volume(answer: str, engine: Engine, bundle: Bundle) -> None:
    (bundle.rootfs / "data").mkdir()
    (bundle.rootfs / "data/file").write_text("of the image\n")
    out = Refused(engine, answer).front(bundle, "cat /data/file && touch /data/new", "-v", "/data").ok().out
    assert out == "of the image\n"
    assert os.listdir(bundle.rootfs / "data") == ["file"]
