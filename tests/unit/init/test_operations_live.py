"""Each operation on the mounts of a container that exists, alone, against the kernel."""

from __future__ import annotations

import errno
import json
import os
import signal
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyrunc.linux import _linux, flags
from pyrunc.plan.program import Program
from tests.support.init_machine import STEP, Outcome, as_root, carry_out
from tests.support.init_tree import STATX_MNT_ID, Tree, refused
from tests.unit.init.test_operations_tree import below

pytestmark = as_root

LOCATED = struct.Struct("=IiQB")


def test_deadline(root: Path) -> None:
    """A process that is blocked is ended by SIGALRM; all other signals are blocked until then."""
    seen: list[int] = []

    def look(pid: int) -> bytes:
        status = Path(f"/proc/{pid}/status").read_text()
        held = next(line.split()[1] for line in status.splitlines() if line.startswith("SigBlk"))
        seen.append(int(held, 16))
        return b""

    tree = Tree(root).add("DEADLINE", 1).add("SEND", ord("R")).add("WAIT", ord("A"))
    # An init of a pid namespace would not end by it; this one is none.
    outcome = tree.run(answers={b"R": look})
    assert outcome.status == -signal.SIGALRM
    always = 1 << signal.SIGKILL - 1 | 1 << signal.SIGSTOP - 1
    assert seen == [(1 << 64) - 1 & ~always & ~(1 << signal.SIGALRM - 1)]


def test_deadline_that_is_no_time(root: Path) -> None:
    refused(Tree(root).add("DEADLINE", 1 << 63), "DEADLINE", errno.EINVAL)


def here(
    root: Path, opened: Callable[..., int], *operations: tuple[Any, ...], listed: int = -1, **given: Any
) -> Outcome:
    """Carry out operations in a root that is not a mount of its own."""
    made = Program()
    made.add(STEP, "TREE", made.slot("made"), made.slot("proc"), STATX_MNT_ID)
    made.add(STEP, "ROOT_IS", made.slot("root"))
    for name, *arguments in operations:
        words = [made.text(each) if isinstance(each, str) else each for each in arguments]
        made.add(STEP, name, *words)
    made.slot("place")
    slots = {"root": opened(root, os.O_PATH), "proc": opened("/proc", os.O_PATH | os.O_DIRECTORY)}
    if listed >= 0:
        slots["made"] = listed
    return carry_out(made, slots, **given)


PLACE = 4  # after the socket, and the three of here()


def test_root_is(root: Path, opened: Callable[..., int]) -> None:
    outcome = here(root, opened, ("PLACE", "/a/b", 0, PLACE))
    assert (outcome.status, outcome.report) == (0, None)
    assert below(root) == {"a", "a/b"}


@pytest.mark.parametrize("place", ["bin/busybox", "/dev/null"])
def test_root_is_no_directory(root: Path, opened: Callable[..., int], place: str) -> None:
    report = here(root / place, opened).report
    assert report is not None
    assert (report.name, report.errno) == ("ROOT_IS", errno.ENOTDIR)


