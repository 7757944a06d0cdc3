"""What the mount steps of one container share, and what the two sides do for each other.

Law 5: the parent opens bind sources, in the host's mount namespace and with the caller's rights, and does on
request what only it has the rights for (id-mapped mounts). A container may have more sources than a process
may have descriptors, so only the first ones are opened before the fork. The others follow in batches, while
the child is already busy attaching: two processes share the work.

    child                                         parent
      | <------------------- SOURCES + mounts ----- |  (until all are there)
      | IDMAP + index of the step, mount ---------> |
      | <------------------------------ GO -------- |
"""

from __future__ import annotations

import os

from pyrunc.apply import devices, filesystems, mountpoints, protocol, root, sources, verify
from pyrunc.errors import Failure
from pyrunc.linux import _linux, flags
from pyrunc.plan import steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable

    from pyrunc.apply.child import Child
    from pyrunc.apply.classic import Sources
    from pyrunc.apply.idmapped import Spaces

# Sources opened before the fork, and then at a time: an ordinary container needs no message, and a large one
# keeps few descriptors open (a message takes 253, SCM_MAX_FD).
_FIRST = 32
_BATCH = 64


class Mounting:
    """The state of the mount steps; made by the parent, inherited by the child.

    Attributes:
        made: which mount points were made.
        links: id of a step -> what its source, a symlink, points to.
        noted: (mount id, step) of every mount, for the check at the end.
        places: mount id -> mount point below the root, where the kernel gives ids away again.
        lonely: ids of slave mounts whose source has nothing to be a slave of.
        readonly_last: mounts that become read-only at the end.
        again: mounts whose propagation is set again.
        classic: what is known about sources, where init opens them itself.

    """

    def __init__(self) -> None:
        """Begin with nothing mounted."""
        self.made = mountpoints.Made()
        self.links: dict[int, str] = {}
        self.noted: list[tuple[int, steps.Mount]] = []
        self.places: dict[int, str] = {}
        self.lonely: set[int] = set()
        self.readonly_last: list[tuple[int, steps.Mount]] = []
        self.again: list[tuple[int, steps.Mount]] = []
        self.copy: Callable[[int, int, str], None] | None = None
        self.classic: Sources | None = None
        self._waiting: list[steps.Mount] = []
        self._had = 0
        self._spaces: Spaces | None = None
        self._open_root: Callable[[steps.AttachRoot], int] = root.open_root
        self._open_device: Callable[[steps.Device], int] = devices.open_source
        self._open_source: Callable[[steps.Mount], int] = sources.open_source
        self._open_new: Callable[[steps.Mount], int] = filesystems.open_new
        self._lock = -1
        self._held = b""

    # -- the parent ----

    def prepare(self, plan: steps.Plan, directory: str) -> tuple[int, ...]:
        """Get ready for what a plan's mount steps will need, short of opening anything of the host's.

        Args:
            plan: the plan.
            directory: the container's state directory.

        Returns:
            Descriptors for the child to keep: the list of mount points, and a shared lock on the root file
            system: nobody who deletes a container takes a mount point away that was found and not used yet.

        Raises:
            Failure: the list cannot be made.

        """
        for step in plan.child:
            if isinstance(step, steps.VerifyMounts) and not step.by_id:
                self.made.mask = flags.STATX_MNT_ID
            elif isinstance(step, steps.ClassicMounts):
                from pyrunc.apply import classic

                self.classic = classic.Sources(directory)
            elif isinstance(step, steps.Mount) and step.copy_up and self.copy is None:
                from pyrunc.volumes import copyup

                self.copy = copyup.copy
        made = self.made.open(directory)
        self._lock, self._held = mountpoints.hold(directory.rpartition("/")[0], plan.rootfs)
        return (made,) if self._lock < 0 else (made, self._lock)

    def open_all(self, child: Child) -> None:
        """Open the root and what the mount steps mount, while we are on the host.

        Without the right to clone a mount nothing is opened: the child does it in its user namespace.

        Args:
            child: gets what was opened.

        Raises:
            Failure: a source cannot be had.

        """
        if self.classic is not None:
            for step in child.plan.child:
                if isinstance(step, steps.Mount) and step.kind == "bind" and not self._look(step):
                    self.classic.look(step)
            return
        binds = []
        opened = child.mounts
        self._measure(child)
        for step in child.plan.child:
            if isinstance(step, steps.AttachRoot):
                try:
                    child.root_tree = self._open_root(step)
                except PermissionError:
                    return
                except OSError as exc:
                    raise Failure(
                        f"root file system {step.path}", pointer=step.pointer, errno=exc.errno or 0
                    ) from None
            elif isinstance(step, steps.Mount):
                if step.kind == "bind":
                    if not self._look(step):
                        binds.append(step)
                elif step.early:
                    opened[id(step)] = self._mapped(step, self._open_new(step))
            elif isinstance(step, steps.Device) and step.bind:
                opened[id(step)] = self._open_device(step)
        for step in binds[:_FIRST]:
            opened[id(step)] = self._mapped(step, self._open_source(step))
        self._waiting = binds[_FIRST:]

    def _measure(self, child: Child) -> None:
        """With --trace, note how long opening takes: it belongs to the step, whoever does it."""
        if child.trace is not None:
            measured = child.trace.opener
            self._open_root, self._open_device = measured(self._open_root), measured(self._open_device)
            self._open_source, self._open_new = measured(self._open_source), measured(self._open_new)

    def _look(self, step: steps.Mount) -> bool:
        """Look at a source before it is opened; tell whether it is a symlink that is copied instead."""
        if "copy-symlink" in step.options.ext:
            text = sources.link(step)
            if text:
                self.links[id(step)] = text
                return True
        if step.expected == flags.MS_SLAVE and step.options.propagation:
            # The copy of a private mount cannot be a slave: there is nothing to be a slave of.
            if not verify.propagation_at(step.source) & (flags.MS_SHARED | flags.MS_SLAVE):
                self.lonely.add(id(step))
        return False

    def _mapped(self, step: steps.Mount, fd: int) -> int:
        if step.id_maps or step.id_space:
            if self._spaces is None:
                from pyrunc.apply import idmapped

                self._spaces = idmapped.Spaces()
            self._spaces.map(fd, step)
        return fd

    def feed(self, sock: _socket.socket, plan: steps.Plan, init: int) -> None:
        """Open the sources that were not opened before the fork, and send them.

        A child that is gone is no failure here: what it said last is still to be read.

        Args:
            sock: the socket to the child.
            plan: the plan.
            init: the child's pidfd.

        Raises:
            Failure: one cannot be had.

        """
        if self.classic is not None and any(
            isinstance(step, steps.ClassicMounts) and step.handed for step in plan.child
        ):
            self.classic.hand_over(plan, init, sock)
        for start in range(0, len(self._waiting), _BATCH):
            batch = self._waiting[start : start + _BATCH]
            fds = [self._mapped(step, self._open_source(step)) for step in batch]
            try:
                protocol.send_fds(sock, protocol.SOURCES, fds)
            except OSError:
                return
            finally:
                for fd in fds:
                    os.close(fd)

    def map_for_child(self, payload: bytes, fd: int, plan: steps.Plan) -> None:
        """Id-map a mount that the child has made, for the step of which it names the index.

        Raises:
            Failure: it cannot be done.

        """
        try:
            step = plan.child[int(payload)]
            if isinstance(step, steps.Mount):
                self._mapped(step, fd)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Let go of what the parent keeps only until the child is ready."""
        if self.made.file >= 0:
            os.close(self.made.file)
            self.made.file = -1
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        if self._spaces is not None:
            self._spaces.close()

    # -- the child ----

    def source(self, child: Child, step: steps.Mount) -> int:
        """Return the mount that the parent has opened for a step, -1 if it does not open it."""
        fd = child.mounts.pop(id(step), -1)
        while fd < 0 and step.kind == "bind" and self._had < len(self._waiting):
            self._receive(child)
            fd = child.mounts.pop(id(step), -1)
        return fd

    def _receive(self, child: Child) -> bool:
        """Take the next message: a batch of sources, or (False) an answer."""
        fds = protocol.receive_fds(child.sock)
        for step, fd in zip(self._waiting[self._had :], fds, strict=False):
            child.mounts[id(step)] = fd
        self._had += len(fds)
        return bool(fds)

    def map_ids(self, child: Child, step: steps.Mount, fd: int) -> None:
        """Have the parent id-map a mount that was made here."""
        index = next(index for index, each in enumerate(child.plan.child) if each is step)
        protocol.send(child.sock, protocol.IDMAP, b"%d" % index, fd)
        while self._receive(child):
            pass

    def copy_up(self, step: steps.Mount, cover: int, fd: int) -> None:
        """Copy what a tmpfs will cover into it (the option tmpcopyup).

        Args:
            step: the mount.
            cover: the directory that will be covered.
            fd: the detached mount.

        Raises:
            Failure: something cannot be copied.

        """
        if self.copy is None:
            return
        opened: list[int] = []
        how = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            opened.extend(os.open(".", how, dir_fd=each) for each in (cover, fd))
            asked = os.fstat(opened[1])
            self.copy(opened[0], opened[1], step.destination)
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

    def settle(self) -> None:
        """Let others take their mount points away again: ours are in use."""
        if self._lock >= 0:
            mountpoints.let_go(self._lock, self._held)  # for the parent, too: it is the same open file

    def note(self, child: Child, fd: int, step: steps.Mount) -> None:
        """Remember a mount that is attached now."""
        mount, _is_root = _linux.statx_mnt(fd, self.made.mask)
        if self.made.mask == flags.STATX_MNT_ID:
            top, here = (os.readlink(f"self/fd/{each}", dir_fd=child.procfs) for each in (child.root, fd))
            self.places[mount] = here[len(top.rstrip("/")) :]
        if step.kind == "remount":
            # What it was mounted with does not hold any more.
            self.noted = [other for other in self.noted if other[0] != mount]
        self.noted.append((mount, step))
        if step.kind == "bind":
            self.made.bases[mount] = f"{step.source}/{step.subpath}" if step.subpath else step.source
        if step.again:
            self.again.append((os.dup(fd), step))
