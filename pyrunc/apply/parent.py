"""The parent's side: all that can be decided or opened on the host, the fork, then the conversation.

Law 5. The order of effects is chosen for the way back: the state directory first and the record before
anything else exists, so that at any instruction `delete --force` finds what there may be to remove; abort()
goes the same way back.
"""

from __future__ import annotations

import _signal
import os

from pyrunc import cli, jsonio, store
from pyrunc.apply import cgroup, machine, namespaces, protocol
from pyrunc.apply import child as child_side
from pyrunc.apply.conversation import PATIENCE, Conversation
from pyrunc.errors import Failure
from pyrunc.linux import _linux, flags
from pyrunc.plan import namespaces as plan_namespaces
from pyrunc.plan import process_program, program_first, steps
from pyrunc.plan.program_first import Beginning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrunc.store import Container


class Launch(Conversation):
    """One container's start, from the parent's side.

    Attributes:
        forked: init has been made, be it that it is gone again.
        joins_pid: it is cloned once more, into a pid namespace that is there already.
        spare: descriptors in reserve for the way back.
        poststop: hooks to run on the way back.

    """

    def __init__(self, container: Container, plan: steps.Plan, tools: child_side.Tools) -> None:
        """Begin with nothing done; tools is what load() returned."""
        super().__init__(container, plan)
        self.section = tools.section
        self.child = child_side.Child(plan, self.far, tools)
        self.paths: dict[str, str] = {}
        self.forked = False
        self.joins_pid = False
        self.spare: list[int] = []
        self.poststop: tuple[dict[str, object], ...] = ()

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
        if tables or kinds & {steps.Sysctl, steps.ClassicMounts}:
            self.child.procfs = private_procfs()
        if steps.AttachRoot in kinds:
            self.child.kept = self.child.mounting.prepare(self.plan, self.container.directory)
        who = process_program.identity(self.plan)
        if who is not None:
            self.child.uid, self.child.gid = who.uid, who.gid
            self.child.keep_groups = who.gids is None
        self._make_program()
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

    def _make_program(self) -> None:
        """Make what the init program carries out once the mount tree stands, and open what it joins."""
        join = namespaces.joined_pid(self.plan)
        if join is not None:
            self.joins_pid = True
            self.child.pid_namespace = namespaces.open_join(join)
            users = next((each for each in self.plan.namespaces.joins if each.kind == "user"), None)
            for step in self.plan.child:
                if isinstance(step, steps.Mount) and step.kind == "new" and step.fstype == "proc":
                    rights = None if users is None else namespaces.open_join(users)
                    try:
                        context = machine.proc_context(self.child.pid_namespace, rights)
                    except Failure as problem:
                        raise namespaces.refused(join, problem.errno) from None
                    self.child.proc_contexts.append(context)
        kinds = 0
        for kind in self.container.namespaces:
            kinds |= plan_namespaces.FLAGS[kind]
        state = {**store.oci_state(self.container, "created"), "pid": process_program.STATE_PID}
        beginning = Beginning(
            kinds=kinds,
            joins_pid=join is not None,
            waits=bool(self.child.fifos),
            terminal=self.plan.terminal,
            passed=self.child.passed,
            filters=self.child.tools.filters,
            state=jsonio.dumps(state),
        )
        self.program = self.child.program = program_first.lower(self.plan, beginning)
        self.child.image = machine.image()

    # -- the fork --------------------------------------------------------------------------------------------

    def fork(self, cgroup_plan: steps.Cgroup, limited: Callable[[], None]) -> None:
        """Make the cgroups, call limited(), then make init in its namespaces.

        Raises:
            Failure: either cannot be made.

        """
        found = cgroup.intend(self.container, cgroup_plan.plan)
        store.save(self.container)
        self.do(cgroup_plan, self._make_cgroup, cgroup_plan, found)
        limited()
        # From inside a joined cgroup namespace the kernel may not let anybody into a cgroup outside of it.
        late = "cgroup" not in namespaces.entered_by_child(self.plan.namespaces) and "" in self.paths
        into = -1 if late else cgroup.clone_fd(self.paths)
        self.forked = True
        spaces = self.plan.namespaces
        args = (spaces, into, self._run_child, self._dress)
        self.pid, self.pidfd = self.do(
            spaces, namespaces.spawn, *args, not_now=namespaces.joined_pid(self.plan)
        )
        if into >= 0:
            os.close(into)
        self._close_far_side()
        self.container.pid = self.pid
        if late:
            cgroup.join({"": self.paths[""]}, self.pid)
        if self.child.new_user_namespace:
            self._map_ids()

    def _make_cgroup(self, step: steps.Cgroup, found: list[str]) -> None:
        self.paths = cgroup.create(step.plan, found)
        for mount in self.plan.child:
            # Without the right to a cgroup the container stays in the runtime's.
            if isinstance(mount, steps.Mount) and mount.instead and mount.source not in self.paths.values():
                mount.source = mount.instead
        self.container.cgroup = self.paths
        cgroup.apply_limits(step.plan, self.paths)
        self.child.cgroups = cgroup.join_fds(self.paths)

    def _close_far_side(self) -> None:
        """Close what only the child needs."""
        self.far.close()
        child = self.child
        opened = [child.root_tree, child.procfs, child.image, child.pid_namespace]
        for fd in (*child.cgroups, *child.mounts.values(), *opened, *child.proc_contexts):
            if fd >= 0:
                os.close(fd)
        child.cgroups, child.proc_contexts = [], []
        child.root_tree = child.procfs = child.image = child.pid_namespace = -1
        child.mounts.clear()

    def _run_child(self) -> None:
        self.sock.close()
        self.child.settings = self.settings
        self.child.state = store.oci_state(self.container, "creating")
        self.child.state["pid"] = os.getpid()
        child_side.run(self.child)

    def _dress(self, pid: int) -> None:
        from pyrunc.apply import idmap

        idmap.dress(self.plan, pid, self.do)
        self.dressed = True

    def _map_ids(self) -> None:
        if not namespaces.mapped_first(self.plan.namespaces):
            from pyrunc.apply import idmap

            idmap.carry_out(self.plan, self.pid, self.do)
        self.tell(protocol.MAPPED)

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
        if self.joins_pid:
            self.sock.settimeout(PATIENCE)
        while True:
            kind, payload, fd = self.next()
            if kind == protocol.READY:
                cli.debug("init: closing the pipe to signal completion")
                break
            if kind == protocol.HOOKS:
                self._host_hooks()
                self.tell(protocol.GO)
            elif kind == protocol.TERMINAL and fd >= 0:
                self.take_terminal(payload.decode("utf-8", "replace"), fd)
            elif kind == protocol.NOTIFY:
                self.hand_listener(fd, payload)
            elif kind == protocol.TIMES and self.trace is not None:
                self.trace.take(payload)
            elif kind == protocol.CLONED and fd >= 0 and self.joins_pid:
                self.joins_pid = False  # there is one of these
                self.take_over(payload, fd)
            elif kind == protocol.IDMAP and fd >= 0:
                self.child.mounting.map_for_child(payload, fd, self.plan)
                self.tell(protocol.GO)
            else:
                raise self.died()
        cgroup.settle(self.container.cgroup_manager)
        if self.child.kept:
            self.child.mounting.close()
        self.set_limits()

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

    def stored(self) -> None:
        """Record init in the state and tell it so."""
        stat = store.process_stat(self.pid)
        if stat is None:
            raise self.died()
        self.container.pid = self.pid
        self.container.start = stat[2]
        store.save(self.container)
        self.tell(protocol.STORED)

    def start(self) -> None:
        """Start the program (`run`: nobody else will) and wait until execve has succeeded.

        Raises:
            Failure: a startContainer hook or execve failed.

        """
        self.tell(protocol.START)
        while True:
            kind, payload, fd = self.next()
            if kind == protocol.NOTIFY:
                self.hand_listener(fd, payload)
            elif kind == protocol.TIMES and self.trace is not None:
                self.trace.take(payload)
            else:
                break
        self.executed()

    # -- the way back ----------------------------------------------------------------------------------------

    def abort(self) -> None:
        """Undo everything: kill and collect init, remove the cgroups. The state directory is the caller's."""
        self._close_far_side()  # the rest of the way takes descriptors
        self.kill()
        if self.child.kept:
            self.child.mounting.close()
        if "root_mount" in self.container.extra:
            from pyrunc.apply import root

            root.leave(self.container)
        if self.paths:
            paths = cgroup.made(self.container)
            cgroup.kill_all(paths, int(_signal.SIGKILL))
            cgroup.remove(paths, manager=self.container.cgroup_manager)
            self.paths = {}
        self.report()


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
