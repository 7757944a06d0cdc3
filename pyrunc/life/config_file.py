"""Write a first config.json for a new bundle."""

from __future__ import annotations

import os

from pyrunc.errors import Failure
from pyrunc.jsonio import dumps_indent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def write(path: str, name: str, config: dict[str, Any]) -> None:
    """Write a configuration to a new file.

    Args:
        path: the file.
        name: its name in messages.
        config: the configuration.

    Raises:
        Failure: it exists already, or cannot be written.

    """
    try:
        # O_EXCL: of two calls at the same time only one makes the file.
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        raise Failure(f"File {name} exists. Remove it first") from None
    except OSError as exc:
        raise Failure(f"open {path}", errno=exc.errno or 0) from exc
    try:
        with open(fd, "w", encoding="utf-8") as file:
            file.write(dumps_indent(config, "\t") + "\n")
    except OSError as exc:
        raise Failure(f"write {path}", errno=exc.errno or 0) from exc
