"""Hooks: which kinds run where.

Source: runtime-spec config.md "POSIX-platform Hooks". prestart comes before createRuntime, as in the runtimes
that still have it; both run in pyrunc's namespaces after the container's namespaces and mounts have been
made.
"""

from __future__ import annotations

from pyrunc.plan.steps import Hooks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from pyrunc.spec.types import Config

KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def of(config: Config, kind: str) -> tuple[dict[str, object], ...]:
    """Return the hooks of one kind, in their order."""
    hooks: Mapping[str, Any] = config.get("hooks") or {}
    return tuple(hooks.get(kind) or ())


def lower(config: Config, *kinds: str) -> list[Hooks]:
    """Return a step for each kind that has hooks."""
    return [
        Hooks(kind=kind, hooks=of(config, kind), pointer=f"/hooks/{kind}")
        for kind in kinds
        if of(config, kind)
    ]
