"""The message for each failed operation of the mount tree."""

from __future__ import annotations

import errno
import struct
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrunc.apply import failures
from pyrunc.apply.mounts import tree_failures
from pyrunc.errors import Failure
from pyrunc.plan import mount_options as mo
from pyrunc.plan import program_live, steps
from pyrunc.plan.mount_steps import AttachRoot
from pyrunc.plan.program import NAMES
from tests.support.mount_kinds import mount
from tests.unit.apply import test_failures
from tests.unit.apply.test_failures import report

HIGH = 1 << 32
DIRECTORY, FILE, DEVICE = 0o040000, 0o100000, 0o020000
BIND = mount(source="/nosuch/source")
NEW = mount("new", data=("size=1m", "nosuch=1"))
OVERLAY = mount("new", fstype="overlay", layers=(("lowerdir+", "/a", False), ("upperdir", "/u", True)))
PROC = mount("new", fstype="proc", destination="/proc", no_symlink=True)
REMOUNT = mount("remount", options=mo.Options(), data=("size=1m",), fstype="ext4", readonly="ro", own_set=1)
NULL = steps.Device(path="/dev/x", type="c", major=1, minor=3, mode=0o666, uid=0, gid=0, pointer="/devices/0")
LINK = steps.Symlink(path="/dev/fd", target="/proc/self/fd", pointer="/l")
CONSOLE = steps.Terminal(width=0, height=0, console=True, pointer="/process/terminal")
ROOT = AttachRoot(path="/r", propagation=0, pointer="/root/path")
CLASSIC = steps.ClassicMounts(missing=("fsopen",), pointer="/classic")
TREE = steps.TreePropagation(flag=mo.SLAVE, pointer="/linux/rootfsPropagation")
ENTER = steps.EnterRoot(method="pivot", pointer="/root")
MASK = steps.MaskedPath(path="/m", pointer="/linux/maskedPaths/0")
READONLY = steps.ReadonlyPath(path="/m", pointer="/linux/readonlyPaths/0")
SYSCTL = steps.Sysctl(path="net/a", value="1", pointer="/linux/sysctl/net.a")
VERIFY = steps.VerifyMounts(by_id=True, readonly=True, propagation=0)
PROPAGATES = steps.RootPropagation(flag=mo.SLAVE, recursive=True, pointer="/linux/rootfsPropagation")
CGROUP = steps.EnterCgroupNamespace(new=True, pointer="/linux/namespaces")


class Row(NamedTuple):
    """An operation that fails, and parts of the message. A hint of "" means that there is no hint."""

    step: steps.Step
    report: failures.Report
    text: str
    hint: str = ""


