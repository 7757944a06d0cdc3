"""Let the init program carry out a program in a mount namespace, and wait for its end: the parent's side.

Law 5: the other side may be in a container's mount namespace, so only expected messages are accepted, and the
parent waits no longer than its time limit.
"""

from __future__ import annotations

import _signal
import os
import select
import time

from pyrunc.apply import init_program
from pyrunc.apply.conversation import Conversation
from pyrunc.errors import Failure
from pyrunc.plan import steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyrunc import store
    from pyrunc.plan.mount_steps import Mount
    from pyrunc.plan.program import Program

_HOUR = 3600.0


class Errand(Conversation):
    """One program, and the process that carries it out."""

    status = "running"

    def __init__(
        self, container: store.Container, mounts: tuple[Mount, ...] = (), *, limit: float = _HOUR
    ) -> None:
        """Open the socket.

        Args:
            container: the container with the mount tree.
            mounts: the steps that the parent has to know.
            limit: seconds that the parent waits for its end.

        """
        plan = steps.Plan(
            id=container.id,
            bundle="",
            rootfs=container.rootfs,
            namespaces=steps.Namespaces(),
            parent=(),
            child=mounts,
            start=(),
        )
        super().__init__(container, plan)
        self._limit = limit
        self._end = 0.0

    def run(
        self,
        program: Program,
        slots: Mapping[str, int] | None = None,
        serve: Callable[[bytes, bytes, int], bool] = lambda _kind, _payload, _fd: False,
    ) -> None:
        """Carry out a program.

        Args:
            program: from program_live.
            slots: name of a slot -> descriptor; those that the program does not have are left out.
            serve: handles a message (kind, payload, descriptor or -1), and returns whether it was one that
                is expected.

        Raises:
            Failure: an operation failed, serve() raised one, or the program did not end.

        """
        self._end = time.monotonic() + self._limit
        self.program = program
        given = {**(slots or {}), "socket": self.far.fileno()}
        given = {name: fd for name, fd in given.items() if fd >= 0 and name in program.slots}
        try:
            what = "make a process for the container's mounts"
            self.pid, self.pidfd = init_program.start(program.encode(given), [*given.values()], what=what)
            self.far.close()
            self._listen(serve)
        finally:
            # If the program has not ended, it undoes what it has done when the socket is closed.
            self.sock.close()
            code = self._collect()
        if code:
            raise self.ended(code)

    def died(self) -> Failure:
        """Return the Failure for a process that cannot be sent to. It ends when the socket is closed."""
        self.sock.close()
        return self.ended(self._collect())

    def ended(self, code: int) -> Failure:
        """Return the Failure for a process that did not complete its program.

        Args:
            code: its exit status, or the negative number of a signal.

        """
        how = f"signal {-code}" if code < 0 else f"status {code}"
        return Failure(f"the process for the container's mounts was ended by {how}", step=self.container.id)

    def late(self) -> Failure:
        """Return the Failure for a process that takes longer than the time limit."""
        return Failure("the process for the container's mounts does not end", step=self.container.id)

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()
        self.far.close()

    def _listen(self, serve: Callable[[bytes, bytes, int], bool]) -> None:
        while (left := self._end - time.monotonic()) > 0:
            self.sock.settimeout(left)
            try:
                kind, payload, fd = self.receive()
            except TimeoutError:
                break
            if not kind:
                return
            if not serve(kind, payload, fd):
                if fd >= 0:
                    os.close(fd)
                raise Failure("the container's side sent an unexpected message")
        raise self.late()

    def _collect(self) -> int:
        """Wait until the process has ended, or kill it; return its exit status, or -number of a signal."""
        if self.pidfd < 0:
            return 0
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        if not poll.poll(max(0.0, self._end - time.monotonic()) * 1000):
            _signal.pidfd_send_signal(self.pidfd, _signal.SIGKILL)
        _pid, status = os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        self.pid, self.pidfd = 0, -1
        return os.waitstatus_to_exitcode(status)
