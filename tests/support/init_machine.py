"""Let the init program carry out a test's program, and return the result."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from pyrunc.apply import failures, init_program, protocol
from pyrunc.linux import _linux
from pyrunc.plan import steps
from pyrunc.plan.program import NAME, Program
from tests.support import libc

if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

    Answer: TypeAlias = bytes | tuple[bytes, list[int]]
    Answers: TypeAlias = Mapping[bytes, Answer | Callable[[int], Answer | None]]

BUSYBOX = str(Path(__file__).resolve().parents[2] / "bundles/busybox/rootfs/bin/busybox")
STEP = steps.Step()
SOCKET, HELD = 200, 201  # descriptors of the socket and of the program
PATIENCE = 30  # seconds; if the process sends nothing for longer, the test fails

as_root = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="the operations of the init program take root"),
]


class Told(NamedTuple):
    """A message of the init program, except reports."""

    kind: bytes
    payload: bytes
    fd: int


class Outcome(NamedTuple):
    """The result of a program.

    Attributes:
        status: exit status, or the negative number of a signal.
        report: the report of a failure.
        out: the output on stdout and stderr.
        told: the other messages, each with its descriptor, which the test closes.

    """

    status: int
    report: failures.Report | None
    out: str
    told: list[Told]


def program(*operations: tuple[str, *tuple[int, ...]], slots: tuple[str, ...] = ()) -> Program:
    """Return a program of operations whose arguments need no strings."""
    made = Program()
    for name in slots:
        made.slot(name)
    for name, *arguments in operations:
        made.add(STEP, name, *arguments)
    return made


def execute(made: Program, *args: str, env: tuple[str, ...] = (), path: str = BUSYBOX) -> Program:
    """Append the execution of a program, busybox's by default."""
    made.add(STEP, "FIND", made.list([path]))
    made.add(STEP, "EXEC", made.list(args), made.list(env))
    return made


def shell(made: Program, script: str, path: str = BUSYBOX) -> Program:
    """Append the execution of a shell script."""
    return execute(made, "sh", "-c", script, path=path)


def carry_out(
    made: Program | bytes,
    slots: Mapping[str, int] | None = None,
    *,
    answers: Answers | None = None,
    before: Callable[[], None] | None = None,
    arguments: Callable[[int], list[str]] | None = None,
    new: int = 0,
    trace: bool = False,
    passed: int = 0,
    patience: float = PATIENCE,
) -> Outcome:
    """Start the init program with a program and serve it until all it has started has ended.

    Args:
        made: the program, or the bytes of one, whose socket is descriptor SOCKET.
        slots: name of a slot -> descriptor.
        answers: kind of a message -> the answer, or a function of the pid that returns it; b"" for no answer,
            a kind and descriptors for a message with descriptors, None to close the connection.
        before: called in the new process first.
        arguments: descriptor of the program -> argv, if it is not the usual one.
        new: CLONE_NEW* flags of namespaces it begins in.
        trace: let it measure times.
        passed: how many descriptors from 3 on are passed to it.
        patience: seconds without a message after which it is killed.

    """
    ours, far = protocol.pair()
    reader, writer = os.pipe()
    image = init_program.image()
    pid, pidfd = _linux.clone3(new, signal.SIGCHLD, -1)
    if pid == 0:
        try:
            given = {**(slots or {}), "socket": os.dup2(far.fileno(), SOCKET)}
            _become(
                made, given, image, writer, before=before, arguments=arguments, trace=trace, passed=passed
            )
        finally:
            os._exit(99)
    for fd in (image, writer):
        os.close(fd)
    far.close()
    conversation = _Conversation(ours, pid, pidfd, answers or {}, patience)
    conversation.serve()
    with os.fdopen(reader, "rb") as output:
        out = output.read().decode()
    return Outcome(conversation.status, conversation.report, out, conversation.told)


