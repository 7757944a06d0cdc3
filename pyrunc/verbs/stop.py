"""stop: ask a container's program to end, and kill it if it does not.

The signal is what the image wants (its StopSignal, which becomes an annotation of config.json: image-spec,
conversion.md), else SIGTERM.
"""

from __future__ import annotations

from pyrunc import store
from pyrunc.apply import exit_status
from pyrunc.errors import Failure
from pyrunc.life import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cli.match import Command

STOP_SIGNAL = "org.opencontainers.image.stopSignal"

_SIGKILL = "KILL"
_DEATH = 10.0  # seconds a killed init may take: what `delete --force` gives it


def main(cmd: Command) -> int:
    """Stop a container; one that has stopped already is no failure."""
    stop(store.open_container(cmd.root or store.default_root(), cmd.id), seconds=cmd.time, signal=cmd.signal)
    return 0


def stop(container: store.Container, *, seconds: float = 10, signal: str | None = None) -> None:
    """Stop a container.

    Args:
        container: its record.
        seconds: what its program has to end by itself; 0 for none, a negative number for as long as it takes.
        signal: what it is asked with, instead of what its configuration says.

    Raises:
        Failure: there is no such signal, or it does not die.

    """
    exit_status.settle(container)
    number = _signal(container, signal)
    kill_number = signals.number(_SIGKILL)
    with exit_status.Watch(container) as watch:
        state = store.status(container)
        if state != "stopped":
            # The program of a created one has not begun, and its init is deaf to anything but SIGKILL.
            patient = seconds != 0 and state != "created"
            if not (patient and _asked(container, number, watch, seconds)):
                _send(container, kill_number)
            if not watch.ended(_DEATH):
                hint = f"process {container.pid} does not die: see /proc/{container.pid}/stack"
                raise Failure("container init still running", step=container.id, hint=hint)
        if watch.ended(0):
            watch.status()  # now it can be learnt, and is written down for `wait`
    if container.namespaces.get("pid") != "":
        # Without a process namespace of its own, the others outlive the first.
        signals.send(container, kill_number, everyone=True)


def _signal(container: store.Container, word: str | None) -> int:
    """Return the number of the signal to ask with."""
    if word is not None:
        return signals.number(word)
    wanted = container.annotations.get(STOP_SIGNAL) or "TERM"
    try:
        return signals.number(wanted)
    except Failure as problem:
        problem.step = f"annotation {STOP_SIGNAL} of {container.id}"
        problem.hint = "name another one with --signal"
        raise


def _asked(container: store.Container, number: int, watch: exit_status.Watch, seconds: float) -> bool:
    """Ask a container's program to end, and tell whether it has within some seconds."""
    _send(container, number)
    if store.status(container) == "paused":
        from pyrunc.life import pausing

        try:
            pausing.resume(container)
        except Failure:
            if store.status(container) == "paused":
                raise
    return watch.ended(None if seconds < 0 else seconds)


def _send(container: store.Container, number: int) -> None:
    """Send a signal; that it has ended meanwhile is what was wanted."""
    try:
        signals.send(container, number, everyone=False)
    except Failure:
        if store.status(container) != "stopped":
            raise