ROWS = [
    # binds and their sources
    Row(BIND, report("CLONE_PATH", errno.ENOENT), "bind source /nosuch/source does not exist", "*"),
    Row(mount("inner-bind", source="/i"), report("CLONE_BELOW", errno.ELOOP), "/i", "*"),
    Row(mount(source="/v", subpath="s"), report("CLONE_BELOW", errno.ENOENT), "/v/s", "*"),
    Row(mount(source="/v", subpath="s"), report("OPEN_DIRECTORY", errno.ENOENT), "/v/s", "*"),
    Row(BIND, report("CLONE_SLOT", errno.EPERM), "/nosuch/source", "*"),
    Row(BIND, report("OPEN_PATH", errno.ENOENT), "bind source /nosuch/source does not exist", "*"),
    Row(BIND, report("IS_SAME", errno.ESTALE), "/nosuch/source", "*"),
    Row(OVERLAY, report("OPEN_DIRECTORY", errno.ENOENT, tag=0), "open lowerdir /a"),
    Row(OVERLAY, report("OPEN_BELOW", errno.ELOOP, tag=1), "open upperdir /u"),
    Row(REMOUNT, report("OPEN_BELOW", errno.ENOENT), "open what is to be remounted"),
    Row(
        REMOUNT,
        report("IS_MOUNTED", errno.EINVAL, 1),
        "nothing is mounted there that could be remounted",
        "leave out the option remount",
    ),
    # attributes
    Row(BIND, report("ATTRIBUTES", errno.EINVAL), "/nosuch/source on /d: set the mount options: "),
    Row(BIND, report("BELOW", errno.EINVAL), "/nosuch/source on /d: set the mount options: "),
    Row(BIND, report("NOTE", errno.EINVAL), "/nosuch/source on /d: set the mount options: "),
    Row(BIND, report("RECEIVE", errno.EPROTO), "/nosuch/source on /d: set the mount options: "),
    Row(BIND, report("ASK", errno.EPIPE), "/nosuch/source on /d: set the mount options: "),
    Row(BIND, report("CLOSE", errno.EBADF), "/nosuch/source on /d: set the mount options: "),
    Row(
        BIND,
        report("ATTRIBUTES", errno.EINVAL, 1, said=b"sub/deep"),
        "another mount covers the one at /sub/deep below the source, so that mount(2) does not reach it",
        "mount_setattr(2) (Linux 5.12)",
    ),
    Row(
        BIND,
        report("UNLOCKED_ATTRIBUTES", errno.EPERM, 1 | 8 | 0x70),
        "the source is locked in ro noexec access times, and /mounts/0/options asks for something else",
        "what restricts a mount outside a user namespace",
    ),
    Row(
        BIND,
        report("UNLOCKED_ATTRIBUTES", errno.EPERM),
        "/nosuch/source on /d: set the mount options: ",
        "locked by the user namespace",
    ),
    Row(
        BIND, report("UNLOCKED_ATTRIBUTES", errno.EINVAL, 2), "/nosuch/source on /d: set the mount options: "
    ),
    # mount points
    Row(
        BIND,
        report("PLACE", errno.ELOOP, 1),
        "make mount point /d in the root file system",
        "go round in a circle",
    ),
    Row(BIND, report("PLACE", errno.EROFS, 1), "make mount point /d in the root file system", "*"),
    Row(
        PROC,
        report("PLACE", errno.ELOOP, 1),
        "proc must be mounted on ordinary directory, not on a symlink or file: /proc",
    ),
    Row(PROC, report("ATTACH", errno.ENOTDIR, 1), "proc must be mounted on ordinary directory"),
    Row(BIND, report("ATTACH", errno.ENAMETOOLONG, 1), "make mount point /d in the root file system", "*"),
    Row(
        BIND,
        report("ATTACH", errno.EINVAL, 2),
        "/d is the root of the file system, nothing can be mounted on it",
    ),
    Row(
        BIND,
        report("ATTACH", errno.EINVAL, 3),
        "/mounts/0/destination: /d cannot be mounted on: it is /proc, where only a procfs may be",
    ),
    Row(
        BIND,
        report("ATTACH", errno.EINVAL, 4),
        "/mounts/0/destination: /d is inside /proc and cannot be mounted on",
        "only /proc/cpuinfo, ",
    ),
    Row(
        BIND,
        report("ATTACH", errno.EINVAL, 5 | DIRECTORY << 8 | FILE << 32),
        "the source is a directory, the target a file: not a directory",
        "mount a directory on a directory, a file on a file",
    ),
    Row(
        BIND,
        report("ATTACH", errno.ENOTDIR, 5 | DEVICE << 8 | DIRECTORY << 32),
        "the source is a device, the target a directory: not a directory",
        "mount a directory on a directory, a file on a file",
    ),
    Row(BIND, report("ATTACH", errno.EINVAL, 5 | FILE << 8 | FILE << 32), "invalid argument", "*"),
    Row(BIND, report("ATTACH", errno.EPERM, 5 | FILE << 8 | DIRECTORY << 32), "operation not permitted", "*"),
    Row(BIND, report("ATTACH", errno.ENOENT, 6), "its mount point keeps vanishing"),
    Row(
        BIND, report("ATTACH", errno.ENOENT, 7), "shows a file or directory that has been deleted", "findmnt"
    ),
    Row(BIND, report("SYMLINK", errno.EEXIST), "make it a symlink to"),
    # file systems
    Row(NEW, report("FSOPEN", errno.ENODEV), "tmpfs", "*"),
    Row(REMOUNT, report("FSPICK", errno.EINVAL), "pick the file system"),
    Row(
        NEW, report("FSCONFIG", errno.EINVAL, 3, said=b"e tmpfs: Unknown parameter 'nosuch'\n"), "nosuch", "*"
    ),
    Row(NEW, report("FSCONFIG", errno.EINVAL, 99), "/mounts/0", "*"),
    Row(OVERLAY, report("FSCONFIG", errno.EINVAL, 1, tag=1), "/mounts/0", "*"),
    Row(REMOUNT, report("FSCONFIG", errno.EINVAL, 2), "size=1m", "*"),
    Row(NEW, report("FSMODE", errno.EINVAL), "mode", "*"),
    Row(OVERLAY, report("FSLAYER", errno.EINVAL, said=b"e overlay: no such\n"), "no such", "*"),
    Row(OVERLAY, report("FSLAYERS", errno.E2BIG, 1), "2 layers", "put some of them together"),
    Row(OVERLAY, report("FSLAYERS", errno.E2BIG), "/mounts/0", "*"),
    Row(NEW, report("FSCREATE", errno.ENOMEM), "/mounts/0", "*"),
    Row(NEW, report("FSMOUNT", errno.EPERM), "/mounts/0", "*"),
    Row(NEW, report("LABEL_MOUNT", errno.EOPNOTSUPP), "/mounts/0", "*"),
    Row(NEW, report("NODE", errno.ENOSPC, 1 << 63), "", "*"),
    # what is made in the root
    Row(NULL, report("NODE", errno.EEXIST, 1), "/devices/0: /dev/x exists and is something else"),
    Row(
        NULL,
        report("NODE", errno.EINVAL, 2, said=b"/srv"),
        "/dev leads to /srv of the host by a symlink in the root file system: no devices are made there",
        "bind it on /dev",
    ),
    Row(NULL, report("NODE", errno.EINVAL, 2), "/dev leads to a directory of the host", "bind it on /dev"),
    Row(NULL, report("NODE", errno.EPERM), "/devices/0: make device /dev/x: operation not permitted"),
    Row(NULL, report("ATTACH", errno.EPERM, 5), "/devices/0: make device /dev/x"),
    Row(NULL, report("IS_DEVICE", errno.EINVAL, 1), "the host's /dev/x is another device than asked for"),
    Row(NULL, report("CLONE_PATH", errno.ENOENT), "in a user namespace, and the host has none to bind"),
    Row(NULL, report("CLONE_PATH", errno.EPERM), "in a user namespace, and the host's cannot be bound"),
    Row(LINK, report("SYMLINK", errno.EROFS), "/l: link /dev/fd to /proc/self/fd: read-only file system"),
    Row(
        LINK, report("SYMLINK", errno.EINVAL, 2, said=b"/srv"), "/dev leads to /srv of the host", "bind it on"
    ),
    Row(
        CONSOLE,
        report("CONSOLE", errno.EINVAL, 3),
        "/dev/console in the root file system is neither a file nor a device",
    ),
    Row(CONSOLE, report("CONSOLE", errno.EINVAL, 2), "/dev leads to a directory of the host", "bind it on"),
    Row(CONSOLE, report("CONSOLE", errno.EIO), "/process/terminal: put the terminal on /dev/console"),
    Row(MASK, report("MASK", errno.ELOOP, 1), "/linux/maskedPaths/0: open /m"),
    Row(MASK, report("MASK", errno.EINVAL, 2), "/m leads to the root of the file system", "/root/readonly"),
    Row(MASK, report("MASK", errno.EINVAL, 3), "the host's /dev/null is not the null device"),
    Row(MASK, report("MASK", errno.EPERM), "/linux/maskedPaths/0: mask /m: operation not permitted"),
    Row(READONLY, report("READONLY", errno.EPERM), "/linux/readonlyPaths/0: make /m read-only"),
    # the root
    Row(ROOT, report("ATTACH_ROOT", errno.EINVAL), "/root/path: attach the root file system /r"),
    Row(ROOT, report("CLONE_PATH", errno.ENOENT), "/root/path: root file system /r: no such file"),
    Row(ROOT, report("TREE", errno.ENOMEM), "/root/path: root file system /r"),
    Row(ROOT, report("RESTRICT_LIKE", errno.EPERM), "/root/path: root file system /r"),
    Row(ENTER, report("PIVOT", errno.EINVAL), "/root: enter the root file system: invalid argument"),
    Row(ENTER, report("MOVE_ROOT", errno.EINVAL), "/root: enter the root file system"),
    Row(ENTER, report("ENTER_ROOT", errno.EINVAL), "/root: enter the root file system"),
    Row(ENTER, report("LEAVE_STAGING", errno.EBUSY), "/root: enter the root file system"),
    Row(ENTER, report("UNLOCK", errno.EBADF), "/root: enter the root file system"),
    Row(
        steps.ReadonlyRoot(pointer="/root/readonly"),
        report("READONLY_ROOT"),
        "make the root file system read-only",
    ),
    Row(
        steps.MakeCwd(path="/w"),
        report("MAKE_CWD", errno.EROFS),
        'chdir to cwd ("/w") set in config.json failed',
        "*",
    ),
    Row(
        TREE, report("PROPAGATION", errno.EPERM), "/linux/rootfsPropagation: keep mount events from the host"
    ),
    Row(
        PROPAGATES,
        report("PROPAGATION"),
        "/linux/rootfsPropagation: set the propagation of the root file system",
    ),
    Row(
        CLASSIC,
        report("CLASSIC", errno.ENOSYS, 2),
        "/classic: a mount shared with the host cannot be made",
        "--root",
    ),
    Row(CLASSIC, report("CLASSIC", errno.EACCES), "make a place to build mounts on: permission denied"),
    Row(
        TREE,
        report("PROPAGATION_BUT_STAGED", errno.EINVAL, 3, said=b"/srv"),
        "mounts shared with the host cannot be kept apart with mount(2): /srv is covered",
        "open_tree(2) (Linux 5.2)",
    ),
    # names
    Row(steps.Hostname(name="h", pointer="/hostname"), report("HOSTNAME"), "/hostname: set the host name"),
    Row(
        steps.Domainname(name="h", pointer="/domainname"),
        report("DOMAINNAME"),
        "/domainname: set the domain name",
    ),
    Row(steps.LoopbackUp(), report("LOOPBACK"), "bring up lo"),
    Row(SYSCTL, report("WRITE_BELOW", errno.EINVAL), "/linux/sysctl/net.a: write sysctl net.a = '1'"),
    Row(CGROUP, report("WRITE", errno.EPERM), "/linux/namespaces: join the container's cgroup"),
    Row(CGROUP, report("UNSHARE", errno.EPERM), "/linux/namespaces: make a cgroup namespace"),
]
# What no kernel refuses, or what failures.py says for every step.
VISIT = program_live.EnterMounts()
TAKEN = program_live.Unmount(path="/data", mapped=False)
ROWS += [
    Row(VISIT, report("SETNS", errno.EPERM), "join the container's mount namespace: operation not permitted"),
    *(
        Row(VISIT, report(name, errno.ENOBUFS), "join the container's mount namespace: no buffer space")
        for name in ("DEADLINE", "ROOT_IS", "BASE", "TAKE_BACK")
    ),
    Row(TAKEN, report("LOCATE", errno.EPIPE), "unmount /data: broken pipe"),
    Row(TAKEN, report("DETACH", errno.EINVAL), "unmount /data: invalid argument"),
    Row(
        program_live.Unmount(path="/data", mapped=True),
        report("DETACH", errno.EINVAL),
        "unmount /data: invalid argument",
        "a mount that came with a user namespace's tree cannot be taken out of it",
    ),
]
SILENT = {"ROOT_HERE", "CHDIR", "SEND_TABLE", "VERIFY"}


