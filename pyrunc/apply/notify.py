"""sd_notify(3) for a service that is a container: a socket of ours inside, relayed to the one we were given.

The container gets /run/notify/notify.sock, below our state directory; what it says there goes on to
$NOTIFY_SOCKET, except what only the host can know or may decide (MAINPID=, FDSTORE=, BARRIER=). Only loaded
when NOTIFY_SOCKET is set; engines strip it.
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
# The assignments of sd_notify(3) that speak about the service itself.
_RELAYED = (
    b"READY=", b"RELOADING=", b"STOPPING=", b"MONOTONIC_USEC=", b"STATUS=", b"ERRNO=", b"BUSERROR=",
    b"WATCHDOG=", b"WATCHDOG_USEC=", b"EXTEND_TIMEOUT_USEC=",
)  # fmt: skip
# How long the service manager may take to see who sent a message, before we may exit (sd_notify_barrier(3)).
_BARRIER_MS = 30_000
_SHOWN = 80  # characters of an address in a message


def additions(state_dir: str) -> tuple[dict[str, Any], str]:
    """Return the mount and the variable the container needs, both for the plan.

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
    """Tell whether additions() are part of a configuration."""
    source = f"{state_dir}/{_DIRECTORY}"
    return any(mount.get("source") == source for mount in config.get("mounts") or ())


def prepare(state_dir: str) -> None:
    """Make the directory that the container will see; in create, before the mounts.

    The socket appears in it when serve() binds it, which may be in another process (start).

    Raises:
        Failure: the state directory cannot be written.

    """
    directory = f"{state_dir}/{_DIRECTORY}"
    try:
        os.mkdir(directory, 0o755)
    except OSError as exc:
        raise Failure(f"make {directory}", errno=exc.errno or 0) from exc


def usable(host: str) -> bool:
    """Tell whether our NOTIFY_SOCKET leads to a service manager.

    One that does not (it is stale, or was set to /dev/null) is warned of and left: it is no reason to keep a
    container from running.

    Args:
        host: its value.

    """
    try:
        _connect(host).close()
    except OSError as exc:
        _warn(host, exc)
        return False
    return True


def _warn(host: str, exc: OSError) -> None:
    why = strerror(exc.errno) if exc.errno else str(exc)
    log.warn(f"{VARIABLE}={host[:_SHOWN]}: {why}: nobody is told when the container is ready")


def _connect(host: str) -> _socket.socket:
    """Return a socket that sends to the service manager.

    Raises:
        OSError: nobody is there, or the address is none (sd_notify(3)).

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
    """Begin to relay; to be called before the container's process is started.

    Args:
        state_dir: the container's state directory.
        host: the value of our NOTIFY_SOCKET: a path, or "@" and an abstract name.
        main_pid: what the service manager is to watch: ourselves in the foreground, else the container's
            init.
        once: stop after READY=1 (nobody stays to relay more).

    Returns:
        What relays; None, with a warning, when the service manager has gone.

    Raises:
        Failure: our own socket cannot be made.

    """
    try:
        client = _connect(host)
    except OSError as exc:
        _warn(host, exc)
        return None
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK)
    # Any user of the container may notify, as any process of a service may (NotifyAccess= decides on the
    # host). The socket is born like that: by its path, in a directory the container sees, something else
    # could be made accessible.
    umask = os.umask(0)
    try:
        try:
            os.unlink(f"{state_dir}/{_DIRECTORY}/{_NAME}")  # a start that failed has left its socket
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
    """Relay for the container that was just started until it is ready, then stop; for start and run --detach.

    Returns:
        Whether it is; False when it ended before.

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
    """A watcher (foreground.Watcher) that hands messages on."""

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
        """Hand one message on; with READY=1, also say which process is meant."""
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
        """Relay until the container is ready; for start and run --detach.

        Args:
            pidfd: of its process.

        Returns:
            Whether it is; False when it ended before.

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
        """Claim no signal."""
        return False

    def finish(self, signals: int) -> None:  # noqa: ARG002 - the watcher's signature
        """Hand on what was said just before the end."""
        while True:
            poll = select.poll()
            poll.register(self._sock.fileno(), select.POLLIN)
            if not poll.poll(0):
                return
            self.ready(self._sock.fileno(), select.POLLIN)

    def close(self) -> None:
        """Stop; the files go with the state directory."""
        self._sock.close()
        self._client.close()

    def _send(self, message: bytes) -> None:
        try:
            self._client.send(message)
        except OSError:
            pass  # the service manager has gone; the container is not to blame

    def _barrier(self) -> None:
        """Wait until the manager has read our messages: it looks at the sender's pid, so we must exist."""
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
