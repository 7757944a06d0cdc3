"""wait: wait until a container's program has ended, also one in the background, and report how.

The kernel gives the status to the parent and, since Linux 6.15, to processes that hold a pidfd: see
pyrunc/apply/exit_status.py for the other ways.
"""

from __future__ import annotations

from pyrunc import store
from pyrunc.apply import exit_status
from pyrunc.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cli.match import Command


def main(cmd: Command) -> int:
    """Wait, print the exit status as `run` would return it, and exit with it.

    Raises:
        Failure: there is no such container, or its status cannot be found out.

    """
    container = store.open_container(cmd.root or store.default_root(), cmd.id)
    code = exit_status.wait(container)
    if code is None:
        raise Failure(
            "it has ended, and how is not known any more",
            step=cmd.id,
            hint="a status is told to who waits when the container ends: begin to wait before `pyrunc start`,"
            " or use `pyrunc run --keep`",
        )
    status = code if code >= 0 else 128 - code
    print(status)
    return status
