"""Each operation of the mount tree alone, against the kernel: mount points, sources, attributes, the list."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from pyrunc.apply.mounts import mount_point_removal
from pyrunc.linux import _linux, flags
from pyrunc.plan import mount_options as mo
from pyrunc.plan import program_mounts as how
from tests.support.init_machine import as_root
from tests.support.init_tree import STATX_MNT_ID_UNIQUE, Tree, needs_statmount, refused

pytestmark = as_root

MAKE_PLACE, IS_ROOT, IS_PROC, IN_PROC, COVER, _VANISHES, DELETED = range(1, 8)
DIRECTORY, FILE, DEVICE = stat.S_IFDIR, stat.S_IFREG, stat.S_IFCHR


def below(root: Path) -> set[str]:
    """Return what there is in a root, without what it began with."""
    found = {str(path.relative_to(root)) for path in root.rglob("*")}
    return found - {"bin", "bin/busybox", "dev", "etc", "proc"}


@pytest.mark.parametrize(
    ("links", "path", "made"),
    [
        ({}, "/a/b/c", {"a", "a/b", "a/b/c"}),
        ({}, "/a//./b/", {"a", "a/b"}),
        ({}, "/a/../../b", {"a", "b"}),
        ({}, "/../../b", {"b"}),
        ({"link": "/x"}, "/link/z", {"x", "x/z"}),
        ({"link": "x/./y"}, "/link", {"x", "x/y"}),
        ({"link": "../../../up"}, "/link/z", {"up", "up/z"}),
        ({"link": "/one", "one": "two/three"}, "/link/z", {"two", "two/three", "two/three/z"}),
        ({"etc/link": "../y"}, "/etc/link/z", {"y", "y/z"}),
    ],
)
def test_place_makes_what_is_missing_inside_the_root(
    root: Path, links: dict[str, str], path: str, made: set[str]
) -> None:
    for name, target in links.items():
        (root / name).symlink_to(target)
    old = os.umask(0o077)
    try:
        Tree(root).add("UMASK", 0).add("PLACE", path, 0, "place").seen(lambda _pid: None)
    finally:
        os.umask(old)
    assert below(root) == made | set(links)
    assert all(stat.S_IMODE((root / name).stat().st_mode) == 0o755 for name in made)


def circle(root: Path) -> None:
    (root / "one").symlink_to("two")
    (root / "two").symlink_to("one")


def with_procfs(tree: Tree) -> None:
    place = str(tree.root / "proc")
    tree.before = lambda: _linux.mount("proc", place, "proc", 0, None)


@pytest.mark.parametrize(
    ("prepare", "path", "rules", "number"),
    [
        (circle, "/one/x", 0, errno.ELOOP),
        (lambda root: (root / "file").touch(), "/file/x", 0, errno.ENOTDIR),
        (lambda root: (root / "link").symlink_to("etc"), "/link", how.NO_SYMLINK, errno.ENOTDIR),
        (lambda root: (root / "link").symlink_to("etc"), "/link/x", how.NO_SYMLINK, errno.ELOOP),
        (lambda root: (root / "file").touch(), "/file", how.NO_SYMLINK, errno.ENOTDIR),
        (lambda _root: None, "/" + "x" * 256, 0, errno.ENAMETOOLONG),
        (lambda root: (root / "door").symlink_to("/proc/self/cwd"), "/door", 0, errno.ELOOP),
        (lambda root: (root / "door").symlink_to("proc/self/root"), "/door/x/y", 0, errno.ELOOP),
    ],
)
def test_place_refuses(
    root: Path, prepare: Callable[[Path], None], path: str, rules: int, number: int
) -> None:
    """Symlinks in a circle, files on the way, and a procfs's magic links, which lead out of the root."""
    prepare(root)
    before = below(root)
    tree = Tree(root).add("PLACE", path, rules, "place")
    with_procfs(tree)
    refused(tree, "PLACE", number, MAKE_PLACE)
    assert below(root) == before


def test_attach_a_directory_and_a_file(root: Path, tmp_path: Path) -> None:
    """A missing mount point is made: a directory for a directory, a file for a file."""
    (tmp_path / "file").write_text("content")
    tree = Tree(root).tmpfs("mount", attributes=mo.NOSUID | mo.RDONLY).attach("mount", "/a/b")
    tree.add("CLONE_PATH", str(tmp_path / "file"), 0, "file").attach("file", "/c/d")
    found = tree.mounts()
    assert found["/a/b"].kind == "tmpfs"
    assert found["/a/b"].words >= {"ro", "nosuid"}
    assert "/c/d" in found
    assert (root / "a/b").is_dir()
    assert (root / "c/d").read_bytes() == b""


