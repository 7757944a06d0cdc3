"""Look at, or change, the mount tree of an existing container, by the init program in its mount namespace.

Law 5: what enters the container is not Python but that program (plan/program_live); it reports what it
finds, and the parent decides. Law 6: it has only the descriptors that it needs, and does not join the
container's pid namespace. Law 3: it reaches the container's tree through one descriptor of its root, and uses
a procfs of its own that was opened before.

A file system that a process of the container serves, or a frozen one, can block the program, so it has a time
limit. If the container can see it (in the host's pid namespace), the container's root may also be able to
stop it: so the parent has a second time limit.
"""

from __future__ import annotations

import _signal
import _struct
import os

from pyrunc import store
from pyrunc.apply import parent, protocol
from pyrunc.apply.errand import Errand
from pyrunc.apply.mounts import bind_sources
from pyrunc.errors import Failure, failing
from pyrunc.linux import flags
from pyrunc.plan import mount_table, program_live
from pyrunc.plan.program_live import Visit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pyrunc.plan.mount_steps import Mount
    from pyrunc.plan.program import Program

_SECONDS = 10  # a walk takes microseconds; only a server of a file system that does not answer takes longer
_GRACE = 1.0  # seconds that the parent waits after the program's own time limit
_LOCATED = _struct.Struct("=IiQB")


class Found:
    """Where a path in the container leads.

    Attributes:
        errno: why it leads nowhere, 0 if it does lead somewhere.
        mount: id of the mount, in the mount table.
        top: it leads to the root of that.

    """

    def __init__(self, errno: int, mount: int, *, top: bool) -> None:
        """Keep what the program says."""
        self.errno = errno
        self.mount = mount
        self.top = top


class Visitor(Errand):
    """The init program in a container's mount tree, from the parent's side.

    Attributes:
        visit: how it gets there.
        init: pidfd of the container's init.

    """

    def __init__(
        self, container: store.Container, mounts: tuple[Mount, ...] = (), *, as_root: bool = False
    ) -> None:
        """Find the container's init.

        Args:
            container: its record; its init must exist.
            mounts: what will be mounted.
            as_root: use the rights of the container's user namespace, and not those of pyrunc.

        Raises:
            Failure: it is gone.

        """
        self.init = _open_init(container)
        kinds = flags.CLONE_NEWNS if "mount" in container.namespaces else 0
        # An ordinary user has rights in the mount namespace only through the user namespace that owns it.
        if "user" in container.namespaces and kinds and (as_root or os.geteuid() != 0):
            kinds |= flags.CLONE_NEWUSER
        self.visit = Visit(kinds=kinds, seconds=_SECONDS)
        super().__init__(container, mounts, limit=_SECONDS + _GRACE)

    def run(
        self,
        program: Program,
        slots: Mapping[str, int] | None = None,
        serve: Callable[[bytes, bytes, int], bool] = lambda _kind, _payload, _fd: False,
    ) -> None:
        """Carry out a program: as Errand.run(), with the slots that every program here has."""
        opened: dict[str, int] = {}
        try:
            opened["proc"] = parent.private_procfs()
            if not self.visit.kinds:
                # It has no mount namespace of its own: its root is a directory of this one.
                how = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
                with failing("open the container's root"):
                    opened["root"] = os.open(f"{self.container.pid}/root", how, dir_fd=opened["proc"])
            super().run(program, {**(slots or {}), **opened, "init": self.init}, serve)
        finally:
            for fd in opened.values():
                os.close(fd)

    def ended(self, code: int) -> Failure:
        """Return the Failure for a process that did not complete its program."""
        if code != -_signal.SIGALRM:
            return super().ended(code)
        return Failure(
            f"a file system in the container does not answer within {self.visit.seconds} seconds",
            step=self.container.id,
            hint="one that the container serves itself (FUSE) is in the way; resume or stop what serves it",
        )

    def late(self) -> Failure:
        """Return the Failure for a process that does not keep its own time limit."""
        return Failure(
            "the process that looks into the container was stopped, and did not go on within"
            f" {self.visit.seconds} seconds",
            step=self.container.id,
            hint="a container in the host's pid namespace can do that: see its processes with pyrunc ps",
        )

    def close(self) -> None:
        """Close the pidfd of the container's init, and the socket."""
        super().close()
        os.close(self.init)


def _open_init(container: store.Container) -> int:
    """Return a pidfd of the container's init. Its pid may belong to another process by now."""
    try:
        pidfd = os.pidfd_open(container.pid)
    except ProcessLookupError:
        raise gone(container) from None
    stat = store.process_stat(container.pid)
    if stat is None or stat[2] != container.start:
        os.close(pidfd)
        raise gone(container)
    return pidfd


def gone(container: store.Container) -> Failure:
    """Return the Failure for a question about the mounts of a container without processes."""
    return Failure(
        "a stopped container has no mounts: they went with its last process",
        step=container.id,
        hint="`pyrunc plan` shows what it would be given again",
    )


def located(payload: bytes) -> tuple[int, Found]:
    """Return the number of a path and where it leads, as the program tells.

    Raises:
        Failure: the message is malformed.

    """
    if len(payload) != _LOCATED.size:
        raise Failure("the container's side sent a malformed message about a path")
    number, errno, mount, top = _LOCATED.unpack(payload)
    return number, Found(errno, mount, top=bool(top))


def look(container: store.Container, paths: Iterable[str]) -> tuple[str, dict[str, str]]:
    """Return a container's mount table, and where paths in it lead that are not mount points in the table.

    Args:
        container: its record.
        paths: clean absolute paths inside it.

    Returns:
        The text of its mountinfo; path -> the mount point that it leads to, "" if it leads to a place that is
            no mount point. A path that does not exist is left out.

    Raises:
        Failure: it cannot be looked at.

    """
    text, found = locate(container, paths)
    by_id = {row.id: row.point for row in mount_table.parse(text)}
    points = set(by_id.values())
    return text, {
        path: by_id.get(where.mount, "") if where.top else ""
        for path, where in found.items()
        if not where.errno and path not in points
    }


def locate(container: store.Container, paths: Iterable[str]) -> tuple[str, dict[str, Found]]:
    """Return a container's mount table, and where paths in it lead.

    Args:
        container: its record.
        paths: absolute paths inside it.

    Raises:
        Failure: it cannot be looked at.

    """
    wanted = list(dict.fromkeys(paths))
    visitor = Visitor(container)
    table: list[int] = []
    found: dict[str, Found] = {}

    def serve(kind: bytes, payload: bytes, fd: int) -> bool:
        if kind == protocol.TABLE and fd >= 0 and not table:
            table.append(fd)
            visitor.tell(protocol.GO)
        elif kind == protocol.LOCATED and fd < 0:
            number, where = located(payload)
            if number >= len(wanted):
                return False
            found[wanted[number]] = where
        else:
            return False
        return True

    what = "read the container's mount table"
    try:
        if not visitor.visit.kinds:
            with failing(what):
                table.append(os.open(f"/proc/{container.pid}/mountinfo", os.O_RDONLY))
        visitor.run(program_live.look(visitor.visit, wanted), serve=serve)
        with failing(what):
            return bind_sources.read_all(table.pop()), found
    finally:
        visitor.close()
        for fd in table:
            os.close(fd)


def close_root(container: store.Container) -> None:
    """Make the root of a container read-only.

    Raises:
        Failure: it cannot be done.

    """
    visitor = Visitor(container)
    try:
        visitor.run(program_live.readonly_root(visitor.visit))
    finally:
        visitor.close()
