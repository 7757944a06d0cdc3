"""What is known while the steps of a container's first process, or of a mount tree, become operations.

Beginning is what the parent has prepared before. Lowering is what the steps so far have left for those that
follow: open slots, mounts to change at the end. Pure.
"""

from __future__ import annotations

from pyrunc.plan import program_process
from pyrunc.plan.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from pyrunc.plan import steps
    from pyrunc.plan.mount_steps import FileSystem, Mount
    from pyrunc.plan.program import Program
    from pyrunc.plan.program_process import Filters

BATCH = 64  # mounts in one message; a message takes 253 descriptors (SCM_MAX_FD)
_NOTHING: dict[Any, Any] = {}  # never changed


class Beginning(Record):
    """What the parent has prepared.

    Attributes:
        kinds: CLONE_NEW* flags of the container's namespaces.
        way: the way init is made, see way().
        joins_pid: the slot "join-pid" has a pid namespace to join last of all.
        joins_late: kinds of namespaces that are entered after the cgroups.
        ordinary: the caller is not root.
        waits: the slots "go" and "answers" have the fifos of `start`; else the parent starts the program.
        passed: how many descriptors from 3 on go to the program.
        filters: id of a Seccomp step -> its compiled filter.
        state, creating: the container's state for hooks of `start` and of the mount tree, with
            program_process.STATE_PID instead of the pid.
        size: struct winsize of the terminal, b"" for the kernel's default.
        clean: the terminal leaves newlines as they are.
        opened: id of a step -> the slot of the mount that the parent has opened for it.
        later: id of a step -> number of the mount that the parent opens later, and sends on request.
        links: id of a step -> the target of its source, a symlink that is copied.
        lonely: ids of steps for slave mounts whose source is not shared, so that they cannot be slaves.
        places: id of a device -> its path on the host, if that is another one.
        tasks: how many `tasks` files of version 1 cgroups are in the slots "tasks0", "tasks1", ...
        contexts: how many file system contexts for a procfs are in the slots "procfs1", "procfs2", ...
        lock: struct flock that releases the lock in the slot "lock", b"" for none.
        classic: mounts are made with mount(2).
        seen: path of a source -> its device and inode on the host (mount(2)).
        directory: the container's state directory.

    """

    kinds: int
    way: str = ""
    joins_pid: bool = False
    joins_late: tuple[str, ...] = ("mount", "cgroup")
    ordinary: bool = False
    waits: bool = False
    passed: int = 0
    filters: Filters
    state: str = ""
    creating: str = ""
    size: bytes = b""
    clean: bool = False
    opened: Mapping[int, str] = _NOTHING
    later: Mapping[int, int] = _NOTHING
    links: Mapping[int, str] = _NOTHING
    lonely: frozenset[int] = frozenset()
    places: Mapping[int, str] = _NOTHING
    tasks: int = 0
    contexts: int = 0
    lock: bytes = b""
    classic: bool = False
    seen: Mapping[str, tuple[int, int]] = _NOTHING
    directory: str = ""


class Lowering:
    """What the lowering of one step of a tree needs besides the step.

    Attributes:
        nothing: a slot that is never filled.
        place: the slot of a mount point that was opened before its mount was made.
        keeps: binds stay open in their slots after they are attached.
        devpts: the slot of the container's devpts, -1 while there is none.
        readonly_last, again: mounts to change at the end, and their steps.
        handed: path -> slot of a source that the parent has opened in init's mount namespace (mount(2)).
        early: id of a step -> slot of a source that was opened while it shared mount events with the host.

    """

    def __init__(self, program: Program, plan: steps.Plan, given: Beginning) -> None:
        """Start without mounts."""
        self.program = program
        self.plan = plan
        self.given = given
        self.nothing = program.slot("nothing")
        self.place = program.slot("place")
        self.keeps = False
        self.devpts = -1
        self.readonly_last: list[tuple[int, FileSystem]] = []
        self.again: list[tuple[int, Mount]] = []
        self.handed: dict[str, int] = {}
        self.early: dict[int, int] = {}
        self._numbers = {id(step): number for number, step in enumerate(plan.child)}
        self._came = 0
        self._later = -1  # the first slot for the batches of sources
        self._contexts = 0

    def number(self, step: steps.Step) -> int:
        """Return a step's index in the plan, by which the parent knows it."""
        return self._numbers[id(step)]

    def slot(self, name: str, step: steps.Step) -> int:
        """Return a slot for a step."""
        return self.program.slot(f"{name}{self._numbers.get(id(step), '')}")

    def text(self, step: steps.Step, word: str) -> int:
        """Return the offset of a string."""
        return program_process.text(self.program, step, word)

    def list(self, step: steps.Step, given: Iterable[str]) -> int:
        """Return a list of strings as an argument."""
        return program_process.words(self.program, step, given)

    def opened(self, step: steps.Step) -> int:
        """Return the slot of what the parent has opened for a step, -1 if there is none."""
        if id(step) in self.early:
            return self.early[id(step)]
        name = self.given.opened.get(id(step))
        if name is not None:
            return self.program.slot(name)
        later = self.given.later
        place = later.get(id(step))
        if place is None:
            return -1
        if place == self._came:
            if not place:
                # One for each: a mount may be needed again after the next batch has come.
                self._later = self.program.slots_of("later", len(later))
            count = min(BATCH, len(later) - place)
            self.program.add(step, "RECEIVE", self._later + place, count, place)
            self._came += count
        return self._later + place

    def proc_context(self, _step: steps.Step, slot: int) -> int:
        """Return the slot of a file system context for a procfs: one that the parent has opened, or this."""
        if self._contexts < self.given.contexts:
            self._contexts += 1
            return self.program.slot(f"procfs{self._contexts}")
        return slot
