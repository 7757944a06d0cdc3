"""A mount tree for a test, made by the init program in a mount namespace of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pyrunc.linux import _linux, flags
from pyrunc.linux.flags import STATX_MNT_ID, STATX_MNT_ID_UNIQUE
from pyrunc.plan.program import SIGNATURES, Program
from tests.support.init_machine import READY, STEP, WAITED, Outcome, carry_out
from tests.support.mounts import read_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrunc.apply.failures import Report
    from tests.support.mounts import Row

__all__ = ["STATX_MNT_ID", "STATX_MNT_ID_UNIQUE", "Tree", "private", "refused"]

PROC, LIST = 211, 212


def table(pid: int | str, top: str) -> dict[str, Row]:
    """Return the mounts below a directory, by their paths there; of several on one path, the topmost."""
    above = top.rstrip("/")
    return {
        row.place[len(above) :] or "/": row
        for row in read_rows(pid)
        if row.place == top or row.place.startswith(above + "/")
    }


def private() -> None:
    """Enter a new mount namespace whose mounts do not propagate to the host."""
    _linux.mount(None, "/", None, flags.MS_REC | flags.MS_PRIVATE, None)


class Tree:
    """A program that makes a tree over a root.

    Attributes:
        made: the program; the root is attached over itself already.
        slots: the descriptors that it is given.

    """

    def __init__(
        self, root: Path, *, listed: int = -1, kind: int = STATX_MNT_ID, attach: bool = True
    ) -> None:
        """Begin with the root alone.

        Args:
            root: the root's directory on the host.
            listed: the list of what was made.
            kind: the kind of mount ids.
            attach: attach the root, and note it as a directory of the host.

        """
        self.root = root
        self.made = Program()
        self.slots = {"proc": PROC, "list": -1 if listed < 0 else LIST}
        self._listed = listed
        self.before: Callable[[], None] = lambda: None
        self.new = flags.CLONE_NEWNS
        self.add("TREE", "list", "proc", kind)
        if attach:
            self.add("CLONE_PATH", str(root), 1, "root")
            self.add("ATTACH_ROOT", "root", str(root), 1)

    def add(self, name: str, *arguments: Any, tag: int = 0) -> Tree:
        """Append an operation; strings and slots are given as words, blobs as bytes, lists as lists."""
        make: dict[str, Callable[[Any], int]] = {
            "n": int,
            "i": self.made.slot,
            "o": self.made.slot,
            "s": self.made.text,
            "b": self.made.blob,
            "l": self.made.list,
        }
        values = [make[kind](value) for kind, value in zip(SIGNATURES[name], arguments, strict=True)]
        self.made.add(STEP, name, *values, tag=tag)
        return self

    def tmpfs(self, slot: str, *words: str, attributes: int = 0) -> Tree:
        """Append the operations that make a tmpfs."""
        self.add("FSOPEN", "tmpfs", "context").add("FSCONFIG", "context", ["source=test", *words])
        return self.add("FSCREATE", "context", 0).add("FSMOUNT", "context", attributes, slot)

    def attach(self, slot: str, path: str, how: int = 0) -> Tree:
        """Append the operation that attaches a mount to its mount point."""
        return self.add("ATTACH", slot, path, how, "place")

    def run(self, **given: Any) -> Outcome:
        """Carry it out."""

        def prepare() -> None:
            private()
            os.dup2(os.open("/proc", os.O_PATH | os.O_DIRECTORY), PROC)
            if self._listed >= 0:
                os.dup2(self._listed, LIST)
            self.before()

        return carry_out(self.made, self.slots, before=prepare, new=self.new, **given)

    def report(self, **given: Any) -> Report:
        """Carry it out, and return the report of its failure."""
        outcome = self.run(**given)
        assert outcome.report is not None, outcome
        return outcome.report

    def seen(self, look: Callable[[int], Any], **given: Any) -> Any:
        """Carry it out, and return the result of look() at the end."""
        found: list[Any] = []

        def see(pid: int) -> bytes:
            found.append(look(pid))
            return b"A"

        self.made.add(STEP, "SEND", *READY)
        self.made.add(STEP, "WAIT", *WAITED)
        answers = {b"R": see, **given.pop("answers", {})}
        outcome = self.run(answers=answers, **given)
        assert (outcome.status, outcome.report) == (0, None), outcome
        return found[0]

    def mounts(self, **given: Any) -> dict[str, Row]:
        """Carry it out, and return the mounts below the root."""
        return self.seen(lambda pid: table(pid, str(self.root)), **given)  # type: ignore[no-any-return]


def refused(tree: Tree, name: str, errno: int, detail: int | None = None, **given: Any) -> Report:
    """Check that an operation is refused; return the report."""
    found = tree.report(**given)
    assert (found.name, found.errno) == (name, errno), found
    if detail is not None:
        assert found.detail == detail, found
    return found


def needs_statmount() -> None:
    """Skip if the kernel does not have statmount(2)."""
    from pyrunc.apply import facts

    if not facts._statmount():
        pytest.skip("the kernel has no statmount(2), which came with Linux 6.8")
