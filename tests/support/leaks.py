"""What a test must not leave behind: processes, mounts, cgroups, files, descriptors."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pyrunc.linux import _linux, flags
from tests.support.containers import PATIENCE
from tests.support.mounts import read_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CGROUPS = Path("/sys/fs/cgroup")
GRACE = 5.0  # seconds that the kernel may need to remove what was killed


class Watch:
    """Look before a test, and again after it."""

    def __init__(self, directories: list[Path], root: Path) -> None:
        """Remember how the machine is.

        Args:
            directories: the test's own; a mount from or in them is the test's.
            root: the state root under it.

        """
        self.directories = [str(directory) for directory in directories]
        self.root = root
        # Orphans of containers become our children, so they are found. Not earlier, because it changes other
        # tests.
        _linux.prctl(flags.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._children = set(children())
        self._mounts = set(mounts())
        self._fds = descriptors()

    def leaks(self, ids: Iterable[str]) -> list[str]:
        """Return one line for each thing that is left; give killed processes some time to vanish.

        Args:
            ids: the containers of the test.

        """
        names = list(ids)
        end = time.monotonic() + GRACE * PATIENCE
        while (found := self._look(names)) and time.monotonic() < end:
            time.sleep(0.02)
        _linux.prctl(flags.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        return found

    def _look(self, ids: list[str]) -> list[str]:
        found = [f"process {pid}: {command(pid)}" for pid in children() if pid not in self._children]
        for path in cgroups(ids):
            found.append(f"cgroup {path}")
            found += [f"process {pid} in it: {command(int(pid))}" for pid in members(path)]
        ours = [*self.directories, *ids]
        found += [
            f"mount {line}" for line in mounts() if line not in self._mounts and any(o in line for o in ours)
        ]
        if self.root.is_dir():
            # @cache (compiled seccomp filters) stays on purpose.
            found += [f"file {self.root / name}" for name in os.listdir(self.root) if name != "@cache"]
        now = descriptors()
        found += [f"descriptor {fd} -> {now[fd]}" for fd in now if self._fds.get(fd) != now[fd]]
        return found


def children() -> Iterator[int]:
    """Return the children that run; wait for those that have ended."""
    collect(set())
    yield from (int(pid) for pid in _all_children() if _state(pid) not in {"Z", ""})


def collect(own: set[int]) -> None:
    """Wait for orphans that became our children and have ended, but not for our own processes."""
    for pid in _all_children():
        if int(pid) not in own and _state(pid) == "Z":
            os.waitpid(int(pid), os.WNOHANG)


def _all_children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def _state(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""


def command(pid: int) -> str:
    """Return a process's words, or its name when it has none."""
    try:
        words = (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        )
        return words[:200] or Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return "(gone)"


def mounts() -> list[str]:
    """Return the lines of our mount table, without what changes by itself (ids, peer groups)."""
    return [f"{row.root} {row.place} {row.kind} {row.source}" for row in read_rows()]


def cgroups(ids: list[str]) -> list[str]:
    """Return the cgroup directories, in any hierarchy, with the name of one of these containers."""
    if not ids:
        return []
    found = []
    todo = [str(CGROUPS)]
    while todo:  # no os.walk, which calls itself: a test may nest very many cgroups
        path = todo.pop()
        if any(name in os.path.basename(path) for name in ids):
            found.append(path)
        try:
            todo += [entry.path for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]
        except OSError:
            continue  # gone meanwhile
    return found


def members(path: str) -> list[str]:
    """Return the processes of a cgroup."""
    try:
        return Path(path, "cgroup.procs").read_text().split()
    except OSError:
        return []


def descriptors() -> dict[str, str]:
    """Return our open descriptors and their targets.

    Those of gRPC are left out: its threads open them at any time, if checks of an engine's interface run in
        the
    same process.
    """
    found = {}
    theirs = ("anon_inode:[eventfd]", "anon_inode:[eventpoll]") if "grpc" in sys.modules else ()
    for fd in os.listdir("/proc/self/fd"):
        try:
            what = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            continue  # the descriptor of the listing itself
        if what not in theirs:
            found[fd] = what
    return found
