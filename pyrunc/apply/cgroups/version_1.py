"""What only version 1 of cgroups needs: a cpuset that is not empty, a freezer that has to be asked again.

Law 1: no policy here; law 4: every answer is read back from the kernel.

Sources: Documentation/admin-guide/cgroup-v1/cpusets.rst and freezer-subsystem.rst of Linux 6.18.
"""

from __future__ import annotations

import time

from pyrunc import files
from pyrunc.errors import Failure, failing

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
    with failing(f"hand down the processors and memory nodes of {parent}"):
        for file in _FILES:
            if files.read(f"{path}/{file}").strip():
                continue
            value = files.read(f"{parent}/{file}").strip()
            if not value and parent != root:
                # Somebody made the parent and left it empty.
                seed_cpuset(parent, root)
                value = files.read(f"{parent}/{file}").strip()
            files.write(f"{path}/{file}", value)


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
