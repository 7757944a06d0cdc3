"""The parent's side: all that can be decided or opened on the host, the fork, then the conversation.

Law 5. The order of effects is chosen for the way back: the state directory first and the record before
anything else exists, so that at any instruction `delete --force` finds what there may be to remove; abort()
goes the same way back.
"""

from __future__ import annotations

import _signal
import os

from pyrunc import store
from pyrunc.apply import cgroup, identity, namespaces, protocol
from pyrunc.apply import child as child_side
from pyrunc.errors import Failure
from pyrunc.linux import _linux, flags
from pyrunc.plan import steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable
    from typing import Any, TypeVar

    from pyrunc.apply.trace import Trace
    from pyrunc.store import Container

    Result = TypeVar("Result")

_PTMX = os.makedev(5, 2)  # /dev/ptmx, which is what the master of a terminal is
_ENOENT, _EBUSY = 2, 16


class Launch:
    """One container's start, from the parent's side.

    Attributes:
        container: its record.
        plan: what to do.
        master: the terminal's master, -1 without one (or once it was handed over).
        pid, pidfd: the init process.

    """

    def __init__(self, container: Container, plan: steps.Plan, tools: child_side.Tools) -> None:
        """Begin with nothing done; tools is what load() returned."""
        self.container = container
        self.plan = plan
        self.master = -1
        self.pid = 0
        self.pidfd = -1
        self.sock, self.far = protocol.pair()
        self.child = child_side.Child(plan, self.far, tools)
        self.console: _socket.socket | None = None
        self.pidfd_socket: _socket.socket | None = None
        self.paths: dict[str, str] = {}
        self.forked = False

    # -- before the fork -------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Open all that the child will use.

        Raises:
            Failure: a source cannot be had.

        """
        kinds = {type(step) for step in (*self.plan.child, *self.plan.start)}
        tables = any(
            (isinstance(step, steps.VerifyMounts) and not step.by_id)
            or (isinstance(step, steps.Mount) and step.below)
            for step in self.plan.child
        )
        if tables or kinds & {steps.Sysctl, steps.LsmLabel, steps.ClassicMounts}:
            self.child.procfs = private_procfs()
        if steps.AttachRoot in kinds:
            self.child.kept = self.child.mounting.prepare(self.plan, self.container.directory)
        for step in self.plan.child:
            if isinstance(step, steps.Identity):
                self.child.uid, self.child.gid = step.uid, step.gid
                self.child.keep_groups = step.gids is None
            elif isinstance(step, steps.Program):
                self.child.env = step.env
        self.child.user_namespace = "user" in self.container.namespaces
        self.child.new_user_namespace = bool(self.plan.namespaces.flags & flags.CLONE_NEWUSER) or any(
            join.kind == "user" for join in self.plan.namespaces.joins
        )
        for join in self.plan.namespaces.joins:
            if join.kind in namespaces.entered_by_child(self.plan.namespaces):
                self.child.joins[join.kind] = (join, namespaces.open_join(join))
        # Without the right to clone a mount here (an ordinary user), the child opens sources with the rights
        # it has in its own user namespace.
        if steps.AttachRoot in kinds and (steps.ClassicMounts in kinds or os.geteuid() == 0):
            self.child.mounting.open_all(self.child)
            if "mount" not in self.container.namespaces and self.child.root_tree >= 0:
                # Nothing but delete will ever take it away again.
                number, _is_top = _linux.statx_mnt(self.child.root_tree, self.child.mounting.made.mask)
                self.container.extra["root_mount"] = [self.plan.rootfs, self.child.mounting.made.mask, number]

    def open_channels(self, console: str | None, pidfd: str | None, *, foreground: bool) -> None:
        """Open what goes to and from our caller: the console and pidfd sockets, the terminal's settings.

        Args:
            console: path of --console-socket.
            pidfd: path of --pidfd-socket.
            foreground: we stay in front of the process, and pass signals on to it.

        """
        if self.plan.terminal:
            from pyrunc.apply import sockets, terminal

            step = next(step for step in self.plan.child if isinstance(step, steps.Terminal))
            self.child.settings = terminal.settings(step, foreground=foreground)
            if console:
                self.console = sockets.connect(console, "--console-socket")
        if pidfd:
            from pyrunc.apply import sockets

            self.pidfd_socket = sockets.connect(pidfd, "--pidfd-socket")
        if foreground:
            from pyrunc.apply import foreground as front

            self.child.signal_mask = front.block_signals()

    # -- the fork --------------------------------------------------------------------------------------------

    def fork(self, cgroup_plan: steps.Cgroup) -> None:
        """Make the cgroups, then init in its namespaces.

        Raises:
            Failure: either cannot be made.

        """
        self.container.cgroup = cgroup_plan.plan.paths
        self.container.cgroup_manager = cgroup_plan.plan.manager
        store.save(self.container)
        self.do(cgroup_plan, self._make_cgroup, cgroup_plan)
        # From inside a joined cgroup namespace the kernel may not let anybody into a cgroup outside of it.
        late = "cgroup" not in namespaces.entered_by_child(self.plan.namespaces) and "" in self.paths
        into = -1 if late else cgroup.clone_fd(self.paths)
        self.forked = True
        spaces = self.plan.namespaces
        self.pid, self.pidfd = self.do(spaces, namespaces.spawn, spaces, into, self._run_child)
        self.far.close()
        if into >= 0:
            os.close(into)
        for fd in (*self.child.cgroups, *self.child.mounts.values(), self.child.root_tree, self.child.procfs):
            if fd >= 0:
                os.close(fd)
        self.child.mounts.clear()
        self.container.pid = self.pid
        if late:
            cgroup.join({"": self.paths[""]}, self.pid)
        if self.child.new_user_namespace:
            self._map_ids()

    def _make_cgroup(self, step: steps.Cgroup) -> None:
        self.paths = cgroup.create(step.plan)
        self.container.cgroup = self.paths
        cgroup.apply_limits(step.plan, self.paths)
        self.child.cgroups = cgroup.join_fds(self.paths)

    def do(self, step: steps.Step, do: Callable[..., Result], *arguments: Any, **named: Any) -> Result:
        """Carry out a step of the parent; with --trace its time is noted."""
        if self.child.trace is None:
            return do(*arguments, **named)
        return self.child.trace.measure(step, do, *arguments, **named)

    def fork_into(self, init: int, kinds: int, paths: dict[str, str], *, elsewhere: bool) -> None:
        """Make a process for `exec` beside an init.

        Args:
            init: its pidfd.
            kinds: CLONE_NEW* flags of the namespaces to enter.
            paths: the cgroups to be born in.
            elsewhere: where no process can be born there, the unified cgroup that init is in now will do.

        Raises:
            Failure: it cannot be made there.

        """
        self.child.cgroups = cgroup.join_fds(paths)
        try:
            into = cgroup.clone_fd(paths)
        except Failure as problem:
            if problem.errno != _ENOENT or not elsewhere:
                raise
            # Init has left the container's cgroup, and somebody has removed it.
            into = os.open(_unified(self.container), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        # The pid namespace is entered before the fork, the others by the child, all at once (no half-joined
        # state).
        self.child.join = (init, kinds & ~flags.CLONE_NEWPID)
        if namespaces.by_helper(kinds):
            self.child.join = (init, kinds & ~(flags.CLONE_NEWPID | flags.CLONE_NEWUSER))
            self.child.entered_user_namespace = True
        try:
            self.pid, self.pidfd = self._spawn_into(init, kinds, into)
        except Failure as problem:
            if into < 0 or problem.errno not in (_EBUSY, _ENOENT):
                raise
            os.close(into)
            if not elsewhere:
                raise Failure(
                    f"adding pid of the process to cgroups {paths['']}",
                    errno=problem.errno,
                    hint="where controllers are handed on to cgroups below, processes can be in those alone: "
                    "name one with --cgroup",
                ) from None
            # A nested cgroup manager (systemd inside) has turned the container's cgroup into an inner one: go
            # where init is now.
            into = os.open(_unified(self.container), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self.pid, self.pidfd = self._spawn_into(init, kinds, into)
        self.far.close()
        for fd in (*self.child.cgroups, self.child.procfs, into):
            if fd >= 0:
                os.close(fd)

    def _spawn_into(self, init: int, kinds: int, into: int) -> tuple[int, int]:
        return self.do(self.plan.namespaces, namespaces.spawn_into, init, kinds, into, self._run_child)

    def _run_child(self) -> None:
        self.sock.close()
        self.child.state = store.oci_state(self.container, "creating")
        self.child.state["pid"] = os.getpid()
        child_side.run(self.child)

    def _map_ids(self) -> None:
        for step in self.plan.parent:
            if isinstance(step, steps.IdMaps):
                from pyrunc.apply import idmap

                own = self.plan.namespaces.flags & flags.CLONE_NEWUSER
                self.do(step, idmap.write if own else idmap.compare, self.pid, step)
        protocol.send(self.sock, protocol.MAPPED)

    # -- the conversation ------------------------------------------------------------------------------------

    def until_ready(self) -> None:
        """Serve the child until only start is left to do, then set what only the parent may set.

        Raises:
            Failure: the child's, a hook's, or that the child died.

        """
        for step in self.plan.parent:
            if isinstance(step, steps.NetDevice):
                from pyrunc.apply import netdevices

                self.do(step, netdevices.move, step, self.pid)
        if self.child.kept:
            self.child.mounting.feed(self.sock, self.plan, self.pidfd)
        while True:
            kind, payload, fd = self._receive()
            if kind == protocol.READY:
                break
            if kind == protocol.HOOKS:
                self._host_hooks()
                protocol.send(self.sock, protocol.GO)
            elif kind == protocol.TERMINAL and fd >= 0:
                self._take_terminal(payload.decode("utf-8", "replace"), fd)
            elif kind == protocol.NOTIFY:
                self._hand_listener(fd, payload)
            elif kind == protocol.TIMES and self.child.trace is not None:
                self.child.trace.take(payload)
            elif kind == protocol.IDMAP and fd >= 0:
                self.child.mounting.map_for_child(payload, fd, self.plan)
                protocol.send(self.sock, protocol.GO)
            else:
                raise self._died()
        cgroup.settle(self.container.cgroup_manager)
        if self.child.kept:
            self.child.mounting.close()
        self._limits()

    def _receive(self) -> tuple[bytes, bytes, int]:
        """Return the next message, (b"", b"", -1) at the end, however that comes."""
        try:
            return protocol.receive(self.sock)
        except ConnectionError:
            return b"", b"", -1

    def _host_hooks(self) -> None:
        from pyrunc.apply import hooks

        # "created" is what holds after step 2 of the lifecycle (runtime-spec runtime.md "State"), prestart is
        # step 3. createRuntime, part of create by its name, gets what runc gives it.
        state = store.oci_state(self.container, "creating")
        for step in self.plan.parent:
            if isinstance(step, steps.Hooks):
                status = "created" if step.kind == "prestart" else "creating"
                self.do(
                    step,
                    hooks.run,
                    step.kind,
                    step.hooks,
                    {**state, "status": status},
                    cwd=self.plan.bundle,
                )

    def _take_terminal(self, name: str, fd: int) -> None:
        # The child may be under a container's control: nothing else may reach whoever serves the console.
        found = os.fstat(fd)
        if found.st_mode & 0o170000 != 0o020000 or found.st_rdev != _PTMX:
            raise Failure("the container's side sent something else than a terminal")
        if self.console is None:
            self.master = fd
            return
        from pyrunc.apply import sockets

        sockets.hand_over(self.console, "--console-socket", name[:64], fd)
        self.console = None
        os.close(fd)

    def _hand_listener(self, fd: int, number: bytes) -> None:
        """Give the agent the listener that came with the message, or the one of that number in the child."""
        from pyrunc.apply import seccomp
        from pyrunc.plan import seccomp as plan_seccomp

        by_number = fd < 0
        if by_number:
            fd = seccomp.fetch_listener(self.pidfd, number)
        seccomp.check_listener(fd)
        state = store.oci_state(self.container, "running" if self.child.join[0] >= 0 else "creating")
        section = self.child.tools.section
        if section is None:
            raise Failure("the container sent a listener that no filter asked for")
        message = plan_seccomp.process_state(section, version="1.3.0", pid=self.pid, state=state)
        seccomp.send_notify_fd(section.listener, fd, message)
        os.close(fd)
        if by_number:
            protocol.send(self.sock, protocol.GO)

    def _limits(self) -> None:
        for step in self.plan.parent:
            if isinstance(step, steps.Rlimit):
                self.do(step, identity.set_rlimit, self.pid, step)
            elif isinstance(step, steps.OomScore):
                self.do(step, identity.set_oom_score, self.pid, step)

    def _died(self) -> Failure:
        """Say why the child is gone without a word."""
        _pid, status = os.waitpid(self.pid, 0)
        self.pid = 0
        code = os.waitstatus_to_exitcode(status)
        if code == -_signal.SIGKILL:
            pointer = "/linux/resources/memory/limit"
            groups = [step.plan for step in self.plan.parent if isinstance(step, steps.Cgroup)]
            limit = [write.value for group in groups for write in group.writes if write.pointer == pointer]
            # systemd has the limit as a property, not as a file.
            maybe = limit or any(group.manager == "systemd" for group in groups)
            return Failure(
                "container init was OOM-killed (memory limit too low?), or killed by another process",
                step="unable to start container process",
                pointer=pointer if maybe else "",
                hint=f"the limit is {limit[0]} bytes" if limit else "",
            )
        how = f"was ended by signal {-code}" if code < 0 else f"exited with status {code}"
        return Failure(f"container init {how} before the container was ready")

    def stored(self) -> None:
        """Record init in the state and tell it so."""
        stat = store.process_stat(self.pid)
        if stat is None:
            raise self._died()
        self.container.pid = self.pid
        self.container.start = stat[2]
        store.save(self.container)
        protocol.send(self.sock, protocol.STORED)

    def go(self) -> None:
        """Let an exec'd process go on to its program; it has no state of its own to store."""
        protocol.send(self.sock, protocol.STORED)
        self.start()

    def start(self) -> None:
        """Start the program (`run` and `exec`: nobody else will) and wait until execve has succeeded.

        Raises:
            Failure: a startContainer hook or execve failed.

        """
        protocol.send(self.sock, protocol.START)
        while True:
            kind, payload, fd = self._receive()
            if kind == protocol.NOTIFY:
                self._hand_listener(fd, payload)
            elif kind == protocol.TIMES and self.child.trace is not None:
                self.child.trace.take(payload)
            else:
                break
        self.sock.close()
        stat = store.process_stat(self.pid)
        if stat is not None and stat[1] & store.PF_FORKNOEXEC:
            raise self._died()

    def hand_pidfd(self, kind: str) -> None:
        """Give whoever listens at --pidfd-socket the process's pidfd; kind is what runc calls it."""
        if self.pidfd_socket is not None:
            from pyrunc.apply import sockets

            sockets.hand_over(self.pidfd_socket, "--pidfd-socket", kind, self.pidfd)

    def report(self) -> None:
        """Say what the steps took, if that was asked for."""
        if self.child.trace is not None:
            self.child.trace.report(self.plan)
            self.child.trace = None

    # -- the way back ----------------------------------------------------------------------------------------

    def abort(self) -> None:
        """Undo everything: kill and collect init, remove the cgroups. The state directory is the caller's."""
        if self.pid:
            try:
                _signal.pidfd_send_signal(self.pidfd, _signal.SIGKILL)
                os.waitpid(self.pid, 0)
            except OSError:
                pass  # it has been collected
            self.pid = 0
        if self.child.kept:
            self.child.mounting.close()
        if "root_mount" in self.container.extra:
            from pyrunc.apply import root

            root.leave(self.container)
        if self.paths:
            cgroup.kill_all(self.paths, int(_signal.SIGKILL))
            cgroup.remove(self.paths, manager=self.container.cgroup_manager)
            self.paths = {}
        self.report()


