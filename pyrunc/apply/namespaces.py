"""Make init inside its namespaces: enter the ones that exist, clone3 into the new ones, come back.

The parent enters joined namespaces itself and returns to its own afterwards: one fork less than an
intermediate process. A joined user namespace cannot be left again, and nobody but the host's root may return
to the host's other namespaces; then a short-lived process enters, and clones with CLONE_PARENT so that init
is the parent's own child all the same.
"""

from __future__ import annotations

import _signal
import os

from pyrunc import jsonio
from pyrunc.apply import foreground
from pyrunc.errors import Failure, from_facts
from pyrunc.linux import _linux, flags
from pyrunc.plan.namespaces import FLAGS
from pyrunc.plan.steps import ClassicMounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrunc.plan.steps import Join, Namespaces, Plan

_EINVAL, _EPERM, _ENOSYS = 22, 1, 38
_FILES = {"network": "net", "mount": "mnt"}


def spawn(
    spaces: Namespaces, cgroup_fd: int, run: Callable[[], None], *, not_now: Join | None = None
) -> tuple[int, int]:
    """Make the init process; run is called in it and never returns.

    Args:
        spaces: what to make and enter; those of entered_by_child() are entered by init itself.
        cgroup_fd: unified cgroup to be born in, -1 for none.
        run: the child's side.
        not_now: a namespace that is joined later.

    Returns:
        init's pid and a pidfd.

    Raises:
        Failure: a namespace cannot be entered or made.

    """
    later = entered_by_child(spaces)
    joins = [join for join in spaces.joins if join.kind not in later and join is not not_now]
    new = spaces.flags & ~flags.CLONE_NEWCGROUP
    if any(join.kind == "user" for join in joins):
        return _through_helper(joins, spaces, new, cgroup_fd, run)
    back = _way_back(joins, spaces)
    if back is None:
        return _through_helper(joins, spaces, new, cgroup_fd, run)
    try:
        _enter(joins, spaces)
        return _clone(new & ~flags.CLONE_NEWTIME, cgroup_fd, run)
    finally:
        for fd, kind in back:
            _linux.setns(fd, kind)
            os.close(fd)


def seen_while_made(plan: Plan) -> bool:
    """Tell whether processes of another container see init make its mount tree: see joined_pid()."""
    return joined_pid(plan) is None and any(join.kind == "pid" for join in plan.namespaces.joins)


def joined_pid(plan: Plan) -> Join | None:
    """Return the pid namespace that a container joins last of all, by the init program; None for none.

    With mount(2) there is no procfs of a namespace that one is not in: then init is made in it.
    """
    if any(isinstance(step, ClassicMounts) for step in plan.child):
        return None
    return next((join for join in plan.namespaces.joins if join.kind == "pid"), None)


def entered_by_child(spaces: Namespaces) -> tuple[str, ...]:
    """Return the kinds of namespaces that init enters itself, once it is in its cgroups.

    In a user namespace it would have no right to enter a cgroup namespace of the host: then we do, before.
    """
    if spaces.flags & flags.CLONE_NEWUSER or any(join.kind == "user" for join in spaces.joins):
        if any(join.kind == "cgroup" for join in spaces.joins):
            return ("mount",)
    return ("mount", "cgroup")


def _clone(new: int, cgroup_fd: int, run: Callable[[], None]) -> tuple[int, int]:
    # clone3 takes no signal with CLONE_PARENT: the child then has that of its new parent's child, us.
    exit_signal = 0 if new & flags.CLONE_PARENT else int(_signal.SIGCHLD)
    try:
        return foreground.fork(run, lambda: _linux.clone3(new, exit_signal, cgroup_fd))
    except OSError as exc:
        if exc.errno in (_EPERM, _ENOSYS):
            return _clone_by_filter(new, exit_signal, cgroup_fd, run)
        raise Failure(
            "make the container's namespaces", pointer="/linux/namespaces", errno=exc.errno or 0
        ) from None


def _clone_by_filter(new: int, exit_signal: int, cgroup_fd: int, run: Callable[[], None]) -> tuple[int, int]:
    """Clone with the older call, which filters can look into and therefore let through: clone(2).

    They refuse clone3(2) with ENOSYS so that callers do just this. It knows no cgroup to be born in: the
    child goes there first of all. Where it was not a filter that refused, this is refused in the same way.
    """
    procs = -1

    def begin() -> None:
        if procs >= 0:
            os.write(procs, b"0")  # outside of its cgroup it must not go on; the parent says that it is gone
        run()

    try:
        if cgroup_fd >= 0:
            procs = os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=cgroup_fd)
        return foreground.fork(begin, lambda: _linux.clone(new, exit_signal))
    except OSError as exc:
        raise Failure(
            "make the container's namespaces", pointer="/linux/namespaces", errno=exc.errno or 0
        ) from None
    finally:
        if procs >= 0:
            os.close(procs)


