"""The parent's side of the messages with init: socket, terminal, seccomp listener, limits, errors.

Law 5: once the init process is in the container, the container may control it. So the parent accepts only
what it has asked for, and checks every descriptor it gets. protocol.py draws the messages.
"""

from __future__ import annotations

import _stat as stat
import os

from pyrunc import files, log, store
from pyrunc.apply import protocol
from pyrunc.errors import Failure, failing
from pyrunc.files import closing
from pyrunc.plan import steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable
    from typing import Any, TypeVar

    from pyrunc.apply.seccomp.filters import Program as Compiled
    from pyrunc.apply.terminal import Settings
    from pyrunc.apply.trace import Trace
    from pyrunc.plan.program import Program
    from pyrunc.plan.seccomp import Filter
    from pyrunc.store import Container

    Result = TypeVar("Result")

_PTMX = os.makedev(5, 2)  # /dev/ptmx: the device number of the master side of a terminal
# After so many seconds without a message the parent looks what holds the process up. Its own work takes
# microseconds.
PATIENCE = 5.0
_ARRIVED = 0.1  # seconds to wait for a message that was sent by a process which has ended


class Conversation:
    """The messages with one process: a container's init (Launch), or one more process in it (Entry).

    Attributes:
        container: its record.
        plan: what to do.
        sock: the parent's end of the socket.
        master: the terminal's master, -1 without one (or once it was handed over).
        pid, pidfd: the process; 0 and -1 before there is one.
        status: what a seccomp agent gets as the status of the container.
        dressed: the OOM score has been set before the process was made, which inherits it.
        section: the seccomp section of config.json, for its listener.
        settings: size and output mode of the terminal.
        trace: the times of the steps, with --trace.
        program: the operations for the init program.

    """

    status = "creating"
    dressed = False

    def __init__(self, container: Container, plan: steps.Plan) -> None:
        """Open the socket; `far` is the child's end."""
        self.container = container
        self.plan = plan
        self.master = -1
        self.pid = 0
        self.pidfd = -1
        self.sock, self.far = protocol.pair()
        self.console: _socket.socket | None = None
        self.pidfd_socket: _socket.socket | None = None
        self.section: Filter | None = None
        self.filters: dict[int, Compiled] = {}
        self.settings: Settings | None = None
        self.trace: Trace | None = None
        self.program: Program | None = None
        self._compile_filters()

    def _compile_filters(self) -> None:
        """Compile the plan's filters.

        Raises:
            Failure: one cannot be compiled.

        """
        for step in (*self.plan.child, *self.plan.start):
            if isinstance(step, steps.Seccomp):
                from pyrunc.apply.seccomp import filters

                self.section = step.section
                self.filters[id(step)] = filters.compile(step.section, filters.cache_dir(self.container.root))
                log.debug(f"seccomp filter flags: {self.filters[id(step)].flags}")

    def open_channels(self, console: str | None, pidfd: str | None, *, foreground: bool) -> None:
        """Connect to the console and pidfd sockets, and decide size and output mode of the terminal.

        Args:
            console: path of --console-socket.
            pidfd: path of --pidfd-socket.
            foreground: pyrunc waits for the process and forwards signals to it.

        """
        if self.plan.terminal:
            from pyrunc.apply import sockets, terminal

            step = next(step for step in self.plan.child if isinstance(step, steps.Terminal))
            self.settings = terminal.settings(step, foreground=foreground)
            if console:
                self.console = sockets.connect(console, "--console-socket")
        if pidfd:
            from pyrunc.apply import sockets

            self.pidfd_socket = sockets.connect(pidfd, "--pidfd-socket")
        if foreground:
            from pyrunc.apply import foreground as front

            front.block_signals()

    def do(self, step: steps.Step, do: Callable[..., Result], *arguments: Any, **named: Any) -> Result:
        """Carry out a step of the parent; with --trace its time is measured."""
        if self.trace is None:
            return do(*arguments, **named)
        return self.trace.measure(step, do, *arguments, **named)

    def tell(self, kind: bytes) -> None:
        """Send a message.

        Raises:
            Failure: the process is gone. If it has reported a failure before, that one.

        """
        try:
            protocol.send(self.sock, kind)
        except OSError:
            # What a process sent before it went has arrived. One that exists may never send anything.
            self.sock.settimeout(_ARRIVED)
            try:
                while self.receive()[0]:
                    pass  # an earlier message that is not needed any more
            except TimeoutError:
                pass  # it exists, but cannot be sent to
            raise self.died() from None

    def receive(self) -> tuple[bytes, bytes, int]:
        """Return the next message as (kind, payload, descriptor); (b"", b"", -1) when the socket is closed.

        Raises:
            Failure: the init program reports a failed operation.

        """
        while True:
            try:
                kind, payload, fd = protocol.receive(self.sock)
            except ConnectionError:
                return b"", b"", -1
            except TimeoutError:
                raise
            except OSError as exc:
                raise Failure("hear from the container's init", errno=exc.errno or 0) from None
            if kind == protocol.TIMES:
                if self.trace is not None and self.program is not None:
                    steps_of = [id(operation.step) for operation in self.program.operations]
                    self.trace.take(payload, steps_of)
            elif kind == protocol.ENDED:
                raise self._reported(payload)
            else:
                return kind, payload, fd

    def next(self) -> tuple[bytes, bytes, int]:
        """Return the next message. If there is a time limit, call look() each time it is reached.

        Raises:
            Failure: an operation failed, or the process is gone.

        """
        ended = False
        while True:
            try:
                return self.receive()
            except TimeoutError:
                if ended:
                    raise self.died() from None
                if ended := self.look():
                    self.sock.settimeout(_ARRIVED)  # a message sent before that has arrived already

    def look(self) -> bool:
        """Tell whether the process has ended, though the socket is not at its end.

        A process that it has cloned, and that the parent has not been told of, may still hold the socket
        open.
        """
        stat = store.process_stat(self.pid)
        return stat is None or stat[0] in ("Z", "X")

    def _reported(self, payload: bytes) -> Failure:
        """Return the Failure for a report of the init program. A container may have forged the report."""
        from pyrunc.apply import failures

        report = failures.Report.read(payload)
        operations = self.program.operations if self.program is not None else []
        known = report is not None and report.operation < len(operations)
        if report is None or not known or operations[report.operation].name != report.name:
            return Failure("the container's side sent a malformed error report")
        step = operations[report.operation].step
        report.tag = operations[report.operation].tag  # the tag in the report is not trusted
        report.classic = any(isinstance(each, steps.ClassicMounts) for each in self.plan.child)
        noted = int.from_bytes(report.said[:4], "little")
        about = operations[noted].step if report.name == "VERIFY" and noted < len(operations) else None
        from pyrunc.apply.mounts import tree_failures

        worded = tree_failures.failure(step, report, self.container.directory, about)
        if worded is not None:
            return worded
        every = (*self.plan.child, *self.plan.start)
        filtered = any(isinstance(step, steps.Seccomp) for step in every)
        mapped = "user" in self.container.namespaces
        why = failures.looking(every, self.pid, mapped=mapped, filtered=filtered)
        return failures.failure(step, report, why)

    def take_over(self, payload: bytes, fd: int) -> None:
        """Continue with the process that the child has cloned; the child itself ends.

        Args:
            payload: the pid, as the host numbers it.
            fd: a pidfd.

        Raises:
            Failure: the message is malformed.

        """
        if len(payload) != 4:
            os.close(fd)
            raise Failure("the container's side sent a malformed message about its process")
        helper, helper_fd = self.pid, self.pidfd
        self.pid, self.pidfd = int.from_bytes(payload, "little"), fd
        os.waitpid(helper, 0)
        os.close(helper_fd)
        self.tell(protocol.GO)

    def take_terminal(self, name: str, fd: int) -> None:
        """Receive the master of the terminal, and send it to the console socket if there is one.

        Raises:
            Failure: the descriptor is no master of a terminal. The sender may be under a container's control.

        """
        found = os.fstat(fd)
        if found.st_mode & 0o170000 != 0o020000 or found.st_rdev != _PTMX or self.master >= 0:
            os.close(fd)
            raise Failure("the container's side sent something else than a terminal")
        if self.console is None:
            self.master = fd
            return
        from pyrunc.apply import sockets

        sockets.hand_over(self.console, "--console-socket", name[:64], fd)
        self.console = None
        os.close(fd)

    def hand_listener(self, fd: int, number: bytes) -> None:
        """Send the seccomp listener to the agent: as received, or the one of this number in the child."""
        from pyrunc.apply.seccomp import filters
        from pyrunc.plan import seccomp as plan_seccomp

        by_number = fd < 0
        if by_number:
            fd = filters.fetch_listener(self.pidfd, number)
        filters.check_listener(fd)
        state = store.oci_state(self.container, self.status)
        if self.section is None:
            raise Failure("the container sent a listener that no filter asked for")
        message = plan_seccomp.process_state(self.section, version="1.3.0", pid=self.pid, state=state)
        filters.send_notify_fd(self.section.listener, fd, message)
        os.close(fd)
        if by_number:
            self.tell(protocol.GO)

    def set_limits(self) -> None:
        """Set what needs the parent's rights: resource limits and the OOM score."""
        for step in self.plan.parent:
            if isinstance(step, (steps.Rlimit, steps.OomScore)):
                from pyrunc.apply import identity

                if isinstance(step, steps.Rlimit):
                    self.do(step, identity.set_rlimit, self.pid, step)
                elif not self.dressed:
                    self.do(step, identity.set_oom_score, self.pid, step)

    def died(self) -> Failure:
        """Return the Failure for a process that ended without a report; if it still runs, kill it."""
        from pyrunc.apply import ending

        return ending.why(self)

    def executed(self) -> None:
        """Check that the process has executed its program, now that the socket is closed.

        Raises:
            Failure: it died before.

        """
        self.sock.close()
        stat = store.process_stat(self.pid)
        if stat is not None and stat[3] == store.INIT_NAME:
            raise self.died()

    def hand_pidfd(self, kind: str) -> None:
        """Send the process's pidfd to the receiver at --pidfd-socket; kind is runc's word for it."""
        if self.pidfd_socket is not None:
            from pyrunc.apply import sockets

            sockets.hand_over(self.pidfd_socket, "--pidfd-socket", kind, self.pidfd)

    def report(self) -> None:
        """Print the times of the steps, with --trace."""
        if self.trace is not None:
            if self.program is not None:
                self.trace.pass_over({id(operation.step) for operation in self.program.operations}, self.plan)
            self.trace.report(self.plan)
            self.trace = None

    def kill(self) -> None:
        """Kill the process and wait for its end; it may be gone already.

        Raises:
            Failure: it does not die.

        """
        if self.pid:
            from pyrunc.apply import ending

            ending.kill(self)


def traced(target: str | None) -> Trace | None:
    """Return the object that measures the steps; None without --trace."""
    if target is None:
        return None
    from pyrunc.apply import trace

    return trace.Trace(target)


def write_pid_file(path: str, pid: int) -> None:
    """Write a pid file as engines read it: digits, no newline, replaced as a whole.

    What is no regular file is written to: a rename would put one in the place of the host's /dev/null.

    Raises:
        Failure: it cannot be written.

    """
    if _is_special(path):
        with failing(f"write pid file {path}"):
            files.write(path, str(pid).encode())
        return
    directory, _, name = path.rpartition("/")
    temporary = f"{directory}/.{name}" if directory or path.startswith("/") else f".{name}"
    how = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    with failing(f"write pid file {path}"):
        with closing(os.open(temporary, how, 0o644)) as fd:
            os.write(fd, str(pid).encode())
        os.rename(temporary, path)


def _is_special(path: str) -> bool:
    """Tell whether a path leads to a device, a pipe or the like, or to a descriptor, as /dev/stdout does."""
    try:
        if os.path.islink(path) and os.readlink(path).startswith("/proc/"):
            return True
        mode = os.stat(path).st_mode
        return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)
    except OSError:
        return False
