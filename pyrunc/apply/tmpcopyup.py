"""Fill a tmpfs with what it is going to cover: the option tmpcopyup. Imported for such mounts only.

Both sides are descriptors: the init has opened the one inside the container's root and made the other. In a
user namespace the files of a tmpfs have owners that only exist inside; so a process of its own enters it,
and nothing else of the container.
"""

from __future__ import annotations

import os

from pyrunc import jsonio
from pyrunc.apply import foreground, identity, sources
from pyrunc.errors import Failure, from_facts, worded
from pyrunc.linux import _linux, flags
from pyrunc.volumes import copyup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.steps import Mount


def copy(step: Mount, cover: int, fd: int, users: int) -> None:
    """Copy a directory into a tmpfs.

    Args:
        step: the mount.
        cover: the directory that will be covered.
        fd: the detached mount.
        users: pidfd of a process whose user namespace the files belong to, -1 for ours.

    Raises:
        Failure: something cannot be copied.

    """
    if users < 0:
        _copy(step, cover, fd)
        return
    reader, writer = os.pipe()

    def help_out() -> None:
        answer = ""
        try:
            _linux.setns(users, flags.CLONE_NEWUSER)
            identity.become_root(0, 0)
            _linux.prctl(flags.PR_SET_DUMPABLE, 0, 0, 0, 0)
            _copy(step, cover, fd)
        except BaseException as exc:  # noqa: BLE001 - the parent words it
            answer = jsonio.dumps(worded(exc, "copy up what a tmpfs covers").facts())
        os.write(writer, answer.encode())
        os._exit(0)

    helper, _pidfd = foreground.fork(help_out)
    os.close(writer)
    try:
        answer = os.read(reader, 1 << 16).decode("utf-8", "replace")
    finally:
        os.close(reader)
        _pid, status = os.waitpid(helper, 0)
    if answer:
        raise from_facts(jsonio.loads(answer))
    if status:
        raise sources.failure(step, "copy up what it covers")


def _copy(step: Mount, cover: int, fd: int) -> None:
    opened: list[int] = []
    how = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        opened.extend(os.open(".", how, dir_fd=each) for each in (cover, fd))
        asked = os.fstat(opened[1])
        copyup.copy(opened[0], opened[1], step.destination)
        # What the options say about the directory itself counts more than what was there.
        words = {word.partition("=")[0] for word in step.data}
        if words & {"uid", "gid"}:
            uid = asked.st_uid if "uid" in words else -1
            os.chown(opened[1], uid, asked.st_gid if "gid" in words else -1)
        if "mode" in words:
            os.chmod(opened[1], asked.st_mode & 0o7777)
    except Failure as problem:
        problem.step, problem.pointer = sources.STEP, step.pointer
        raise
    except OSError as exc:
        raise sources.failure(step, "copy up what it covers", exc.errno or 0) from None
    finally:
        for each in opened:
            os.close(each)
