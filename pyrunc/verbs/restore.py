"""restore: bring a container back from the image files of a checkpoint, by CRIU.

In short: take the bundle, plan it, make its cgroups, have CRIU restore its processes in them as our
children, store the state, stay in front of it unless told to detach. Off the hot path. Law 4: from the
moment the restored init is known, `delete --force` finds it.
"""

from __future__ import annotations

import _signal
import os
from errno import ENOENT

from pyrunc import files, jsonio, store
from pyrunc.apply import conversation, foreground, mount_table
from pyrunc.apply.cgroups import cgroup, making
from pyrunc.apply.criu import external_mounts, messages, service
from pyrunc.errors import Failure, failing
from pyrunc.life import after_start, checkpoints, creation, planning
from pyrunc.plan import criu as plan_criu
from pyrunc.plan import hooks as plan_hooks
from pyrunc.plan import steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from typing import Any

    from pyrunc.cli.match import Command
    from pyrunc.spec.types import Config

LOG = "restore.log"
_DESCRIPTORS_LIMIT = 1 << 20  # bytes; there are three short names in it
_INVENTORY = "inventory.img"
# Directories in the state directory that are mount points in CRIU's mount namespace while it works.
_ROOT = "criu-root"
_IMAGES = "criu-images"


def main(cmd: Command) -> int:
    """Restore a container; without --detach the exit status is its program's."""
    checkpoints.warn_rootless("restore")
    store.check_id(cmd.id)
    images = checkpoints.image_path(cmd)
    if not os.path.exists(f"{images}/{_INVENTORY}"):
        raise Failure(
            f"there is no checkpoint in {images}: {_INVENTORY}", errno=ENOENT, hint="see --image-path"
        )
    bundle, config, raw = planning.read(cmd)
    creation.check_terminal(cmd, config, detach=bool(cmd.detach))
    path = service.find(cmd.criu)
    service.version(path)
    container, lock = creation.reserve(cmd.root or store.default_root(), cmd.id)
    restore = Restore(cmd, config, container)
    try:
        store.save_config(container, raw)
        restore.prepare(bundle)
        restore.run(path, images, checkpoints.work_path(cmd, images))
        if cmd.pid_file:
            conversation.write_pid_file(cmd.pid_file, container.pid)
    except BaseException as exc:
        restore.undo(exc, lock)
        raise
    os.close(lock)
    if cmd.detach:
        return 0
    return after_start.stay(container, restore.pidfd, restore.master, subreaper=not cmd.no_subreaper)


