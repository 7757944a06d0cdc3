"""Make init inside its namespaces: enter the ones that exist, clone3 into the new ones, come back.

The parent enters joined namespaces itself and returns to its own afterwards: one fork less than an
intermediate process. A joined user namespace cannot be left again, and nobody but the host's root may return
to the host's other namespaces; then a short-lived process enters, and clones with CLONE_PARENT so that init
is the parent's own child all the same.

Law 6: none of these processes is dumpable when the one is cloned that a container may see. An ordinary user
can write the id maps of dumpable processes alone; so there the short-lived process is the first of the new
user namespace, where nobody is who could look at it, and lets go of being dumpable when it has its maps.
"""

from __future__ import annotations

import _signal
import os

from pyrunc import jsonio
from pyrunc.apply import foreground
from pyrunc.errors import Failure, from_facts, worded
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
    spaces: Namespaces,
    cgroup_fd: int,
    run: Callable[[], None],
    dress: Callable[[int], None],
    *,
    not_now: Join | None = None,
) -> tuple[int, int]:
    """Make the init process; run is called in it and never returns.

    Args:
        spaces: what to make and enter; those of entered_by_child() are entered by init itself.
        cgroup_fd: unified cgroup to be born in, -1 for none.
        run: the child's side.
        dress: where mapped_first() says so, called with the first process of the new user namespace, to write
            its id maps and what else takes a process that is dumpable; init inherits it.
        not_now: a namespace that is joined later.

    Returns:
        init's pid and a pidfd.

    Raises:
        Failure: a namespace cannot be entered or made.

    """
    later = entered_by_child(spaces)
    joins = [join for join in spaces.joins if join.kind not in later and join is not not_now]
    new = spaces.flags & ~flags.CLONE_NEWCGROUP
    if mapped_first(spaces):
        inner = new & ~flags.CLONE_NEWUSER
        return _fork_helper(lambda: _help(joins, spaces, inner, cgroup_fd, run), dress)
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


def mapped_first(spaces: Namespaces) -> bool:
    """Tell whether spawn() has the id maps of a new user namespace written before init is made."""
    return bool(spaces.flags & flags.CLONE_NEWUSER) and os.geteuid() != 0


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
    _make_time(spaces)


def _make_time(spaces: Namespaces) -> None:
    """Make the time namespace our children get, if there is to be one, and set its clocks."""
    if not spaces.flags & flags.CLONE_NEWTIME:
        return
    try:
        _linux.unshare(flags.CLONE_NEWTIME)
    except OSError as exc:
        raise Failure("make a time namespace", pointer=spaces.pointer, errno=exc.errno or 0) from None
    if spaces.time_offsets:
        _write_offsets(spaces)


def _write_offsets(spaces: Namespaces) -> None:
    """Set the clocks of the time namespace our children get (time_namespaces(7))."""
    text = "".join(
        f"{clock} {seconds} {nanoseconds}\n" for clock, seconds, nanoseconds in spaces.time_offsets
    )
    try:
        fd = _open_own("/proc/self/timens_offsets")
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as exc:
        raise Failure("set the clock offsets", pointer="/linux/timeOffsets", errno=exc.errno or 0) from None


def _open_own(path: str) -> int:
    """Open a file of our own in /proc for writing: an ordinary user's belong to root unless it is dumpable.

    We are in the runtime's pid namespace still, where no container sees us that has one of its own.
    """
    dumpable = _linux.prctl(flags.PR_GET_DUMPABLE, 0, 0, 0, 0)
    if os.geteuid() != 0:
        _linux.prctl(flags.PR_SET_DUMPABLE, 1, 0, 0, 0)
    try:
        return os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    finally:
        _linux.prctl(flags.PR_SET_DUMPABLE, dumpable, 0, 0, 0)


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


def _fork_helper(work: Callable[[], str], dress: Callable[[int], None] | None = None) -> tuple[int, int]:
    """Let a process of its own make init, and return init's pid and a pidfd.

    Args:
        work: what it does; it returns the pid.
        dress: given, it begins in a new user namespace, and waits until this has been called with its pid.

    Raises:
        Failure: what work or dress raised, or that the process died.

    """
    reader, writer = os.pipe()
    waits, go = os.pipe()

    def help_out() -> None:
        try:
            os.close(go)
            if dress is None or os.read(waits, 1):
                _answer(work, writer)
        finally:
            os._exit(0)

    try:
        helper, pidfd = _first_of_user_namespace(help_out) if dress else _clone(0, -1, help_out)
        os.close(pidfd)
        os.close(writer)
        writer = -1
        try:
            if dress is not None:
                dress(helper)
                os.write(go, b"\0")
            answer = os.read(reader, 4096).decode("utf-8", "replace")
        finally:
            os.close(go)  # it ends if it still waits
            go = -1
            os.waitpid(helper, 0)
    finally:
        for fd in (reader, writer, waits, go):
            if fd >= 0:
                os.close(fd)
    if answer.startswith("!"):
        raise from_facts(jsonio.loads(answer[1:]))
    if not answer:
        raise Failure("the process entering the container's namespaces died")
    pid = int(answer)
    return pid, os.pidfd_open(pid)


def _first_of_user_namespace(run: Callable[[], None]) -> tuple[int, int]:
    """Clone into a new user namespace; the process is dumpable, so that its id maps can be written by us."""
    dumpable = _linux.prctl(flags.PR_GET_DUMPABLE, 0, 0, 0, 0)
    _linux.prctl(flags.PR_SET_DUMPABLE, 1, 0, 0, 0)
    try:
        return _clone(flags.CLONE_NEWUSER, -1, run)
    finally:
        _linux.prctl(flags.PR_SET_DUMPABLE, dumpable, 0, 0, 0)


def _answer(work: Callable[[], str], writer: int) -> None:
    """Do the work and write what comes of it."""
    try:
        answer = work()
    except BaseException as exc:  # noqa: BLE001 - the parent words it
        answer = "!" + jsonio.dumps(worded(exc, "join the container's namespaces").facts())
    os.write(writer, answer.encode())


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
    _make_time(spaces)
    _linux.prctl(flags.PR_SET_DUMPABLE, 0, 0, 0, 0)
    pid, _pidfd = _clone(new & ~flags.CLONE_NEWTIME | flags.CLONE_PARENT, cgroup_fd, run)
    return str(pid)
