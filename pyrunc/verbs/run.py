"""run: create and start in one, and stay in front of the container unless told to detach."""

from __future__ import annotations

import os

from pyrunc import store
from pyrunc.errors import Failure
from pyrunc.verbs import create

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cli.match import Command


def main(cmd: Command) -> int:
    """Run a container; the exit status is its program's, 128+n when signal n ended it."""
    detach = bool(cmd.detach)
    launch, lock = create.begin(cmd, detach=detach, listen=False)
    container = launch.container
    create.finish(cmd, launch, lock)
    relay = None
    try:
        if os.environ.get("NOTIFY_SOCKET") and os.path.isdir(container.directory + "/notify"):
            from pyrunc.apply import notify

            main_pid = launch.pid if detach else os.getpid()
            relay = notify.serve(container.directory, os.environ["NOTIFY_SOCKET"], main_pid, once=detach)
        launch.start()
        launch.report()
        if "poststart" in container.extra:
            from pyrunc.verbs import delete

            delete.poststart(container)
    except BaseException as exc:
        create.undo_launch(exc, launch, lock)
        raise
    os.close(lock)
    if detach:
        if relay is not None:
            from pyrunc.apply import notify

            notify.until_ready(relay)
        return 0
    from pyrunc.apply import foreground

    master = launch.master if launch.master >= 0 else None
    status = foreground.wait(
        launch.pid, launch.pidfd, master=master, subreaper=not cmd.no_subreaper, notify=relay
    )
    if cmd.keep:
        from pyrunc.apply import exit_status

        exit_status.write(container, status)
    else:
        from pyrunc.verbs import delete

        try:
            lock = store.lock(container)
            try:
                delete.destroy(container, lock)
            finally:
                os.close(lock)
        except store.AbsentError:
            pass  # deleted by somebody else meanwhile
        except Failure as problem:
            from pyrunc import log

            log.warn(problem.text())
    return status
