"""resume: let a paused container go on."""

from __future__ import annotations

from pyrunc import store
from pyrunc.life import pausing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cli.match import Command


def main(cmd: Command) -> int:
    """Thaw a paused container."""
    pausing.resume(store.open_container(cmd.root or store.default_root(), cmd.id))
    return 0