def spoken(step: steps.Step, found: failures.Report, noted: steps.Step | None = None) -> Failure:
    failure = tree_failures.failure(step, found, "/state", noted)
    assert failure is not None
    return failure


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.report.name}-{row.text[:30]}")
def test_the_words(row: Row) -> None:
    found = spoken(row.step, row.report)
    assert row.text in str(found)
    if row.hint != "*":
        assert row.hint in found.hint
        assert bool(row.hint) == bool(found.hint)


def test_every_operation_has_words() -> None:
    """Each operation has a message here or in failures.py; VERIFY has a test of its own."""
    here, there = {row.report.name for row in ROWS}, {row.report.name for row in test_failures.ROWS}
    assert set(NAMES) == here | there | SILENT | test_failures.SILENT
    assert not SILENT & (here | there)


def test_a_bind_that_is_a_deleted_directory_is_told_apart() -> None:
    vanishing = str(spoken(BIND, report("ATTACH", errno.ENOENT, 6)))
    deleted = str(spoken(BIND, report("ATTACH", errno.ENOENT, 7)))
    assert "deleted" in deleted
    assert "deleted" not in vanishing


def test_a_list_that_cannot_be_written() -> None:
    found = spoken(NULL, report("NODE", errno.ENOSPC, 1 << 63))
    assert "/state" in str(found)
    assert "no space left" in str(found)


