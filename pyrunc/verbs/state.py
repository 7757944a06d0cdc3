"""state: what a container is now.

Source: runtime-spec runtime.md "Query State"; the shape is runc's: two spaces, no newline at the end.
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
    sys.stdout.write(jsonio.dumps_indent(describe(container)))
    return 0


def describe(container: store.Container) -> dict[str, object]:
    """Return the state with the fields runc adds."""
    state = store.oci_state(container, store.status(container))
    values = {name: state[name] for name in ("ociVersion", "id", "pid", "status", "bundle")}
    values["rootfs"] = container.rootfs
    values["created"] = container.created
    if container.annotations:
        values["annotations"] = container.annotations
    values["owner"] = ""
    return values
