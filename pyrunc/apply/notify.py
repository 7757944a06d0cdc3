"""sd_notify(3) for a service that runs in a container: forward its messages to the service manager.

The container gets /run/notify/notify.sock, which is below its state directory. Its messages are forwarded to
$NOTIFY_SOCKET, except those that only the host may send (MAINPID=, FDSTORE=, BARRIER=). Imported only when
NOTIFY_SOCKET is set; engines remove it.
"""

from __future__ import annotations

import _socket
import os
import select

from pyrunc import log
from pyrunc.apply import sockets
from pyrunc.errors import Failure, strerror

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.spec.types import Config

VARIABLE = "NOTIFY_SOCKET"
_DIRECTORY = "notify"
_NAME = "notify.sock"
_INSIDE = "/run/notify"
# The assignments of sd_notify(3) that are about the service itself.
_RELAYED = (
    b"READY=", b"RELOADING=", b"STOPPING=", b"MONOTONIC_USEC=", b"STATUS=", b"ERRNO=", b"BUSERROR=",
    b"WATCHDOG=", b"WATCHDOG_USEC=", b"EXTEND_TIMEOUT_USEC=",
)  # fmt: skip
# Milliseconds that the service manager gets to find out who sent a message, before pyrunc may exit
# (sd_notify_barrier(3)).
_BARRIER_MS = 30_000
_SHOWN = 80  # characters of an address in a message


def additions(state_dir: str) -> tuple[dict[str, Any], str]:
    """Return the mount and the variable that the container needs, for the plan.

    Args:
        state_dir: the container's state directory, absolute.

    """
    mount = {
        "destination": _INSIDE,
        "type": "bind",
        "source": f"{state_dir}/{_DIRECTORY}",
        "options": ["bind", "nosuid", "noexec", "nodev", "ro"],
    }
    return mount, f"{VARIABLE}={_INSIDE}/{_NAME}"


def wanted(config: Config, state_dir: str) -> bool:
    """Tell whether a configuration has what additions() returns."""
    source = f"{state_dir}/{_DIRECTORY}"
    return any(mount.get("source") == source for mount in config.get("mounts") or ())


def prepare(state_dir: str) -> None:
    """Make the directory that the container will see; called by create, before the mounts.

    serve() makes the socket in it, perhaps in another process (start).

    Raises:
        Failure: the state directory cannot be written.

    """
    directory = f"{state_dir}/{_DIRECTORY}"
    try:
        os.mkdir(directory, 0o755)
    except OSError as exc:
        raise Failure(f"make {directory}", errno=exc.errno or 0) from exc


def usable(host: str) -> bool:
    """Tell whether a process listens at our NOTIFY_SOCKET.

    If not (an old value, or /dev/null), the user is warned and the container runs without it.

    Args:
        host: the value of NOTIFY_SOCKET.

    """
    try:
        _connect(host).close()
    except OSError as exc:
        _warn(host, exc)
        return False
    return True


def _warn(host: str, exc: OSError) -> None:
    why = strerror(exc.errno) if exc.errno else str(exc)
    log.warn(f"{VARIABLE}={host[:_SHOWN]}: {why}: no service manager is told when the container is ready")


def _connect(host: str) -> _socket.socket:
    """Return a socket that sends to the service manager.

    Raises:
        OSError: no process listens, or the value is no address (sd_notify(3)).

    """
    if not host.startswith(("/", "@")):
        raise OSError("it is neither an absolute path nor an abstract name (@...)")
    client = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        client.connect(b"\0" + os.fsencode(host[1:]) if host.startswith("@") else os.fsencode(host))
    except OSError:
        client.close()
        raise
    return client


