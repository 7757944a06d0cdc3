"""CRIU at work: find it, start it, talk with it, read its log.

Law 5: the one program a runtime has to call, because nothing else can dump and restore processes. It is
started as `criu swrk 3`: one end of a socket pair is its descriptor 3, and what it restores becomes a child
of ours.

Off the hot path: only checkpoint and restore import this.

Sources: https://criu.org/RPC, CRIU 4.2 criu/cr-service.c.
"""

from __future__ import annotations

import _signal
import _socket
import fcntl
import os
import sys

from pyrunc import cli, jsonio
from pyrunc.apply import criu_rpc
from pyrunc.apply.foreground import restore_signals
from pyrunc.errors import Failure, from_facts
from pyrunc.linux import _linux
from pyrunc.plan import criu as plan_criu

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    Message = dict[str, Any]
    # Called with the name of an event, the pid it is about (0 for none) and a descriptor that came with it
    # (-1).
    Notified = Callable[[str, int, int], None]

# 3.16 is the first that can set LSM profiles and contexts right (and leaves pid namespaces alone, 3.15).
OLDEST = 31600

# CRIU's own configuration file where the annotation org.criu.config names none. Settings in it win.
CONFIG_FILES = ("/etc/criu/pyrunc.conf", "/etc/criu/runc.conf")

_ROOM = 1 << 16
_SOCKET = 3
FIRST_FD = _SOCKET + 1  # the number of the first descriptor a worker is given
_ABOVE = 100  # descriptors are first moved out of the way of the numbers they are to have
_LAST_FD = 0xFFFFFFFF


def find(named: str | None) -> str:
    """Return the path of criu.

    Args:
        named: global option --criu, which runc before 1.2 had; None: look in $PATH.

    Raises:
        Failure: there is none.

    """
    for directory in [""] if named else os.environ.get("PATH", "").split(":"):
        path = named or f"{directory or '.'}/criu"
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
    raise Failure(
        f"{named}: not an executable file" if named else "criu: executable file not found in $PATH",
        hint="checkpoint and restore are done by CRIU: install it (package criu)",
    )


def config_file(annotations: dict[str, str]) -> str:
    """Return the configuration file CRIU is to read, "" for none."""
    if "org.criu.config" in annotations:
        return annotations["org.criu.config"]
    return next((path for path in CONFIG_FILES if os.path.exists(path)), "")


