"""create: make a container, up to its program's execve, and exit.

Source: runtime-spec runtime.md "Create".
"""

from __future__ import annotations

import os

from pyrunc.life import creation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cli.match import Command


def main(cmd: Command) -> int:
    """Create a container that waits for `start`."""
    launch, lock = creation.begin(cmd, detach=True, listen=True)
    creation.finish(cmd, launch, lock)
    launch.report()
    os.close(lock)
    return 0
