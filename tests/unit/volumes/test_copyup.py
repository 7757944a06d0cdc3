"""Copy-up: all attributes of a file are copied; if something cannot be copied, nothing is left."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyrunc.apply import directory_trees
from pyrunc.errors import Failure
from pyrunc.volumes import copyup

if TYPE_CHECKING:
    from collections.abc import Iterator

root = pytest.mark.skipif(os.geteuid() != 0, reason="owners and devices take root")


class Case:
    """An image with a directory at /data, and an empty volume."""

    def __init__(self, folder: Path) -> None:
        self.rootfs = folder / "rootfs"
        self.image = self.rootfs / "data"
        self.volume = folder / "volume"
        self.image.mkdir(parents=True)
        self.volume.mkdir()

    def fill(self, path: str = "/data") -> bool:
        image = copyup.open_image(str(self.rootfs))
        volume = os.open(self.volume, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return copyup.fill(image, path, volume, "vol")
        finally:
            os.close(image)
            os.close(volume)


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    before = len(os.listdir("/proc/self/fd"))
    yield Case(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before, "descriptors leak"


def described(path: Path) -> tuple[object, ...]:
    """Return the attributes of a file that a copy must have as well."""
    found = path.lstat()
    kind = stat.S_IFMT(found.st_mode)
    content: object = None
    if kind == stat.S_IFREG:
        content = path.read_bytes()
    elif kind == stat.S_IFLNK:
        content = os.readlink(path)
    elif kind == stat.S_IFDIR:
        content = sorted(os.listdir(path))
    names = os.listxattr(path, follow_symlinks=False)
    attributes = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
    # Looking at directories and symlinks changes when they were looked at.
    times = (found.st_mtime_ns, found.st_atime_ns if kind not in (stat.S_IFDIR, stat.S_IFLNK) else 0)
    return (found.st_mode, found.st_uid, found.st_gid, found.st_rdev, times, content, attributes)


def tree_of(path: Path) -> dict[str, tuple[object, ...]]:
    found = {".": described(path)}
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            whole = Path(folder, name)
            found[str(whole.relative_to(path))] = described(whole)
    return found


def age(path: Path) -> None:
    """Set all times to different values, from the innermost file outwards."""
    for number, (folder, folders, files) in enumerate(os.walk(path, topdown=False)):
        for name in (*files, *folders):
            moment = 10**18 + number * 10**9 + 123456789
            os.utime(Path(folder, name), ns=(moment, moment + 77), follow_symlinks=False)
    os.utime(path, ns=(10**18, 10**18 + 5))


def test_files_directories_and_symlinks_keep_all(case: Case) -> None:
    (case.image / "empty").touch()
    (case.image / "script").write_text("#!/bin/sh\n")
    (case.image / "script").chmod(0o4755)
    (case.image / "secret").write_text("x")
    (case.image / "secret").chmod(0o400)
    (case.image / "sub/inner").mkdir(parents=True)
    (case.image / "sub/inner/deep").write_bytes(os.urandom(300_000))
    (case.image / "sub").chmod(0o2771)
    (case.image / "link").symlink_to("script")
    (case.image / "dangling").symlink_to("/no/such/place")
    (case.image / "na\nme \udcff").write_text("odd")
    case.image.chmod(0o1733)
    age(case.image)
    expected = tree_of(case.image)
    age(case.image)
    assert case.fill() is True
    assert tree_of(case.volume) == expected


@root
def test_owners_devices_and_attributes_come_along(case: Case) -> None:
    (case.image / "file").write_text("x")
    (case.image / "sub").mkdir()
    os.mknod(case.image / "null", 0o640 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(case.image / "disk", 0o4600 | stat.S_IFBLK, os.makedev(7, 250))
    (case.image / "link").symlink_to("file")
    for number, name in enumerate(("file", "sub", "null", "disk", "link", ".")):
        os.lchown(case.image / name, 1000 + number, 2000 + number)
    os.setxattr(case.image / "file", "user.colour", b"red")
    os.setxattr(case.image / "file", "trusted.note", b"x" * 1000)
    os.setxattr(case.image / "link", "trusted.note", b"of the link", follow_symlinks=False)
    os.setxattr(case.image / "null", "trusted.note", b"of the device")
    os.setxattr(case.image, "user.top", b"\0binary")
    # struct vfs_cap_data, version 2: cap_net_raw=ep
    os.setxattr(
        case.image / "file",
        "security.capability",
        bytes.fromhex("01000002002000000000000000000000" + "00000000"),
    )
    (case.image / "file").chmod(0o444)
    age(case.image)
    expected = tree_of(case.image)
    age(case.image)
    case.fill()
    assert tree_of(case.volume) == expected
    assert os.getxattr(case.volume / "file", "security.capability")


@root
def test_access_control_lists_come_along(case: Case) -> None:
    # struct posix_acl_xattr: user::rw-, user:1000:rwx, group::r--, mask::rwx, other::---
    entries = ((1, 6, 0xFFFFFFFF), (2, 7, 1000), (4, 4, 0xFFFFFFFF), (16, 7, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF))
    acl = (2).to_bytes(4, "little") + b"".join(
        tag.to_bytes(2, "little") + bits.to_bytes(2, "little") + who.to_bytes(4, "little")
        for tag, bits, who in entries
    )
    (case.image / "file").write_text("x")
    (case.image / "sub").mkdir()
    try:
        os.setxattr(case.image / "file", "system.posix_acl_access", acl)
        os.setxattr(case.image / "sub", "system.posix_acl_default", acl)
    except OSError as exc:
        pytest.skip(f"the file system of {case.image} has no ACLs: {exc}")
    (case.image / "sub/inner").write_text("y")
    (case.image / "sub/inner").chmod(0o600)
    expected = tree_of(case.image)
    case.fill()
    got = tree_of(case.volume)
    for name, row in expected.items():
        assert got[name][:4] == row[:4], name
        assert got[name][5:] == row[5:], name


def test_hard_links_stay_links(case: Case) -> None:
    (case.image / "a").mkdir()
    (case.image / "a/one").write_text("shared")
    os.link(case.image / "a/one", case.image / "two")
    (case.image / "target").symlink_to("two")
    os.link(case.image / "target", case.image / "a/same", follow_symlinks=False)
    (case.image / "alone").write_text("x")
    case.fill()
    assert (case.volume / "a/one").stat().st_nlink == 2
    assert (case.volume / "a/one").samefile(case.volume / "two")
    assert (case.volume / "a/same").lstat().st_ino == (case.volume / "target").lstat().st_ino
    assert (case.volume / "alone").stat().st_nlink == 1


def test_holes_stay_holes(case: Case) -> None:
    with (case.image / "sparse").open("wb") as file:
        file.truncate(64 << 20)
        file.seek(8 << 20)
        file.write(b"island")
        file.seek(40 << 20)
        file.write(b"x" * 100_000)
    with (case.image / "void").open("wb") as file:
        file.truncate(1 << 30)
    case.fill()
    for name in ("sparse", "void"):
        old, new = (case.image / name).stat(), (case.volume / name).stat()
        assert new.st_size == old.st_size
        assert new.st_blocks <= old.st_blocks + 8
    with (case.volume / "sparse").open("rb") as file:
        file.seek(8 << 20)
        assert file.read(6) == b"island"
        file.seek(40 << 20)
        assert file.read(100_000) == b"x" * 100_000
        assert file.read(10) == b"\0" * 10


@pytest.mark.parametrize("kind", ["fifo", "socket"])
def test_a_fifo_or_socket_is_named_and_leaves_the_volume_empty(case: Case, kind: str) -> None:
    (case.image / "before").write_text("x")
    (case.image / "sub/deeper").mkdir(parents=True)
    odd = case.image / "sub/deeper/odd"
    if kind == "fifo":
        os.mkfifo(odd)
    else:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(odd))
    before = case.volume.stat()
    with pytest.raises(
        Failure, match=rf"copy /data/sub/deeper/odd of the image into the volume: it is a {kind}"
    ):
        case.fill()
    assert os.listdir(case.volume) == []
    after = case.volume.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def test_nothing_in_the_image_is_no_copy(case: Case) -> None:
    (case.rootfs / "file").write_text("x")
    assert case.fill("/missing") is False
    assert case.fill("/file") is False
    assert case.fill("/file/below") is False


def test_the_path_is_resolved_inside_the_image(case: Case, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("of the host")
    (case.rootfs / "escape").symlink_to("../../" + str(outside))
    (case.rootfs / "absolute").symlink_to("/data")
    (case.image / "mine").write_text("x")
    assert case.fill("/escape") is False
    assert case.fill("/absolute/../absolute") is True
    assert os.listdir(case.volume) == ["mine"]


def test_symlinks_below_are_copied_not_followed(case: Case, tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    (tmp_path / "host/secret").write_text("of the host")
    (case.image / "way").symlink_to(tmp_path / "host")
    case.fill()
    assert (case.volume / "way").is_symlink()


@root
def test_devices_are_not_opened(case: Case) -> None:
    """What was a file when the directory was read may be a device when it is opened."""
    os.mknod(case.rootfs / "zero", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    image = copyup.open_image(str(case.rootfs))
    try:
        with pytest.raises(PermissionError):
            os.open("zero", os.O_RDONLY, dir_fd=image)
        with pytest.raises(OSError, match="Read-only"):
            os.open("data/new", os.O_WRONLY | os.O_CREAT, dir_fd=image)
    finally:
        os.close(image)


@root
def test_reading_does_not_age_the_image(case: Case) -> None:
    (case.image / "file").write_text("x")
    age(case.image)
    before = (case.image / "file").stat().st_atime_ns
    case.fill()
    assert (case.image / "file").stat().st_atime_ns == before


def test_the_umask_of_the_caller_does_not_matter_and_stays(case: Case) -> None:
    (case.image / "open").write_text("x")
    (case.image / "open").chmod(0o666)
    umask = os.umask(0o077)
    try:
        case.fill()
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(umask)
    assert stat.S_IMODE((case.volume / "open").stat().st_mode) == 0o666


def test_deep_trees(case: Case) -> None:
    folder = case.image
    for _ in range(directory_trees.DEEPEST - 1):
        folder /= "d"
    folder.mkdir(parents=True)
    case.fill()
    assert (case.volume / folder.relative_to(case.image)).is_dir()


def test_a_tree_that_is_too_deep_is_refused(case: Case) -> None:
    folder = case.image
    for _ in range(directory_trees.DEEPEST):
        folder /= "d"
    folder.mkdir(parents=True)
    with pytest.raises(Failure, match=f"nested deeper than {directory_trees.DEEPEST}"):
        case.fill()
    assert os.listdir(case.volume) == []


def test_without_reflinks_and_copy_file_range(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old kernels, and some pairs of file systems, can do neither."""
    data = os.urandom(3_000_000)
    (case.image / "file").write_bytes(data)
    (case.image / "other").write_bytes(data[:5])

    def refuse(*_args: object, **_named: object) -> int:
        raise OSError(errno.EXDEV, "no")

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    monkeypatch.setattr(os, "copy_file_range", refuse)
    case.fill()
    assert (case.volume / "file").read_bytes() == data
    assert (case.volume / "other").read_bytes() == data[:5]


