"""start: let a created container's init execute its program.

Source: runtime-spec runtime.md "Start". The start socket belongs to the waiting init; end-of-file on it means
that execve succeeded, anything else is the reason why not.
"""

from __future__ import annotations

import _socket
import os

from pyrunc import jsonio, store
from pyrunc.errors import Failure, from_facts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.apply.notify import Relay
    from pyrunc.cli.match import Command

_WRONG_STATE = {
    "stopped": "cannot start a container that has stopped",
    "running": "cannot start an already running container",
}


def main(cmd: Command) -> int:
    """Start a created container."""
    container = store.open_container(cmd.root or store.default_root(), cmd.id)
    lock = store.lock(container)
    state = store.status(container)
    if state != "created":
        text = _WRONG_STATE.get(state, f"cannot start a container in the {state} state")
        raise Failure(text, step=container.id)
    relay = _notify(container)
    release(container)
    os.close(lock)
    if "poststart" in container.extra:
        from pyrunc.verbs import delete

        delete.poststart(container)
    if relay is not None:
        from pyrunc.apply import notify

        notify.until_ready(relay)
    return 0


def release(container: store.Container) -> None:
    """Tell init to go on, and wait until it has executed its program.

    Raises:
        Failure: what init reports: a startContainer hook or execve failed.

    """
    channel = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    directory = os.open(container.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        channel.connect(f"/proc/self/fd/{directory}/{store.SOCKET}")
        channel.send(b"A", _socket.MSG_NOSIGNAL)
        answer = channel.recv(1 << 16)
    except ConnectionError:
        # Refused: init is gone. Reset: it died while it went on.
        raise Failure("cannot start a container that has stopped", step=container.id) from None
    except OSError as exc:
        raise Failure(f"connect to {container.directory}/{store.SOCKET}", errno=exc.errno or 0) from None
    finally:
        os.close(directory)
        channel.close()
    if answer[:1] == b"F":
        try:
            raise from_facts(jsonio.loads(answer[1:].decode("utf-8", "replace")))
        except ValueError:
            raise from_facts(None) from None
    try:
        os.unlink(f"{container.directory}/{store.SOCKET}")
    except FileNotFoundError:
        return


def _notify(container: store.Container) -> Relay | None:
    if not os.environ.get("NOTIFY_SOCKET") or not os.path.isdir(container.directory + "/notify"):
        return None
    from pyrunc.apply import notify

    return notify.serve(container.directory, os.environ["NOTIFY_SOCKET"], container.pid, once=True)