def _way_back(joins: list[Join], spaces: Namespaces) -> list[tuple[int, int]] | None:
    """Return what leads back out of what is to be entered, in any order; None if something does not."""
    back: list[tuple[int, int]] = []
    kinds = [join.kind for join in joins]
    if spaces.flags & flags.CLONE_NEWTIME:
        kinds.append("time")
    for kind in kinds:
        own = os.open(f"/proc/self/ns/{_FILES.get(kind, kind)}", os.O_RDONLY | os.O_CLOEXEC)
        back.append((own, FLAGS[kind]))
        if not _may_return(own, FLAGS[kind]):
            for fd, _flag in back:
                os.close(fd)
            return None
    return back


def _may_return(own: int, kind: int) -> bool:
    """Tell whether we may enter the namespace we are in: what the kernel asks for is the same as later."""
    try:
        _linux.setns(own, kind)
    except OSError as exc:
        if exc.errno != _EPERM:
            raise
        return False
    return True


def _enter(joins: list[Join], spaces: Namespaces) -> None:
    for join in joins:
        enter(join)
    if spaces.flags & flags.CLONE_NEWTIME:
        _linux.unshare(flags.CLONE_NEWTIME)
        _write_offsets(spaces)


def _write_offsets(spaces: Namespaces) -> None:
    """Set the clocks of the time namespace our children get (time_namespaces(7))."""
    if not spaces.time_offsets:
        return
    text = "".join(
        f"{clock} {seconds} {nanoseconds}\n" for clock, seconds, nanoseconds in spaces.time_offsets
    )
    try:
        fd = os.open("/proc/self/timens_offsets", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as exc:
        raise Failure("set the clock offsets", pointer="/linux/timeOffsets", errno=exc.errno or 0) from None


def open_join(join: Join) -> int:
    """Open a namespace to be entered.

    Raises:
        Failure: there is nothing at the path.

    """
    try:
        return os.open(join.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise Failure(
            f"open {join.kind} namespace {join.path}", pointer=join.pointer, errno=exc.errno or 0
        ) from None


def enter(join: Join) -> None:
    """Enter one namespace by path; the kernel checks that it is of the type asked for.

    Raises:
        Failure: it is not, or may not be entered.

    """
    fd = open_join(join)
    try:
        enter_opened(join, fd)
    finally:
        os.close(fd)


def enter_opened(join: Join, fd: int) -> None:
    """Enter one namespace that open_join() opened.

    Raises:
        Failure: as enter().

    """
    try:
        _linux.setns(fd, FLAGS[join.kind])
    except OSError as exc:
        raise refused(join, exc.errno or 0) from None


def refused(join: Join, errno: int) -> Failure:
    """Word a namespace that cannot be joined."""
    if errno == _EINVAL:
        return Failure(f"{join.path} is not a {join.kind} namespace that can be joined", pointer=join.pointer)
    return Failure(f"join {join.kind} namespace {join.path}", pointer=join.pointer, errno=errno)


def _through_helper(
    joins: list[Join], spaces: Namespaces, new: int, cgroup_fd: int, run: Callable[[], None]
) -> tuple[int, int]:
    """Enter namespaces in a process of its own, which makes init our child and ends."""
    return _fork_helper(lambda: _help(joins, spaces, new, cgroup_fd, run))


def _fork_helper(work: Callable[[], str]) -> tuple[int, int]:
    reader, writer = os.pipe()

    def help_out() -> None:
        try:
            answer = work()
        except Failure as problem:
            answer = "!" + jsonio.dumps(problem.facts())
        except BaseException as exc:  # noqa: BLE001 - the parent words it
            answer = "!" + jsonio.dumps(Failure(repr(exc), step="join namespaces").facts())
        os.write(writer, answer.encode())

    helper, _pidfd = foreground.fork(help_out)
    os.close(writer)
    try:
        answer = os.read(reader, 4096).decode("utf-8", "replace")
    finally:
        os.close(reader)
        os.waitpid(helper, 0)
    if answer.startswith("!"):
        raise from_facts(jsonio.loads(answer[1:]))
    if not answer:
        raise Failure("the process entering the container's namespaces died")
    pid = int(answer)
    return pid, os.pidfd_open(pid)


def _help(joins: list[Join], spaces: Namespaces, new: int, cgroup_fd: int, run: Callable[[], None]) -> str:
    # Namespaces the host owns can only be entered with the host's rights, those of the user namespace only
    # with its.
    later = []
    for join in joins:
        if join.kind != "user":
            try:
                enter(join)
            except Failure as problem:
                if problem.errno != _EPERM:
                    raise
                later.append(join)
    for join in (*(join for join in joins if join.kind == "user"), *later):
        enter(join)
    if spaces.flags & flags.CLONE_NEWTIME:
        _linux.unshare(flags.CLONE_NEWTIME)
        _write_offsets(spaces)
    pid, _pidfd = _clone(new & ~flags.CLONE_NEWTIME | flags.CLONE_PARENT, cgroup_fd, run)
    return str(pid)
