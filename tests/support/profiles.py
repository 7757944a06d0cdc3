"""Small seccomp profiles for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrunc.apply.seccomp import filters
from pyrunc.plan import seccomp as plan

if TYPE_CHECKING:
    from typing import Any

ALLOW_ALL = {"defaultAction": "SCMP_ACT_ALLOW"}


def rule(action: str, *names: str, **more: Any) -> dict[str, Any]:
    return {"names": list(names), "action": action, **more}


def lowered(section: dict[str, Any]) -> plan.Filter:
    found = plan.lower(section)
    assert found is not None
    return found


def denied(*names: str, **more: Any) -> dict[str, Any]:
    """Return a profile that allows all but some calls."""
    return {**ALLOW_ALL, "syscalls": [rule("SCMP_ACT_ERRNO", *names, **more)]}


def program(section: dict[str, Any], directory: str = "/proc/nothing") -> filters.Program:
    """Return the compiled profile, by default without a cache."""
    return filters.compile(lowered(section), directory)
