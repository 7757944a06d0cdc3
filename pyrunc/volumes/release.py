"""Release a container's volumes, and remove those that were made for it, if asked for.

Anonymous volumes stay after their container, unless told otherwise (delete --volumes, run --rm-volumes);
named ones and those of other containers always stay. A creation that failed removes what it has made, and no
more: a volume knows which creation made it.
"""

from __future__ import annotations

import os

from pyrunc import store as containers
from pyrunc.errors import Failure
from pyrunc.volumes.volume_store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.store import Container


def leave(container: Container, *, unfinished: bool, anonymous: bool = False) -> None:
    """Note that a container uses its volumes no longer; its processes are gone, its record is still there.

    Args:
        container: its record.
        unfinished: its creation has failed or was killed: what it made is removed again.
        anonymous: remove the anonymous volumes that were made for it, even if `run` was not told so.

    """
    record: Any = container.extra.get("volumes") or {}
    holder = (container.root, container.id, container.created)
    try:
        goes = anonymous or bool(record.get("remove"))
        store = Store(record.get("store", ""))
        own = {
            str(mount["name"]): bool(mount["anonymous"] and not mount["lender"])
            for mount in reversed(record.get("mounts", ()))
            if mount["name"]
        }
        made = [(str(path), int(device), int(inode)) for path, device, inode in record.get("made", ())]
        intended = [str(path) for path in record.get("directories", ())]
    except (LookupError, TypeError, ValueError, AttributeError):
        raise containers.GarbledError(
            f"{container.directory}/{containers.STATE} is not a state record: extra.volumes"
        ) from None
    for name, anonymous_own in own.items():
        try:
            store.leave(name, holder, remove=unfinished or (anonymous_own and goes))
        except Failure as problem:
            # A problem with a volume must not prevent the deletion of its container.
            from pyrunc import log

            log.warn(problem.text())
    if unfinished:
        _remove_directories(made, intended)


def _remove_directories(made: list[tuple[str, int, int]], intended: list[str]) -> None:
    """Remove the host directories that a creation has made.

    Args:
        made: path, device and inode of each.
        intended: what else it may have made before it was killed.

    """
    for path in reversed(intended):
        try:
            os.rmdir(path)
        except OSError:
            continue  # it is in use by another container now
    for path, device, inode in reversed(made):
        try:
            found = os.stat(path, follow_symlinks=False)
            if (found.st_dev, found.st_ino) == (device, inode):
                os.rmdir(path)
        except OSError:
            continue
