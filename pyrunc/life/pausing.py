"""Freeze a container's processes, and thaw them.

Law 4: nothing is recorded; whether the container is paused is read from its cgroup each time.
"""

from __future__ import annotations

from pyrunc import store
from pyrunc.apply.cgroups import cgroup
from pyrunc.errors import Failure
from pyrunc.files import closing


def pause(container: store.Container) -> None:
    """Freeze a created or running container.

    Raises:
        Failure: it does not run ("container not running"), or it cannot be
            frozen.

    """
    with closing(store.lock(container)):
        if store.status(container) not in ("created", "running"):
            raise Failure("container not running", step=container.id)
        cgroup.freeze(container.cgroup)


def resume(container: store.Container) -> None:
    """Thaw a paused container.

    Raises:
        Failure: it is not paused ("container not paused").

    """
    with closing(store.lock(container)):
        if store.status(container) != "paused":
            raise Failure("container not paused", step=container.id)
        cgroup.thaw(container.cgroup)
