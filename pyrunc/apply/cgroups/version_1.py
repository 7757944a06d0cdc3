"""What only version 1 of cgroups needs: a cpuset that is not empty, a freezer that has to be asked again.

Law 1: no policy here; law 4: every answer is read back from the kernel.

Sources: Documentation/admin-guide/cgroup-v1/cpusets.rst and freezer-subsystem.rst of Linux 6.18.
"""

from __future__ import annotations

import os
import time

from pyrunc.errors import Failure

_FILES = ("cpuset.cpus", "cpuset.mems")

# A freeze can stay unfinished while processes are being forked or moved in; writing FROZEN again gathers the
# new ones. Every 50th round lets them all run for 10 ms, so that one that cannot be frozen right now gets out
# of that place. 1000 rounds and those pauses are what runc found to be enough on the slowest hosts (its
# issues 2753 and 2774). From the eleventh round on each waits 1 ms, or on a busy host we would take the
# processor the frozen ones need to come to rest: a shell that forks all the time took up to 0.9 s beside four
# busy loops on two processors, and now and then more rounds than there are; with the wait at most 0.5 s.
_ROUNDS = 1000
_AT_ONCE = 10


def seed_cpuset(path: str, root: str) -> None:
    """Give a new cpuset its parent's processors and memory nodes: an empty one takes no process.

    Args:
        path: the cpuset's directory.
        root: where its hierarchy is mounted.

    Raises:
        Failure: a file cannot be read or written.

    """
    parent = path.rpartition("/")[0]
    try:
        for file in _FILES:
            if _read(f"{path}/{file}").strip():
                continue
            value = _read(f"{parent}/{file}").strip()
            if not value and parent != root:
                # Somebody made the parent and left it empty.
                seed_cpuset(parent, root)
                value = _read(f"{parent}/{file}").strip()
            _write(f"{path}/{file}", value)
    except OSError as exc:
        raise Failure(
            f"hand down the processors and memory nodes of {parent}", errno=exc.errno or 0
        ) from None


def freeze(path: str) -> None:
    """Freeze a cgroup and wait until it is; on failure it runs as before.

    Raises:
        Failure: "unable to freeze".

    """
    file = path + "/freezer.state"
    errno = 0
    try:
        for round_ in range(1, _ROUNDS + 1):
            if round_ % 50 == 0:
                _write(file, b"THAWED")
                time.sleep(0.01)
            _write(file, b"FROZEN")
            if round_ > _AT_ONCE:
                time.sleep(0.001)
            if _read(file).strip() == b"FROZEN":
                return
    except OSError as exc:
        errno = exc.errno or 0
    try:
        _write(file, b"THAWED")
    except OSError:
        pass
    raise Failure(f"unable to freeze cgroup {path}", errno=errno)


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 1 << 16)
    finally:
        os.close(fd)


def _write(path: str, value: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value)
    finally:
        os.close(fd)
