"""The processes of a container.

Law 4: the kernel is asked each time. A cgroup has a list of them. Without one (an ordinary user had no right
to make it) init's descendants are found, and the processes in its own pid namespace (`exec`), if pyrunc may
see them.
"""

from __future__ import annotations

import os
from errno import EACCES, ENOENT, ESRCH

from pyrunc import files, store
from pyrunc.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.store import Container


def of(container: Container) -> list[int]:
    """Return the process ids; without a cgroup there are none once init has ended."""
    if container.cgroup:
        from pyrunc.apply.cgroups import cgroup

        return cgroup.pids(container.cgroup)
    if store.status(container) == "stopped":
        return []
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal() and (parent := _parent(int(name))):
            parents[int(name)] = parent
    found = {container.pid}
    own = _pid_namespace(container.pid) if container.namespaces.get("pid") == "" else ""
    if own:
        found.update(pid for pid in parents if _pid_namespace(pid) == own)
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    todo = list(found)
    while todo:
        new = set(children.get(todo.pop(), ())) - found
        found |= new
        todo += new
    return sorted(found)


def signal_others(container: Container, number: int) -> None:
    """Signal all processes except init, which is signalled last: the others are found through it.

    Raises:
        Failure: a process may not be signalled.

    """
    for pid in of(container):
        if pid != container.pid:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
            except OSError as exc:
                raise Failure(f"signal {number} to process {pid}", errno=exc.errno or 0) from None


def _parent(pid: int) -> int:
    """Return the parent's id, 0 for a process that is gone (proc_pid_stat(5), field 4)."""
    try:
        return int(files.read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[1])
    except OSError as exc:
        if exc.errno in (ENOENT, ESRCH):
            return 0
        raise Failure(f"read /proc/{pid}/stat", errno=exc.errno or 0) from None


def _pid_namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError as exc:
        if exc.errno in (ENOENT, ESRCH, EACCES):  # a zombie's are not shown, nor those of other users
            return ""
        raise Failure(f"read /proc/{pid}/ns/pid", errno=exc.errno or 0) from None
