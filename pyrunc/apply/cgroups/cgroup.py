"""The container's cgroup: made, limited, joined, asked, signalled, frozen, removed.

Law 1: what is written where was decided by plan/cgroups; law 4: nothing about it is remembered but its
directories (`paths`: controller -> directory, "" for the unified hierarchy). What only one version of cgroups
knows is in cgroup_v1 and cgroup_v2, how it is made in cgroup_make; each is imported when needed.

How a process joins is most of what a cgroup costs. Measured on Linux 6.18, ten hierarchies, two processors:
the first pid written to any cgroup.procs or tasks file waits for an RCU grace period, 14 ms in the median and
32 at worst, because the kernel has to stop every fork on the host; the nine others take 10 to 20 microseconds
each. Two ways avoid that wait: clone3(CLONE_INTO_CGROUP) for the unified hierarchy (not measurable), and a
process of one thread that writes "0" for itself to `tasks` of version 1 (all nine in 170 microseconds;
cgroup_procs_write_start() in the kernel takes the lock only for somebody else or for a whole thread group).
So: the parent opens, the child writes.
"""

from __future__ import annotations

import os
import time
from errno import EBUSY, ENODEV, ENOENT, EOPNOTSUPP

from pyrunc import files
from pyrunc.errors import Failure, failing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrunc.plan.cgroups import CgroupPlan
    from pyrunc.store import Container

_SIGKILL = 9
_FOUND = "found_cgroups"  # in a record's extra: directories of somebody else's
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

# How long remove() waits for killed processes to be gone: 2 ms, 4 ms, ... 512 ms, then 512 ms each. A process
# whose memory is being given back takes longest: 1.1 s were seen for 8 GiB.
_REMOVE_SECONDS = 10.0


# ------------------------------------------------------------------------------------------- making and
# limiting


def create(plan: CgroupPlan, found: list[str]) -> dict[str, str]:
    """Make the directories: see cgroup_make.create()."""
    from pyrunc.apply.cgroups import making

    return making.create(plan, found)


def intend(container: Container, plan: CgroupPlan) -> list[str]:
    """Note in a record which cgroups a container will have, and which of them are somebody else's already.

    Must be saved before create(): after a creator that was killed nothing else tells what was never ours.

    Returns:
        The list of those found, for create() to add to.

    """
    container.cgroup = plan.paths
    container.cgroup_manager = plan.manager
    found: list[str] = []
    # systemd makes a scope anew, and with it all its cgroups.
    if plan.unit is None or plan.unit.name.endswith(".slice"):
        found += [path for path in dict.fromkeys(plan.paths.values()) if somebody_elses(path)]
    container.extra[_FOUND] = found
    return found


def somebody_elses(path: str) -> bool:
    """Tell whether there is a cgroup that is not this user's. An empty one of ours is taken over, as by runc.

    It goes with the container then: the limits that were set on it are not to meet the next one.
    """
    try:
        return os.lstat(path).st_uid != os.geteuid()
    except OSError:
        return False


def made(container: Container) -> dict[str, str]:
    """Return the cgroups of a container's that are its own, as in its `cgroup`: what may be removed."""
    found = container.extra.get(_FOUND)
    if not isinstance(found, list):
        return container.cgroup
    return {name: path for name, path in container.cgroup.items() if path not in found}


def apply_limits(plan: CgroupPlan, paths: dict[str, str]) -> None:
    """Write every setting. Before the container's process joins: it never runs without its limits.

    Args:
        plan: the settings.
        paths: what create() returned.

    Raises:
        Failure: the kernel refuses one; it says which place in config.json asked for it.

    """
    from pyrunc.apply.cgroups import making

    making.apply_limits(plan, paths)


# -------------------------------------------------------------------------------------------------------
# joining


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

    The kernel checks the rights of whoever opened them, so a child in a user namespace may write (law 5).

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
    """Move the calling process, which must have one thread, into the cgroups of join_fds(), and close these.

    Raises:
        Failure: the kernel refuses.

    """
    for fd in fds:
        with failing("join the container's cgroup"):
            os.write(fd, b"0")
        os.close(fd)


def settle(manager: str) -> None:
    """Say that the container's process has joined: whoever held its cgroup until then may go.

    Args:
        manager: the plan's.

    """
    if manager == "systemd":
        from pyrunc.apply.cgroups import systemd

        systemd.settle()


def join(paths: dict[str, str], pid: int) -> None:
    """Move another process with all its threads. Slow, see the module: for one that cannot join by itself.

    Raises:
        Failure: the process or a directory is gone, or the kernel refuses.

    """
    for name, path in paths.items():
        # A resctrl group (intel_rdt...) has no cgroup.procs; co-mounted controllers are joined once more, for
        # nothing.
        file = "tasks" if name.startswith("intel_rdt") else "cgroup.procs"
        with failing(f"move process {pid} to cgroup {path}"):
            files.write(f"{path}/{file}", b"%d" % pid)


# -------------------------------------------------------------------------------------------- asking,
# signalling


