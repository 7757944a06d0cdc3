"""state: the present state of a container.

Source: runtime-spec runtime.md "Query State"; the format is runc's: two spaces, no newline at the end.
"""

from __future__ import annotations

import sys

from pyrunc import jsonio, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cli.match import Command


def main(cmd: Command) -> int:
    """Print one container's state as JSON."""
    container = store.open_container(cmd.root or store.default_root(), cmd.id)
    sys.stdout.write(jsonio.dumps_indent(store.describe(container)))
    return 0
