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
        for path, index in _once(linux.get("readonlyPaths")).items()
    ]
    steps += [
        MaskedPath(path=path, pointer=f"/linux/maskedPaths/{index}")
        for path, index in _once(linux.get("maskedPaths")).items()
    ]
    return steps


def _once(paths: list[str] | None) -> dict[str, int]:
    """Return path -> place of its first mention: covering one twice would only leave a second mount."""
    first: dict[str, int] = {}
    for index, path in enumerate(paths or ()):
        first.setdefault(path.rstrip("/") or "/", index)
    return first