def pids(paths: dict[str, str]) -> list[int]:
    """Return the ids of all processes in the cgroup and below it, in ascending order.

    Processes of other pid namespaces, which have no id here, are left out.
    """
    found: set[int] = set()
    order = ("", "pids", "devices", "freezer", *paths)
    top = next((paths[name] for name in order if name in paths), "")
    if top:
        walk(top, lambda fd: found.update(members(fd)))
    found.discard(0)
    return sorted(found)


def members(directory: int) -> list[int]:
    """Return the ids of the processes of a cgroup, without those below it."""
    try:
        text = read("", "cgroup.procs", directory)
    except OSError:
        # A threaded cgroup of version 2 only lists threads.
        text = read("", "cgroup.threads", directory)
    return [int(line) for line in text.split()]


def walk(
    path: str,
    enter: Callable[[int], object] | None = None,
    leave: Callable[[int, str], object] | None = None,
) -> None:
    """Visit a cgroup and all below it.

    A container with a cgroup mount of its own makes these, as deep as it likes: deeper than there can be
    calls within each other, open descriptors, or components in a path. So there is one descriptor, which
    moves.

    Args:
        path: the directory of the topmost.
        enter: called with the descriptor of each directory; those above first.
        leave: called for each but the topmost, those below first: with the descriptor of the directory that
            it is in, and its name.

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
                    continue  # removed meanwhile
                os.close(here)
                here = inner
                if enter is not None:
                    enter(here)
                way.append((name, _children(here)))
                continue
            way.pop()
            if way:
                # A cgroup's parent stays its parent: the kernel moves none elsewhere.
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
        # kernfs counts as a link each directory, and two for itself: most cgroups need no listing.
        if os.fstat(directory).st_nlink == 2:
            return []
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def read(path: str, file: str, directory: int | None = None) -> bytes:
    """Return a file's bytes, b"" when the file or the cgroup is gone.

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
    """Send a signal to every process in the cgroup and below it, missing none that is being forked meanwhile.

    Args:
        paths: the container's cgroup.
        signal: its number; SIGKILL also ends a paused container.

    Raises:
        Failure: a process may not be signalled.

    """
    if signal == _SIGKILL and "" in paths and _kill_file(paths[""]):
        _thaw_all(paths)
        return
    was_frozen = frozen(paths)
    held = was_frozen
    if not held:
        try:
            freeze(paths)
            held = True
        except Failure:
            # No freezer, or processes appear faster than it freezes: the rounds below catch the rest.
            held = False
    try:
        for _round in range(10):
            alive = pids(paths)
            _signal(alive, signal)
            if held or signal != _SIGKILL or not alive:
                break
            _thaw_all(paths)
    finally:
        if signal == _SIGKILL:
            _thaw_all(paths)
        elif held and not was_frozen:
            thaw(paths)


def _thaw_all(paths: dict[str, str]) -> None:
    from pyrunc.apply.cgroups import thaw as cgroup_thaw

    cgroup_thaw.thaw_all(paths)


def _kill_file(path: str) -> bool:
    """Kill a whole cgroup with one write (Linux 5.14); return whether there is such a file."""
    try:
        files.write(path + "/cgroup.kill", b"1")
    except OSError:
        return False
    return True


def _signal(alive: list[int], signal: int) -> None:
    for pid in alive:
        try:
            os.kill(pid, signal)
        except ProcessLookupError:
            continue
        except OSError as exc:
            raise Failure(f"signal process {pid}", errno=exc.errno or 0) from None


def frozen(paths: dict[str, str]) -> bool:
    """Tell whether the cgroup is frozen or about to be, by itself or with a cgroup above it."""
    if "freezer" in paths:
        return read(paths["freezer"], "freezer.state").strip() in (b"FROZEN", b"FREEZING")
    return "" in paths and read(paths[""], "cgroup.freeze").strip() == b"1"


def freeze(paths: dict[str, str]) -> None:
    """Stop every process in the cgroup and below it where it is.

    Raises:
        Failure: there is no freezer, or it does not come to rest ("unable to freeze").

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
    """Let the processes of a frozen cgroup go on.

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


# ------------------------------------------------------------------------------------------------------
# removing


def remove(paths: dict[str, str], *, manager: str = "cgroupfs", seconds: float = _REMOVE_SECONDS) -> None:
    """Remove the cgroup with all below it, waiting for killed processes to be gone; what is gone is no error.

    Args:
        paths: the container's cgroup.
        manager: the one it was made by.
        seconds: how long to wait at most.

    Raises:
        Failure: processes are left (it names them), or there is no right to remove it.

    """
    if manager == "systemd":
        from pyrunc.apply.cgroups import systemd

        systemd.stop(paths)
    pause = 0.001
    waited = 0.0
    # A resctrl group that was named by the configuration stays (runtime-spec "IntelRdt").
    left = list(dict.fromkeys(path for name, path in paths.items() if name != "intel_rdt_clos"))
    while True:
        left = [path for path in left if not _remove(path)]
        if not left:
            return
        if waited >= seconds:
            from pyrunc.apply.cgroups import reasons

            raise reasons.in_use(left)
        # What was frozen from within cannot end, killed or not.
        _thaw_all(paths)
        time.sleep(pause)
        waited += pause
        pause = min(pause * 2, 0.512)


def _remove(path: str) -> bool:
    """Remove one tree; return whether it is gone."""
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
