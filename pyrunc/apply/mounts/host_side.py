"""The parent's part of a mount tree: everything that is opened or decided on the host.

Law 5: bind sources are opened in the host's mount namespace, with the caller's rights and with all their
attributes set. What needs the parent's rights later is done on request (id-mapped mounts, tmpcopyup). A
container may have more sources than a process may have descriptors, so only the first ones are opened before
the init program is started. The others are opened in batches, each while init works on the one before: two
processes share the work.

    init                                          parent
      | BATCH + number of the first one ---------> |
      | <------------------- SOURCES + mounts ---- |
      | IDMAP + number of the step, mount -------> |
      | <------------------------------ GO ------- |
"""

from __future__ import annotations

import os

from pyrunc.apply import protocol
from pyrunc.apply.mounts import bind_sources, mount_points, root, verify
from pyrunc.errors import Failure
from pyrunc.files import closing
from pyrunc.plan import steps
from pyrunc.plan.lowering import BATCH
from pyrunc.plan.mount_steps import AttachRoot, Bind, CgroupBind, FileSystem, Mount, Overlay, Remount

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable

    from pyrunc.apply.conversation import Conversation
    from pyrunc.apply.mounts.classic import Sources
    from pyrunc.apply.mounts.id_mapped import Spaces
    from pyrunc.apply.trace import Trace
    from pyrunc.plan.program import Operation

# Sources opened before the init program is started: an ordinary container needs no message.
_FIRST = 32


