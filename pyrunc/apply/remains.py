"""What may be left of a container whose record is no record: looked for where its configuration points.

Cold: only for `delete --force` of a garbled record. Whether a process that is found is the container's, only
the record could have told; so nothing is killed here.
"""

from __future__ import annotations

from errno import ENOENT

from pyrunc import store
from pyrunc.apply import facts
from pyrunc.apply.cgroups import cgroup
from pyrunc.errors import Failure
from pyrunc.plan import build, steps
from pyrunc.plan.facts import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def refuse_members(container: store.Container) -> None:
    """Keep a state directory as long as processes are in the cgroups that its configuration names.

    Args:
        container: with nothing but its root and id.

    Raises:
        Failure: there are some, or the kernel could not be asked.

    """
    for path in _paths(container):
        pids = cgroup.pids({"": path})
        if pids:
            raise Failure(
                f"the record of {container.id} cannot be read, and processes are in its cgroup {path}:"
                f" {' '.join(map(str, pids[:10]))}; nothing was removed",
                hint="if they are the container's, kill them and repeat this",
            )


def _paths(container: store.Container) -> list[str]:
    """Return the cgroups; none if there is no good configuration either."""
    try:
        config: Any = store.load_config(container)
        # What systemd is asked for is written like SLICE:PREFIX:NAME.
        wanted = str((config.get("linux") or {}).get("cgroupsPath", ""))
        manager = "systemd" if wanted.count(":") == 2 else "cgroupfs"
        request = Request(id=container.id, bundle="", cgroup_manager=manager)
        plan = build.build(config, facts.gather(None), request)
    except Failure as problem:
        if problem.errno and not isinstance(problem, store.AbsentError) and problem.errno != ENOENT:
            raise
        return []
    except (ValueError, LookupError, TypeError, AttributeError):
        return []  # it is as garbled as the record
    return [
        path for step in plan.parent if isinstance(step, steps.Cgroup) for path in step.plan.paths.values()
    ]
