"""Find CRIU, start it, exchange messages with it, read its log.

Law 5: CRIU is the one program that pyrunc has to run, because nothing else can dump and restore processes. It
is started as `criu swrk 3`: one end of a socket pair is its descriptor 3, and the processes that it restores
become children of pyrunc.

Only checkpoint and restore import this module.

Sources: https://criu.org/RPC, CRIU 4.2 criu/cr-service.c.
"""

from __future__ import annotations

import _signal
import _socket
import fcntl
import os
import sys

from pyrunc import jsonio, log
from pyrunc.apply.children import fork, restore_signals
from pyrunc.apply.criu import messages
from pyrunc.errors import Failure, failing, from_facts, worded
from pyrunc.linux import _linux
from pyrunc.plan import criu as plan_criu

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Message = dict[str, Any]
    # Called with the name of an event, the pid it is about (0 for none) and a descriptor received with it (-1
    # for none).
    Notified = Callable[[str, int, int], None]

# 3.16 is the first version that sets LSM profiles and contexts correctly (and 3.15 the first that handles pid
# namespaces so).
OLDEST = 31600

# CRIU's own configuration file, unless the annotation org.criu.config names one. Its settings take
# precedence.
CONFIG_FILES = ("/etc/criu/pyrunc.conf", "/etc/criu/runc.conf")

_ROOM = 1 << 16
_SOCKET = 3
FIRST_FD = _SOCKET + 1  # the first descriptor that a worker is given
_ABOVE = 100  # descriptors are first moved above the numbers that they will get
_LAST_FD = 0xFFFFFFFF


def find(named: str | None) -> str:
    """Return the path of the criu program.

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
    """Return the configuration file for CRIU, "" for none."""
    if "org.criu.config" in annotations:
        return annotations["org.criu.config"]
    return next((path for path in CONFIG_FILES if os.path.exists(path)), "")


class Worker:
    """A criu process, and pyrunc's end of the socket to it.

    CRIU opens the directories that it is given through /proc/PID/fd of the process that made its socket. Here
    that is the criu process itself: after `before` it may be in another mount namespace, and it could not
    mount in directories that were opened by pyrunc.

    Attributes:
        pid: the process, 0 after it has been waited for.
        report: the value that `before` returned.

    """

    def __init__(
        self,
        path: str,
        *,
        own_stdio: bool = False,
        directories: Sequence[str] = (),
        fds: Sequence[int] = (),
        into: int = -1,
        before: Callable[[], object] | None = None,
    ) -> None:
        """Start the process.

        Args:
            path: of criu.
            own_stdio: it gets stdin, stdout and stderr of pyrunc, else /dev/null.
            directories: directories that it opens as descriptors FIRST_FD and so on.
            fds: descriptors that it gets after these.
            into: unified cgroup in which it is created, -1 for that of pyrunc.
            before: called in the new process before it becomes criu.

        Raises:
            Failure: it cannot be started, or what `before` raised.

        """
        self.path = path
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC, 0)
        start = _Start(path, theirs, directories, fds)
        self.pid, pidfd = fork(
            lambda: start.run(own_stdio=own_stdio, before=before),
            lambda: _linux.clone3(0, int(_signal.SIGCHLD), into),
        )
        os.close(pidfd)
        theirs.close()
        self.sock: _socket.socket | None = None
        try:
            self.sock, self.report = _heard(ours)
        except BaseException:
            self.close()
            raise
        finally:
            ours.close()

    def ask(self, message: Message, notified: Notified | None = None) -> Message:
        """Send a request and handle CRIU's events until it answers.

        Args:
            message: the request.
            notified: called for each event meanwhile. If it raises, CRIU stops what it is doing.

        Returns:
            The response, of success or failure.

        Raises:
            Failure: criu ended or sent something else; or what `notified` raised.

        """
        problem: Failure | None = None
        self.send(message)
        while True:
            response, fd = self._receive()
            if response.get("type") != messages.NOTIFY:
                if fd >= 0:
                    os.close(fd)
                if problem is not None:
                    raise problem
                return response
            event = response.get("notify") or {}
            log.debug(f"criu notify: {event.get('script')}")
            try:
                if notified is not None and problem is None:
                    notified(event.get("script", ""), event.get("pid", 0), fd)
            except Failure as exc:
                problem = exc
            finally:
                if fd >= 0:
                    os.close(fd)
            self.send({"type": messages.NOTIFY, "notify_success": problem is None})

    def send(self, message: Message) -> None:
        """Send one message.

        Raises:
            Failure: criu is gone.

        """
        assert self.sock is not None
        try:
            self.sock.send(messages.encode(message), _socket.MSG_NOSIGNAL)
        except OSError:
            raise self._died() from None

    def _receive(self) -> tuple[Message, int]:
        assert self.sock is not None
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
            return messages.decode(data), fd
        except ValueError as exc:
            raise Failure(f"{self.path}: unable to parse the response ({exc})") from None

    def _died(self) -> Failure:
        """Return the Failure for a criu that ended without an answer."""
        _pid, status = os.waitpid(self.pid, 0)
        self.pid = 0
        code = os.waitstatus_to_exitcode(status)
        how = f"was ended by signal {-code}" if code < 0 else f"exited with status {code}"
        return Failure(f"criu failed: it {how} without an answer")

    def close(self) -> None:
        """Close the socket, which ends criu, and wait for its end."""
        if self.sock is not None:
            self.sock.close()
        if self.pid:
            os.waitpid(self.pid, 0)
            self.pid = 0


def _heard(channel: _socket.socket) -> tuple[_socket.socket, object]:
    """Return pyrunc's end of the socket, and what the new process reports before it executes criu.

    Raises:
        Failure: the new process reports one, or it ended.

    """
    text, sock = b"", None
    while True:
        data, ancillary, _flags, _address = channel.recvmsg(
            _ROOM, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC
        )
        for level, what, content in ancillary:
            if level == _socket.SOL_SOCKET and what == _socket.SCM_RIGHTS:
                sock = _socket.socket(fileno=int.from_bytes(content[:4], sys.byteorder))
        if not data:
            break
        text += data
    # An empty line comes with the socket.
    lines = [line for line in text.decode("utf-8", "surrogateescape").split("\n") if line]
    pairs: list[Any] = [jsonio.loads(line) for line in lines]
    said = dict(pairs)
    if sock is not None and "report" in said and "failure" not in said:
        return sock, said["report"]
    if sock is not None:
        sock.close()
    if "failure" in said:
        raise from_facts(said["failure"])
    raise Failure("the process that was to become criu died")


class _Start:
    """The new process, before it executes criu."""

    def __init__(
        self, path: str, channel: _socket.socket, directories: Sequence[str], fds: Sequence[int]
    ) -> None:
        self.path = path
        self.channel = channel
        self.directories = directories
        self.fds = fds

    def run(self, *, own_stdio: bool, before: Callable[[], object] | None) -> None:
        """Prepare, arrange the descriptors, execute criu; does not return."""
        try:
            try:
                self._say("report", before() if before is not None else None)
                opened = [_directory(path) for path in self.directories]
                self._arrange(self._socket(), *opened, *self.fds, own_stdio=own_stdio)
                restore_signals()
                os.execve(self.path, ["criu", "swrk", str(_SOCKET)], os.environ)  # noqa: S606 - this is CRIU
            except OSError as exc:
                raise Failure(f"execute {self.path}", errno=exc.errno or 0) from exc
        except BaseException as exc:  # noqa: BLE001 - the parent words it
            self._say("failure", worded(exc, f"prepare {self.path}").facts())
        finally:
            os._exit(1)

    def _socket(self) -> int:
        """Make the socket pair and send one end to the parent."""
        near, far = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC, 0)
        rights = far.fileno().to_bytes(4, sys.byteorder)
        self.channel.sendmsg([b"\n"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
        return near.detach()

    def _say(self, name: str, what: object) -> None:
        self.channel.sendall(jsonio.dumps([name, what]).encode("utf-8", "surrogateescape") + b"\n")

    def _arrange(self, *fds: int, own_stdio: bool) -> None:
        """Give descriptors the numbers that criu expects, from its socket's on, and close all others."""
        moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _ABOVE) for fd in (*fds, self.channel.fileno())]
        channel = moved.pop()
        for number, fd in enumerate(moved, _SOCKET):
            os.dup2(fd, number)
        _linux.close_range(_SOCKET + len(moved), channel - 1, 0)
        _linux.close_range(channel + 1, _LAST_FD, 0)
        self.channel.detach()
        self.channel = _socket.socket(fileno=channel)
        if not own_stdio:
            null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            for number in range(_SOCKET):
                os.dup2(null, number)
            os.close(null)


