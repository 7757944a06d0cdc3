"""One more process in a container (`exec`): what the parent opens, starts and sends.

Law 6: the container must not see a process that still has something of the host. The init program joins
everything outside the container's pid namespace, and clones the process from there (plan/program_exec.py).
"""

from __future__ import annotations

import os
from errno import EBUSY, ENOENT

from pyrunc import files, log, store
from pyrunc.apply import init_program, protocol
from pyrunc.apply.cgroups import cgroup
from pyrunc.apply.conversation import PATIENCE, Conversation
from pyrunc.errors import Failure
from pyrunc.linux import flags
from pyrunc.plan import program_exec, steps
from pyrunc.plan.program_exec import Entering

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.store import Container


class Entry(Conversation):
    """One process that enters a container."""

    status = "running"

    def __init__(self, container: Container, plan: steps.Plan) -> None:
        """Compile the filters. This needs nothing of the container.

        Args:
            container: the record of the container to enter.
            plan: what build_exec() returned.

        Raises:
            Failure: a filter cannot be compiled.

        """
        super().__init__(container, plan)
        self.patient = False
        self.outer = 0

    def begin(self, kinds: int, paths: dict[str, str], passed: int, *, elsewhere: bool) -> None:
        """Start the init program and wait until it is the container's process.

        Args:
            kinds: CLONE_NEW* flags of the namespaces to enter.
            paths: the cgroups to be in.
            passed: how many descriptors from 3 on go to the program.
            elsewhere: if no process can be created in the unified cgroup, use the one that init is in now.

        Raises:
            Failure: it cannot be made there.

        """
        opened: dict[str, int] = {}
        try:
            opened["init"] = self._open_init()
            for number, fd in enumerate(cgroup.join_fds(paths)):
                opened[f"tasks{number}"] = fd
            tasks = len(opened) - 1
            if not kinds & flags.CLONE_NEWNS:
                how = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
                opened["root"] = os.open(f"/proc/{self.container.pid}/root", how)
            if init_program.has_null_stdio():
                null = init_program.null_device()
                if null >= 0:
                    opened["null"] = null
            entering = Entering(
                kinds=kinds,
                tasks=tasks,
                null="null" in opened,
                passed=passed,
                limits=any(isinstance(step, (steps.Rlimit, steps.OomScore)) for step in self.plan.parent),
                size=(self.settings.size or b"") if self.settings else b"",
                clean=bool(self.settings and self.settings.clean),
                filters=self.filters,
            )
            self.program = program_exec.lower(self.plan, entering)
            for step in self.plan.child:
                if isinstance(step, steps.Affinity):
                    log.debug(f"nsexec: affinity: {sum(1 << cpu for cpu in step.cpus):#x}")
            opened["socket"] = self.far.fileno()
            data = self.program.encode(opened, trace=self.trace is not None)
            self.do(self.plan.namespaces, self._start, data, opened, paths, elsewhere=elsewhere)
        except OSError as exc:
            raise Failure("enter the container", errno=exc.errno or 0) from None
        finally:
            for name, fd in opened.items():
                if name != "socket":
                    os.close(fd)
            self.far.close()
        self._become_ours()

    def _open_init(self) -> int:
        """Return a pidfd of the container's init.

        Its pid may belong to another process by now, so this is checked.
        """
        try:
            pidfd = os.pidfd_open(self.container.pid)
        except ProcessLookupError:
            raise Failure("cannot exec in a stopped container") from None
        stat = store.process_stat(self.container.pid)
        if stat is None or stat[2] != self.container.start:
            os.close(pidfd)
            raise Failure("cannot exec in a stopped container")
        return pidfd

    def _start(self, data: bytes, opened: dict[str, int], paths: dict[str, str], *, elsewhere: bool) -> None:
        descriptors = list(opened.values())
        into = -1
        try:
            try:
                into = cgroup.clone_fd(paths)
            except Failure as problem:
                if problem.errno != ENOENT or not elsewhere:
                    raise
                # Init has left the container's cgroup, and the cgroup was removed.
                into = _unified(self.container)
            try:
                self.pid, self.pidfd = init_program.start(data, descriptors, into)
            except Failure as problem:
                if into < 0 or problem.errno not in (EBUSY, ENOENT):
                    raise
                os.close(into)
                into = -1
                if not elsewhere:
                    raise Failure(
                        f"adding pid of the process to cgroups {paths['']}",
                        errno=problem.errno,
                        hint="where controllers are handed on to cgroups below, processes can be in those "
                        "alone: name one with --cgroup",
                    ) from None
                # A nested cgroup manager (systemd inside) has made the container's cgroup an inner node,
                # which may hold no process: use the cgroup that init is in now.
                into = _unified(self.container)
                self.pid, self.pidfd = init_program.start(data, descriptors, into)
        finally:
            if into >= 0:
                os.close(into)

    def _become_ours(self) -> None:
        """Wait until the helper has cloned the process, and continue with that."""
        # The log has the lines that people know from runc's log.
        log.debug("nsexec container setup: the process joins the container")
        self.sock.settimeout(PATIENCE)
        kind, payload, fd = self.next()
        if kind != protocol.CLONED or fd < 0 or len(payload) != 4:
            raise self.died()
        self.take_over(payload, fd)
        log.debug("child process in init(): the process is in the container")

    def look(self) -> bool:
        """Find out why the process does not answer; give up if it might never answer.

        Raises:
            Failure: the process does not answer: what runs in the container can stop it.

        """
        if super().look():
            return True
        stat = store.process_stat(self.pid)
        if stat is not None and stat[0] in ("T", "t"):
            raise Failure(
                "the process on its way into the container was stopped there",
                hint="something in the container sends SIGSTOP to what enters it, or traces it",
            )
        if cgroup.frozen(self.container.cgroup):
            if self.patient:
                return False
            raise Failure(
                "the container was frozen while the process entered it",
                hint="resume it, or pass --ignore-paused",
            )
        if cgroup.is_frozen(self.container.cgroup, self.pid):
            raise Failure(
                "the process on its way into the container was frozen there",
                hint="something in the container moves what enters it to a cgroup that it has frozen",
            )
        return False

    def run(self) -> None:
        """Let the process execute its program, and wait until execve has succeeded.

        Raises:
            Failure: an operation failed, or the process died.

        """
        while True:
            kind, payload, fd = self.next()
            if kind == protocol.TERMINAL and fd >= 0:
                self.take_terminal(payload.decode("utf-8", "replace"), fd)
            elif kind == protocol.NOTIFY:
                self.hand_listener(fd, payload)
            elif kind == protocol.READY:
                self.set_limits()
                self.tell(protocol.START)
            elif not kind:
                break
            else:
                raise Failure("the container's side sent an unexpected message")
        log.debug("setns_init: about to exec")
        self.executed()

    def abort(self) -> None:
        """Kill the process and wait for its end."""
        self.sock.close()  # a clone that the parent was not told of ends when the socket closes
        self.kill()
        self.report()

    def kill(self) -> None:
        """Kill the process and wait for its end; a container that keeps running may have frozen it."""
        if self.pid:
            from pyrunc.apply import ending

            ending.kill(self, frozen=True)


def _unified(container: Container) -> int:
    """Open the directory of the unified cgroup that a container's init is in now.

    Raises:
        Failure: it is not there.

    """
    path = f"/proc/{container.pid}/cgroup"
    try:
        own = next(line[3:] for line in files.read(path).split(b"\n") if line.startswith(b"0::"))
        mount = container.cgroup[""]
        place = mount.find("/unified/")
        top = mount[: place + 8] if place >= 0 else "/sys/fs/cgroup"
        return os.open(os.fsencode(top) + own, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, StopIteration) as exc:
        raise Failure(
            "open the cgroup that the container's init is in", errno=getattr(exc, "errno", 0) or 0
        ) from None
