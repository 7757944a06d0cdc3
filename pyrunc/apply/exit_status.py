"""The exit status of a container's first process, for a caller that is not its parent.

The kernel gives a status to the parent (wait(2)). The parent of a detached container's process is an engine,
or the process that adopts orphans. Others get it in one of these ways; the first that has an answer is used:
- It is in the record: written by a pyrunc that was the parent (`run --keep`, the Python interface), or by an
  earlier waiter.
- Linux 6.15 keeps it for holders of a pidfd that was opened before the process was waited for
  (PIDFD_INFO_EXIT).
- Until the process has been waited for, it is in /proc/PID/stat, field 52, for those who may trace the
  process.
- Before 6.15 the process connector sends it to those who listen (exit_events.py).

If the process had ended before pyrunc looked, only the record can have it.
"""

from __future__ import annotations

import fcntl
import os
import select
import sys
import time
from errno import ENOENT

from pyrunc import files, store
from pyrunc.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from pyrunc.apply.exit_events import Listener

EXIT = "exit"  # the key in the `extra` part of a record: the status, or -N for signal N

# linux/pidfd.h: ioctl PIDFD_GET_INFO with the first version of its structure, and the offset of the answer.
_PIDFD_GET_INFO = 0xC040FF0B
_PIDFD_INFO_EXIT = 1 << 3
_SIZE, _EXIT_CODE = 64, 60
_SINCE = (6, 15)

_STATUSES, _SIGNALS = 256, 64
_LONGEST = (1 << 31) - 1  # milliseconds poll(2) waits at most, 24.8 days
_CREATION = 60.0  # seconds another command may take to create the container
_COLLECTION = 10.0  # seconds its parent may take to wait for it, where the status is known only after that


def written(container: store.Container) -> int | None:
    """Return the exit status in the record, -N for signal N; None if there is none.

    `run --keep` writes it as a shell shows it: 128 + N.
    """
    found = container.extra.get(EXIT)
    return found if isinstance(found, int) and -_SIGNALS <= found < _STATUSES else None


def write(container: store.Container, code: int) -> None:
    """Write how a container has ended into its record, for later callers. A failure to write is ignored."""
    try:
        lock = store.lock(container)
    except Failure:
        return  # the container has been deleted, or the id is in use again
    try:
        container.extra[EXIT] = code
        store.save(container)
    except Failure:
        pass
    finally:
        os.close(lock)


def settle(container: store.Container) -> None:
    """Wait until the creation of a container has ended, and read its record again.

    Raises:
        Failure: the container is gone, or its creation was killed.

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
        Its exit status, -N when signal N ended it; None when it cannot be found out any more.

    Raises:
        TimeoutError: it still runs after that time.
        Failure: the container was not completely created, or the kernel cannot be asked.

    """
    settle(container)
    with Watch(container) as watch:
        if not watch.ended(seconds):
            raise TimeoutError(f"{container.id} still runs")
        return watch.status()


class Watch:
    """Holds a pidfd of a container's first process until its status is known.

    A context manager: the end of the block closes the pidfd.
    """

    def __init__(self, container: store.Container) -> None:
        """Open the pidfd, if there is a process yet.

        Raises:
            Failure: the kernel cannot be asked.

        """
        self._container = container
        self._pidfd = self._proc = -1
        self._events: Listener | None = None
        try:
            self._take()
        except ProcessLookupError:
            self.close()  # the process has been waited for
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
            raise ProcessLookupError  # the pid belongs to another process
        if not keeps(self._pidfd):
            self._events = _listener(pid)
        try:
            self._proc = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # it has just been waited for; its pidfd may still have the status

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
        """Return how it has ended, and write it into the record.

        Returns:
            Its exit status, -N when signal N ended it; None when it cannot be found out.

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
        """Return what its parent, or another waiter, has written into the record meanwhile."""
        try:
            return written(store.open_container(self._container.root, self._container.id))
        except Failure:
            return None

    def _asked(self) -> int | None:
        """Return what the kernel says, as wait(2) has it."""
        if self._pidfd < 0:
            return None
        found = kept(self._pidfd)
        if found is None:
            found = _uncollected(self._proc)
        if found is None and self._events is not None:
            return self._events.status()
        if found is None and keeps(self._pidfd):
            poll = select.poll()
            poll.register(self._pidfd, 0)  # POLLHUP needs no request: the process has been waited for
            poll.poll(_COLLECTION * 1000)
            found = kept(self._pidfd)
        return found

    def close(self) -> None:
        """Close the pidfd."""
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
    """Return (mask, exit code) of a process; None if the kernel does not know the request."""
    answer = bytearray(_SIZE)
    answer[:8] = _PIDFD_INFO_EXIT.to_bytes(8, sys.byteorder)
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, answer)
    except OSError:
        return None
    mask, code = answer[:8], answer[_EXIT_CODE : _EXIT_CODE + 4]
    return int.from_bytes(mask, sys.byteorder), int.from_bytes(code, sys.byteorder)


def keeps(pidfd: int) -> bool:
    """Tell whether this kernel keeps the status of a process that has been waited for.

    For a process that still runs, a kernel that knows the request but not this part of it (6.13) gives the
    same answer. So the version is checked, too.
    """
    from pyrunc.apply import facts

    return _information(pidfd) is not None and facts.kernel() >= _SINCE


def kept(pidfd: int) -> int | None:
    """Return the status that the kernel keeps of a process, as wait(2) has it."""
    found = _information(pidfd)
    return found[1] if found is not None and found[0] & _PIDFD_INFO_EXIT else None


def _uncollected(proc: int) -> int | None:
    """Return the status of a process that has ended and has not been waited for; None if it may not be read.

    The field is 0 for a reader who may not trace the process. /proc/PID/exe shows whether the reader may: for
    an ended process readlink fails with ENOENT, or with a permission error.
    """
    try:
        os.readlink("exe", dir_fd=proc)
    except OSError as exc:
        if exc.errno != ENOENT:
            return None
    try:
        line = files.read("stat", dir_fd=proc)
    except OSError:
        return None
    fields = line[line.rfind(b")") + 2 :].split()
    return int(fields[49]) if fields[0] in (b"Z", b"X") else None


def listens() -> bool:
    """Tell whether the process connector can be used."""
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
