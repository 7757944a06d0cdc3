"""The process between a caller of the library and a container.

A container must not be made in the caller's own process, because that changes the process: it becomes
undumpable, and signals are blocked. So each call that starts or ends something is carried out by a worker.
The worker is forked twice: it is not the caller's child, so the caller gets no signal and no zombie. It has
its own session and descriptors. It calls the same function as the command line (law 1). If that made a
process, the worker stays as its parent and reports its exit status.

The caller may have threads. Among them only fork(2) is done, with every signal blocked. Everything that the
worker may need is imported before: an import lock that another thread holds would never be released.

    caller                                   worker
      | <------------- WORKER + its pidfd ------ |
      | <------------- WARNING + a line -------- |  (any number of times)
      | <------------- DONE + pid, its pidfd --- |  or FAILED + facts (apply/protocol.py)
      | <------------- EXIT + status ----------- |  when a process was made and has ended
"""

from __future__ import annotations

import _signal
import _socket
import fcntl
import logging
import os
import select
import sys

from pyrunc import log, store
from pyrunc.apply import exit_status, protocol
from pyrunc.errors import Failure
from pyrunc.linux import _linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn, TypeVar

    from pyrunc.cli.match import Command

    Result = TypeVar("Result")

WORKER, WARNING, DONE, EXIT = b"P", b"W", b"R", b"X"

NOTHING = -1  # instead of a descriptor: /dev/null

_LAST_FD = 0xFFFFFFFF
_LONGEST = 1 << 15
LONGEST = (1 << 31) - 1  # milliseconds poll(2) waits at most, 24.8 days
_PATIENCE = 10_000  # milliseconds an interrupted worker has to undo what it did

# A service manager gave these to the caller, not to the container.
_NOT_OURS = ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")

_log = logging.getLogger("pyrunc")
_log.addHandler(logging.NullHandler())  # a library prints nothing unless its user configures logging


# -- the caller's side ---------------------------------------------------------------------------------------


class Channel:
    """The caller's end of the connection to a worker.

    Attributes:
        pid, pidfd: the process it made, 0 and -1 when it made none. The caller closes pidfd.

    """

    def __init__(self, sock: _socket.socket) -> None:
        """Take over the caller's end."""
        self._sock = sock
        self.pid = 0
        self.pidfd = -1

    def answer(self) -> None:
        """Wait until the work is done.

        Raises:
            Failure: that of the worker, or: the worker died.

        """
        worker = -1
        try:
            while True:
                kind, payload, fd = self._receive()
                if kind == WORKER:
                    worker = fd
                elif kind == WARNING:
                    _log.warning("%s", payload.decode("utf-8", "replace"))
                elif kind == DONE:
                    self.pid, self.pidfd = int(payload), fd
                    return
                else:
                    raise Failure("the process that did the work died")  # noqa: TRY301 - closes what is open
        except BaseException as exc:
            self.close()
            if not isinstance(exc, Failure) and worker >= 0:
                _interrupt(worker)
            raise
        finally:
            if worker >= 0:
                os.close(worker)

    def _receive(self) -> tuple[bytes, bytes, int]:
        try:
            return protocol.receive(self._sock)
        except ConnectionError:
            return b"", b"", -1

    def status(self, seconds: float | None) -> int | None:
        """Wait for the end of the process that was made.

        Returns:
            Its exit status, -N for signal N; None when it did not end within these seconds.

        Raises:
            Failure: the worker was killed, so the status is not known.

        """
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        if not poll.poll(None if seconds is None else min(LONGEST, max(0, seconds) * 1000)):
            return None
        kind, payload, _fd = self._receive()
        if kind != EXIT:
            raise Failure("its exit status is lost: the process that waited for it was killed")
        return int(payload)

    def close(self) -> None:
        """Close the connection; the worker goes on."""
        self._sock.close()


def call(command: Command, streams: Sequence[int] = (0, 1, 2), fds: Sequence[int] = ()) -> Channel:
    """Make a worker carry out a command, and wait until it is done.

    Args:
        command: what to do; its verb is one of ACTIONS.
        streams: descriptors that become the container's 0, 1 and 2; NOTHING for /dev/null.
        fds: descriptors that become its 3 and following.

    Raises:
        Failure: that of the worker.

    """
    _preload()
    near, far = protocol.pair()
    before = _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            try:
                _begin(command, far, [*streams, *fds], before)
            finally:
                os._exit(1)
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            pass  # the caller ignores SIGCHLD, or waits for all its children itself
    except OSError as exc:
        near.close()
        raise Failure("fork", errno=exc.errno or 0) from None
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, before)
        far.close()
    channel = Channel(near)
    channel.answer()
    return channel


def listening(function: Callable[[], Result]) -> Result:
    """Call a function in the caller's own process, and log its warnings instead of printing them."""
    before, log.listener = log.listener, lambda message: _log.warning("%s", message)
    try:
        return function()
    finally:
        log.listener = before


def _interrupt(worker: int) -> None:
    """Make a worker undo what it did: its caller does not wait for it any more."""
    poll = select.poll()
    poll.register(worker, select.POLLIN)
    for number in (_signal.SIGINT, _signal.SIGKILL):
        try:
            _signal.pidfd_send_signal(worker, number)
        except ProcessLookupError:
            return
        if poll.poll(_PATIENCE):
            return


# Modules that nearly every call needs: imported once here instead of once in each worker.
_USUAL = (
    "life.creation",
    "verbs.exec",
    "verbs.start",
    "verbs.delete",
    "apply.mounts.host_side",
    "apply.hooks",
)
_FOLDERS = ("apply", "images", "life", "plan", "spec", "volumes", "verbs")


