"""Programs of real plans, and the data that the parent would have prepared for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyrunc.linux.flags import CLONE_NEWNS
from pyrunc.plan import build, namespaces, program_exec, steps
from pyrunc.plan.facts import Facts, Request
from pyrunc.plan.lowering import Beginning
from pyrunc.plan.record import Record
from tests.support.cgroup_hosts import v2
from tests.support.specs import small

if TYPE_CHECKING:
    from pyrunc.plan.program_process import Filters

REQUEST = Request(id="c1", bundle="/b")
ALL = (1 << 41) - 1
FACTS = Facts(
    kernel=(6, 18),
    statmount=True,
    euid=0,
    in_user_namespace=False,
    kcore=False,
    capabilities=ALL,
    cgroup=v2(),
)


class Filter(Record):
    """A compiled filter."""

    bpf: bytes = b"8 bytes."
    flags: int = 0
    sendmsg: bool = True
    clock: bool = False


def created(config: dict[str, Any] | None = None) -> steps.Plan:
    """Return the plan of a container."""
    return build.build(config or small(), FACTS, REQUEST)  # type: ignore[arg-type]


def entered(config: dict[str, Any] | None = None, **process: Any) -> steps.Plan:
    """Return the plan of one more process of a container."""
    given = config or small()
    command: Any = {**given["process"], **process}
    return build.build_exec(given, command, REQUEST, ALL)  # type: ignore[arg-type]


def filters(plan: steps.Plan, **fields: Any) -> Filters:
    """Return a compiled filter for each seccomp step."""
    found = (step for step in (*plan.child, *plan.start) if isinstance(step, steps.Seccomp))
    return {id(step): Filter(**fields) for step in found}


def entering(plan: steps.Plan, **fields: Any) -> program_exec.Entering:
    """Return the data that the parent has prepared for a process."""
    kinds = CLONE_NEWNS | namespaces.FLAGS["pid"]
    return program_exec.Entering(**{"kinds": kinds, "filters": filters(plan), **fields})


def beginning(plan: steps.Plan, **fields: Any) -> Beginning:
    """Return the data that the parent has prepared for a container's first process."""
    known = {"kinds": plan.namespaces.flags, "filters": filters(plan), "directory": "/run/c1"}
    return Beginning(**{**known, **fields})