def serve(state_dir: str, host: str, main_pid: int, *, once: bool) -> Relay | None:
    """Begin to forward messages; to be called before the container's process is started.

    Args:
        state_dir: the container's state directory.
        host: the value of our NOTIFY_SOCKET: a path, or "@" and an abstract name.
        main_pid: the process that the service manager is to watch: pyrunc itself in the foreground, else the
            container's init.
        once: stop after READY=1, because pyrunc will exit.

    Returns:
        The watcher that forwards; None, after a warning, if the service manager is gone.

    Raises:
        Failure: our own socket cannot be made.

    """
    try:
        client = _connect(host)
    except OSError as exc:
        _warn(host, exc)
        return None
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK)
    # Every user of the container may send, as every process of a service may (NotifyAccess= decides on the
    # host). The mode is set when the socket is made: chmod by its path, in a directory that the container
    # sees, could change another file.
    umask = os.umask(0)
    try:
        try:
            os.unlink(f"{state_dir}/{_DIRECTORY}/{_NAME}")  # left by an earlier start that failed
        except FileNotFoundError:
            pass
        sockets.bind(sock, f"{state_dir}/{_DIRECTORY}", _NAME)
    except OSError as exc:
        sock.close()
        client.close()
        raise Failure(f"{VARIABLE}: make {state_dir}/{_DIRECTORY}/{_NAME}", errno=exc.errno or 0) from exc
    finally:
        os.umask(umask)
    return Relay(sock, client, main_pid, once=once)


def until_ready(relay: Relay) -> bool:
    """Forward until the container that was just started is ready; for start and run --detach.

    Returns:
        True when it is ready, False when it ended before.

    """
    try:
        pidfd = os.pidfd_open(relay.main_pid)
    except ProcessLookupError:
        relay.finish(-1)
        relay.close()
        return relay.is_ready
    try:
        return relay.wait_ready(pidfd)
    finally:
        os.close(pidfd)
        relay.close()


class Relay:
    """A watcher (foreground.Watcher) that forwards messages."""

    __slots__ = ("_client", "_once", "_sock", "is_ready", "main_pid")

    def __init__(self, sock: _socket.socket, client: _socket.socket, main_pid: int, *, once: bool) -> None:
        """Take over both sockets."""
        self._sock = sock
        self._client = client
        self.main_pid = main_pid
        self._once = once
        self.is_ready = False

    def wants(self) -> dict[int, int]:
        """Listen until there is nothing more to do."""
        return {} if self._once and self.is_ready else {self._sock.fileno(): select.POLLIN}

    def ready(self, fd: int, events: int) -> None:  # noqa: ARG002 - the watcher's signature
        """Forward one message; with READY=1, also say which process is the service's main process."""
        try:
            message = self._sock.recv(65536)
        except OSError:
            return
        lines = [line for line in message.split(b"\n") if line.startswith(_RELAYED)]
        announces = b"READY=1" in lines and not self.is_ready
        if announces:
            lines.append(b"MAINPID=%d" % self.main_pid)
        if lines:
            self._send(b"\n".join(lines))
        if announces:
            self.is_ready = True
            if self._once:
                self._barrier()

    def wait_ready(self, pidfd: int) -> bool:
        """Forward until the container is ready; for start and run --detach.

        Args:
            pidfd: of its process.

        Returns:
            True when it is ready, False when it ended before.

        """
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.register(self._sock.fileno(), select.POLLIN)
        while not self.is_ready:
            ended = False
            for fd, events in poll.poll():
                if fd == pidfd:
                    ended = True
                else:
                    self.ready(fd, events)
            if ended and not self.is_ready:
                self.finish(-1)
                break
        return self.is_ready

    def signal(self, number: int) -> bool:  # noqa: ARG002 - the watcher's signature
        """Handle no signal."""
        return False

    def finish(self, signals: int) -> None:  # noqa: ARG002 - the watcher's signature
        """Forward what was sent just before the end."""
        while True:
            poll = select.poll()
            poll.register(self._sock.fileno(), select.POLLIN)
            if not poll.poll(0):
                return
            self.ready(self._sock.fileno(), select.POLLIN)

    def close(self) -> None:
        """Close the sockets; their files are removed with the state directory."""
        self._sock.close()
        self._client.close()

    def _send(self, message: bytes) -> None:
        try:
            self._client.send(message)
        except OSError:
            pass  # the service manager is gone; that is no failure of the container

    def _barrier(self) -> None:
        """Wait until the manager has read the messages: it looks up the sender's pid, which must exist."""
        ours, theirs = os.pipe()
        try:
            sockets.send(self._client, b"BARRIER=1", theirs)
        except OSError:
            os.close(theirs)
            os.close(ours)
            return
        os.close(theirs)
        poll = select.poll()
        poll.register(ours, 0)  # only the hang-up is of interest: the manager closes its copy
        poll.poll(_BARRIER_MS)
        os.close(ours)
