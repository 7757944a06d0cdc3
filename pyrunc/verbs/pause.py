"""pause: freeze every process of a container where it is.

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
    """Freeze a created or running container."""
    pause(store.open_container(cmd.root or store.default_root(), cmd.id))
    return 0


def pause(container: store.Container) -> None:
    """Freeze a created or running container.

    Raises:
        Failure: it does not run ("container not running"), or it cannot be
            frozen.

    """
    lock = store.lock(container)
    try:
        if store.status(container) not in ("created", "running"):
            raise Failure("container not running", step=container.id)
        cgroup.freeze(container.cgroup)
    finally:
        os.close(lock)
