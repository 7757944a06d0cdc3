"""wait: until a container's program has ended, and how it did; also of one that runs in the background.

The kernel tells a status to the parent, and since Linux 6.15 to who held on to the process meanwhile: see
pyrunc/apply/exit_status.py for what else there is.
"""

from __future__ import annotations

from pyrunc import store
from pyrunc.apply import exit_status
from pyrunc.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cli.match import Command


def main(cmd: Command) -> int:
    """Wait, print the exit status as `run` would have given it, and end with it.

    Raises:
        Failure: there is no such container, or nobody knows how it ended.

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
