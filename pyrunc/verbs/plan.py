"""plan: print the steps a container would be made with, and do none of them.

Law 1 made visible: the very list that create carries out, in its order, each step with the place in
config.json that asked for it. Needs no rights and makes nothing; what depends on the caller (an ordinary
user's devices are bound, not made) is shown as it would be for this caller.
"""

from __future__ import annotations

import os

from pyrunc import jsonio, log, screen
from pyrunc.apply import facts
from pyrunc.apply.mounts import writable_layers
from pyrunc.plan import build, show
from pyrunc.plan.facts import Request
from pyrunc.spec import load
from pyrunc.verbs import create

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cli.match import Command
    from pyrunc.plan.steps import Plan
    from pyrunc.spec.types import Config
    from pyrunc.store import Container

# They stand for what is only known when a container is created: its id, the names of anonymous volumes.
_ID = "ID"
_ANONYMOUS = "ANONYMOUS"


def main(cmd: Command) -> int:
    """Print the plan for a bundle."""
    found = plan(cmd)
    for warning in found.warnings:
        log.warn(warning)
    rows = show.rows(found)
    if cmd.program:
        from pyrunc.plan import show_program

        show_program.add(found, rows)
    if cmd.json or cmd.format == "json":
        print(jsonio.dumps_indent(show.document(found, rows)))
    else:
        print(show.table(rows, width=screen.width(), paint=screen.painter()), end="")
    return 0


def plan(cmd: Command) -> Plan:
    """Return the plan for a bundle.

    Raises:
        Failure: create would refuse the configuration; the same message.

    """
    cmd.id = getattr(cmd, "id", None) or _ID
    bundle = os.path.abspath(cmd.bundle or ".")
    config, raw = load.load(create.config_path(cmd, bundle))
    numbers = iter(range(1, 1 << 20))  # a flag, or a note of an image, each
    volumes = create.additions(cmd, config, lambda: f"{_ANONYMOUS}-{next(numbers)}")
    return create.planned(cmd, config, raw, bundle, volumes)


def again(config: Config, container: Container, manager: str, rootless: str | None = None) -> Plan:
    """Return the plan a container was made by, or will be, from the configuration that is kept of it.

    Args:
        config: that configuration.
        container: its record.
        manager: who makes its cgroups.
        rootless: as facts.gather() has it.

    """
    request = Request(id=container.id, bundle=container.bundle, cgroup_manager=manager)
    if writable_layers.has(container):
        request.overlay = f"{container.directory}/{writable_layers.FOLDER}"
    return build.build(config, facts.gather(rootless), request)
