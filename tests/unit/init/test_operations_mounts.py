"""Each operation of the mount tree alone, against the kernel: file systems, sources, the parent."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from pyrunc.apply.mounts import mount_points
from pyrunc.linux import _linux, flags
from pyrunc.plan import mount_options as mo
from pyrunc.plan import program_mounts as how
from pyrunc.plan.program import Program
from tests.support.init_machine import STEP, as_root, carry_out, good
from tests.support.init_tree import Tree, refused

pytestmark = as_root

GO = {b"I": b"O", b"U": b"O"}


def test_fsconfig_says_which_word_was_refused_and_why(root: Path) -> None:
    tree = Tree(root).add("FSOPEN", "tmpfs", "context")
    tree.add("FSCONFIG", "context", ["source=x", "size=1m", "nosuch=1", "mode=700"])
    found = refused(tree, "FSCONFIG", errno.EINVAL, 3)
    assert found.said.startswith(b"e ")
    assert b"nosuch" in found.said


@pytest.mark.parametrize("word", ["x" * 256 + "=1", "nosuch", "=1"])
def test_fsconfig_refuses(root: Path, word: str) -> None:
    tree = Tree(root).add("FSOPEN", "tmpfs", "context").add("FSCONFIG", "context", [word])
    refused(tree, "FSCONFIG", errno.EINVAL, 1)


def test_fsopen(root: Path) -> None:
    refused(Tree(root).add("FSOPEN", "nosuch", "context"), "FSOPEN", errno.ENODEV)
    tree = Tree(root).add("FSOPEN", "tmpfs", "context").add("FSOPEN", "nosuch", "context")
    tree.seen(lambda _pid: None)  # it is open already


@pytest.mark.parametrize(("there", "mode"), [(0o1750, "1750"), (None, "1777")])
def test_fsmode_takes_the_mode_of_what_is_covered(root: Path, there: int | None, mode: str) -> None:
    """The file system gets the mode of a directory that was there, but not of one that was made for it."""
    if there is not None:
        (root / "tmp").mkdir()
        (root / "tmp").chmod(there)
    tree = Tree(root).add("PLACE", "/tmp", 0, "place").add("FSOPEN", "tmpfs", "context")
    tree.add("FSMODE", "context", "place").add("FSCREATE", "context", 0).add("FSMOUNT", "context", 0, "mount")
    tree.attach("mount", "/tmp")
    found = tree.seen(lambda pid: os.stat(f"/proc/{pid}/root{root}/tmp").st_mode)
    assert f"{stat.S_IMODE(found):04o}" == mode


def test_fspick_changes_what_is_mounted(root: Path) -> None:
    tree = (
        Tree(root)
        .tmpfs("mount", "size=1m")
        .attach("mount", "/etc")
        .add("OPEN_BELOW", "none", "/etc", 0, "there")
    )
    tree.add("IS_MOUNTED", "there").add("FSPICK", "there", "context").add("FSCONFIG", "context", ["size=2m"])
    tree.add("FSCREATE", "context", 1)
    blocks = tree.seen(lambda pid: os.statvfs(f"/proc/{pid}/root{root}/etc"))
    assert blocks.f_blocks * blocks.f_frsize == 2 << 20


def test_is_mounted(root: Path) -> None:
    tree = Tree(root).add("OPEN_BELOW", "none", "/etc", 0, "there").add("IS_MOUNTED", "there")
    refused(tree, "IS_MOUNTED", errno.EINVAL, 1)


def layers(root: Path, tmp_path: Path, tree: Tree, *names: str) -> None:
    """Open directories, each with one file of the same name, into slots with these names."""
    for name in names:
        (tmp_path / name).mkdir()
        if name != "work":
            (tmp_path / name / name).touch()
        tree.add("OPEN_DIRECTORY", str(tmp_path / name), name)
    tree.add("FSOPEN", "overlay", "context")


def overlaid(tree: Tree) -> set[str]:
    tree.add("FSMOUNT", "context", 0, "mount").attach("mount", "/etc")
    return set(tree.seen(lambda pid: os.listdir(f"/proc/{pid}/root{tree.root}/etc")))


def test_fslayers(root: Path, tmp_path: Path) -> None:
    tree = Tree(root)
    layers(root, tmp_path, tree, "a", "b", "upper", "work")
    pairs = [
        0,
        tree.made.slot("a"),
        0,
        tree.made.slot("b"),
        2,
        tree.made.slot("upper"),
        3,
        tree.made.slot("work"),
    ]
    tree.add("FSLAYERS", "context", struct.pack("=8I", *pairs), 255)
    assert overlaid(tree) == {"a", "b", "upper"}


def test_fslayers_that_are_too_many(root: Path, tmp_path: Path) -> None:
    tree = Tree(root)
    layers(root, tmp_path, tree, "a", "b")
    pairs = [0, tree.made.slot("a"), 0, tree.made.slot("b")] * 50
    tree.add("FSLAYERS", "context", struct.pack(f"={len(pairs)}I", *pairs), 100)
    refused(tree, "FSLAYERS", errno.E2BIG, 1)


def test_fslayers_of_a_slot_that_is_none(root: Path) -> None:
    tree = Tree(root).add("FSOPEN", "overlay", "context")
    refused(tree.add("FSLAYERS", "context", struct.pack("=2I", 0, 1 << 20), 255), "FSLAYERS", errno.EINVAL)


def test_fslayer(root: Path, tmp_path: Path) -> None:
    """Descriptors as layers came with Linux 6.13; older kernels refuse them."""
    tree = Tree(root)
    layers(root, tmp_path, tree, "a", "b", "upper", "work")
    for name, slot in (("lowerdir+", "a"), ("lowerdir+", "b"), ("upperdir", "upper"), ("workdir", "work")):
        tree.add("FSLAYER", "context", name, slot)
    if tuple(map(int, os.uname().release.split(".")[:2])) < (6, 13):
        refused(tree, "FSLAYER", errno.EINVAL)
    else:
        tree.add("FSCREATE", "context", 0)
        assert overlaid(tree) == {"a", "b", "upper"}


def test_restrict_like(root: Path) -> None:
    tree = Tree(root).tmpfs("like", attributes=mo.NOSUID | mo.NOEXEC | mo.RDONLY).tmpfs("mount")
    tree.add("RESTRICT_LIKE", "mount", "like", mo.SHARED).attach("mount", "/etc")
    found = tree.mounts()["/etc"]
    assert found.words & {"ro", "nosuid", "noexec", "nodev"} == {"nosuid", "noexec"}
    assert "shared" in found.tags


def test_label_mount(root: Path) -> None:
    """Without SELinux its attribute can have any value."""
    tree = Tree(root).tmpfs("mount").add("LABEL_MOUNT", "mount", b"label\0").attach("mount", "/etc")
    selinux = Path("/sys/fs/selinux").is_dir() and any(Path("/sys/fs/selinux").iterdir())
    if selinux:
        pytest.skip("SELinux knows no such label")
    outcome = tree.run()
    if outcome.report is not None:  # a kernel whose tmpfs keeps no attributes of security modules
        assert (outcome.report.name, outcome.report.errno) == ("LABEL_MOUNT", errno.EOPNOTSUPP)
        return
    found = tree.seen(lambda pid: os.getxattr(f"/proc/{pid}/root{root}/etc", "security.selinux"))
    assert found == b"label\0"


@pytest.mark.parametrize("deep", [0, 1])
def test_attributes(root: Path, tmp_path: Path, deep: int) -> None:
    (tmp_path / "source/sub").mkdir(parents=True)
    tree = Tree(root)
    tree.before = lambda: _linux.mount("tmpfs", str(tmp_path / "source/sub"), "tmpfs", 0, None)
    tree.add("CLONE_PATH", str(tmp_path / "source"), how.RECURSIVE, "mount")
    tree.add("ATTRIBUTES", "mount", mo.RDONLY | mo.NODEV, 0, mo.SHARED, deep).attach("mount", "/etc")
    found = tree.mounts()
    assert found["/etc"].words >= {"ro", "nodev"}
    assert ("ro" in found["/etc/sub"].words) == bool(deep)
    assert ("shared" in found["/etc/sub"].tags) == bool(deep)


def test_below(root: Path, tmp_path: Path) -> None:
    """The mounts below a mount are changed, and the mount itself is not."""
    for name in ("sub", "with space\\", "sub/deep"):
        (tmp_path / "source" / name).mkdir(parents=True, exist_ok=True)

    def mount() -> None:
        for name in ("sub", "with space\\"):
            _linux.mount("tmpfs", str(tmp_path / "source" / name), "tmpfs", 0, None)
        (tmp_path / "source/sub/deep").mkdir()
        _linux.mount("tmpfs", str(tmp_path / "source/sub/deep"), "tmpfs", 0, None)

    tree = Tree(root)
    tree.before = mount
    tree.add("CLONE_PATH", str(tmp_path / "source"), how.RECURSIVE, "mount").attach("mount", "/etc")
    found = tree.add("BELOW", "mount", mo.SHARED).mounts()
    shared = {place for place, row in found.items() if "shared" in row.tags}
    assert shared == {"/etc/sub", "/etc/sub/deep", "/etc/with space\\"}


def test_below_a_mount_that_is_nowhere(root: Path) -> None:
    refused(Tree(root).tmpfs("mount").add("BELOW", "mount", mo.SHARED), "BELOW", errno.ENOENT)


LOCKED = mo.NOSUID | mo.NODEV


def in_user_namespace(root: Path, tmp_path: Path, *arguments: int) -> Tree:
    """Return a tree in a user namespace, with a mount from outside that is locked."""
    source = tmp_path / "source"
    source.mkdir()

    def enter() -> None:
        _linux.mount("tmpfs", str(source), "tmpfs", LOCKED | flags.MS_NOATIME, None)
        _linux.unshare(flags.CLONE_NEWUSER | flags.CLONE_NEWNS)
        for name, text in (("setgroups", "deny"), ("uid_map", "0 0 1"), ("gid_map", "0 0 1")):
            Path("/proc/self", name).write_text(text)

    tree = Tree(root, attach=False)
    tree.before = enter
    tree.add("CLONE_PATH", str(root), how.RECURSIVE, "root").add("ATTACH_ROOT", "root", str(root), 1)
    tree.add("CLONE_PATH", str(source), 0, "mount").add("UNLOCKED_ATTRIBUTES", "mount", *arguments)
    return tree.attach("mount", "/etc")


@pytest.mark.parametrize(
    ("arguments", "there"),
    [
        ((mo.RDONLY, 0, 0, (1 << 64) - 1), {"ro", "nosuid", "nodev", "noatime"}),
        ((0, 0, mo.NOSUID | mo.NODEV | mo.NOEXEC, (1 << 64) - 1), {"rw", "nosuid", "nodev", "noatime"}),
        ((0, mo.NOEXEC, 0, mo.NOATIME), {"rw", "nosuid", "nodev", "noatime"}),
    ],
)
def test_unlocked_attributes(root: Path, tmp_path: Path, arguments: tuple[int, ...], there: set[str]) -> None:
    assert in_user_namespace(root, tmp_path, *arguments).mounts()["/etc"].words >= there


@pytest.mark.parametrize(
    ("arguments", "detail"),
    [
        ((0, mo.NOSUID, 0, (1 << 64) - 1), mo.NOSUID),
        ((0, mo.NOSUID | mo.NODEV | mo.NOEXEC, 0, (1 << 64) - 1), mo.NOSUID | mo.NODEV),
        ((0, 0, 0, mo.RELATIME), 0x70),
        ((mo.NODIRATIME, 0, 0, mo.NOATIME), 0x70),
    ],
)
def test_what_is_locked(root: Path, tmp_path: Path, arguments: tuple[int, ...], detail: int) -> None:
    tree = in_user_namespace(root, tmp_path, *arguments)
    refused(tree, "UNLOCKED_ATTRIBUTES", errno.EPERM, detail)


@pytest.mark.parametrize(
    ("kind", "number", "same"),
    [
        (stat.S_IFCHR, os.makedev(1, 3), True),
        (stat.S_IFBLK, os.makedev(1, 3), False),
        (stat.S_IFCHR, os.makedev(1, 5), False),
    ],
)
def test_is_device(root: Path, *, kind: int, number: int, same: bool) -> None:
    tree = (
        Tree(root)
        .add("CLONE_PATH", "/dev/null", how.NOFOLLOW, "device")
        .add("IS_DEVICE", "device", kind, number)
    )
    if same:
        tree.seen(lambda _pid: None)
    else:
        refused(tree, "IS_DEVICE", errno.EINVAL, 1)


@pytest.mark.parametrize("change", [0, 1])
def test_open_path_and_is_same(root: Path, tmp_path: Path, change: int) -> None:
    (tmp_path / "link").symlink_to("nosuch")
    found = os.lstat(tmp_path / "link")
    tree = Tree(root).add("OPEN_PATH", str(tmp_path / "link"), how.NOFOLLOW, "found")
    tree.add("IS_SAME", "found", found.st_dev, found.st_ino + change)
    if change:
        refused(tree, "IS_SAME", errno.ESTALE)
    else:
        tree.seen(lambda _pid: None)
    refused(Tree(root).add("OPEN_PATH", str(tmp_path / "link"), 0, "found"), "OPEN_PATH", errno.ENOENT)


def test_what_is_opened_below_stays_below(root: Path, tmp_path: Path) -> None:
    (root / "etc/link").symlink_to("/../bin")
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume/out").symlink_to(f"{tmp_path}/secret")
    (tmp_path / "secret").mkdir()
    tree = Tree(root).add("CLONE_BELOW", "none", "/etc/link", 0, "mount").attach("mount", "/dev")
    found = tree.seen(lambda pid: os.listdir(f"/proc/{pid}/root{root}/dev"))
    assert found == ["busybox"]
    tree = Tree(root).add("OPEN_DIRECTORY", str(tmp_path / "volume"), "volume")
    refused(tree.add("CLONE_BELOW", "volume", "out", 0, "mount"), "CLONE_BELOW", errno.ENOENT)
    refused(Tree(root).add("OPEN_DIRECTORY", "/etc/passwd", "x"), "OPEN_DIRECTORY", errno.ENOTDIR)


def test_ask_sends_a_descriptor_and_a_number(root: Path) -> None:
    tree = Tree(root).tmpfs("mount").add("ASK", "mount", ord("I"), 77)
    outcome = tree.run(answers=GO)
    (told,) = outcome.told
    assert (told.kind, int.from_bytes(told.payload, "little")) == (b"I", 77)
    assert stat.S_ISDIR(os.fstat(told.fd).st_mode)
    os.close(told.fd)
    assert (outcome.status, outcome.report) == (0, None)


def test_ask_ends_at_another_word(root: Path) -> None:
    outcome = Tree(root).tmpfs("mount").add("ASK", "mount", ord("I"), 77).run(answers={b"I": b"X"})
    for told in outcome.told:
        os.close(told.fd)
    assert (outcome.status, outcome.report) == (1, None)


@pytest.mark.parametrize("count", [1, 64])
def test_receive(root: Path, tmp_path: Path, opened: Callable[..., int], count: int) -> None:
    """Descriptors arrive in the order in which they are sent, in consecutive slots."""
    fds = [opened(tmp_path / f"file{number}", os.O_RDWR | os.O_CREAT) for number in range(count)]
    tree = Tree(root)
    first = tree.made.slots_of("batch", count)
    tree.add("RECEIVE", first, count, 5)
    for number in range(count):
        tree.add("WRITE", f"batch{number}", str(number).encode())
    outcome = tree.run(answers={b"B": (b"B", fds)})
    assert (outcome.status, outcome.report) == (0, None), outcome
    assert [(told.kind, int.from_bytes(told.payload, "little")) for told in outcome.told] == [(b"B", 5)]
    assert [(tmp_path / f"file{number}").read_text() for number in range(count)] == [
        str(n) for n in range(count)
    ]


@pytest.mark.parametrize(("first", "count"), [(1 << 16, 1), (1, 254), (1, 1 << 20), ((1 << 64) - 1, 1)])
def test_receive_knows_its_bounds(root: Path, first: int, count: int) -> None:
    refused(Tree(root).add("RECEIVE", first, count, 0), "RECEIVE", errno.EINVAL)


def test_receive_refuses_fewer(root: Path, opened: Callable[..., int]) -> None:
    tree = Tree(root)
    first = tree.made.slots_of("batch", 4)
    given = (b"B", [opened("/dev/null")])
    refused(tree.add("RECEIVE", first, 4, 0), "RECEIVE", errno.EPROTO, answers={b"B": given})


def test_unlock(tmp_path: Path, opened: Callable[..., int]) -> None:
    """The program can release the parent's lock, because both have the same open file description."""
    place = tmp_path / "locks"
    held, other = (opened(place, os.O_RDWR | os.O_CREAT) for _ in range(2))
    part = struct.pack("=qq", 5, 1)
    assert mount_points.lock(held, fcntl.F_WRLCK, part, 0)
    assert not mount_points.lock(other, fcntl.F_WRLCK, part, 0)
    made = Program()
    made.add(STEP, "UNLOCK", made.slot("nothing"), made.blob(mount_points.release(part)))
    made.add(STEP, "UNLOCK", made.slot("lock"), made.blob(mount_points.release(part)))
    good(carry_out(made, {"lock": held}))
    assert mount_points.lock(other, fcntl.F_WRLCK, part, 0)