def _preload() -> None:
    """Import the usual modules of workers; in a process with threads, every module that a worker can need."""
    names: list[str] = list(_USUAL)
    if len(os.listdir("/proc/self/task")) > 1:
        top = os.path.dirname(os.path.dirname(__file__))
        names += [name for name in os.listdir(top) if name.endswith(".py") and not name.startswith("__")]
        names += [
            f"{directory[len(top) + 1 :]}/{file}"
            for folder in _FOLDERS
            for directory, _folders, files in os.walk(f"{top}/{folder}")
            for file in files
            if file.endswith(".py") and file != "__init__.py"
        ]
    for name in names:
        module = "pyrunc." + name.removesuffix(".py").replace("/", ".")
        if module not in sys.modules:
            __import__(module)


# -- the worker's side ---------------------------------------------------------------------------------------


def _begin(command: Command, sock: _socket.socket, sources: list[int], mask: set[int]) -> NoReturn:
    """Become the worker, which keeps only the caller's memory and the given descriptors."""
    os.setsid()
    if os.fork():
        os._exit(0)
    for number in _signal.valid_signals():
        # No handler of the caller may run here.
        if callable(_signal.getsignal(number)) or number == _signal.SIGCHLD:
            _signal.signal(number, _signal.SIG_DFL)
    if _signal.getsignal(_signal.SIGINT) == _signal.SIG_DFL:
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)  # see _interrupt
    _signal.set_wakeup_fd(-1)
    try:
        channel = _arrange(sock, sources)
    except OSError as exc:
        protocol.report(sock, Failure("pass descriptors to the container", errno=exc.errno or 0))
        os._exit(1)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
    command.preserve_fds = len(sources) - 3
    _serve(command, channel)


def _arrange(sock: _socket.socket, sources: list[int]) -> _socket.socket:
    """Give the sources the numbers from 0 on, the channel the next one, and close all other descriptors."""
    own = len(sources)
    high = []
    for fd in (sock.fileno(), *sources):
        opened = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC) if fd < 0 else fd
        high.append(fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, own + 1))
    for number, fd in enumerate(high[1:]):
        os.dup2(fd, number)
    os.dup2(high[0], own, inheritable=False)
    _linux.close_range(own + 1, _LAST_FD, 0)
    if sock.fileno() != own:
        sock.detach()  # its number is another descriptor now, or closed
        return _socket.socket(fileno=own)
    return sock


def _serve(command: Command, sock: _socket.socket) -> NoReturn:
    pid = 0
    try:
        log.listener = lambda message: protocol.send(sock, WARNING, message.encode()[:_LONGEST])
        for name in _NOT_OURS:
            os.environ.pop(name, None)
        protocol.send(sock, WORKER, b"", [os.pidfd_open(os.getpid())])
        pid, pidfd = ACTIONS[command.verb](command)
        protocol.send(sock, DONE, b"%d" % pid, [pidfd] if pidfd >= 0 else [])
        if pid:
            _watch(pid, sock, _record(command))
    except Failure as problem:
        protocol.report(sock, problem)
    except BaseException as exc:  # noqa: BLE001 - the caller reports it
        protocol.report(sock, Failure(f"internal error: {type(exc).__name__}: {exc}"))
    finally:
        os._exit(0)


def _record(command: Command) -> store.Container | None:
    """Return the record of the container that a command has made; None for exec, which makes none."""
    if command.verb == "exec":
        return None
    try:
        return store.open_container(str(command.root), command.id)
    except Failure:
        return None  # it was deleted meanwhile


def _watch(pid: int, sock: _socket.socket, container: store.Container | None) -> None:
    """Be the parent of a process until it ends.

    All other descriptors are closed, because another process may wait for their ends. The exit status of a
    container's first process is also written to its record.
    """
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    own = sock.fileno()
    if own > 3:
        _linux.close_range(3, own - 1, 0)
    _linux.close_range(own + 1, _LAST_FD, 0)
    os.chdir("/")
    _pid, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if container is not None:
        exit_status.write(container, code)
    protocol.send(sock, EXIT, b"%d" % code)


# -- what it does --------------------------------------------------------------------------------------------


def _create(command: Command) -> tuple[int, int]:
    from pyrunc.life import creation

    launch, lock = creation.begin(command, detach=True, listen=True)
    creation.finish(command, launch, lock)
    os.close(lock)
    return launch.pid, launch.pidfd


def _exec(command: Command) -> tuple[int, int]:
    from pyrunc.verbs import exec as verb

    launch = verb.begin(command)
    return launch.pid, launch.pidfd


def _start(command: Command) -> tuple[int, int]:
    from pyrunc.verbs import start

    start.start(store.open_container(str(command.root), command.id))
    return 0, -1


def _delete(command: Command) -> tuple[int, int]:
    from pyrunc.verbs import delete

    delete.delete(str(command.root), command.id, force=command.force, volumes=command.volumes)
    return 0, -1


def _checkpoint(command: Command) -> tuple[int, int]:
    from pyrunc.verbs import checkpoint

    checkpoint.main(command)
    return 0, -1


def _restore(command: Command) -> tuple[int, int]:
    from pyrunc.verbs import restore

    restore.main(command)
    pid = store.open_container(str(command.root), command.id).pid
    return pid, os.pidfd_open(pid)


def _bundle(command: Command) -> tuple[int, int]:
    from pyrunc.verbs import bundle

    bundle.make(command, command.args)
    return 0, -1


ACTIONS: dict[str, Callable[[Command], tuple[int, int]]] = {
    "create": _create,
    "exec": _exec,
    "start": _start,
    "delete": _delete,
    "checkpoint": _checkpoint,
    "restore": _restore,
    "bundle": _bundle,
}
