"""events: what a container uses and when it runs out of memory, as one JSON object in each line.

Law 4: everything comes from the cgroup. The kernel reports that memory ran out (an eventfd on version 1,
POLLPRI on memory.events on version 2), and a pidfd reports that init has ended, so nothing is polled between
two records.
"""

from __future__ import annotations

import os
import select
import sys
import time

from pyrunc import files, store
from pyrunc.apply.cgroups import cgroup, statistics
from pyrunc.errors import Failure
from pyrunc.jsonio import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyrunc.cli.match import Command

_LONGEST = (1 << 31) - 1  # milliseconds poll(2) waits at most, 24.8 days


def main(cmd: Command) -> int:
    """Print one record (--stats), or one in each interval until the container is gone.

    Raises:
        Failure: there is no such container, or it does not run.

    """
    container = store.open_container(cmd.root or store.default_root(), cmd.id)
    if cmd.interval <= 0:
        raise Failure("duration interval must be greater than 0")
    if store.status(container) == "stopped":
        raise Failure(f"container with id {cmd.id} is not running")
    if cmd.stats:
        _emit("stats", cmd.id, statistics.stats(container.cgroup))
        return 0
    for kind, data in stream(container, cmd.interval):
        _emit(kind, cmd.id, data)
    return 0


def _emit(kind: str, name: str, data: dict[str, object] | None = None) -> None:
    event: dict[str, object] = {"type": kind, "id": name}
    if data is not None:
        event["data"] = data
    sys.stdout.write(dumps(event) + "\n")
    sys.stdout.flush()


def stream(container: store.Container, interval: float) -> Iterator[tuple[str, dict[str, object] | None]]:
    """Yield what a container uses, and when it runs out of memory, until none of its processes is left.

    Args:
        container: its record.
        interval: seconds between two records of what it uses.

    Yields:
        "stats" and what it uses, in the format of runc's events; or "oom" and None.

    """
    paths = container.cgroup
    poll = select.poll()
    try:
        init = os.pidfd_open(container.pid)
    except OSError:
        return
    if store.status(container) == "stopped":
        # The id belonged to another container by the time it was opened.
        os.close(init)
        return
    poll.register(init, select.POLLIN)
    memory = _Memory(paths, poll)
    end = False
    due = time.monotonic() + interval
    try:
        while not end:
            ready = poll.poll(min(_LONGEST, max(0.0, due - time.monotonic()) * 1000))
            for _ in range(memory.events()):
                yield "oom", None
            if any(fd == init for fd, _event in ready):
                # Without a pid namespace of its own a container can outlive its init.
                end = not cgroup.pids(paths)
                if not end:
                    time.sleep(0.1)
            if time.monotonic() >= due and not end:
                yield "stats", statistics.stats(paths)
                due = time.monotonic() + interval
    finally:
        memory.close()
        os.close(init)


class _Memory:
    """The kernel's reports that a container ran out of memory."""

    def __init__(self, paths: dict[str, str], poll: select.poll) -> None:
        self._fds: list[int] = []
        self._event = self._count_fd = -1
        try:
            if "memory" in paths:
                self._watch_v1(paths["memory"], poll)
            elif "" in paths:
                self._watch_v2(paths[""], poll)
        except OSError:
            # There is no memory controller, or the cgroup is being removed: nothing to report.
            self._event = self._count_fd = -1
        self._seen = self._count()

    def _watch_v1(self, path: str, poll: select.poll) -> None:
        """Register an eventfd (cgroup-v1/memory.rst, section 9 and 10)."""
        event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._fds.append(event)
        source = os.open(path + "/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        self._fds.append(source)
        files.write(path + "/cgroup.event_control", b"%d %d" % (event, source))
        self._path = path
        self._event = event
        poll.register(event, select.POLLIN)

    def _watch_v2(self, path: str, poll: select.poll) -> None:
        self._count_fd = os.open(path + "/memory.events", os.O_RDONLY | os.O_CLOEXEC)
        self._fds.append(self._count_fd)
        poll.register(self._count_fd, select.POLLPRI)

    def _count(self) -> int:
        if self._count_fd < 0:
            return 0
        try:
            text = os.pread(self._count_fd, 4096, 0)
        except OSError:
            return 0
        for line in text.splitlines():
            if line.startswith(b"oom_kill "):
                return int(line.split()[1])
        return 0

    def events(self) -> int:
        """Return how often memory ran out since the last call."""
        if self._event >= 0:
            try:
                count = os.eventfd_read(self._event)
            except OSError:
                return 0
            # The eventfd is also signalled once when the cgroup is removed.
            return count if os.path.exists(self._path) else 0
        now = self._count()
        new, self._seen = now - self._seen, now
        return max(new, 0)

    def close(self) -> None:
        """Close everything."""
        for fd in self._fds:
            os.close(fd)
