"""pause: freeze every process of a container where it is."""

from __future__ import annotations

from pyrunc import store
from pyrunc.life import pausing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cli.match import Command


def main(cmd: Command) -> int:
    """Freeze a created or running container."""
    pausing.pause(store.open_container(cmd.root or store.default_root(), cmd.id))
    return 0