def _become(
    made: Program | bytes,
    slots: dict[str, int],
    image: int,
    writer: int,
    *,
    before: Callable[[], None] | None,
    arguments: Callable[[int], list[str]] | None,
    trace: bool,
    passed: int,
) -> None:
    data = made if isinstance(made, bytes) else made.encode(slots, trace=trace)
    # Move them away from the numbers that are used next.
    held = os.dup2(init_program.sealed("program", data), HELD)
    image = os.dup2(image, HELD + 1, inheritable=False)
    null = os.open("/dev/null", os.O_RDWR)
    for fd, to in ((null, 0), (writer, 1), (writer, 2)):
        os.dup2(fd, to)
    if before is not None:
        before()
    for fd in (*(fd for fd in slots.values() if fd >= 0), *range(3, 3 + passed)):
        os.set_inheritable(fd, True)
    libc.execute(image, [NAME, str(held)] if arguments is None else arguments(held))


class _Conversation:
    def __init__(
        self,
        sock: _socket.socket,
        pid: int,
        pidfd: int,
        answers: Answers,
        patience: float,
    ) -> None:
        self.sock = sock
        self.pid, self.pidfd = pid, pidfd
        self.answers = answers
        self.patience = patience
        self.report: failures.Report | None = None
        self.told: list[Told] = []
        self.status = -signal.SIGKILL

    def serve(self) -> None:
        """Answer until the other end is closed, and wait for the process."""
        try:
            while self._one():
                pass
        finally:
            self.sock.close()
            self._collect()

    def _one(self) -> bool:
        if not select.select([self.sock], [], [], self.patience)[0]:
            return False
        try:
            kind, payload, fd = protocol.receive(self.sock)
        except ConnectionError:
            return False
        if not kind:
            return False
        if kind == protocol.ENDED:
            self.report = failures.Report.read(payload)
            assert self.report is not None, payload
            return False
        self.told.append(Told(kind, payload, fd))
        if kind == protocol.CLONED:
            self._take_over(payload, fd)
        answer = self.answers.get(kind)
        word = answer(self.pid) if callable(answer) else answer
        if callable(answer) and word is None:
            return False
        if word:
            with contextlib.suppress(BrokenPipeError):  # it has ended; its earlier messages can still be read
                if isinstance(word, tuple):
                    protocol.send(self.sock, word[0], fds=word[1])
                else:
                    self.sock.send(word)
        return True

    def _take_over(self, payload: bytes, fd: int) -> None:
        """From now on, wait for the process that was cloned; without CLONE_PARENT it is not our child."""
        self._collect()
        try:
            os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        self.pid, self.pidfd = int.from_bytes(payload, "little"), os.dup(fd)

    def _collect(self) -> None:
        if self.pidfd < 0:
            return
        if not select.select([self.pidfd], [], [], self.patience)[0]:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        _pid, status = os.waitpid(self.pid, 0)
        self.status = os.waitstatus_to_exitcode(status)
        os.close(self.pidfd)
        self.pidfd = -1


READY, WAITED = (ord("R"),), (ord("A"),)


def field(out: str, name: str) -> str:
    """Return a field of /proc/PID/status."""
    return next(line.partition(":")[2].strip() for line in out.splitlines() if line.startswith(name + ":"))


def copy(fd: int, to: int) -> None:
    os.dup2(fd, to)


def looked(made: Program, look: Callable[[int], object], **how: Any) -> Any:
    """Carry out a program up to here, and return the result of look() for the process."""
    found: list[Any] = []

    def see(pid: int) -> bytes:
        found.append(look(pid))
        return b"A"

    made.add(STEP, "SEND", *READY)
    made.add(STEP, "WAIT", *WAITED)
    outcome = carry_out(made, answers={b"R": see, b"C": b"O"}, **how)
    assert outcome.status == 0, outcome
    return found[0]


def good(outcome: Outcome) -> str:
    """Return the output of a process, which must have succeeded."""
    assert (outcome.status, outcome.report) == (0, None), outcome
    return outcome.out


def inside(root: Path, opened: Callable[..., int]) -> tuple[Program, dict[str, int]]:
    """Return a program that has entered a root, and its slots."""
    made = Program()
    made.add(STEP, "CHROOT", made.slot("root"))
    return made, {"root": opened(root, os.O_PATH | os.O_DIRECTORY)}