@pytest.mark.parametrize("classic", [False, True])
def test_with_mount_2_the_hint_is_another(*, classic: bool) -> None:
    found = report("CLONE_SLOT", errno.EINVAL)
    found.classic = classic
    hint = spoken(BIND, found).hint
    assert hint.startswith("an unbindable mount cannot be bound")
    assert ("use rbind" in hint) == classic


@pytest.mark.parametrize(
    "step",
    [steps.Step(), steps.AllCpus(), steps.OwnNull(), steps.WaitForHooks(), steps.ContainerHooks(hooks=())],
)
def test_other_steps_have_their_words_elsewhere(step: steps.Step) -> None:
    assert tree_failures.failure(step, report("UNLOCK"), "/state", None) is None
    assert tree_failures.failure(CONSOLE, report("TERMINAL", detail=1), "/state", None) is None


SAID = struct.pack("=IQQ", 7, mo.NOSUID, mo.PRIVATE)
CHECKED = mount(must_mask=1, must_be=1, expected=mo.SHARED)


@pytest.mark.parametrize(
    ("detail", "noted", "text", "pointer"),
    [
        (1, CHECKED, "the mount is rw, not ro and is private, not shared", "/mounts/0"),
        (1, mount(), "the mount is not as it was asked to be", "/mounts/0"),
        (2, CHECKED, "the mount is not there any more", "/mounts/0"),
        (3, CHECKED, "ask the kernel what it has become", "/mounts/0"),
        (4, None, "the root file system is not read-only", "/root/readonly"),
        (1, None, "ask the kernel what the mounts have become", ""),
        (0, None, "ask the kernel what the mounts have become", ""),
    ],
)
def test_what_differs_in_the_end(detail: int, noted: steps.Step | None, text: str, pointer: str) -> None:
    found = spoken(VERIFY, report("VERIFY", errno.EINVAL, detail, said=SAID), noted)
    assert text in str(found)
    assert found.pointer == pointer


