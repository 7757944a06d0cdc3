"""Fill a tmpfs with what it is going to cover: the option tmpcopyup. Imported only for such mounts.

Both sides are descriptors: init has opened the one inside the container's root, and made the other. In a user
namespace the files of a tmpfs have owners that exist only inside. So a process enters it, and nothing else of
the container except its cgroups, because the copied files take the container's memory.
"""

from __future__ import annotations

import _signal
import os
from errno import ENOSYS, EPERM

from pyrunc import jsonio
from pyrunc.apply import children, identity
from pyrunc.apply.cgroups import cgroup
from pyrunc.apply.mounts import bind_sources
from pyrunc.errors import Failure, from_facts, worded
from pyrunc.linux import _linux, flags
from pyrunc.volumes import copyup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrunc.plan.mount_steps import FileSystem


def copy(step: FileSystem, cover: int, fd: int, users: int, paths: dict[str, str]) -> None:
    """Copy a directory into a tmpfs.

    Args:
        step: the mount.
        cover: the directory that will be covered.
        fd: the detached mount.
        users: pidfd of a process in the user namespace that the files belong to, -1 for that of pyrunc.
        paths: the container's cgroups; the files count as their memory.

    Raises:
        Failure: something cannot be copied.

    """
    tasks = cgroup.join_fds(paths)
    into = cgroup.clone_fd(paths)
    reader, writer = os.pipe()

    def help_out() -> None:
        answer = ""
        try:
            cgroup.join_self(tasks)
            if users >= 0:
                _linux.setns(users, flags.CLONE_NEWUSER)
                identity.become_root()
                _linux.prctl(flags.PR_SET_DUMPABLE, 0, 0, 0, 0)
            os.umask(0)
            fill(step, cover, fd)
        except BaseException as exc:  # noqa: BLE001 - the parent words it
            answer = jsonio.dumps(worded(exc, "copy up what a tmpfs covers").facts())
        os.write(writer, answer.encode())
        os._exit(0)

    try:
        helper, pidfd = _fork(help_out, into, paths)
    finally:
        for each in (*tasks, into, writer):
            if each >= 0:
                os.close(each)
    try:
        answer = os.read(reader, 1 << 16).decode("utf-8", "replace")
    finally:
        os.close(reader)
        _pid, status = os.waitpid(helper, 0)
        if pidfd >= 0:
            os.close(pidfd)
    if answer:
        raise from_facts(jsonio.loads(answer))
    if status:
        hint = "it takes memory of the container's: see /linux/resources/memory/limit"
        raise bind_sources.failure(step, "copy up what it covers", 0, hint)


def _fork(work: Callable[[], object], into: int, paths: dict[str, str]) -> tuple[int, int]:
    """Make the process in the container's unified cgroup; without clone3(2) it joins the cgroup."""
    try:
        return children.fork(work, lambda: _linux.clone3(0, int(_signal.SIGCHLD), into))
    except OSError as exc:
        if exc.errno not in (EPERM, ENOSYS):
            raise

    def join_and_work() -> None:
        if into >= 0:
            cgroup.join({"": paths[""]}, os.getpid())
        work()

    return children.fork(join_and_work)


def fill(step: FileSystem, cover: int, fd: int) -> None:
    """Copy a directory into a tmpfs, with the rights of this process.

    Args:
        step: the mount.
        cover: the directory that will be covered.
        fd: the detached mount.

    Raises:
        Failure: something cannot be copied.

    """
    opened: list[int] = []
    how = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        opened.extend(os.open(".", how, dir_fd=each) for each in (cover, fd))
        asked = os.fstat(opened[1])
        copyup.copy(opened[0], opened[1], step.destination)
        # Options for the directory itself take precedence over what is copied.
        words = {word.partition("=")[0] for word in step.data}
        if words & {"uid", "gid"}:
            uid = asked.st_uid if "uid" in words else -1
            os.chown(opened[1], uid, asked.st_gid if "gid" in words else -1)
        # Without an option the tmpfs has the mode of what it covers already, unless that was made for it:
        # then it is open to all users, not only to the owner of what was made.
        os.chmod(opened[1], asked.st_mode & 0o7777)
    except Failure as problem:
        problem.step, problem.pointer = bind_sources.STEP, step.pointer
        raise
    except OSError as exc:
        raise bind_sources.failure(step, "copy up what it covers", exc.errno or 0) from None
    finally:
        for each in opened:
            os.close(each)
