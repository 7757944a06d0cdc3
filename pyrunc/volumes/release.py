"""When a container goes: it does not use its volumes any more, and those that go with it are removed.

Anonymous volumes outlive their container unless it was told otherwise (delete --volumes, run --rm-volumes);
named and borrowed ones always do. A creation that failed takes back what it made, and no more: a volume knows
which creation made it.
"""

from __future__ import annotations

import os

from pyrunc.errors import Failure
from pyrunc.volumes.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.store import Container


def leave(container: Container, *, unfinished: bool, anonymous: bool = False) -> None:
    """Let go of a container's volumes; its processes are gone, its record is still there.

    Args:
        container: its record.
        unfinished: its creation has failed or was killed: what it made is removed again.
        anonymous: the anonymous volumes that were made for it go as well, even if `run` was not told so.

    """
    record: Any = container.extra.get("volumes") or {}
    store = Store(record.get("store", ""))
    holder = (container.root, container.id, container.created)
    goes = anonymous or bool(record.get("remove"))
    done = set()
    for mount in record.get("mounts", ()):
        name = mount["name"]
        if not name or name in done:
            continue
        done.add(name)
        own = mount["anonymous"] and not mount["lender"]
        try:
            store.leave(name, holder, remove=unfinished or (own and goes))
        except Failure as problem:
            # A volume in trouble must not keep its container from going.
            from pyrunc import cli

            cli.warn(problem.text())
    if unfinished:
        for path in reversed(record.get("directories", ())):
            try:
                os.rmdir(path)
            except OSError:
                continue  # somebody else uses it by now
