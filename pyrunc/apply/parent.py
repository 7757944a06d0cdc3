"""The parent's side of create: what is opened on the host, the start of init, then the messages with it.

Law 5. The order is chosen for the case of a failure: the state directory and its record come before anything
else exists, so that `delete --force` finds, at any time, all there may be to remove. abort() undoes the same
things.
"""

from __future__ import annotations

import _signal
import os

from pyrunc import jsonio, log, store
from pyrunc.apply import init_program, protocol
from pyrunc.apply.cgroups import cgroup, making
from pyrunc.apply.conversation import PATIENCE, Conversation
from pyrunc.apply.mounts import host_side
from pyrunc.errors import Failure, failing
from pyrunc.files import closing
from pyrunc.linux import _linux, flags
from pyrunc.plan import namespaces as plan_namespaces
from pyrunc.plan import program_first, program_process, steps
from pyrunc.plan.lowering import Beginning
from pyrunc.plan.mount_steps import AttachRoot, CgroupBind, FileSystem, Mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrunc.store import Container


class Launch(Conversation):
    """One container's start, from the parent's side.

    Attributes:
        mounts: the descriptors for the mount tree.
        fifos: exec.fifo and report/exec.fifo, empty if the same command starts the program (`run`).
        passed: how many descriptors from 3 on go to the process.
        paths: the cgroups that were made.
        forked: init has been made; it may have ended.
        clones: how many clones are still to come before the process is the final one.
        spare: descriptors in reserve for abort(), closed when it needs others.
        poststop: hooks that abort() runs.

    """

    def __init__(self, container: Container, plan: steps.Plan) -> None:
        """Compile the filters. This needs nothing of the container.

        Args:
            container: its record.
            plan: what build() returned.

        Raises:
            Failure: a filter cannot be compiled.

        """
        super().__init__(container, plan)
        self.mounts: host_side.HostMounts | None = None
        self.fifos: tuple[int, ...] = ()
        self.passed = 0
        self.paths: dict[str, str] = {}
        self.forked = False
        self.clones = 0
        self.spare: list[int] = []
        self.poststop: tuple[dict[str, object], ...] = ()
        self._kinds = {type(step) for step in plan.child}
        self._slots: dict[str, int] = {}
        self._contexts = 0
        self._classic = steps.ClassicMounts in self._kinds
        self._way = program_first.way(plan.namespaces, ordinary=os.geteuid() != 0, classic=self._classic)
        if self._way == program_first.DIRECT and plan.namespaces.joins:
            # Network devices are moved into the network namespace of init.
            if any(isinstance(step, steps.NetDevice) for step in plan.parent):
                self._way = program_first.HELPED

    # -- before init -----------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Open all that the init program will use.

        Raises:
            Failure: a source cannot be opened.

        """
        tables = any(
            (isinstance(step, steps.VerifyMounts) and not step.by_id)
            or (isinstance(step, Mount) and step.attributes.below)
            for step in self.plan.child
        )
        if tables or self._kinds & {steps.Sysctl, steps.ClassicMounts}:
            self._slots["proc"] = private_procfs()
        if self.plan.namespaces.joins:
            self._open_joins()
        if self._classic:
            log.debug("mounts are made with mount(2): see `pyrunc plan`")
        if AttachRoot in self._kinds:
            self.mounts = host_side.HostMounts(self.plan, self.trace)
            self.mounts.prepare(self.container.directory)
            # Without the right to clone a mount here (an ordinary user), the init program opens the sources
            # with its rights in its own user namespace.
            if os.geteuid() == 0 and not self._classic:
                self.mounts.open_all()
                attach = next(step for step in self.plan.child if isinstance(step, AttachRoot))
                self._note_root(self.mounts.slots.get(self.mounts.opened.get(id(attach), ""), -1))
            else:
                self.mounts.look(classic=self._classic)

    def _note_root(self, root: int) -> None:
        """Note the mount of the root file system in the record, if only delete will ever unmount it."""
        if "mount" not in self.container.namespaces and root >= 0:
            mask = next(
                flags.STATX_MNT_ID_UNIQUE if step.by_id else flags.STATX_MNT_ID
                for step in self.plan.child
                if isinstance(step, steps.VerifyMounts)
            )
            number, _is_top = _linux.statx_mnt(root, mask)
            self.container.extra["root_mount"] = [self.plan.rootfs, mask, number]

    def _open_joins(self) -> None:
        """Open the namespaces to join, and a procfs of the pid namespace for each of its mounts."""
        from pyrunc.apply import namespaces

        for each in self.plan.namespaces.joins:
            self._slots["join-" + each.kind] = namespaces.open_join(each)
        join = self._late_pid()
        if join is None:
            return
        users = next((each for each in self.plan.namespaces.joins if each.kind == "user"), None)
        for step in self.plan.child:
            if isinstance(step, FileSystem) and step.fstype == "proc":
                rights = None if users is None else namespaces.open_join(users)
                try:
                    context = init_program.proc_context(self._slots["join-pid"], rights)
                except Failure as problem:
                    raise namespaces.refused(join, problem.errno) from None
                self._contexts += 1
                self._slots[f"procfs{self._contexts}"] = context

    def _late_pid(self) -> steps.Join | None:
        """Return the pid namespace that is joined last."""
        if self._classic:
            return None
        return next((join for join in self.plan.namespaces.joins if join.kind == "pid"), None)

    # -- init ------------------------------------------------------------------------------------------------

    def fork(self, cgroup_plan: steps.Cgroup, limited: Callable[[], None]) -> None:
        """Make the cgroups, call limited(), then make init in its namespaces.

        Raises:
            Failure: a cgroup or the process cannot be made.

        """
        found = cgroup.intend(self.container, cgroup_plan.plan)
        store.save(self.container)
        self.do(cgroup_plan, self._make_cgroup, cgroup_plan, found)
        limited()
        # The kernel may refuse to move a process into a cgroup outside of a joined cgroup namespace.
        late = "cgroup" not in program_first.late(self.plan.namespaces) and "" in self.paths
        into = -1 if late else cgroup.clone_fd(self.paths)
        try:
            self._start(into)
        finally:
            if into >= 0:
                os.close(into)
        self._close_slots()
        if self.clones:
            # A clone that the parent was not told of keeps the socket open. Later on this limit has no
            # effect.
            self.sock.settimeout(PATIENCE)
        if self._way == program_first.MAPPED_FIRST:
            from pyrunc.apply import idmaps

            if self.next()[0] != protocol.DUMPABLE:
                raise self.died()
            idmaps.dress(self.plan, self.pid, self.do)
            self.dressed = True
            self.tell(protocol.MAPPED)
        if self._way:
            self._take_clone()
        log.debug("nsexec container setup: the child has its new namespaces")
        self.container.pid = self.pid
        if late:
            cgroup.join({"": self.paths[""]}, self.pid)
        if self._way != program_first.MAPPED_FIRST and "user" in self.container.namespaces:
            from pyrunc.apply import idmaps

            idmaps.carry_out(self.plan, self.pid, self.do)
            self.tell(protocol.MAPPED)
        log.debug("child process in init(): carrying out the plan")

    def _make_cgroup(self, step: steps.Cgroup, found: list[str]) -> None:
        self.paths = making.create(step.plan, found)
        for mount in self.plan.child:
            # Without the right to make a cgroup the container stays in pyrunc's.
            if isinstance(mount, CgroupBind) and mount.instead and mount.source not in self.paths.values():
                mount.source = mount.instead
        self.container.cgroup = self.paths
        making.apply_limits(step.plan, self.paths)

    def _start(self, into: int) -> None:
        """Start the init program with its operations."""
        for number, fd in enumerate(cgroup.join_fds(self.paths)):
            self._slots[f"tasks{number}"] = fd
        if self.mounts is not None:
            self.mounts.open_cgroups()
        self.program = program_first.lower(self.plan, self._beginning())
        slots = {**self._slots, **(self.mounts.slots if self.mounts else {}), "socket": self.far.fileno()}
        if self.fifos:
            slots["go"], slots["answers"] = self.fifos
        new = program_first.new_at_once(self.plan.namespaces, self._way)
        if self._way:
            slots["cgroup"], into = into, -1
        slots = {name: fd for name, fd in slots.items() if fd >= 0 and name in self.program.slots}
        data = self.program.encode(slots, trace=self.trace is not None)
        inherited = [*slots.values(), *range(3, 3 + self.passed)]
        self.forked = True
        self.pid, self.pidfd = self.do(self.plan.namespaces, self._spawn, data, inherited, into, new)
        self.clones = bool(self._way) + (self._late_pid() is not None)

    def _spawn(self, data: bytes, inherited: list[int], into: int, new: int) -> tuple[int, int]:
        try:
            return init_program.start(
                data,
                inherited,
                into,
                new,
                "make the container's namespaces",
                readable=self._way == program_first.MAPPED_FIRST,
            )
        except Failure as problem:
            problem.pointer = "/linux/namespaces"
            raise

    def _beginning(self) -> Beginning:
        kinds = 0
        for kind in self.container.namespaces:
            kinds |= plan_namespaces.FLAGS[kind]
        states = [
            jsonio.dumps({**store.oci_state(self.container, status), "pid": program_process.STATE_PID})
            for status in ("created", "creating")
        ]
        mounts = self.mounts
        return Beginning(
            kinds=kinds,
            way=self._way,
            joins_pid=self._late_pid() is not None,
            joins_late=program_first.late(self.plan.namespaces),
            ordinary=os.geteuid() != 0,
            waits=bool(self.fifos),
            passed=self.passed,
            filters=self.filters,
            state=states[0],
            creating=states[1],
            size=(self.settings.size or b"") if self.settings else b"",
            clean=bool(self.settings and self.settings.clean),
            opened=mounts.opened if mounts else {},
            later=mounts.later if mounts else {},
            links=mounts.links if mounts else {},
            lonely=frozenset(mounts.lonely) if mounts else frozenset(),
            places=mounts.places if mounts else {},
            tasks=sum(name.startswith("tasks") for name in self._slots),
            contexts=self._contexts,
            lock=mounts.held if mounts and "lock" in mounts.slots else b"",
            classic=self._classic,
            seen=mounts.classic.seen if mounts and mounts.classic else {},
            directory=self.container.directory,
        )

    def _close_slots(self) -> None:
        """Close the descriptors that only the init program needs."""
        self.far.close()
        for fd in self._slots.values():
            os.close(fd)
        self._slots.clear()
        if self.mounts is not None:
            self.mounts.close_slots()

    def _take_clone(self) -> None:
        """Wait until init has been cloned, and continue with the clone.

        Raises:
            Failure: one of its operations before that has failed.

        """
        kind, payload, fd = self.next()
        if kind != protocol.CLONED or fd < 0:
            raise self.died()
        self.clones -= 1
        self.take_over(payload, fd)

    # -- the conversation ------------------------------------------------------------------------------------

    def until_ready(self) -> None:
        """Serve the child until only start is left, then set what only the parent may set.

        Raises:
            Failure: an operation or a hook failed, or the child died.

        """
        for step in self.plan.parent:
            if isinstance(step, steps.NetDevice):
                from pyrunc.apply import netdevices

                self.do(step, netdevices.move, step, self.pid)
        if self.mounts is not None:
            self.mounts.fetch(0)
        while True:
            kind, payload, fd = self.next()
            if kind == protocol.READY:
                log.debug("init: closing the pipe to signal completion")
                break
            if kind == protocol.HOOKS:
                self._host_hooks()
                self.tell(protocol.GO)
            elif kind == protocol.TERMINAL and fd >= 0:
                self.take_terminal(payload.decode("utf-8", "replace"), fd)
            elif kind == protocol.NOTIFY:
                self.hand_listener(fd, payload)
            elif kind == protocol.CLONED and fd >= 0 and self.clones:
                self.clones -= 1
                self.take_over(payload, fd)
            elif self.mounts is None or not self._serve_mounts(self.mounts, kind, payload, fd):
                raise self.died()
        cgroup.settle(self.container.cgroup_manager)
        if self.mounts is not None:
            self.mounts.close()
        self.set_limits()

    def _serve_mounts(self, mounts: host_side.HostMounts, kind: bytes, payload: bytes, fd: int) -> bool:
        """Do what only the parent can do about mounts; return True if the message was about that."""
        users = self.pidfd if "user" in self.container.namespaces else -1
        return mounts.serve(self, kind, payload, fd, users=users, paths=self.paths)

    def _host_hooks(self) -> None:
        from pyrunc.apply import hooks

        # The status is "created" after step 2 of the lifecycle (runtime-spec runtime.md "State"); prestart is
        # step 3. createRuntime hooks get the status that runc gives them.
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
        """Write init into the record, and tell init so."""
        stat = store.process_stat(self.pid)
        if stat is None:
            raise self.died()
        self.container.pid = self.pid
        self.container.start = stat[2]
        store.save(self.container)
        self.tell(protocol.STORED)

    def start(self) -> None:
        """Start the program (`run`), and wait until execve has succeeded.

        Raises:
            Failure: a startContainer hook or execve failed.

        """
        self.tell(protocol.START)
        while True:
            kind, payload, fd = self.next()
            if kind == protocol.NOTIFY:
                self.hand_listener(fd, payload)
            else:
                break
        self.executed()

    # -- the way back ----------------------------------------------------------------------------------------

    def abort(self) -> None:
        """Undo everything: kill init, remove the cgroups. The caller removes the state directory."""
        self._close_slots()  # the following needs descriptors
        self.kill()
        if self.mounts is not None:
            self.mounts.close()
        if "root_mount" in self.container.extra:
            from pyrunc.apply.mounts import root

            root.leave(self.container)
        if self.paths:
            paths = cgroup.made(self.container)
            cgroup.kill_all(paths, int(_signal.SIGKILL))
            cgroup.remove(paths, manager=self.container.cgroup_manager)
            self.paths = {}
        self.report()


def private_procfs() -> int:
    """Return a procfs that no container can have changed (CVE-2025-52881).

    Raises:
        Failure: a new procfs cannot be made, and /proc is no procfs.

    """
    try:
        with closing(_linux.fsopen("proc", flags.FSOPEN_CLOEXEC)) as fs:
            _linux.fsconfig(fs, flags.FSCONFIG_CMD_CREATE, None, None, 0)
            return _linux.fsmount(
                fs, flags.FSMOUNT_CLOEXEC, flags.MOUNT_ATTR_NOSUID | flags.MOUNT_ATTR_NOEXEC
            )
    except OSError:
        # An ordinary user may not make one. The host's is as good, once it is known to be a procfs.
        with failing("open /proc"):
            fd = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        if _linux.fstatfs(fd)[0] != flags.PROC_SUPER_MAGIC:
            os.close(fd)
            raise Failure("/proc on the host is not a procfs") from None
        return fd
