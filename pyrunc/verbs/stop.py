"""stop: ask a container's program to end, and kill it if it does not.

The signal is the image's StopSignal, an annotation of config.json (image-spec, conversion.md), else SIGTERM.
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
_DEATH = 10.0  # seconds that a killed init may take: as in `delete --force`


def main(cmd: Command) -> int:
    """Stop a container; one that has stopped already is no failure."""
    stop(store.open_container(cmd.root or store.default_root(), cmd.id), seconds=cmd.time, signal=cmd.signal)
    return 0


def stop(container: store.Container, *, seconds: float = 10, signal: str | None = None) -> None:
    """Stop a container.

    Args:
        container: its record.
        seconds: how long its program may take to end by itself; 0: kill it at once, negative: no limit.
        signal: name or number of the signal, instead of the one in its configuration.

    Raises:
        Failure: there is no such signal, or it does not die.

    """
    exit_status.settle(container)
    number = _signal(container, signal)
    kill_number = signals.number(_SIGKILL)
    with exit_status.Watch(container) as watch:
        state = store.status(container)
        if state != "stopped":
            # The program of a created container does not run yet, and its init ignores all signals but
            # SIGKILL.
            patient = seconds != 0 and state != "created"
            if not (patient and _asked(container, number, watch, seconds)):
                _send(container, kill_number)
            if not watch.ended(_DEATH):
                hint = f"process {container.pid} does not die: see /proc/{container.pid}/stack"
                raise Failure("container init still running", step=container.id, hint=hint)
        if watch.ended(0):
            watch.status()  # it can be found out now, and is written down for `wait`
    if container.namespaces.get("pid") != "":
        # Without a pid namespace of its own the other processes outlive the first one.
        signals.send(container, kill_number, everyone=True)


def _signal(container: store.Container, word: str | None) -> int:
    """Return the number of the signal that asks the program to end."""
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
    """Ask a container's program to end; tell whether it has ended within some seconds."""
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
    """Send a signal; a container that has ended meanwhile is no failure."""
    try:
        signals.send(container, number, everyone=False)
    except Failure:
        if store.status(container) != "stopped":
            raise
