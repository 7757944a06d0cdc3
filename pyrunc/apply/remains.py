"""What may be left of a container whose record cannot be read; its configuration says where to look.

Imported only for `delete --force` of such a record. Only the record could tell whether a process belongs to
the container, so nothing is killed here.
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
    """Keep the state directory while there are processes in the cgroups that the configuration names.

    Args:
        container: only its root and id are known.

    Raises:
        Failure: there are processes, or the kernel could not be asked.

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
    """Return the cgroups that the configuration names; none if it cannot be read either."""
    try:
        config: Any = store.load_config(container)
        # A cgroup of systemd's is written SLICE:PREFIX:NAME.
        wanted = str((config.get("linux") or {}).get("cgroupsPath", ""))
        manager = "systemd" if wanted.count(":") == 2 else "cgroupfs"
        request = Request(id=container.id, bundle="", cgroup_manager=manager)
        plan = build.build(config, facts.gather(None), request)
    except Failure as problem:
        if problem.errno and not isinstance(problem, store.AbsentError) and problem.errno != ENOENT:
            raise
        return []
    except (ValueError, LookupError, TypeError, AttributeError):
        return []  # it cannot be read, like the record
    return [
        path for step in plan.parent if isinstance(step, steps.Cgroup) for path in step.plan.paths.values()
    ]