def test_a_root_that_differs_in_nothing_that_can_be_told() -> None:
    asked = steps.VerifyMounts(by_id=True, readonly=False, propagation=0)
    assert "the root mount is not as it was asked for" in str(
        spoken(asked, report("VERIFY", 22, 4, said=SAID))
    )
    asked = steps.VerifyMounts(by_id=True, readonly=False, propagation=mo.SHARED)
    found = spoken(asked, report("VERIFY", 22, 4, said=SAID))
    assert found.pointer == "/linux/rootfsPropagation"


EVERY: list[Any] = [*{id(row.step): row.step for row in ROWS}.values(), VERIFY]


@given(
    step=st.sampled_from(EVERY),
    name=st.sampled_from(NAMES),
    tag=st.integers(0, (1 << 32) - 1),
    number=st.integers(-(1 << 31), (1 << 31) - 1),
    detail=st.integers(0, (1 << 64) - 1) | st.integers(0, 12),
    said=st.binary(max_size=30),
    noted=st.sampled_from([None, BIND, NULL]),
)
def test_a_forged_report_is_a_failure(
    *, step: steps.Step, name: str, tag: int, number: int, detail: int, said: bytes, noted: steps.Step | None
) -> None:
    """A report may name any operation and any step: it never causes another exception."""
    found = tree_failures.failure(step, report(name, number, detail, tag=tag, said=said), "/state", noted)
    assert found is None or str(found)
