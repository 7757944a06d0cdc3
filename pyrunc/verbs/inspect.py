"""inspect: all that is known of a container, in one JSON object.

Law 4: record and configuration are kept. The rest is asked of the kernel now, or planned again from the
configuration. A part that cannot be found out is null, with a warning on stderr; the others are printed.
"""

from __future__ import annotations

from pyrunc import jsonio, log, store
from pyrunc.apply import exit_status, processes
from pyrunc.apply.cgroups import statistics
from pyrunc.errors import Failure, strerror
from pyrunc.life import mount_tree, planning
from pyrunc.plan import show, show_mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrunc.cli.match import Command

# What the state has already, or a part of this object has.
_NOT_OF_RECORD = (
    "annotations",
    "bundle",
    "cgroup",
    "cgroup_manager",
    "id",
    "root",
    "rootfs",
    "created",
    "owner",
)


def main(cmd: Command) -> int:
    """Print all that is known of one container."""
    print(jsonio.dumps_indent(inspect(cmd)))
    return 0


def inspect(cmd: Command) -> dict[str, object]:
    """Return all that is known of one container.

    Args:
        cmd: the options of inspect, with an id.

    Raises:
        Failure: there is none, or its record cannot be read.

    """
    container = store.open_container(cmd.root or store.default_root(), cmd.id)
    found: dict[str, object] = dict(store.describe(container))
    there = found["status"] not in ("creating", "stopped")
    found["exitStatus"] = exit_status.written(container)
    found["directory"] = container.directory
    found["record"] = {
        name: getattr(container, name) for name in store.Container.__slots__ if name not in _NOT_OF_RECORD
    }
    parts: dict[str, Callable[[], object]] = {
        "config": lambda: store.load_config(container),
        "plan": lambda: _plan(cmd, container),
        "processes": lambda: processes.of(container) if there else [],
        "cgroup": lambda: _cgroup(container, there=there),
        "mounts": lambda: _mounts(cmd) if there else None,
    }
    for name, part in parts.items():
        found[name] = _part(cmd.id, name, part)
    return found


def _part(id: str, name: str, part: Callable[[], object]) -> object:  # noqa: A002 - the specification's name
    """Return a part; None, with a warning, if it cannot be found out."""
    try:
        return part()
    except Failure as problem:
        log.warn(f"{name} of {id}: {problem.text()}")
    except OSError as exc:
        log.warn(f"{name} of {id}: {strerror(exc.errno or 0)}")
    return None


def _plan(cmd: Command, container: store.Container) -> object:
    config = store.load_config(container)
    plan = planning.again(config, container, container.cgroup_manager, cmd.rootless)  # type: ignore[arg-type]
    return show.document(plan, show.rows(plan))


def _cgroup(container: store.Container, *, there: bool) -> object:
    return {
        "manager": container.cgroup_manager,
        "paths": container.cgroup,
        "stats": statistics.stats(container.cgroup) if there else None,
    }


def _mounts(cmd: Command) -> object:
    tree = mount_tree.Tree(cmd, cmd.id)
    _plan, known, found, _text = tree.look()
    return show_mounts.document(known.rows, found, tree.volumes(known, found))