class Worker:
    """One criu process with our end of the conversation.

    Attributes:
        pid: the process, 0 when it has been collected.
        report: what `before` returned in it.

    """

    def __init__(
        self,
        path: str,
        *,
        own_stdio: bool = False,
        fds: Sequence[int] = (),
        into: int = -1,
        before: Callable[[], object] | None = None,
        mask: Iterable[int] | None = None,
    ) -> None:
        """Start it.

        Args:
            path: of criu.
            own_stdio: it gets our stdin, stdout and stderr, else /dev/null.
            fds: descriptors it gets as 4, 5...
            into: unified cgroup it is born in, -1 for ours.
            before: called in the new process before it becomes criu.
            mask: signal mask it is to have, None for ours.

        Raises:
            Failure: it cannot be started, or what `before` raised.

        """
        self.path = path
        self.sock, far = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC, 0)
        reader, writer = os.pipe()
        self.pid, pidfd = _linux.clone3(0, int(_signal.SIGCHLD), into)
        if self.pid == 0:
            _become(path, far.fileno(), writer, own_stdio=own_stdio, fds=fds, before=before, mask=mask)
        os.close(pidfd)
        os.close(writer)
        far.close()
        try:
            self.report = _heard(reader)
        except BaseException:
            self.close()
            raise

    def ask(self, message: Message, notified: Notified | None = None) -> Message:
        """Send a request and serve CRIU until it answers it.

        Args:
            message: the request.
            notified: is told of each event on the way; when it raises, CRIU gives up what it is doing.

        Returns:
            The response, whatever it says.

        Raises:
            Failure: criu died, speaks another language, or what `notified` raised.

        """
        problem: Failure | None = None
        self.send(message)
        while True:
            response, fd = self._receive()
            if response.get("type") != criu_rpc.NOTIFY:
                if fd >= 0:
                    os.close(fd)
                if problem is not None:
                    raise problem
                return response
            event = response.get("notify") or {}
            cli.debug(f"criu notify: {event.get('script')}")
            try:
                if notified is not None and problem is None:
                    notified(event.get("script", ""), event.get("pid", 0), fd)
            except Failure as exc:
                problem = exc
            finally:
                if fd >= 0:
                    os.close(fd)
            self.send({"type": criu_rpc.NOTIFY, "notify_success": problem is None})

    def send(self, message: Message) -> None:
        """Send one message.

        Raises:
            Failure: criu is gone.

        """
        try:
            self.sock.send(criu_rpc.encode(message), _socket.MSG_NOSIGNAL)
        except OSError:
            raise self._died() from None

    def _receive(self) -> tuple[Message, int]:
        try:
            data, ancillary, _flags, _address = self.sock.recvmsg(
                _ROOM, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionError:
            data, ancillary = b"", []
        fd = -1
        for level, what, content in ancillary:
            if level == _socket.SOL_SOCKET and what == _socket.SCM_RIGHTS:
                fd = int.from_bytes(content[:4], sys.byteorder)
        if not data:
            raise self._died()
        try:
            return criu_rpc.decode(data), fd
        except ValueError as exc:
            raise Failure(f"{self.path}: unable to parse the response ({exc})") from None

    def _died(self) -> Failure:
        """Say how criu ended without an answer."""
        _pid, status = os.waitpid(self.pid, 0)
        self.pid = 0
        code = os.waitstatus_to_exitcode(status)
        how = f"was ended by signal {-code}" if code < 0 else f"exited with status {code}"
        return Failure(f"criu failed: it {how} without an answer")

    def close(self) -> None:
        """Hang up, which ends it, and collect it."""
        self.sock.close()
        if self.pid:
            os.waitpid(self.pid, 0)
            self.pid = 0


def _heard(reader: int) -> object:
    """Return what the new process reports before it is criu.

    Raises:
        Failure: the one it reports, or that it died.

    """
    with open(reader, "rb") as pipe:
        lines = pipe.read().decode("utf-8", "surrogateescape").splitlines()
    found = [jsonio.loads(line) for line in lines]
    if not found:
        raise Failure("the process that was to become criu died")
    for problem in found[1:]:
        raise from_facts(problem)
    return found[0]


def _become(
    path: str,
    sock: int,
    writer: int,
    *,
    own_stdio: bool,
    fds: Sequence[int],
    before: Callable[[], object] | None,
    mask: Iterable[int] | None,
) -> None:
    """Be the new process: prepare, arrange the descriptors, execute criu; never returns."""
    try:
        try:
            _say(writer, before() if before is not None else None)
            writer = _arrange(sock, writer, own_stdio=own_stdio, fds=fds)
            restore_signals(mask)
            os.execve(path, ["criu", "swrk", str(_SOCKET)], os.environ)  # noqa: S606 - this is CRIU
        except OSError as exc:
            raise Failure(f"execute {path}", errno=exc.errno or 0) from exc
    except Failure as problem:
        _say(writer, None)
        _say(writer, problem.facts())
    except BaseException as exc:  # noqa: BLE001 - the parent words it
        _say(writer, None)
        _say(writer, Failure(f"internal error: {exc!r}").facts())
    finally:
        os._exit(1)


def _say(writer: int, what: object) -> None:
    os.write(writer, jsonio.dumps(what).encode("utf-8", "surrogateescape") + b"\n")


def _arrange(sock: int, writer: int, *, own_stdio: bool, fds: Sequence[int]) -> int:
    """Give descriptors the numbers criu expects and close all others; return the writer's new number."""
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _ABOVE) for fd in (sock, *fds)]
    writer = fcntl.fcntl(writer, fcntl.F_DUPFD_CLOEXEC, _ABOVE)
    for number, fd in enumerate(moved, _SOCKET):
        os.dup2(fd, number)
    _linux.close_range(_SOCKET + len(moved), writer - 1, 0)
    _linux.close_range(writer + 1, _LAST_FD, 0)
    if not own_stdio:
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        for number in range(_SOCKET):
            os.dup2(null, number)
        os.close(null)
    return writer


def version(path: str) -> int:
    """Return criu's version as major * 10000 + minor * 100 + sublevel.

    Raises:
        Failure: it is too old for us, or does not answer.

    """
    worker = Worker(path)
    try:
        found = worker.ask({"type": criu_rpc.VERSION}).get("version") or {}
    finally:
        worker.close()
    number: int = (
        found.get("major_number", 0) * 10000 + found.get("minor_number", 0) * 100 + found.get("sublevel", 0)
    )
    cli.debug(f"Using CRIU {number} ({path})")
    if number < OLDEST:
        raise Failure(f"CRIU version {number} must be {OLDEST} or higher", hint=f"{path} is too old")
    return number


def check_feature(path: str, name: str, option: str) -> None:
    """Ask whether criu and the kernel can do something.

    Args:
        path: of criu.
        name: "mem_track" or "lazy_pages".
        option: of ours that needs it, for the message.

    Raises:
        Failure: they cannot.

    """
    worker = Worker(path)
    try:
        answer = worker.ask({"type": criu_rpc.FEATURE_CHECK, "features": {name: True}})
    finally:
        worker.close()
    if not (answer.get("features") or {}).get(name):
        spelled = {"mem_track": "MemTrack", "lazy_pages": "LazyPages"}[name]
        raise Failure(
            f"criu is missing features: [{spelled}]",
            hint=f"{option} needs it of CRIU and of the kernel: see criu check --feature",
        )


def expect_success(kind: int, answer: Message, log: str) -> None:
    """Raise what CRIU's answer and its log say when it has failed.

    Args:
        kind: of the request.
        answer: to it.
        log: path of CRIU's log file.

    Raises:
        Failure: it has; the errors in the log are quoted.

    """
    if answer.get("success"):
        return
    message = f"criu failed: type {criu_rpc.TYPES[kind]} errno {answer.get('cr_errno', 0)}"
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            said = plan_criu.errors(file.read())
        hint = f"see {log}"
    except OSError:
        said, hint = [], ""
    if not said and answer.get("cr_errmsg"):
        said = [" ".join(answer["cr_errmsg"].split())]
    raise Failure(": ".join((message, *said)), hint=hint)
