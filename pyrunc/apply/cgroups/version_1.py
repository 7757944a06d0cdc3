"""What only version 1 of cgroups needs: filling a new cpuset, and repeated freezing.

Law 1: no decisions here. Law 4: every answer is read back from the kernel.

Sources: Documentation/admin-guide/cgroup-v1/cpusets.rst and freezer-subsystem.rst of Linux 6.18.
"""

from __future__ import annotations

import time

from pyrunc import files
from pyrunc.errors import Failure, failing

_FILES = ("cpuset.cpus", "cpuset.mems")

# A freeze may stay unfinished while processes are being forked or moved in; writing FROZEN again also freezes
# the new ones. Every 50th round all run for 10 ms, so that a process which cannot be frozen right now can go
# on. 1000 rounds and these pauses are runc's values for the slowest hosts (its issues 2753 and 2774). From
# the eleventh round on each one waits 1 ms. Otherwise pyrunc, on a busy host, takes the processor that the
# processes need until they are frozen: with a shell that forks all the time beside four busy loops on two
# processors, a freeze took up to 0.9 s and sometimes more than 1000 rounds; with the wait at most 0.5 s.
_ROUNDS = 1000
_AT_ONCE = 10


def seed_cpuset(path: str, root: str) -> None:
    """Give a new cpuset its parent's processors and memory nodes: no process can join an empty one.

    Args:
        path: the cpuset's directory.
        root: where its hierarchy is mounted.

    Raises:
        Failure: a file cannot be read or written.

    """
    parent = path.rpartition("/")[0]
    with failing(f"hand down the processors and memory nodes of {parent}"):
        for file in _FILES:
            if files.read(f"{path}/{file}").strip():
                continue
            value = files.read(f"{parent}/{file}").strip()
            if not value and parent != root:
                # The parent exists, but it was left empty.
                seed_cpuset(parent, root)
                value = files.read(f"{parent}/{file}").strip()
            files.write(f"{path}/{file}", value)


def freeze(path: str) -> None:
    """Freeze a cgroup and wait until it is frozen; after a failure it is thawed.

    Raises:
        Failure: "unable to freeze".

    """
    file = path + "/freezer.state"
    errno = 0
    try:
        for round_ in range(1, _ROUNDS + 1):
            if round_ % 50 == 0:
                files.write(file, b"THAWED")
                time.sleep(0.01)
            files.write(file, b"FROZEN")
            if round_ > _AT_ONCE:
                time.sleep(0.001)
            if files.read(file).strip() == b"FROZEN":
                return
    except OSError as exc:
        errno = exc.errno or 0
    try:
        files.write(file, b"THAWED")
    except OSError:
        pass
    raise Failure(f"unable to freeze cgroup {path}", errno=errno)
