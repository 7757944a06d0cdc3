"""start: let a created container's init execute its program.

Source: runtime-spec runtime.md "Start". Init waits on one fifo and answers on another: end-of-file means that
execve succeeded, anything else is a report of the failure.
"""

from __future__ import annotations

import os
from errno import ENXIO, EPIPE

from pyrunc import store
from pyrunc.errors import Failure
from pyrunc.files import closing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cli.match import Command

_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
_WRITE = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
_LARGE = 1 << 16
_DEATH = 2_000  # milliseconds that a killed init may take
_WRONG_STATE = {
    "stopped": "cannot start a container that has stopped",
    "running": "cannot start an already running container",
}


def main(cmd: Command) -> int:
    """Start a created container."""
    start(store.open_container(cmd.root or store.default_root(), cmd.id))
    return 0


def start(container: store.Container) -> None:
    """Start a created container; return when its program runs and the poststart hooks have ended.

    Raises:
        Failure: its status is not "created", or its program or a hook failed.

    """
    with closing(store.lock(container)):
        state = store.status(container)
        if state != "created":
            text = _WRONG_STATE.get(state, f"cannot start a container in the {state} state")
            raise Failure(text, step=container.id)
        relay = None
        if os.environ.get("NOTIFY_SOCKET"):
            from pyrunc.life import after_start

            relay = after_start.relay(container, container.pid, once=True)
        release(container)
    if "poststart" in container.extra:
        from pyrunc.life import after_start

        after_start.poststart(container)
    if relay is not None:
        from pyrunc.apply import notify

        notify.until_ready(relay)


def release(container: store.Container) -> None:
    """Tell init to continue, and wait until it has executed its program.

    Raises:
        Failure: what init reports: a startContainer hook or execve failed.

    """
    go = report = -1
    try:
        report = os.open(f"{container.directory}/{store.REPORT}", _READ)
        go = os.open(f"{container.directory}/{store.START}", _WRITE)
        os.write(go, b"A")
        os.set_blocking(report, True)
        answer = os.read(report, _LARGE)
        if answer[:1] == b"X":
            raise _failed(container, answer, report)
    except OSError as exc:
        if exc.errno in (ENXIO, EPIPE):  # no reader: init is gone
            raise Failure("cannot start a container that has stopped", step=container.id) from None
        raise Failure(f"reach the container's init in {container.directory}", errno=exc.errno or 0) from None
    finally:
        for fd in (go, report):
            if fd >= 0:
                os.close(fd)
    stat = store.process_stat(container.pid)
    if stat is not None and stat[2] == container.start and stat[3] == store.INIT_NAME:
        raise Failure("the container's init died before it executed its program", step=container.id)
    for name in (store.START, store.REPORT):
        try:
            os.unlink(f"{container.directory}/{name}")
        except FileNotFoundError:
            continue


def _failed(container: store.Container, answer: bytes, report: int) -> Failure:
    """Return the Failure for a report; init waits a while, so that its files can be looked at."""
    import _signal
    import select

    from pyrunc.apply import failures

    if not failures.waits(answer[1:]):
        while part := os.read(report, _LARGE):
            answer += part
        return failures.at_start(container, answer[1:])
    problem = failures.at_start(container, answer[1:])
    try:
        pidfd = os.pidfd_open(container.pid)
    except ProcessLookupError:
        return problem
    stat = store.process_stat(container.pid)
    if stat is not None and stat[2] == container.start:
        _signal.pidfd_send_signal(pidfd, _signal.SIGKILL)
        # The parent (an engine) must know of init's end before it knows that `start` failed: then it deletes.
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll(_DEATH)
    os.close(pidfd)
    return problem
