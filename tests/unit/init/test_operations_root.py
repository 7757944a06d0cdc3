"""Each operation of the mount tree alone, against the kernel: the root, names, terminals, mount(2)."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from pyrunc.linux import _linux, flags
from pyrunc.plan import mount_options as mo
from pyrunc.plan.program import Program
from tests.support.init_machine import STEP, as_root, carry_out, good, looked, program, shell
from tests.support.init_tree import Tree, refused, table

pytestmark = as_root


@pytest.mark.parametrize("names", [("PIVOT",), ("ENTER_ROOT",), ("MOVE_ROOT", "")])
def test_the_root_is_entered(root: Path, names: tuple[str, ...]) -> None:
    tree = Tree(root).add(names[0], *([str(root)] if names[1:] else []))
    own = root.stat().st_ino

    def look(pid: int) -> object:
        types = {row.kind for row in table(pid, "/").values()}
        top, here = os.stat(f"/proc/{pid}/root"), os.stat(f"/proc/{pid}/cwd")
        return top.st_ino == own, here.st_ino == own, "proc" in types

    in_root, here, procfs = tree.seen(look)
    assert (in_root, here) == (True, True)
    if names[0] != "ENTER_ROOT":
        assert not procfs, "nothing of the host's file systems of the kernel is left"


@pytest.mark.parametrize("path", ["/work/deep", "/link/deep", "/etc"])
def test_make_cwd(root: Path, path: str) -> None:
    (root / "link").symlink_to("../work")
    Tree(root).add("ENTER_ROOT").add("MAKE_CWD", path).seen(lambda _pid: None)
    assert (root / ("etc" if path == "/etc" else "work/deep")).is_dir()


def test_make_cwd_goes_through_no_door(root: Path, tmp_path: Path) -> None:
    """CVE-2024-45310: in a container that sees processes of the host, /proc/1/root leads to the host."""
    (root / "door").symlink_to(f"/proc/{os.getpid()}/root{tmp_path}/made")
    tree = Tree(root)
    tree.before = lambda: _linux.mount("proc", str(root / "proc"), "proc", 0, None)
    refused(tree.add("ENTER_ROOT").add("MAKE_CWD", "/door/x"), "MAKE_CWD", errno.ELOOP)
    assert not (tmp_path / "made").exists()


def test_root_here(root: Path, opened: Callable[..., int]) -> None:
    made = program(("CHROOT", 1), ("ROOT_HERE",), slots=("root",))
    made.add(STEP, "PLACE", made.text("/a/b"), 0, made.slot("place"))
    good(carry_out(made, {"root": opened(root, os.O_PATH | os.O_DIRECTORY)}))
    assert (root / "a/b").is_dir()


def test_propagation(root: Path) -> None:
    tree = Tree(root).add("PIVOT").add("PROPAGATION", mo.SHARED)
    rows = tree.seen(lambda pid: table(pid, "/"))
    assert "shared" in rows["/"].tags


def with_devpts(tree: Tree) -> Tree:
    tree.add("FSOPEN", "devpts", "context").add("FSCONFIG", "context", ["newinstance", "ptmxmode=0666"])
    tree.add("FSCREATE", "context", 0).add("FSMOUNT", "context", 0, "pts").attach("pts", "/dev/pts")
    return tree.add("SETSID").add("TERMINAL", "pts", "slave", b"", 0)


@pytest.mark.parametrize("there", [None, "a file", "a device"])
def test_console(root: Path, there: str | None) -> None:
    place = root / "dev/console"
    if there == "a file":
        place.touch()
    elif there:
        os.mknod(place, 0o20600, os.makedev(5, 1))
    tree = with_devpts(Tree(root)).add("CONSOLE", "pts")

    def look(pid: int) -> object:
        top = Path(f"/proc/{pid}/root{root}/dev")
        return os.stat(top / "console").st_rdev == os.stat(top / "pts/0").st_rdev

    outcome = tree.seen(look)
    assert outcome is True


@pytest.mark.parametrize("there", ["a directory", "a symlink"])
def test_console_that_is_something_else(root: Path, there: str) -> None:
    if there == "a directory":
        (root / "dev/console").mkdir()
    else:
        (root / "dev/console").symlink_to("null")
    refused(with_devpts(Tree(root)).add("CONSOLE", "pts"), "CONSOLE", errno.EINVAL, 3)


def test_a_terminal_of_the_tree_that_is_made(root: Path) -> None:
    """If the slot of the devpts is empty, /dev/pts of the root is used, and it must be a devpts."""
    refused(Tree(root).add("TERMINAL", "pts", "slave", b"", 0), "TERMINAL", errno.ENOENT, 1)
    tree = Tree(root).add("PLACE", "/dev/pts", 0, "place").add("TERMINAL", "pts", "slave", b"", 0)
    refused(tree, "TERMINAL", errno.EINVAL, 2)


OWN = flags.CLONE_NEWUTS | flags.CLONE_NEWNET


def test_names_and_lo() -> None:
    made = Program()
    made.add(STEP, "HOSTNAME", made.text("name"))
    made.add(STEP, "DOMAINNAME", made.text("domain"))
    made.add(STEP, "LOOPBACK")
    script = "hostname; cat /proc/sys/kernel/domainname; cat /proc/net/if_inet6; ip link show lo"
    out = good(carry_out(shell(made, script), new=OWN))
    assert out.split()[:2] == ["name", "domain"]
    assert "UP" in out


def test_unshare_and_clocks() -> None:
    made = program(("UNSHARE", flags.CLONE_NEWTIME))
    made.add(STEP, "CLOCKS", made.blob(b"monotonic 1000000 0\n"))
    made.add(STEP, "CLONE", 0x8000, made.slot("no cgroup"))
    made.add(STEP, "WAIT", ord("O"))
    text = looked(made, lambda pid: Path(f"/proc/{pid}/timens_offsets").read_text())
    assert text.split()[:3] == ["monotonic", "1000000", "0"]


def test_clocks_that_the_kernel_refuses() -> None:
    made = program(("UNSHARE", flags.CLONE_NEWTIME))
    made.add(STEP, "CLOCKS", made.blob(b"monotonic -1000000000000 0\n"))
    report = carry_out(made).report
    assert report is not None
    assert (report.name, report.errno) == ("CLOCKS", errno.ERANGE)


def nobody() -> None:
    """Become a user without rights, who may make a user namespace and be root there."""
    os.setresgid(1234, 1234, 1234)
    os.setresuid(1234, 1234, 1234)


@pytest.mark.parametrize(("last", "number"), [(0, 0), (1, errno.EPERM)])
def test_try_setns(opened: Callable[..., int], last: int, number: int) -> None:
    """A refusal is a failure only at the last try; a namespace that was joined is not joined again."""
    slots = {"uts": opened("/proc/self/ns/uts")}
    made = program(("TRY_SETNS", 1, flags.CLONE_NEWUTS, last), slots=("uts",))
    outcome = carry_out(made, slots, before=nobody)
    assert (outcome.report.errno if outcome.report else 0) == number
    made = program(*[("TRY_SETNS", 1, flags.CLONE_NEWUTS, 1)] * 2, ("WRITE", 1, 0), slots=("uts",))
    outcome = carry_out(made, slots)
    assert outcome.report is not None
    assert (outcome.report.operation, outcome.report.errno) == (2, errno.EBADF), "the slot is empty then"


def test_send_table(root: Path) -> None:
    """The program sends the place of the mount below the root, and its own mount table for the parent."""
    tree = (
        Tree(root)
        .tmpfs("mount")
        .attach("mount", "/etc/sub")
        .add("NOTE", "mount", 0, 0, 0, "")
        .add("SEND_TABLE")
    )
    outcome = tree.run(answers={b"v": b"O"})
    assert (outcome.status, outcome.report) == (0, None), outcome
    note, sent = outcome.told
    number, mount = struct.unpack_from("=IQ", note.payload)
    assert tree.made.operations[number].name == "NOTE"
    assert (note.kind, note.payload[12:]) == (b"V", b"/etc/sub")
    with os.fdopen(sent.fd, "rb") as file:
        assert sent.kind == b"v"
        assert isinstance(file.read(), bytes)
    assert mount != struct.unpack("=Q", sent.payload)[0]


# -- with mount(2) -------------------------------------------------------------------------------------------


def classic(root: Path, tmp_path: Path, *shared: str) -> Tree:
    """Return a tree that is made with mount(2)."""
    tree = Tree(root, attach=False)
    tree.made.operations.clear()
    tree.add("CLASSIC", "proc", str(tmp_path / "staging"), list(shared))
    return tree


def rooted(tree: Tree) -> Tree:
    """Add the operations that make the root's tree, as with the new mount API."""
    tree.add("PROPAGATION_BUT_STAGED", mo.SLAVE).add("TREE", "list", "proc", 0x1000)
    tree.add("OPEN_PATH", str(tree.root), 0, "found").add("CLONE_SLOT", "found", 1, "root")
    return tree.add("CLOSE", "found").add("ATTACH_ROOT", "root", str(tree.root), 1)