def test_reflinks_are_tried_first(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """FICLONE shares the blocks; this stands in for a file system that can."""
    (case.image / "one").write_bytes(b"content")
    (case.image / "two").write_bytes(b"more")
    asked = []

    def clone(made: int, request: int, source: int) -> int:
        asked.append(request)
        os.pwrite(made, os.pread(source, 100, 0), 0)
        return 0

    monkeypatch.setattr(fcntl, "ioctl", clone)
    monkeypatch.setattr(os, "copy_file_range", lambda *_args: pytest.fail("not needed"))
    case.fill()
    assert asked == [0x40049409] * 2
    assert (case.volume / "one").read_bytes() == b"content"


def test_a_refusal_is_asked_for_once(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10):
        (case.image / str(number)).write_text("x")
    asked = []

    def refuse(*_args: object) -> int:
        asked.append(1)
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    case.fill()
    assert len(asked) == 1


def test_no_space_is_said_and_leaves_the_volume_empty(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    (case.image / "a").write_bytes(b"x" * 100)
    (case.image / "b").write_bytes(b"x" * 100)

    def full(*_args: object, **_named: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(fcntl, "ioctl", full)
    with pytest.raises(Failure) as caught:
        case.fill()
    assert "no space left on device" in caught.value.text()
    assert os.listdir(case.volume) == []


def test_an_interrupt_leaves_the_volume_empty(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    (case.image / "a").mkdir()
    (case.image / "a/b").write_bytes(b"x")
    (case.image / "c").write_bytes(b"x")

    def interrupt(*_args: object, **_named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "utime", interrupt)
    with pytest.raises(KeyboardInterrupt):
        case.fill()
    assert os.listdir(case.volume) == []


@root
def test_the_hosts_own_attributes_stay_behind(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """An SELinux context belongs to a place; the attributes of overlayfs and IMA belong to the original."""
    (case.image / "file").write_text("x")
    names = ["security.selinux", "security.ima", "trusted.overlay.opaque", "user.kept"]
    monkeypatch.setattr(os, "listxattr", lambda *_args, **_named: names)
    monkeypatch.setattr(os, "getxattr", lambda *_args, **_named: b"v")
    set_names = []
    monkeypatch.setattr(os, "setxattr", lambda _fd, name, *_args, **_named: set_names.append(name))
    case.fill()
    assert set(set_names) == {"user.kept"}


@root
def test_groups_from_the_parent_directory_are_put_right(case: Case) -> None:
    """In the store's directories new files may inherit the group, by setgid or by the mount option grpid."""
    os.chown(case.volume, 0, 4242)
    case.volume.chmod(0o2755)
    (case.image / "file").write_text("x")
    (case.image / "sub").mkdir()
    (case.image / "sub/file").write_text("y")
    case.fill()
    for path in (case.volume, *case.volume.rglob("*")):
        assert path.stat().st_gid == 0
        assert not path.stat().st_mode & stat.S_ISGID
