"""The container's cgroup: create, limit, join, list, signal, freeze, remove.

Law 1: plan/cgroups.py has decided what is written where. Law 4: only the directories are remembered (`paths`:
controller -> directory, "" for the unified hierarchy). What only one version of cgroups needs is in
version_1.py and version_2.py, creation is in making.py; each is imported when needed.

Joining is most of a cgroup's cost. Measured on Linux 6.18, ten hierarchies, two processors: the first pid
written to any cgroup.procs or tasks file waits for an RCU grace period, 14 ms in the median and 32 ms at
worst, because the kernel has to stop every fork on the host. The nine others take 10 to 20 microseconds each.
There are two ways without that wait: clone3(CLONE_INTO_CGROUP) for the unified hierarchy (not measurable),
and a process with one thread that writes "0" for itself to `tasks` of version 1 (all nine in 170
microseconds; cgroup_procs_write_start() in the kernel takes the lock only for another process or for a whole
thread group). So the parent opens the files, and the child writes to them.
"""

from __future__ import annotations

import _signal
import os
import time
from errno import EBUSY, ENODEV, ENOENT, EOPNOTSUPP

from pyrunc import files
from pyrunc.errors import Failure, failing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrunc.plan.cgroup_plan import CgroupPlan
    from pyrunc.store import Container

_FOUND = "found_cgroups"  # the key in a record's `extra`: directories that existed before
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

# How long remove() waits for killed processes to end: 2 ms, 4 ms, ... 512 ms, then 512 ms each. It takes
# longest while a process's memory is freed: 1.1 s were measured for 8 GiB.
_REMOVE_SECONDS = 10.0


# -- making and limiting -------------------------------------------------------------------------------------


def intend(container: Container, plan: CgroupPlan) -> list[str]:
    """Note in a record which cgroups a container will have, and which of them existed before.

    Save the record before create(): if the command is killed, nothing else tells which cgroups are not the
    container's.

    Returns:
        The list of those that existed; create() adds to it.

    """
    container.cgroup = plan.paths
    container.cgroup_manager = plan.manager
    found: list[str] = []
    # systemd makes a new scope, with all its cgroups.
    if plan.unit is None or plan.unit.name.endswith(".slice"):
        found += [path for path in dict.fromkeys(plan.paths.values()) if somebody_elses(path)]
    container.extra[_FOUND] = found
    return found


def somebody_elses(path: str) -> bool:
    """Tell whether one of these cgroups belongs to another user.

    An empty cgroup of the same user is taken over, as by runc. It is then removed with the container, so that
    its limits do not apply to the next one.
    """
    try:
        return os.lstat(path).st_uid != os.geteuid()
    except OSError:
        return False


def made(container: Container) -> dict[str, str]:
    """Return the container's own cgroups, as in its `cgroup`: those that may be removed."""
    found = container.extra.get(_FOUND)
    if not isinstance(found, list):
        return container.cgroup
    return {name: path for name, path in container.cgroup.items() if path not in found}


# -- joining -------------------------------------------------------------------------------------------------


def clone_fd(paths: dict[str, str]) -> int:
    """Return an O_PATH descriptor for clone3(CLONE_INTO_CGROUP), or -1 without a unified hierarchy.

    Raises:
        Failure: the directory is gone.

    """
    path = paths.get("")
    if path is None:
        return -1
    with failing(f"open cgroup {path}"):
        return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def join_fds(paths: dict[str, str]) -> list[int]:
    """Open the `tasks` files of version 1, for a child that will write itself into them with join_self().

    The kernel checks the rights of the process that opened them, so a child in a user namespace may write
    (law 5).

    Raises:
        Failure: a directory is gone.

    """
    fds: list[int] = []
    for path in dict.fromkeys(path for name, path in paths.items() if name):
        try:
            fds.append(os.open(path + "/tasks", os.O_WRONLY | os.O_CLOEXEC))
        except OSError as exc:
            for fd in fds:
                os.close(fd)
            raise Failure(f"open {path}/tasks", errno=exc.errno or 0) from None
    return fds


def join_self(fds: list[int]) -> None:
    """Move the calling process (with one thread) into the cgroups of join_fds(), and close these.

    Raises:
        Failure: the kernel refuses.

    """
    for fd in fds:
        with failing("join the container's cgroup"):
            os.write(fd, b"0")
        os.close(fd)


def settle(manager: str) -> None:
    """The container's process has joined: the placeholder that kept its cgroup may end.

    Args:
        manager: the plan's.

    """
    if manager == "systemd":
        from pyrunc.apply.cgroups import systemd

        systemd.settle()