@pytest.mark.parametrize("directory", [False, True])
def test_attach_a_directory_on_a_file_and_the_other_way_round(
    root: Path, tmp_path: Path, directory: bool
) -> None:
    source = tmp_path / "source"
    place = root / "place"
    if directory:
        source.mkdir()
        place.touch()
    else:
        source.touch()
        place.mkdir()
    tree = Tree(root).add("CLONE_PATH", str(source), 0, "mount").attach("mount", "/place")
    found = tree.report()
    types = (DIRECTORY, FILE) if directory else (FILE, DIRECTORY)
    assert found.errno in (errno.ENOTDIR, errno.EINVAL)
    assert found.detail == COVER | types[0] << 8 | types[1] << 32


def test_attach_follows_a_symlink_at_the_end_or_does_not(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (root / "link").symlink_to("/target")
    tree = Tree(root).add("CLONE_PATH", str(tmp_path / "file"), 0, "mount")
    found = tree.attach("mount", "/link").mounts()
    assert "/target" in found
    again = Tree(root).add("CLONE_PATH", str(tmp_path / "file"), 0, "mount")
    assert "/link" in again.attach("mount", "/link", how.DEST_NOFOLLOW).mounts()


def test_attach_on_what_leads_to_the_root(root: Path) -> None:
    (root / "link").symlink_to("..")
    refused(Tree(root).tmpfs("mount").attach("mount", "/link"), "ATTACH", errno.EINVAL, IS_ROOT)


@pytest.mark.parametrize(
    ("path", "rules", "procfs", "detail"),
    [
        ("/proc", how.PROC_ITSELF, True, IS_PROC),
        ("/proc", how.PROC_ITSELF, False, IS_PROC),
        ("/p", 0, True, IS_PROC),
        ("/p", 0, False, IS_PROC),
        ("/proc/sys", 0, True, IN_PROC),
        ("/p/sys", 0, True, IN_PROC),
        ("/proc/sys", how.BIND_OF_HOST, True, IN_PROC),
        ("/proc/sys", how.PROC_FILE, True, 0),
        ("/proc/sys", 0, False, 0),
        ("/proc/sys", how.PROCFS_ITSELF, True, 0),
        ("/proc", how.PROC_ITSELF | how.PROCFS_ITSELF, True, 0),
        ("/proc", how.UNCHECKED | how.PROC_ITSELF, True, 0),
    ],
)
def test_attach_knows_proc(root: Path, path: str, rules: int, procfs: bool, detail: int) -> None:
    """CVE-2019-16884: what counts is what the mount point really is, not the path that leads to it."""
    (root / "p").symlink_to("/proc")
    tree = Tree(root).tmpfs("mount").attach("mount", path, rules)
    if procfs:
        with_procfs(tree)
    if detail:
        refused(tree, "ATTACH", errno.EINVAL, detail)
    else:
        assert tree.mounts()[path].kind == "tmpfs"


@pytest.mark.parametrize("source", ["/proc", "/proc/sys"])
def test_attach_the_host_s_procfs_whole_on_proc(root: Path, source: str) -> None:
    tree = Tree(root).add("CLONE_PATH", source, 0, "mount")
    tree.attach("mount", "/proc", how.BIND_OF_HOST | how.PROC_ITSELF)
    if source == "/proc":
        assert tree.mounts()["/proc"].kind == "proc"
    else:
        refused(tree, "ATTACH", errno.EINVAL, IS_PROC)


def test_attach_a_source_that_was_deleted(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "gone"
    source.mkdir()

    def delete(_pid: int) -> bytes:
        source.rmdir()
        return b"A"

    tree = Tree(root).add("CLONE_PATH", str(source), 0, "mount")
    tree.add("SEND", ord("Q")).add("WAIT", ord("A")).attach("mount", "/place")
    refused(tree, "ATTACH", errno.ENOENT, DELETED, answers={b"Q": delete})


def test_attach_where_the_place_was_opened_before(root: Path) -> None:
    """The slot has the mount point. If it was removed meanwhile, it is made again."""

    def remove(_pid: int) -> bytes:
        (root / "place").rmdir()
        return b"A"

    tree = Tree(root).add("PLACE", "/place", 0, "place").add("SEND", ord("Q")).add("WAIT", ord("A"))
    found = tree.tmpfs("mount").attach("mount", "/place").mounts(answers={b"Q": remove})
    assert found["/place"].kind == "tmpfs"


@pytest.fixture
def notes(tmp_path: Path, opened: Callable[..., int]) -> int:
    """Open the file for the list of mount points as mount_points.open_list() does."""
    return opened(tmp_path / "made", os.O_RDWR | os.O_CREAT | os.O_APPEND)


ODD = [
    'quote"back\\slash',
    "new\nline\t\x01\x7f",
    b"not \xff utf-8".decode("utf-8", "surrogateescape"),
    "ä",
    "\\u0041",
]


@pytest.mark.parametrize("name", ODD)
def test_what_is_made_is_listed_as_it_is_called(root: Path, notes: int, name: str) -> None:
    Tree(root, listed=notes).add("PLACE", f"/etc/{name}/{name}", 0, "place").seen(lambda _pid: None)
    entries, _end = mount_point_removal.listed(notes)
    top = os.stat(root)
    assert [(entry.base, entry.path, entry.top) for entry in entries] == [
        (str(root), f"etc/{name}", (top.st_dev, top.st_ino)),
        (str(root), f"etc/{name}/{name}", (top.st_dev, top.st_ino)),
    ]
    for entry in entries:
        found = os.stat(root / entry.path)
        assert entry.made == (found.st_dev, found.st_ino)


def test_every_kind_is_listed(root: Path, notes: int) -> None:
    tree = Tree(root, listed=notes).add("NODE", "/dev/null", 0o20666, os.makedev(1, 3), 0)
    tree.add("NODE", "/sub/fifo", 0o10600, 0, 0).add("SYMLINK", "/dev/fd", "/proc/self/fd", 0)
    tree.add("SYMLINK", "/etc/mtab", "/proc/mounts", 2).seen(lambda _pid: None)
    paths = [entry.path for entry in mount_point_removal.listed(notes)[0]]
    assert paths == ["dev/null", "sub", "sub/fifo", "dev/fd", "etc/mtab"]


def test_what_is_there_already_is_not_listed(root: Path, notes: int) -> None:
    (root / "dev/fd").symlink_to("elsewhere")
    tree = (
        Tree(root, listed=notes)
        .add("PLACE", "/etc", 0, "place")
        .add("SYMLINK", "/dev/fd", "/proc/self/fd", 0)
    )
    tree.seen(lambda _pid: None)
    assert os.readlink(root / "dev/fd") == "elsewhere"
    assert mount_point_removal.listed(notes)[0] == []
    assert os.fstat(notes).st_size == 0


def test_what_lies_on_a_file_system_of_the_container_s_is_not_listed(root: Path, notes: int) -> None:
    tree = (
        Tree(root, listed=notes).tmpfs("mount").attach("mount", "/dev").add("PLACE", "/dev/a/b", 0, "place")
    )
    tree.add("NODE", "/dev/null", 0o20666, os.makedev(1, 3), 0).seen(lambda _pid: None)
    assert mount_point_removal.listed(notes)[0] == []


def test_what_lies_in_a_directory_of_the_host_s_is_listed_below_that(
    root: Path, notes: int, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    tree = Tree(root, listed=notes).add("CLONE_PATH", str(source), 0, "mount").attach("mount", "/etc")
    tree.add("NOTE", "mount", 0, 0, 0, str(source)).add("PLACE", "/etc/a/b", 0, "place").seen(
        lambda _pid: None
    )
    found = [(entry.base, entry.path) for entry in mount_point_removal.listed(notes)[0]]
    assert found == [(str(source), "a"), (str(source), "a/b")]


def test_numbers_go_on_where_an_earlier_list_ends(root: Path, notes: int) -> None:
    for name in ("one", "two"):
        Tree(root, listed=notes).add("PLACE", f"/{name}", 0, "place").seen(lambda _pid: None)
    assert [entry.path for entry in mount_point_removal.listed(notes)[0]] == ["one", "two"]


def test_a_list_that_cannot_be_written_stops_it(root: Path, opened: Callable[..., int]) -> None:
    """A mount point that cannot be written to the list is not made."""
    tree = Tree(root, listed=opened("/dev/full", os.O_WRONLY)).add("PLACE", "/a", 0, "place")
    refused(tree, "PLACE", errno.ENOSPC, 1 << 63)
    assert below(root) == set()


@pytest.mark.parametrize(
    ("mode", "number"),
    [
        (0o20640, os.makedev(1, 3)),
        (0o60600, os.makedev(7, 300)),
        (0o10666, 0),
        (0o20666, os.makedev(1, 1 << 10)),
    ],
)
def test_node(root: Path, mode: int, number: int) -> None:
    tree = Tree(root).add("UMASK", 0).add("NODE", "/dev/x", mode, number, 5 | 6 << 32)
    tree.add("NODE", "/dev/x", mode, number, 7 | 8 << 32)  # it is there already, and stays as it is
    tree.seen(lambda _pid: None)
    found = (root / "dev/x").lstat()
    assert (found.st_mode, found.st_rdev, found.st_uid, found.st_gid) == (mode, number, 5, 6)


@pytest.mark.parametrize("there", ["a file", "another device", "a symlink"])
def test_node_where_something_else_is(root: Path, there: str) -> None:
    place = root / "dev/x"
    if there == "a file":
        place.touch()
    elif there == "a symlink":
        place.symlink_to("null")
    else:
        os.mknod(place, 0o20666, os.makedev(1, 5))
    before = place.lstat()
    refused(Tree(root).add("NODE", "/dev/x", 0o20666, os.makedev(1, 3), 0), "NODE", errno.EEXIST, 1)
    assert place.lstat() == before


@pytest.mark.parametrize("operation", [("NODE", "/dev/x", 0o10666, 0, 0), ("SYMLINK", "/dev/x", "y", 0)])
def test_dev_must_not_lead_to_a_directory_of_the_host_s(
    root: Path, tmp_path: Path, operation: tuple[object, ...]
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (root / "dev").rmdir()
    (root / "dev").symlink_to("etc")
    tree = Tree(root).add("CLONE_PATH", str(source), 0, "mount").attach("mount", "/etc")
    tree.add("NOTE", "mount", 0, 0, 0, str(source)).add(*operation)  # type: ignore[arg-type]
    found = refused(tree, str(operation[0]), errno.EINVAL, 2)
    assert found.said == os.fsencode(source)
    assert os.listdir(source) == []


@pytest.mark.parametrize(
    ("there", "rules", "left"),
    [
        (None, 0, "text"),
        ("link", 0, "other"),
        ("file", 0, None),
        ("link", 1, "text"),
        ("file", 1, "text"),
        (None, 1, "text"),
        ("same", 2, "text"),
        (None, 2, "text"),
    ],
)
def test_symlink(root: Path, there: str | None, rules: int, left: str | None) -> None:
    place = root / "dev/x"
    if there == "file":
        place.touch()
    elif there is not None:
        place.symlink_to("text" if there == "same" else "other")
    Tree(root).add("SYMLINK", "/dev/x", "text", rules).seen(lambda _pid: None)
    assert (os.readlink(place) if place.is_symlink() else None) == left


@pytest.mark.parametrize("there", ["other", "text and more", None])
def test_symlink_that_must_be_that_one(root: Path, there: str | None) -> None:
    place = root / "etc/x"
    if there is None:
        place.touch()
    else:
        place.symlink_to(there)
    refused(Tree(root).add("SYMLINK", "/etc/x", "text", 2), "SYMLINK", errno.EEXIST)


def test_mask(root: Path) -> None:
    """A directory is covered by an empty one, which all share; anything else by the host's null device."""
    (root / "etc/file").write_text("secret")
    (root / "etc/sub").mkdir()
    tree = Tree(root)
    for path in ("/etc/file", "/bin", "/etc/sub", "/nosuch", "/etc/file/x"):
        tree.add("MASK", path)

    def look(pid: int) -> object:
        top = Path(f"/proc/{pid}/root{root}")
        hidden = [os.stat(top / name).st_dev for name in ("bin", "etc/sub")]
        return os.listdir(top / "bin"), os.stat(top / "etc/file").st_rdev, len(set(hidden)), set(hidden)

    entries, device, different, devices = tree.seen(look)
    assert (entries, device, different) == ([], os.makedev(1, 3), 1)
    assert os.stat(root).st_dev not in devices


def test_readonly(root: Path) -> None:
    tree = Tree(root).tmpfs("mount", attributes=mo.NOEXEC).attach("mount", "/etc/sub")
    found = tree.add("READONLY", "/etc").add("READONLY", "/etc/sub").add("READONLY", "/nosuch").mounts()
    assert "ro" in found["/etc"].words
    assert found["/etc/sub"].words >= {"ro", "noexec"}
    assert "rw" in found["/"].words


@pytest.mark.parametrize("name", ["MASK", "READONLY"])
@pytest.mark.parametrize(("path", "number", "detail"), [("/link", errno.EINVAL, 2), ("/one", errno.ELOOP, 1)])
def test_what_cannot_be_covered(root: Path, name: str, path: str, number: int, detail: int) -> None:
    circle(root)
    (root / "link").symlink_to("/")
    refused(Tree(root).add(name, path), name, number, detail)


def checked(root: Path) -> Tree:
    """Return a tree with one mount, which is checked with statmount(2)."""
    needs_statmount()
    return Tree(root, kind=STATX_MNT_ID_UNIQUE).tmpfs("mount", attributes=mo.NOSUID).attach("mount", "/etc")


@pytest.mark.parametrize(
    ("mask", "must", "propagation", "rules", "good"),
    [
        (0, 0, 0, 0, True),
        (mo.NOSUID, mo.NOSUID, 0, 0, True),
        (mo.NOSUID | mo.RDONLY, mo.NOSUID, mo.PRIVATE, 0, True),
        (mo.RDONLY, mo.RDONLY, 0, 0, False),
        (mo.NOSUID, 0, 0, 0, False),
        (0, 0, mo.SHARED, 0, False),
        (0, 0, mo.SLAVE, 0, False),
        (0, 0, mo.SLAVE, how.MAY_BE_PRIVATE, True),
    ],
)
def test_note_and_verify(
    root: Path, *, mask: int, must: int, propagation: int, rules: int, good: bool
) -> None:
    tree = checked(root).add("NOTE", "mount", mask | must << 32, propagation, rules, "").add("VERIFY", 0, 0)
    if good:
        tree.seen(lambda _pid: None)
        return
    found = refused(tree, "VERIFY", errno.EINVAL, 1)
    number, attributes, said = (
        int.from_bytes(found.said[a:b], "little") for a, b in ((0, 4), (4, 12), (12, 20))
    )
    assert tree.made.operations[number].name == "NOTE"
    assert attributes & (mo.NOSUID | mo.RDONLY) == mo.NOSUID
    assert said == mo.PRIVATE


def test_verify_what_is_gone(root: Path) -> None:
    tree = checked(root).add("NOTE", "mount", 0, 0, 0, "").add("CLOSE", "mount")
    tree.add("SEND", ord("Q")).add("WAIT", ord("A")).add("VERIFY", 0, 0)

    def unmount(pid: int) -> bytes:
        space = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
        child, pidfd = _linux.clone3(0, 17, -1)
        if child == 0:
            try:
                _linux.setns(space, flags.CLONE_NEWNS)
                _linux.umount2(str(root / "etc"), 2)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        os.close(space)
        os.close(pidfd)
        return b"A"

    refused(tree, "VERIFY", errno.ENOENT, 2, answers={b"Q": unmount})


def test_a_remount_takes_the_place_of_what_was_noted(root: Path) -> None:
    tree = checked(root).add("NOTE", "mount", mo.RDONLY, 0, 0, "")
    tree.add("ATTRIBUTES", "mount", mo.RDONLY, 0, 0, 0)
    tree.add("NOTE", "mount", mo.RDONLY | mo.RDONLY << 32, 0, how.AGAIN, "").add("VERIFY", 0, 0)
    tree.seen(lambda _pid: None)


@pytest.mark.parametrize(
    ("readonly", "propagation", "number"),
    [(0, 0, 0), (1, 0, errno.EINVAL), (0, mo.SHARED, errno.EINVAL), (0, mo.SLAVE, 0), (0, mo.PRIVATE, 0)],
)
@pytest.mark.parametrize("make", [False, True])
def test_verify_the_root(root: Path, *, readonly: int, propagation: int, number: int, make: bool) -> None:
    tree = checked(root)
    if make:
        tree.add("READONLY_ROOT")
    tree.add("VERIFY", readonly, propagation)
    if number and not (readonly and make):
        refused(tree, "VERIFY", number, 4)
    else:
        assert ("ro" in tree.mounts()["/"].words) == make
