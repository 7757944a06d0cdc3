"""`update` as data: the changes of linux.resources, and the whole section afterwards.

Law 1: only what was named is written again, so an update of the pids limit does not undo another change of
the device list. Values that the kernel only accepts together (quota and period, memory and memory+swap on
version 2) are completed from the present configuration.

Source: `update` of runc 1.4, whose rules engines rely on (docs/man and tests/integration/update.bats).
"""

from __future__ import annotations

from pyrunc.errors import Failure
from pyrunc.plan import cgroups
from pyrunc.plan.cgroup_plan import CgroupPlan, Unit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.plan.facts import CgroupFacts

# Lists with one entry for each device: an update replaces the entry with the same numbers.
_BY_DEVICE = (
    "weightDevice",
    "throttleReadBpsDevice",
    "throttleWriteBpsDevice",
    "throttleReadIOPSDevice",
    "throttleWriteIOPSDevice",
)

_UNITS = {"": 0, "b": 0}
for _power, _letter in enumerate("kmgtp", 1):
    _UNITS.update({_letter: _power, _letter + "b": _power, _letter + "ib": _power})


def plan(
    paths: dict[str, str],
    old: dict[str, Any],
    change: dict[str, Any],
    facts: CgroupFacts,
    *,
    manager: str,
    devices_list: str = "",
) -> tuple[CgroupPlan, dict[str, Any]]:
    """Decide on the writes of an update.

    Args:
        paths: the container's cgroup.
        old: linux.resources in force.
        change: the resources to change; the others stay.
        facts: the host's hierarchies.
        manager: the container's cgroup manager.
        devices_list: what the cgroup's devices.list says now (version 1).

    Returns:
        the plan, and linux.resources as it will be.

    Raises:
        Failure: as cgroups.plan().

    """
    change = fix(change)
    made = CgroupPlan(
        manager=manager,
        version=facts.version,
        roots={name: facts.mounts[name] for name in paths if name in facts.mounts},
        paths=paths,
        writes=[],
        needed={},
    )
    if not paths:
        made.version = 0
        for name, value in change.items():
            if value:
                raise Failure(f"cannot set {name} limits: the container has no cgroup", pointer=f"/{name}")
    merged = merge(old, change)
    wanted = with_partners(change, merged)
    if manager == "systemd":
        from pyrunc.plan import cgroup_systemd

        made.unit = Unit(name="", properties=cgroup_systemd.limits(wanted, facts.version))
        wanted = cgroup_systemd.round_quota(wanted)
    cgroups.set_resources(made, wanted, facts, update=True, devices_list=devices_list)
    return made, merged


def fix(change: dict[str, Any]) -> dict[str, Any]:
    """Return the change with what follows from it.

    No limit on memory also removes the one on memory and swap, which cannot be lower; on version 2 and, with
    swap accounting, on version 1. Kernel memory limits are accepted and ignored, as in runc.
    """
    change = {name: dict(value) if isinstance(value, dict) else value for name, value in change.items()}
    memory = change.get("memory")
    if memory:
        memory.pop("kernel", None)
        memory.pop("kernelTCP", None)
        if memory.get("limit") == -1 and not memory.get("swap"):
            # 0: no swap limit of its own; together with no memory limit it means none at all (see
            # cgroup_limits).
            memory["swap"] = 0
    return change


def with_partners(change: dict[str, Any], merged: dict[str, Any]) -> dict[str, Any]:
    """Return the change with the present values without which it cannot be written."""
    wanted = {name: dict(value) if isinstance(value, dict) else value for name, value in change.items()}
    cpu = wanted.get("cpu")
    if cpu and (cpu.get("quota") or cpu.get("period")):
        for key in ("quota", "period"):
            if merged["cpu"].get(key):
                cpu[key] = merged["cpu"][key]
    memory = wanted.get("memory")
    if memory and (memory.get("limit") or memory.get("swap")):
        for key in ("limit", "swap"):
            if merged["memory"].get(key):
                memory[key] = merged["memory"][key]
    return wanted


def merge(old: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Return linux.resources after the change; neither argument is changed."""
    merged = dict(old)
    for name, value in change.items():
        if not isinstance(value, dict):
            if value is not None:
                merged[name] = value
            continue
        section = dict(merged.get(name) or {})
        for key, item in value.items():
            if name == "blockIO" and key in _BY_DEVICE and item:
                section[key] = _by_device(section.get(key) or [], item)
            elif item is not None:
                section[key] = item
        merged[name] = section
    return merged


def _by_device(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    entries: dict[tuple[int, int], dict[str, Any]] = {}
    for entry in (*old, *new):
        number = (entry["major"], entry["minor"])
        entries[number] = {**entries.get(number, {}), **entry}
    return list(entries.values())


def size(text: str) -> int:
    """Return bytes for "52428800", "50M", "1.5g", "512MiB"; -1 for "-1".

    Raises:
        ValueError: it is none of these.

    """
    if text == "-1":
        return -1
    word = text.strip().lower()
    number = word.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = word[len(number) :]
    whole, dot, fraction = number.strip().partition(".")
    digits = whole + fraction
    if not (digits.isascii() and digits.isdecimal()) or unit not in _UNITS or (dot and not fraction):
        raise ValueError(text)
    return digits_to_bytes(int(digits), len(fraction), _UNITS[unit])


def digits_to_bytes(digits: int, places: int, power: int) -> int:
    """Return digits / 10**places * 1024**power without a float, which would lose bytes above 2**53."""
    return int(digits * 1024**power // 10**places)
