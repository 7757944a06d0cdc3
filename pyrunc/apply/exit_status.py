"""How a container's first process ends, for who is not its parent.

A status belongs to the parent (wait(2)), and of a detached container that is an engine, or whoever collects
orphans. Others learn it in one of these ways, the first that answers:

- it is written down already: by a pyrunc that was the parent (`run --keep`, the Python interface), or by who
  has waited before;
- Linux 6.15 keeps it for whoever held a pidfd when the process was collected (PIDFD_INFO_EXIT);
- as long as nobody has collected it, it stands in /proc/PID/stat, field 52, for who may trace it;
- before 6.15 the process connector tells who listened (exit_events.py).

Of a process that had ended before anybody asked, nothing is left but what is written down.
"""

from __future__ import annotations

import fcntl
import os
import select
import sys
import time
from errno import ENOENT

from pyrunc import store
from pyrunc.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from pyrunc.apply.exit_events import Listener

EXIT = "exit"  # its name among what a record holds besides: the status, or -N for signal N

# linux/pidfd.h: ioctl PIDFD_GET_INFO with the first version of its structure, and where the answer stands.
_PIDFD_GET_INFO = 0xC040FF0B
_PIDFD_INFO_EXIT = 1 << 3
_SIZE, _EXIT_CODE = 64, 60
_SINCE = (6, 15)

_STATUSES, _SIGNALS = 256, 64
_LONGEST = (1 << 31) - 1  # milliseconds poll(2) waits at most, 24.8 days
_CREATION = 60.0  # seconds another command may take to create the container
_COLLECTION = 10.0  # seconds its parent may take to collect it, where only then the status can be had


def written(container: store.Container) -> int | None:
    """Return what is written down: the exit status, -N for signal N; None if nothing is.

    What `run --keep` has written is as a shell sees it: 128 + N.
    """
    found = container.extra.get(EXIT)
    return found if isinstance(found, int) and -_SIGNALS <= found < _STATUSES else None


def write(container: store.Container, code: int) -> None:
    """Write down how a container has ended, for who asks later; no harm if that is not possible."""
    try:
        lock = store.lock(container)
    except Failure:
        return  # it has been deleted, or is somebody else's
    try:
        container.extra[EXIT] = code
        store.save(container)
    except Failure:
        pass
    finally:
        os.close(lock)


def settle(container: store.Container) -> None:
    """Wait until a container that is just being created has been, and bring its record up to date.

    Raises:
        Failure: it is gone, or its creation was killed.

    """
    if container.pid:
        return
    os.close(store.lock(container, seconds=_CREATION))
    if not container.pid:
        hint = f"remove what is left of it with: pyrunc delete --force {container.id}"
        raise Failure("its creation was not finished", step=container.id, hint=hint)


def wait(container: store.Container, seconds: float | None = None) -> int | None:
    """Wait until a container's first process has ended.

    Args:
        container: its record.
        seconds: how long at most.

    Returns:
        Its exit status, -N when signal N ended it; None when nobody can tell any more.

    Raises:
        TimeoutError: it runs still.
        Failure: the container is not whole, or the kernel cannot be asked.

    """
    settle(container)
    with Watch(container) as watch:
        if not watch.ended(seconds):
            raise TimeoutError(f"{container.id} runs still")
        return watch.status()