class Restore:
    """The restore of one container.

    Attributes:
        container: its record.
        pidfd: of the restored init, -1 before there is one.
        master: the master of its terminal, -1 without one, or after it was sent to the console socket.

    """

    def __init__(self, cmd: Command, config: Config, container: store.Container) -> None:
        """Keep the record; nothing is opened yet."""
        self.cmd = cmd
        self.config = config
        self.container = container
        self.pidfd = -1
        self.master = -1
        self.console: _socket.socket | None = None
        self.plan: steps.Plan
        self.namespaces: dict[str, int] = {}
        self.forked = False

    def prepare(self, bundle: str) -> None:
        """Plan the container and open what it joins; nothing has been made yet.

        Raises:
            Failure: something is missing on the host.

        """
        container = self.container
        container.bundle = bundle
        self.plan = planning.again(self.config, container, planning.manager(self.cmd))
        creation.check_root(self.plan.rootfs)
        creation.fill(container, self.config, self.plan)
        container.restored = True
        if self.cmd.console_socket:
            from pyrunc.apply import sockets

            self.console = sockets.connect(self.cmd.console_socket, "--console-socket")
        for kind, path in plan_criu.joined(self.config).items():
            with failing(f"requested {kind} namespace {path}", pointer="/linux/namespaces"):
                self.namespaces[kind] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def run(self, path: str, images: str, work: str) -> None:
        """Let CRIU restore the container.

        Args:
            path: of the criu program.
            images: directory of the image files.
            work: directory for the log.

        Raises:
            Failure: CRIU or a hook failed, or the host refuses something.

        """
        home = os.path.realpath(self.container.directory)
        place, shown = f"{home}/{_ROOT}", f"{home}/{_IMAGES}"
        os.mkdir(place, 0o755)
        os.mkdir(shown, 0o700)
        directories = (images, work)
        try:
            worker = self._start(path, place, shown, directories)
            try:
                options = {
                    "images_dir_fd": service.FIRST_FD,
                    "work_dir_fd": service.FIRST_FD + 1,
                    **plan_criu.common(self.cmd, LOG, service.config_file(self.container.annotations)),
                    **plan_criu.restore(self.cmd, root=place),
                    "cg_root": _cgroup_roots(worker.pid),
                    "join_ns": plan_criu.entered(self.config),
                    "inherit_fd": self._inherited(images, service.FIRST_FD + len(directories)),
                    "ext_mnt": self._mounts(worker.report),
                }
                checkpoints.debug_options(options)
                answer = worker.ask({"type": messages.RESTORE, "opts": options}, self._notified)
            finally:
                worker.close()
        finally:
            for fd in self.namespaces.values():
                os.close(fd)
            os.rmdir(place)
            os.rmdir(shown)
        service.expect_success(messages.RESTORE, answer, f"{work}/{LOG}")

    def _start(self, path: str, place: str, shown: str, directories: tuple[str, str]) -> service.Worker:
        """Make the cgroups and start criu in them; there the root file system is mounted for it."""
        container, plan = self.container, self.plan
        step = next(step for step in plan.parent if isinstance(step, steps.Cgroup))
        found = cgroup.intend(container, step.plan)
        store.save(container)
        container.cgroup = making.create(step.plan, found)
        store.save(container)
        making.apply_limits(step.plan, container.cgroup)
        join = cgroup.join_fds(container.cgroup)
        into = cgroup.clone_fd(container.cgroup)
        if not self.cmd.detach:
            foreground.block_signals()

        images, work = directories
        maps = next((step for step in plan.parent if isinstance(step, steps.IdMaps)), None)
        if maps is not None:
            directories = (shown, work)

        def before() -> object:
            cgroup.join_self(join)
            root = external_mounts.enter(plan.rootfs, place)
            if maps is not None:
                external_mounts.show_images(images, shown, maps)
            return external_mounts.prepare(container, plan, root)

        worker = service.Worker(
            path,
            # Without a terminal of its own the container uses the stdio of this command.
            own_stdio=not plan.terminal,
            directories=directories,
            fds=list(self.namespaces.values()),
            into=into,
            before=before,
        )
        cgroup.settle(container.cgroup_manager)
        for fd in (*join, *([into] if into >= 0 else [])):
            os.close(fd)
        return worker

    def _inherited(self, images: str, first: int) -> list[dict[str, Any]]:
        """Return the descriptors that replace what was outside the container when it was dumped.

        Args:
            images: directory of the image files.
            first: number of the first namespace's descriptor in criu.

        """
        found: list[dict[str, Any]] = [
            {"key": plan_criu.key(kind), "fd": first + index} for index, kind in enumerate(self.namespaces)
        ]
        path = f"{images}/{checkpoints.DESCRIPTORS}"
        try:
            # Images come from elsewhere: to open a fifo among them could block.
            how = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC
            fd = os.open(path, how)
            if not os.path.isfile(f"/proc/self/fd/{fd}"):
                os.close(fd)
                raise Failure(f"{path} is not a regular file")
            names = jsonio.loads(os.fsdecode(files.read_whole(fd, _DESCRIPTORS_LIMIT)))
        except (OSError, ValueError) as exc:
            raise Failure(f"read {path}", errno=getattr(exc, "errno", 0) or 0) from None
        if not isinstance(names, list):
            raise Failure(f"{path} is not a list")
        return found + [
            {"key": name, "fd": number}
            for number, name in enumerate(names[:3])
            if isinstance(name, str) and name.startswith("pipe:")
        ]

    def _mounts(self, located: object) -> list[dict[str, Any]]:
        sources = {
            external.source: os.path.realpath(external.source)
            for external in plan_criu.externals(self.plan)
            if external.recursive
        }
        rows = mount_table.read()
        return plan_criu.restored_mounts(self.plan, located, sources, rows)  # type: ignore[arg-type]

    def _notified(self, script: str, pid: int, fd: int) -> None:
        """Do the runtime's part when CRIU sends an event."""
        if script == "setup-namespaces":
            self._set_up(pid)
        elif script == "post-restore":
            self._restored(pid)
        elif script == "orphan-pts-master" and fd >= 0:
            if self.console is None:
                self.master = os.dup(fd)
                return
            from pyrunc.apply import sockets

            sockets.hand_over(self.console, "--console-socket", script, fd)
            self.console = None

    def _set_up(self, pid: int) -> None:
        """Do what a parent does for a new init: its namespaces exist, nothing runs in them yet."""
        self.forked = True
        self.container.pid = pid
        if "network" not in self.namespaces and "network" in self.container.namespaces:
            from pyrunc.apply import netdevices

            netdevices.loopback_up(pid)
            for step in self.plan.parent:
                if isinstance(step, steps.NetDevice):
                    netdevices.move(step, pid)
        for step in self.plan.parent:
            if isinstance(step, steps.Hooks):
                from pyrunc.apply import hooks

                state = store.oci_state(self.container, "creating")
                hooks.run(step.kind, step.hooks, state, cwd=self.plan.bundle)

    def _restored(self, pid: int) -> None:
        """Write the restored init into the record."""
        container = self.container
        stat = store.process_stat(pid)
        if stat is None:
            raise Failure("the restored process has ended already", step=container.id)
        self.pidfd = os.pidfd_open(pid)
        container.pid = pid
        container.start = stat[2]
        if "time" not in container.namespaces and _namespace(pid, "time") != _namespace("self", "time"):
            # CRIU makes a time namespace for the restored processes, so that their clocks continue.
            container.namespaces["time"] = ""
        store.save(container)
        if any(isinstance(step, steps.ReadonlyRoot) for step in self.plan.child):
            self._close_root()

    def _close_root(self) -> None:
        """Make the root read-only before any process continues: CRIU 3.17 does not on Linux 6.1."""
        from pyrunc.apply.live import visit

        visit.close_root(self.container)

    def undo(self, exc: BaseException, lock: int) -> None:
        """Undo everything, as create does; poststop hooks run if the environment existed."""
        hooks = plan_hooks.of(self.config, "poststop") if self.forked else ()
        creation.undo(exc, self.container, lock, self._abort, hooks)

    def _abort(self) -> None:
        container = self.container
        if self.pidfd >= 0:
            try:
                _signal.pidfd_send_signal(self.pidfd, _signal.SIGKILL)
                os.waitpid(container.pid, 0)
            except OSError:
                pass  # it has ended, or CRIU has waited for it
        if container.cgroup:
            paths = cgroup.made(container)
            cgroup.kill_all(paths, int(_signal.SIGKILL))
            cgroup.remove(paths, manager=container.cgroup_manager)


def _cgroup_roots(pid: int) -> list[dict[str, str]]:
    """Return the cgroups for CRIU's processes: those in which it was started, by controller."""
    with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape", newline="\n") as table:
        rows = [line.rstrip("\n").split(":", 2) for line in table]
    return [{"ctrl": name, "path": path} for _number, names, path in rows for name in names.split(",")]


def _namespace(pid: int | str, kind: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}")
    except OSError:
        return ""
