"""plan: print the steps with which a container would be made, and carry out none.

Law 1: this is the same list that create carries out, in the same order. Each step has the place in
config.json that asks for it. It needs no rights and makes nothing. What depends on the caller is shown for
this caller (an ordinary user's devices are bound and not made).
"""

from __future__ import annotations

from pyrunc import jsonio, log, screen
from pyrunc.life import planning
from pyrunc.plan import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cli.match import Command
    from pyrunc.plan.steps import Plan

# Placeholders for what is known only when a container is created: its id, the names of anonymous volumes.
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
        Failure: create would refuse the configuration; the message is the same.

    """
    cmd.id = getattr(cmd, "id", None) or _ID
    bundle, config, raw = planning.read(cmd)
    numbers = iter(range(1, 1 << 20))  # a volume option, or a volume of an image, each
    volumes = planning.additions(cmd, config, lambda: f"{_ANONYMOUS}-{next(numbers)}")
    return planning.planned(cmd, config, raw, bundle, volumes)