class Watch:
    """Holds on to a container's first process until its status is known.

    As a context manager it lets go at the end.
    """

    def __init__(self, container: store.Container) -> None:
        """Take hold of it, if it is there yet.

        Raises:
            Failure: the kernel cannot be asked.

        """
        self._container = container
        self._pidfd = self._proc = -1
        self._events: Listener | None = None
        try:
            self._take()
        except ProcessLookupError:
            self.close()  # it has been collected
        except OSError as exc:
            self.close()
            raise Failure(f"open process {container.pid}", step=container.id, errno=exc.errno or 0) from None
        except BaseException:
            self.close()
            raise

    def _take(self) -> None:
        pid = self._container.pid
        self._pidfd = os.pidfd_open(pid)
        stat = store.process_stat(pid)
        if stat is None or stat[2] != self._container.start:
            raise ProcessLookupError  # the number is another's by now
        if not keeps(self._pidfd):
            self._events = _listener(pid)
        try:
            self._proc = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # it has just been collected; its descriptor may tell yet

    def ended(self, seconds: float | None) -> bool:
        """Wait until it has ended, some seconds at most; tell whether it has."""
        if self._pidfd < 0:
            return True
        end = None if seconds is None else time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        while True:
            left = _LONGEST if end is None else max(0.0, end - time.monotonic()) * 1000
            if poll.poll(min(_LONGEST, left)):
                return True
            if end is not None and time.monotonic() >= end:
                return False

    def status(self) -> int | None:
        """Return how it has ended, and write it down.

        Returns:
            Its exit status, -N when signal N ended it; None when nobody can tell.

        """
        known = written(self._container)
        if known is not None:
            return known
        found = self._asked()
        if found is None:
            return self._told()
        code = os.waitstatus_to_exitcode(found)
        write(self._container, code)
        return code

    def _told(self) -> int | None:
        """Return what its parent, or somebody else who waited, has written down meanwhile."""
        try:
            return written(store.open_container(self._container.root, self._container.id))
        except Failure:
            return None

    def _asked(self) -> int | None:
        """Return what the kernel says, in the shape of wait(2)."""
        if self._pidfd < 0:
            return None
        found = kept(self._pidfd)
        if found is None:
            found = _uncollected(self._proc)
        if found is None and self._events is not None:
            return self._events.status()
        if found is None and keeps(self._pidfd):
            poll = select.poll()
            poll.register(self._pidfd, 0)  # POLLHUP is reported unasked: it has been collected
            poll.poll(_COLLECTION * 1000)
            found = kept(self._pidfd)
        return found

    def close(self) -> None:
        """Let go of it."""
        for fd in (self._pidfd, self._proc):
            if fd >= 0:
                os.close(fd)
        self._pidfd = self._proc = -1
        if self._events is not None:
            self._events.close()
            self._events = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def _information(pidfd: int) -> tuple[int, int] | None:
    """Return (mask, exit code) of a process, None where the kernel does not know the question."""
    answer = bytearray(_SIZE)
    answer[:8] = _PIDFD_INFO_EXIT.to_bytes(8, sys.byteorder)
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, answer)
    except OSError:
        return None
    mask, code = answer[:8], answer[_EXIT_CODE : _EXIT_CODE + 4]
    return int.from_bytes(mask, sys.byteorder), int.from_bytes(code, sys.byteorder)


def keeps(pidfd: int) -> bool:
    """Tell whether this kernel keeps the status of a process that has been collected.

    Of a process that has not, it answers like one that knows the question and not this part of it (6.13), so
    the version must be asked as well.
    """
    from pyrunc.apply import facts

    return _information(pidfd) is not None and facts.kernel() >= _SINCE


def kept(pidfd: int) -> int | None:
    """Return the status that the kernel keeps of a process, in the shape of wait(2)."""
    found = _information(pidfd)
    return found[1] if found is not None and found[0] & _PIDFD_INFO_EXIT else None


def _uncollected(proc: int) -> int | None:
    """Return the status of a process that has ended and was not collected yet; None if it may not be read.

    Who may not trace the process reads 0 there. Whether one may, exe tells: of a process that has ended it is
    either no file any more, or a refusal.
    """
    try:
        os.readlink("exe", dir_fd=proc)
    except OSError as exc:
        if exc.errno != ENOENT:
            return None
    try:
        line = store.read_whole(os.open("stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc))
    except OSError:
        return None
    fields = line[line.rfind(b")") + 2 :].split()
    return int(fields[49]) if fields[0] in (b"Z", b"X") else None


def listens() -> bool:
    """Tell whether the process connector is there for us."""
    found = _listener(os.getpid())
    if found is not None:
        found.close()
    return found is not None


def _listener(pid: int) -> Listener | None:
    from pyrunc.apply import exit_events

    try:
        return exit_events.Listener(pid)
    except OSError:
        return None
