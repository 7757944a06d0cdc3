"""Id-mapped mounts: what is owned by one id in the file system belongs to another where it is mounted.

The kernel takes the mapping from a user namespace (mount_setattr(2), MOUNT_ATTR_IDMAP, Linux 5.12), so a
process that does nothing else is made in one, for as long as it takes to open it. Only the parent has the
rights to do
this: the file system belongs to the host. Imported only for containers with such mounts.
"""

from __future__ import annotations

import os
from errno import EINVAL, EPERM

from pyrunc.apply import foreground, idmaps
from pyrunc.apply.mounts import bind_sources
from pyrunc.errors import Failure
from pyrunc.linux import _linux, flags
from pyrunc.plan.steps import IdMaps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.mount_steps import Mount
    from pyrunc.plan.steps import IdMap

_SIGCHLD = 17


class Spaces:
    """The user namespaces made so far: one for each mapping, however many mounts have it."""

    def __init__(self) -> None:
        """Begin with none."""
        self._made: dict[object, int] = {}

    def map(self, fd: int, step: Mount) -> None:
        """Id-map a detached mount.

        Args:
            fd: the mount.
            step: its step, with a mapping.

        Raises:
            Failure: the mapping or the mount cannot be had; for a file system without support it says so.

        """
        how = flags.AT_EMPTY_PATH | (flags.AT_RECURSIVE if step.attributes.deep_ids else 0)
        space = self._space(step)
        try:
            _linux.mount_setattr(fd, "", how, flags.MOUNT_ATTR_IDMAP, 0, 0, space)
        except OSError as exc:
            raise bind_sources.failure(
                step, "map its ids", exc.errno or 0, _hint(exc.errno or 0, fd)
            ) from None

    def _space(self, step: Mount) -> int:
        asked = step.attributes
        key: object = asked.id_space or asked.id_maps
        fd = self._made.get(key, -1)
        if fd < 0:
            if asked.id_maps is None:
                try:
                    fd = os.open(asked.id_space, os.O_RDONLY | os.O_CLOEXEC)
                except OSError as exc:
                    what = f"open user namespace {asked.id_space}"
                    raise bind_sources.failure(step, what, exc.errno or 0) from None
            else:
                try:
                    fd = _make(asked.id_maps)
                except Failure as problem:
                    problem.pointer = step.pointer
                    raise
            self._made[key] = fd
        return fd

    def close(self) -> None:
        """Let go of them; the mounts keep what they need."""
        for fd in self._made.values():
            os.close(fd)
        self._made.clear()


def map_one(fd: int, step: Mount, maps: tuple[IdMap, IdMap]) -> None:
    """Id-map a detached mount that is a part of another.

    Args:
        fd: the mount.
        step: what it is a part of.
        maps: the mapping.

    Raises:
        Failure: the mapping or the mount cannot be had.

    """
    space = _make(maps)
    try:
        _linux.mount_setattr(fd, "", flags.AT_EMPTY_PATH, flags.MOUNT_ATTR_IDMAP, 0, 0, space)
    except OSError as exc:
        hint = _hint(exc.errno or 0, fd)
        raise bind_sources.failure(step, "map the ids of the layer below", exc.errno or 0, hint) from None
    finally:
        os.close(space)


def _make(maps: tuple[IdMap, IdMap]) -> int:
    """Return a new user namespace with a mapping; nobody is in it.

    Raises:
        Failure: the kernel refuses the mapping.

    """
    reader, writer = os.pipe()

    def wait() -> None:
        os.close(writer)
        os.read(reader, 1)  # until the parent has seen enough, or is gone

    pid, pidfd = foreground.fork(wait, lambda: _linux.clone3(flags.CLONE_NEWUSER, _SIGCHLD, -1))
    os.close(reader)
    try:
        idmaps.write(pid, IdMaps(uids=maps[0], gids=maps[1]))
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writer)
        os.close(pidfd)
        os.waitpid(pid, 0)


def _hint(errno: int, fd: int) -> str:
    if errno == EINVAL:
        from pyrunc.linux import flags_slow

        kind = flags_slow.filesystem(_linux.fstatfs(fd)[0])
        return (
            f"{kind} on Linux {os.uname().release} cannot be id-mapped, or something mounted below cannot:"
            " use another file system, or idmap instead of ridmap"
        )
    if errno == EPERM:
        return "a mount can be id-mapped once, and only with the host's rights"
    return ""