def join(paths: dict[str, str], pid: int) -> None:
    """Move another process with all its threads.

    Slow, see the module: only for a process that cannot join by itself.

    Raises:
        Failure: the process or a directory is gone, or the kernel refuses.

    """
    for name, path in paths.items():
        # A resctrl group (intel_rdt...) has no cgroup.procs. Controllers that are mounted together are joined
        # again, which changes nothing.
        file = "tasks" if name.startswith("intel_rdt") else "cgroup.procs"
        with failing(f"move process {pid} to cgroup {path}"):
            files.write(f"{path}/{file}", b"%d" % pid)


# -- asking, signalling --------------------------------------------------------------------------------------


def pids(paths: dict[str, str]) -> list[int]:
    """Return the ids of all processes in the cgroup and below it, in ascending order.

    Processes of other pid namespaces, which have no id in this one, are left out.
    """
    found: set[int] = set()
    order = ("", "pids", "devices", "freezer", *paths)
    top = next((paths[name] for name in order if name in paths), "")
    if top:
        walk(top, lambda fd: found.update(members(fd)))
    found.discard(0)
    return sorted(found)


def members(directory: int) -> list[int]:
    """Return the ids of the processes in a cgroup, without those below it."""
    try:
        text = read("", "cgroup.procs", directory)
    except OSError:
        # In version 2 a threaded cgroup lists only threads.
        text = read("", "cgroup.threads", directory)
    return [int(line) for line in text.split()]


def walk(
    path: str,
    enter: Callable[[int], object] | None = None,
    leave: Callable[[int, str], object] | None = None,
) -> None:
    """Visit a cgroup and all cgroups below it.

    A container with a cgroup mount of its own can nest cgroups deeper than function calls, open descriptors,
    or a path allow. So there is no recursion, and only one descriptor, which moves from directory to
    directory.

    Args:
        path: the directory of the topmost.
        enter: called with the descriptor of each directory, parents before children.
        leave: called for each but the topmost, children before parents: with the descriptor of the parent
            directory, and the name.

    """
    here = _open_below(None, path)
    if here < 0:
        return
    try:
        if enter is not None:
            enter(here)
        way = [("", _children(here))]
        while way:
            name, left = way[-1]
            if left:
                name = left.pop()
                inner = _open_below(here, name)
                if inner < 0:
                    continue  # it was removed meanwhile
                os.close(here)
                here = inner
                if enter is not None:
                    enter(here)
                way.append((name, _children(here)))
                continue
            way.pop()
            if way:
                # A cgroup keeps its parent: the kernel moves none.
                outer = os.open("..", _DIRECTORY, dir_fd=here)
                os.close(here)
                here = outer
                if leave is not None:
                    leave(here, name)
    finally:
        os.close(here)


def _open_below(directory: int | None, name: str) -> int:
    """Open a cgroup's directory, -1 if it is gone."""
    try:
        return os.open(name, _DIRECTORY, dir_fd=directory)
    except OSError:
        return -1


def _children(directory: int) -> list[str]:
    """Return the names of the directories in a cgroup's directory."""
    try:
        # In kernfs the link count is the number of directories plus two, so most cgroups need not be listed.
        if os.fstat(directory).st_nlink == 2:
            return []
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def read(path: str, file: str, directory: int | None = None) -> bytes:
    """Return a file's content; b"" if the file or the cgroup does not exist.

    Args:
        path: the cgroup's directory.
        file: the file's name.
        directory: descriptor of the cgroup's directory, instead of the path.

    Raises:
        OSError: EOPNOTSUPP, from a threaded cgroup.

    """
    try:
        return files.read(f"{path}/{file}" if directory is None else file, dir_fd=directory)
    except OSError as exc:
        if exc.errno == EOPNOTSUPP:
            raise
        return b""


def kill_all(paths: dict[str, str], signal: int) -> None:
    """Send a signal to every process in the cgroup and below it, including those that are forked meanwhile.

    Args:
        paths: the container's cgroup.
        signal: its number; SIGKILL also ends the processes of a paused container.

    Raises:
        Failure: a process may not be signalled.

    """
    if signal == _signal.SIGKILL and "" in paths and _kill_file(paths[""]):
        thaw_all(paths)
        return
    was_frozen = frozen(paths)
    held = was_frozen
    if not held:
        try:
            freeze(paths)
            held = True
        except Failure:
            # No freezer, or processes appear faster than it freezes: the loop below gets the others.
            held = False
    try:
        for _round in range(10):
            alive = pids(paths)
            _send(alive, signal)
            if held or signal != _signal.SIGKILL or not alive:
                break
            thaw_all(paths)
    finally:
        if signal == _signal.SIGKILL:
            thaw_all(paths)
        elif held and not was_frozen:
            thaw(paths)


def _kill_file(path: str) -> bool:
    """Kill a whole cgroup with one write (Linux 5.14); return False if there is no such file."""
    try:
        files.write(path + "/cgroup.kill", b"1")
    except OSError:
        return False
    return True


