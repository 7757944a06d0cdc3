"""Id-mapped mounts: files of one owner in the file system appear with another one below the mount.

The kernel takes the mapping from a user namespace (mount_setattr(2), MOUNT_ATTR_IDMAP, Linux 5.12). So a
process is made in a new one, and ends when the namespace has been opened. Only the parent has the rights for
this, because the file system belongs to the host. Imported only for containers with such mounts.
"""

from __future__ import annotations

import _signal
import os
from errno import EINVAL, EPERM

from pyrunc.apply import children, idmaps
from pyrunc.apply.mounts import bind_sources
from pyrunc.errors import Failure
from pyrunc.files import closing
from pyrunc.linux import _linux, flags
from pyrunc.plan.steps import IdMaps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrunc.plan.mount_steps import Mount
    from pyrunc.plan.steps import IdMap


class Spaces:
    """The user namespaces made so far: one for each mapping, for any number of mounts."""

    def __init__(self) -> None:
        """Make an empty table."""
        self._made: dict[object, int] = {}

    def map(self, fd: int, step: Mount) -> None:
        """Id-map a detached mount.

        Args:
            fd: the mount.
            step: the mount's step, with a mapping.

        Raises:
            Failure: the namespace cannot be made, or the mount cannot be id-mapped. The message says so if
                the file system does not support it.

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
        """Close the namespaces; the mounts keep what they need."""
        for fd in self._made.values():
            os.close(fd)
        self._made.clear()


def map_all(fds: Sequence[int], step: Mount, maps: tuple[IdMap, IdMap]) -> None:
    """Id-map detached mounts that are parts of another.

    Args:
        fds: the mounts.
        step: the step of the mount they are parts of.
        maps: the mapping.

    Raises:
        Failure: the namespace cannot be made, or a mount cannot be id-mapped.

    """
    with closing(_make(maps)) as space:
        for fd in fds:
            try:
                _linux.mount_setattr(fd, "", flags.AT_EMPTY_PATH, flags.MOUNT_ATTR_IDMAP, 0, 0, space)
            except OSError as exc:
                hint = _hint(exc.errno or 0, fd)
                raise bind_sources.failure(
                    step, "map the ids of a lower layer", exc.errno or 0, hint
                ) from None


def _make(maps: tuple[IdMap, IdMap]) -> int:
    """Return a new user namespace with a mapping; no process is in it.

    Raises:
        Failure: the kernel refuses the mapping.

    """
    reader, writer = os.pipe()

    def wait() -> None:
        os.close(writer)
        os.read(reader, 1)  # until the parent has opened the namespace, or is gone

    pid, pidfd = children.fork(wait, lambda: _linux.clone3(flags.CLONE_NEWUSER, _signal.SIGCHLD, -1))
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