def test_base(root: Path, tmp_path: Path, opened: Callable[..., int]) -> None:
    """A directory that is made on the named mount is written to the list; on another mount it is not."""
    list_of = tmp_path / "made"
    listed = opened(list_of, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    top = opened(root, os.O_PATH)
    number = _linux.statx_mnt(top)[0]
    for offset, lines in ((1, 0), (0, 2)):
        rows = (("BASE", number + offset, "/the/base"), ("PLACE", f"/a{offset}", 0, PLACE))
        outcome = here(root, opened, *rows, listed=listed)
        assert (outcome.status, outcome.report) == (0, None)
        noted = [json.loads(line) for line in list_of.read_text().splitlines()]
        assert len(noted) == lines
    assert noted[0][1] == "/the/base"
    assert noted[0][2] == "a0"


def test_base_without_a_tree(root: Path, opened: Callable[..., int]) -> None:
    made = Program()
    made.add(STEP, "BASE", 1, made.text("/x"))
    report = carry_out(made).report
    assert report is not None
    assert (report.name, report.errno) == ("BASE", errno.ENOBUFS)


# -- taking back ---------------------------------------------------------------------------------------------


def taking_back(root: Path, **given: Any) -> Tree:
    tree = Tree(root, **given).add("TAKE_BACK")
    return tree.tmpfs("one").attach("one", "/new/one").tmpfs("two").attach("two", "/new/two/deep")


def test_who_fails_takes_back(root: Path, tmp_path: Path, opened: Callable[..., int]) -> None:
    list_of = tmp_path / "made"
    listed = opened(list_of, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    tree = taking_back(root, listed=listed).tmpfs("three").add("CLOSE", "one")
    refused(tree.attach("three", "/etc/nosuch/" + "x" * 256), "ATTACH", errno.ENAMETOOLONG)
    assert below(root) == set()
    last = {line[0]: line for line in map(json.loads, list_of.read_text().splitlines())}
    assert list(last.values()) == [[number] for number in range(1, 6)]


@pytest.mark.parametrize("answer", [b"N", None], ids=["another word", "the parent is gone"])
def test_who_is_told_something_else_takes_back(root: Path, answer: bytes | None) -> None:
    tree = taking_back(root).add("SEND", ord("R")).add("WAIT", ord("A"))
    seen: list[set[str]] = []

    def look(_pid: int) -> bytes | None:
        seen.append(below(root))
        return answer

    outcome = tree.run(answers={b"R": look})
    assert (outcome.status, outcome.report) == (1, None)
    assert seen == [{"new", "new/one", "new/two", "new/two/deep"}]
    assert below(root) == set()


def test_who_comes_to_the_end_takes_nothing_back(root: Path) -> None:
    assert set(taking_back(root).mounts()) == {"/", "/new/one", "/new/two/deep"}
    assert below(root) == {"new", "new/one", "new/two", "new/two/deep"}


def test_what_the_container_has_there_by_now_stays(root: Path) -> None:
    tree = Tree(root).add("TAKE_BACK").add("CLONE_PATH", "/dev/null", 0, "null")
    tree.add("PLACE", "/a/b", 0, "one").attach("null", "/c")
    tree.add("PLACE", "/d", 0, "place").add("PLACE", "/e", 0, "place")
    tree.add("SEND", ord("R")).add("WAIT", ord("A"))

    def meddle(_pid: int) -> bytes:
        (root / "a/b/file").touch()
        (root / "c").write_text("content")
        (root / "d").rename(root / "moved")
        (root / "e").rmdir()
        (root / "e").symlink_to("bin")
        return b"N"

    assert tree.run(answers={b"R": meddle}).status == 1
    assert below(root) == {"a", "a/b", "a/b/file", "c", "moved", "e"}
    assert (root / "bin/busybox").exists()


def test_more_than_can_be_taken_back(root: Path) -> None:
    """If the program could not undo it, nothing is made."""
    tree = Tree(root).add("TAKE_BACK")
    for number in range(3):
        tree.add("PLACE", f"/{number}/" + "/".join("d" for _ in range(1500)), 0, "place")
    refused(tree, "PLACE", errno.ENOBUFS)
    assert below(root) == set()


# -- finding, and taking out ---------------------------------------------------------------------------------


def test_locate(root: Path) -> None:
    (root / "link").symlink_to("/etc/../dev")
    (root / "out").symlink_to("../../../../../../proc/self/exe")
    (root / "file").touch()
    tree = Tree(root).tmpfs("one").attach("one", "/dev")
    paths = ["/", "/dev", "/link", "/etc", "/out", "/file/x", "/nosuch"]
    for number, path in enumerate(paths):
        tree.add("LOCATE", path, number, "found").add("CLOSE", "found")
    outcome = tree.run()
    assert (outcome.status, outcome.report) == (0, None)
    assert all(told.kind == b"L" and told.fd < 0 for told in outcome.told)
    found = [LOCATED.unpack(told.payload) for told in outcome.told]
    assert [number for number, *_ in found] == list(range(len(paths)))
    top, dev = found[0][2], found[1][2]
    assert top != dev
    rows = [(error, mount, is_top) for _number, error, mount, is_top in found]
    assert rows == [
        (0, top, 1),
        (0, dev, 1),
        (0, dev, 1),
        (0, top, 0),
        (errno.ENOENT, 0, 0),
        (errno.ENOTDIR, 0, 0),
        (errno.ENOENT, 0, 0),
    ]


def test_detach(root: Path) -> None:
    """All mounts below it go as well.

    The mount is found by its descriptor: its old name may be another directory by then.
    """
    tree = Tree(root).tmpfs("one").attach("one", "/etc").tmpfs("two").attach("two", "/etc/below")
    tree.add("LOCATE", "/etc", 0, "found").add("SEND", ord("Q")).add("WAIT", ord("A")).add("DETACH", "found")

    def meddle(_pid: int) -> bytes:
        (root / "etc").rename(root / "moved")
        (root / "etc").mkdir()
        return b"A"

    assert set(tree.mounts(answers={b"Q": meddle})) == {"/"}


@pytest.mark.parametrize(("slot", "number"), [("found", errno.EINVAL), ("none", errno.EBADF)])
def test_detach_of_what_is_no_mount(root: Path, slot: str, number: int) -> None:
    refused(Tree(root).add("LOCATE", "/etc", 0, "found").add("DETACH", slot), "DETACH", number)


def test_detach_what_is_locked(root: Path) -> None:
    """A mount that was copied into a new user namespace cannot be unmounted there."""
    place = str(root / "etc")
    tree = Tree(root, attach=False)

    def prepare() -> None:
        _linux.mount("tmpfs", place, "tmpfs", 0, None)

    tree.before = prepare
    tree.add("UNSHARE", flags.CLONE_NEWUSER | flags.CLONE_NEWNS).add("ROOT_HERE")
    refused(tree.add("LOCATE", place, 0, "found").add("DETACH", "found"), "DETACH", errno.EINVAL)