def traced(target: str | None) -> Trace | None:
    """Return what notes how long the steps take, if --trace asks for it."""
    if target is None:
        return None
    from pyrunc.apply import trace

    return trace.Trace(target)


def _unified(container: Container) -> str:
    """Return the directory of the unified cgroup that a container's init is in now."""
    with open(f"/proc/{container.pid}/cgroup", encoding="utf-8") as table:
        own = next(line[3:].rstrip("\n") for line in table if line.startswith("0::"))
    mount = container.cgroup[""]
    place = mount.find("/unified/")
    return (mount[: place + 8] if place >= 0 else "/sys/fs/cgroup") + own


def private_procfs() -> int:
    """Return a procfs of our own that no container can have prepared (SECURITY: CVE-2025-52881).

    Raises:
        Failure: neither a new procfs nor a verified /proc can be had.

    """
    try:
        fs = _linux.fsopen("proc", flags.FSOPEN_CLOEXEC)
        try:
            _linux.fsconfig(fs, flags.FSCONFIG_CMD_CREATE, None, None, 0)
            return _linux.fsmount(
                fs, flags.FSMOUNT_CLOEXEC, flags.MOUNT_ATTR_NOSUID | flags.MOUNT_ATTR_NOEXEC
            )
        finally:
            os.close(fs)
    except OSError:
        # An ordinary user may not make one; the host's is as good, once it is known to be one.
        fd = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        if _linux.fstatfs(fd)[0] != flags.PROC_SUPER_MAGIC:
            os.close(fd)
            raise Failure("/proc on the host is not a procfs") from None
        return fd


def write_pid_file(path: str, pid: int) -> None:
    """Write a pid file as engines read it: digits, no newline, there at once or not at all.

    Raises:
        Failure: it cannot be written.

    """
    directory, _, name = path.rpartition("/")
    temporary = f"{directory}/.{name}" if directory or path.startswith("/") else f".{name}"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            os.write(fd, str(pid).encode())
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except OSError as exc:
        raise Failure(f"write pid file {path}", errno=exc.errno or 0) from None