def _send(alive: list[int], signal: int) -> None:
    for pid in alive:
        try:
            os.kill(pid, signal)
        except ProcessLookupError:
            continue
        except OSError as exc:
            raise Failure(f"signal process {pid}", errno=exc.errno or 0) from None


def frozen(paths: dict[str, str]) -> bool:
    """Tell whether the cgroup is frozen or being frozen, itself or a cgroup above it."""
    if "freezer" in paths:
        return read(paths["freezer"], "freezer.state").strip() in (b"FROZEN", b"FREEZING")
    return "" in paths and read(paths[""], "cgroup.freeze").strip() == b"1"


def is_frozen(paths: dict[str, str], pid: int) -> bool:
    """Tell whether a process is in a frozen cgroup: the container's, or one below it.

    A container with a cgroup mount of its own can freeze what is below its own.
    """
    file = "freezer.state" if "freezer" in paths else "cgroup.events"
    words = (b"FROZEN", b"FREEZING", b"frozen 1")
    found: list[bool] = []

    def look(directory: int) -> None:
        if pid in members(directory):
            lines = read("", file, directory).split(b"\n")
            found.append(any(line in words for line in lines))

    top = paths.get("freezer", paths.get(""))
    if top:
        walk(top, look)
    return any(found)


def freeze(paths: dict[str, str]) -> None:
    """Stop every process in the cgroup and below it.

    Raises:
        Failure: there is no freezer, or some processes do not freeze ("unable to freeze").

    """
    if "freezer" in paths:
        from pyrunc.apply.cgroups import version_1

        version_1.freeze(paths["freezer"])
    elif "" in paths:
        from pyrunc.apply.cgroups import version_2

        version_2.freeze(paths[""])
    else:
        raise Failure("unable to freeze: the container has no freezer cgroup")


def thaw(paths: dict[str, str]) -> None:
    """Let the processes of a frozen cgroup continue.

    Raises:
        Failure: the kernel refuses.

    """
    for name, file, word in (("freezer", "freezer.state", b"THAWED"), ("", "cgroup.freeze", b"0")):
        if name in paths:
            try:
                files.write(f"{paths[name]}/{file}", word)
            except OSError as exc:
                if exc.errno not in (ENOENT, ENODEV):
                    raise Failure(f"thaw cgroup {paths[name]}", errno=exc.errno or 0) from None
            return


def thaw_all(paths: dict[str, str]) -> None:
    """Thaw all cgroups of a container, also those it has frozen itself, so that its processes can end.

    In version 1 a frozen process cannot end. In version 2 it can.

    Raises:
        Failure: the kernel refuses.

    """
    if "freezer" in paths:
        # The topmost last: while it is frozen, no process can freeze another one.
        walk(paths["freezer"], leave=_thaw_one)
    thaw(paths)


def _thaw_one(directory: int, name: str) -> None:
    try:
        files.write(f"{name}/freezer.state", b"THAWED", dir_fd=directory)
    except OSError:
        return  # it does not exist any more


# -- removing ------------------------------------------------------------------------------------------------


def remove(paths: dict[str, str], *, manager: str = "cgroupfs", seconds: float = _REMOVE_SECONDS) -> None:
    """Remove the cgroup with all below it, after killed processes have ended. Missing ones are no error.

    Args:
        paths: the container's cgroup.
        manager: the cgroup manager that made it.
        seconds: how long to wait at most.

    Raises:
        Failure: processes are left (the message names them), or there is no right to remove it.

    """
    if manager == "systemd":
        from pyrunc.apply.cgroups import systemd

        systemd.stop(paths)
    pause = 0.001
    waited = 0.0
    # A resctrl group that config.json names is kept (runtime-spec "IntelRdt").
    left = list(dict.fromkeys(path for name, path in paths.items() if name != "intel_rdt_clos"))
    while True:
        left = [path for path in left if not _remove(path)]
        if not left:
            return
        if waited >= seconds:
            from pyrunc.apply.cgroups import reasons

            raise reasons.in_use(left[0], pids({"": left[0]}))
        # Processes that the container has frozen cannot end, even if killed.
        thaw_all(paths)
        time.sleep(pause)
        waited += pause
        pause = min(pause * 2, 0.512)


def _remove(path: str) -> bool:
    """Remove one tree; tell whether it is gone."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError as exc:
        if exc.errno != EBUSY:
            raise Failure(f"remove cgroup {path}", errno=exc.errno or 0) from None
    else:
        return True
    gone = True

    def leave(directory: int, name: str) -> None:
        nonlocal gone
        try:
            os.rmdir(name, dir_fd=directory)
        except FileNotFoundError:
            return
        except OSError:
            gone = False

    walk(path, leave=leave)
    if not gone:
        return False
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
