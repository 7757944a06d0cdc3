"""run: create and start in one, then wait in the foreground, or detach."""

from __future__ import annotations

import os

from pyrunc.life import after_start, creation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cli.match import Command


def main(cmd: Command) -> int:
    """Run a container; the exit status is its program's, 128+n if signal n ended it."""
    detach = bool(cmd.detach)
    launch, lock = creation.begin(cmd, detach=detach, listen=False)
    container = launch.container
    creation.finish(cmd, launch, lock)
    try:
        relay = after_start.relay(container, launch.pid if detach else os.getpid(), once=detach)
        launch.start()
        launch.report()
        if "poststart" in container.extra:
            after_start.poststart(container)
    except BaseException as exc:
        creation.undo_launch(exc, launch, lock)
        raise
    os.close(lock)
    if detach:
        if relay is not None:
            from pyrunc.apply import notify

            notify.until_ready(relay)
        return 0
    return after_start.stay(
        container,
        launch.pidfd,
        launch.master,
        subreaper=not cmd.no_subreaper,
        notify=relay,
        keep=bool(cmd.keep),
    )
