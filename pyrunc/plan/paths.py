"""Masked and read-only paths.

Source: runtime-spec config-linux.md "Masked Paths", "Readonly Paths". Missing paths are left alone.
"""

from __future__ import annotations

from pyrunc.plan.steps import MaskedPath, ReadonlyPath, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.spec.types import Config


def lower(config: Config) -> list[Step]:
    """Return read-only paths, then masked paths: a mask may lie on a read-only path."""
    linux = config.get("linux") or {}
    steps: list[Step] = [
        ReadonlyPath(path=path, pointer=f"/linux/readonlyPaths/{index}")
        for index, path in enumerate(linux.get("readonlyPaths") or ())
    ]
    steps += [
        MaskedPath(path=path, pointer=f"/linux/maskedPaths/{index}")
        for index, path in enumerate(linux.get("maskedPaths") or ())
    ]
    return steps
