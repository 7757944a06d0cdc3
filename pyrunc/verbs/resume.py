"""resume: let a paused container go on.

Law 4: nothing is recorded; that the container is paused is read from its cgroup at each question.
"""

from __future__ import annotations

import os

from pyrunc import store
from pyrunc.apply.cgroups import cgroup
from pyrunc.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cli.match import Command


def main(cmd: Command) -> int:
    """Thaw a paused container."""
    resume(store.open_container(cmd.root or store.default_root(), cmd.id))
    return 0


def resume(container: store.Container) -> None:
    """Thaw a paused container.

    Raises:
        Failure: it is not paused ("container not paused").

    """
    lock = store.lock(container)
    try:
        if store.status(container) != "paused":
            raise Failure("container not paused", step=container.id)
        cgroup.thaw(container.cgroup)
    finally:
        os.close(lock)