class HostMounts:
    """The descriptors for one mount tree.

    Attributes:
        slots: name of a slot -> descriptor.
        opened: id of a step -> name of the slot of its mount.
        later: id of a step -> its number among those that are sent in batches.
        links: id of a step -> what its source, a symlink, points to.
        lonely: ids of steps for slave mounts whose source is not shared, so that they cannot be slaves.
        places: id of a device -> its path on the host, if that is another one.
        held: struct flock that releases the lock in the slot "lock".
        classic: what is known about sources that init mounts with mount(2).
        open_late: the parent can also open the sources that exist only after the cgroups do.

    """

    def __init__(self, plan: steps.Plan, trace: Trace | None) -> None:
        """Make it without any descriptors."""
        self.plan = plan
        self.slots: dict[str, int] = {}
        self.opened: dict[int, str] = {}
        self.later: dict[int, int] = {}
        self.links: dict[int, str] = {}
        self.lonely: set[int] = set()
        self.places: dict[int, str] = {}
        self.noted: list[tuple[int, Mount]] = []
        self.held = b""
        self.open_late = False
        self.classic: Sources | None = None
        self._waiting: list[Bind] = []
        self._next: tuple[int, list[int]] = (-1, [])
        self._spaces: Spaces | None = None
        self._cover = -1
        self._at: dict[int, str] = {}
        measured: Callable[..., Callable[..., int]] = trace.opener if trace else lambda do: do
        self._open_root = measured(root.open_root)
        self._open_device = measured(_open_device)
        self._open_source = measured(bind_sources.open_source)
        self._open_new = measured(_open_overlay)

    def prepare(self, directory: str) -> None:
        """Prepare for the mount steps, without opening anything of the host.

        Made are the list of mount points, and a shared lock on the root file system. While it is held, a
        command that deletes another container removes no mount point that was found and is not in use yet.

        Args:
            directory: the container's state directory.

        Raises:
            Failure: the list cannot be made.

        """
        self.slots["made"] = mount_points.open_list(directory)
        lock, held = mount_points.hold(directory.rpartition("/")[0], self.plan.rootfs)
        if lock >= 0:
            self.slots["lock"] = lock
            self.held = mount_points.release(held)

    def open_all(self) -> None:
        """Open the root, and the sources of the mount steps.

        Without the right to clone a mount nothing is opened: init opens the sources in its user namespace.

        Raises:
            Failure: a source cannot be opened.

        """
        binds = []
        for step in self.plan.child:
            if isinstance(step, AttachRoot):
                try:
                    self._keep("root", step, self._open_root(step))
                except PermissionError:
                    self.look()
                    return
                except OSError as exc:
                    raise Failure(
                        f"root file system {step.path}", pointer=step.pointer, errno=exc.errno or 0
                    ) from None
                self.open_late = True
            elif isinstance(step, Bind):
                if not self._is_link(step):
                    binds.append(step)
            elif isinstance(step, Overlay) and step.early:
                self._keep("early", step, self.mapped(step, self._open_new(step)))
            elif isinstance(step, steps.Device) and step.bind:
                self._keep("device", step, self._open_device(step))
        for step in binds[:_FIRST]:
            self._keep("source", step, self.mapped(step, self._open_source(step)))
        self._waiting = binds[_FIRST:]
        self.later = {id(step): number for number, step in enumerate(self._waiting)}

    def look(self, *, classic: bool = False) -> None:
        """Look at the sources that init will open.

        Args:
            classic: init uses mount(2).

        Raises:
            Failure: mount(2) cannot mount one.

        """
        if classic:
            from pyrunc.apply.mounts import classic as with_mount

            self.classic = with_mount.Sources()
        for step in self.plan.child:
            if isinstance(step, Bind):
                if not self._is_link(step) and self.classic is not None:
                    self.classic.look(step)
            elif isinstance(step, steps.Device) and step.bind:
                from pyrunc.apply.mounts import devices

                self.places[id(step)] = devices.host_place(step)

    def open_cgroups(self) -> None:
        """Open the sources that exist only after the cgroups have been made.

        Raises:
            Failure: one cannot be opened.

        """
        for step in self.plan.child:
            if self.open_late and isinstance(step, CgroupBind):
                self._keep("late", step, self._open_source(step))

    def _keep(self, name: str, step: steps.Step, fd: int) -> None:
        slot = f"{name}{len(self.slots)}"
        self.slots[slot] = fd
        self.opened[id(step)] = slot

    def _is_link(self, step: Bind) -> bool:
        """Look at a source before it is opened; tell whether it is a symlink that is to be copied."""
        if step.copy_symlink:
            text = bind_sources.link(step)
            if text:
                self.links[id(step)] = text
                return True
        if verify.is_lonely(step):
            self.lonely.add(id(step))
        return False

    def mapped(self, step: Mount, fd: int) -> int:
        """Id-map a mount if its step says so, and return it.

        Raises:
            Failure: it cannot be done.

        """
        if step.attributes.id_mapped:
            if self._spaces is None:
                from pyrunc.apply.mounts import id_mapped

                self._spaces = id_mapped.Spaces()
            self._spaces.map(fd, step)
        return fd

    def close_slots(self) -> None:
        """Close the descriptors that only the init program needs; it has them now."""
        for fd in self.slots.values():
            os.close(fd)
        self.slots.clear()

    def close(self) -> None:
        """Close what is kept until the mount tree is complete."""
        self.close_slots()
        for fd in self._next[1]:
            os.close(fd)
        self._next = -1, []
        if self._cover >= 0:
            os.close(self._cover)
            self._cover = -1
        if self._spaces is not None:
            self._spaces.close()
            self._spaces = None

    # -- on request ----

    def serve(
        self, talk: Conversation, kind: bytes, payload: bytes, fd: int, *, users: int, paths: dict[str, str]
    ) -> bool:
        """Do what only the parent can do about mounts.

        Args:
            talk: the conversation with the init.
            kind: of its message.
            payload: the rest of the message.
            fd: a descriptor that came with it, -1 for none.
            users: pidfd of a process in the container's user namespace, -1 if it has none.
            paths: the container's cgroups.

        Returns:
            Whether it was that.

        Raises:
            Failure: it cannot be done.

        """
        if kind == protocol.SOURCES:
            self.send_batch(talk.sock, payload, talk.pidfd)
        elif kind == protocol.MOUNTED:
            self.note(talk.program.operations if talk.program else [], payload)
        elif fd < 0:
            return False
        else:
            if kind == protocol.IDMAP:
                self.map_for_init(payload, fd)
            elif kind == protocol.COVERED:
                self.covered(fd)
            elif kind == protocol.COPY_UP:
                self.copy_up(payload, fd, users, paths)
            elif kind == protocol.TABLE:
                self.verify(payload, fd)
            else:
                return False
            talk.tell(protocol.GO)
        return True

    def fetch(self, number: int) -> None:
        """Open a batch of sources, if it is not open yet.

        Raises:
            Failure: one cannot be opened.

        """
        if number < len(self._waiting) and self._next[0] != number:
            fds: list[int] = []
            self._next = number, fds
            for step in self._waiting[number : number + BATCH]:
                fds.append(self.mapped(step, self._open_source(step)))  # noqa: PERF401 - what is open is closed

    def send_batch(self, sock: _socket.socket, payload: bytes, init: int) -> None:
        """Send the batch that begins with a number, and open the next one.

        A child that is gone is no failure here: its last message has still to be read.

        Args:
            sock: the socket to the init.
            payload: the number.
            init: its pidfd.

        Raises:
            Failure: a source cannot be opened.

        """
        number = int.from_bytes(payload, "little")
        if self.classic is not None:
            self.classic.hand_over(self.plan, init, sock, number)
            return
        self.fetch(number)
        fds = self._next[1]
        try:
            protocol.send(sock, protocol.SOURCES, fds=fds)
        except OSError:
            return
        finally:
            for fd in fds:
                os.close(fd)
            self._next = -1, []
        self.fetch(number + BATCH)

    def map_for_init(self, payload: bytes, fd: int) -> None:
        """Id-map a mount that init has made, for the step with the given number.

        Raises:
            Failure: it cannot be done.

        """
        with closing(fd):
            self.mapped(self._step(payload), fd)

    def covered(self, fd: int) -> None:
        """Receive the directory that a tmpfs is going to cover."""
        if self._cover >= 0:
            os.close(self._cover)
        self._cover = fd

    def copy_up(self, payload: bytes, fd: int, users: int, paths: dict[str, str]) -> None:
        """Copy what a tmpfs will cover into it (the option tmpcopyup).

        Args:
            payload: the number of the step.
            fd: the detached mount, closed here.
            users: pidfd of init if the files belong to its user namespace, else -1.
            paths: the container's cgroups.

        Raises:
            Failure: something cannot be copied.

        """
        from pyrunc.apply.mounts import tmpcopyup

        try:
            step = self._step(payload)
            if not isinstance(step, FileSystem):
                raise _malformed()
            tmpcopyup.copy(step, self._cover, fd, users, paths)
        finally:
            os.close(fd)
            os.close(self._cover)
            self._cover = -1

    def note(self, operations: list[Operation], payload: bytes) -> tuple[Mount, str]:
        """Remember a mount that init has attached, for the check at the end.

        Args:
            operations: the operations of the init program.
            payload: the number of its NOTE operation, the mount's id and its mount point.

        Returns:
            Its step, and its mount point below the root.

        Raises:
            Failure: the message is malformed.

        """
        number, mount = int.from_bytes(payload[:4], "little"), int.from_bytes(payload[4:12], "little")
        step = operations[number].step if number < len(operations) else None
        if not isinstance(step, Mount):
            raise _malformed()
        if isinstance(step, Remount):
            # After a remount the earlier options do not apply any more.
            self.noted = [other for other in self.noted if other[0] != mount]
        self.noted.append((mount, step))
        place = self._at[mount] = payload[12:].decode("utf-8", "surrogateescape")
        return step, place

    def verify(self, payload: bytes, fd: int) -> None:
        """Compare the noted mounts, and the root, with the init's mount table.

        Args:
            payload: the id of the root's mount.
            fd: the table, opened by init before or after it entered the root; closed here.

        Raises:
            Failure: one differs, or does not exist any more.

        """
        root = int.from_bytes(payload, "little")
        step = next(step for step in self.plan.child if isinstance(step, steps.VerifyMounts))
        table = verify.placed(bind_sources.read_all(fd), self._at)
        verify.compare(self, table)
        wrong, pointer = verify.root_difference(step, *table.get(root, (0, 0)))
        if wrong:
            raise Failure(wrong, pointer=pointer)

    def _step(self, payload: bytes) -> Mount:
        number = int.from_bytes(payload, "little")
        step = self.plan.child[number] if number < len(self.plan.child) else None
        if not isinstance(step, Mount):
            raise _malformed()
        return step


# What few containers need is imported with the first of its kind.


def _open_device(step: steps.Device) -> int:
    from pyrunc.apply.mounts import devices

    return devices.open_source(step)


def _open_overlay(step: Overlay) -> int:
    from pyrunc.apply.mounts import filesystems

    return filesystems.open_new(step)


def _malformed() -> Failure:
    return Failure("the container's side sent a malformed message about a mount")