def test_classic(root: Path, tmp_path: Path) -> None:
    """The operations after it are the same as with the new mount API, and so is the tree.

    The staging place is gone in the end.
    """
    tree = rooted(classic(root, tmp_path)).tmpfs("mount", "size=1m", attributes=mo.NOSUID | mo.RDONLY)
    tree.attach("mount", "/etc").add("MASK", "/bin").add("READONLY", "/dev").add("LEAVE_STAGING", 0)
    tree.add("PIVOT").add("LEAVE_STAGING", 1)
    rows = tree.seen(lambda pid: table(pid, "/"))
    assert set(rows) == {"/", "/etc", "/bin", "/dev"}
    assert rows["/etc"].words >= {"ro", "nosuid"}
    assert "ro" in rows["/dev"].words


def test_classic_copies_what_is_shared_before_it_is_cut_off(root: Path, tmp_path: Path) -> None:
    """A shared source keeps its peers on the host; all other mounts become private."""
    source = tmp_path / "source"
    source.mkdir()

    def share() -> None:
        _linux.mount("tmpfs", str(source), "tmpfs", 0, None)
        _linux.mount(None, str(source), None, flags.MS_SHARED, None)

    tree = classic(root, tmp_path, str(source))
    tree.before = share
    tree.add("OPEN_PATH", str(source), 0, "found").add("CLONE_SLOT", "found", 0, "mount").add(
        "CLOSE", "found"
    )
    rooted(tree).attach("mount", "/etc").add("LEAVE_STAGING", 0).add("PIVOT").add("LEAVE_STAGING", 1)
    rows = tree.seen(lambda pid: table(pid, "/"))
    assert "shared" in rows["/etc"].tags
    assert "shared" not in rows["/"].tags


def test_classic_where_all_is_shared(root: Path, tmp_path: Path) -> None:
    """If all mounts are shared, there is no staging place that the host would not see."""
    tree = classic(root, tmp_path, "/", str(tmp_path))
    tree.before = lambda: _linux.mount(None, "/", None, flags.MS_REC | flags.MS_SHARED, None)
    refused(tree, "CLASSIC", errno.ENOSYS, 2)


def test_propagation_but_staged_takes_one_word(root: Path, tmp_path: Path) -> None:
    tree = classic(root, tmp_path).add("PROPAGATION_BUT_STAGED", mo.SLAVE | flags.MS_REC)
    refused(tree, "PROPAGATION_BUT_STAGED", errno.EINVAL)
