"""kill: send a signal to a container's init, or to all its processes.

Source: runtime-spec runtime.md "Kill". Engines match on "container not running" and "container does not
exist".
"""

from __future__ import annotations

from pyrunc import store
from pyrunc.life import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cli.match import Command


def main(cmd: Command) -> int:
    """Signal a container."""
    number = signals.number(cmd.signal or "TERM")
    root = cmd.root or store.default_root()
    names = [cmd.id]
    if cmd.regex:
        from pyrunc import listing

        names = listing.matching(root, cmd.id)
    for name in names:
        signals.send(store.open_container(root, name), number, everyone=cmd.all)
    return 0
