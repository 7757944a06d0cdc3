"""The meaning of process.scheduler: which fields go with which policy (config.md, "process"; sched(7)).

Imported for configurations with one.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.spec.types import Scheduler

_SHORTEST = 1024  # ns: the kernel's least runtime (sched(7))


def check(section: Scheduler, pointer: str) -> list[tuple[str, str]]:
    """Return the breaches in a scheduler object, whose own place the pointer is.

    sched_setattr(2): a field of another policy is EINVAL there.
    """
    found: list[tuple[str, str]] = []
    policy = section["policy"]
    nice = section.get("nice", 0)
    if policy in ("SCHED_OTHER", "SCHED_BATCH") and not -20 <= nice <= 19:
        found.append((f"{pointer}/nice", f"invalid scheduler.nice: {nice} when scheduler.policy is {policy}"))
    if section.get("priority") and policy not in ("SCHED_FIFO", "SCHED_RR"):
        text = "scheduler.priority can only be specified for SchedFIFO or SchedRR policy"
        found.append((f"{pointer}/priority", text))
    elif not 0 <= section.get("priority", 0) <= 99:
        text = f"invalid scheduler.priority: {section['priority']} is not 1 to 99"
        found.append((f"{pointer}/priority", text))
    if policy == "SCHED_DEADLINE":
        _deadline(section, pointer, found)
    else:
        text = "scheduler runtime/deadline/period can only be specified for SchedDeadline policy"
        found.extend(
            (f"{pointer}/{key}", text) for key in ("runtime", "deadline", "period") if section.get(key)
        )
    return found


def _deadline(section: Scheduler, pointer: str, found: list[tuple[str, str]]) -> None:
    # sched(7): 1024 <= runtime <= deadline <= period, which is the deadline when it is 0; else EINVAL.
    runtime, deadline = section.get("runtime") or 0, section.get("deadline") or 0
    period = section.get("period") or 0
    if runtime < _SHORTEST:
        text = f"SCHED_DEADLINE needs a scheduler.runtime of at least {_SHORTEST} ns, this is {runtime}"
        found.append((f"{pointer}/runtime", text))
    elif deadline < runtime:
        text = f"SCHED_DEADLINE needs a scheduler.deadline of at least the runtime, {runtime} ns"
        found.append((f"{pointer}/deadline", text + f", this is {deadline}"))
    elif period and period < deadline:
        text = f"SCHED_DEADLINE needs a scheduler.period of at least the deadline, {deadline} ns"
        found.append((f"{pointer}/period", text + f", this is {period}"))