def _directory(path: str) -> int:
    with failing(f"open directory {path}"):
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def version(path: str) -> int:
    """Return criu's version as major * 10000 + minor * 100 + sublevel.

    Raises:
        Failure: it is too old for pyrunc, or does not answer.

    """
    worker = Worker(path)
    try:
        found = worker.ask({"type": messages.VERSION}).get("version") or {}
    finally:
        worker.close()
    number: int = (
        found.get("major_number", 0) * 10000 + found.get("minor_number", 0) * 100 + found.get("sublevel", 0)
    )
    log.debug(f"Using CRIU {number} ({path})")
    if number < OLDEST:
        raise Failure(f"CRIU version {number} must be {OLDEST} or higher", hint=f"{path} is too old")
    return number


def check_feature(path: str, name: str, option: str) -> None:
    """Ask whether criu and the kernel can do something.

    Args:
        path: of criu.
        name: "mem_track" or "lazy_pages".
        option: the option of pyrunc that needs it, for the message.

    Raises:
        Failure: they cannot.

    """
    worker = Worker(path)
    try:
        answer = worker.ask({"type": messages.FEATURE_CHECK, "features": {name: True}})
    finally:
        worker.close()
    if not (answer.get("features") or {}).get(name):
        spelled = {"mem_track": "MemTrack", "lazy_pages": "LazyPages"}[name]
        raise Failure(
            f"criu is missing features: [{spelled}]",
            hint=f"{option} needs it of CRIU and of the kernel: see criu check --feature",
        )


def expect_success(kind: int, answer: Message, log: str) -> None:
    """Raise a Failure if CRIU's answer is no success.

    Args:
        kind: kind of request.
        answer: the answer to it.
        log: path of CRIU's log file.

    Raises:
        Failure: CRIU has failed; the message quotes the errors in its log.

    """
    if answer.get("success"):
        return
    message = f"criu failed: type {messages.TYPES[kind]} errno {answer.get('cr_errno', 0)}"
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            said = plan_criu.errors(file.read())
        hint = f"see {log}"
    except OSError:
        said, hint = [], ""
    if not said and answer.get("cr_errmsg"):
        said = [" ".join(answer["cr_errmsg"].split())]
    raise Failure(f"{message}: {'; '.join(said)}" if said else message, hint=hint)
