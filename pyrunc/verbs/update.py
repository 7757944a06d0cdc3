"""update: change a container's limits while it runs.

Laws 1 and 4: the change is planned as data, written to the cgroup, and kept in the state directory's
configuration, which exec and the next update use. If the kernel refuses one value, the others are restored.
"""

from __future__ import annotations

import os

from pyrunc import files, log, store
from pyrunc.apply.cgroups import making
from pyrunc.apply.facts import gather
from pyrunc.errors import Failure, failing
from pyrunc.files import closing
from pyrunc.jsonio import dumps_indent
from pyrunc.plan import cgroup_update

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.cli.match import Command
    from pyrunc.plan.cgroup_plan import CgroupPlan

# option -> (section, key) of linux.resources
_UNSIGNED = {
    "cpu_period": ("cpu", "period"),
    "cpu_burst": ("cpu", "burst"),
    "cpu_share": ("cpu", "shares"),
    "cpu_rt_period": ("cpu", "realtimePeriod"),
}
_SIGNED = {
    "cpu_quota": ("cpu", "quota"),
    "cpu_rt_runtime": ("cpu", "realtimeRuntime"),
    "cpu_idle": ("cpu", "idle"),
}
_SIZES = {
    "memory": ("memory", "limit"),
    "memory_swap": ("memory", "swap"),
    "memory_reservation": ("memory", "reservation"),
}
_LISTS = {"cpuset_cpus": ("cpu", "cpus"), "cpuset_mems": ("cpu", "mems")}

_MOST = 2**63 - 1
_TIME = (-1, _MOST, "microseconds, or -1 for no limit")
_BYTES = (-1, _MOST, "bytes, also with k, m or g after the number, or -1 for no limit")
_WEIGHT = (10, 1000, "10 to 1000")
# Least and greatest value and a name, for 64-bit numbers that would have no meaning: a typing error must not
# become a limit.
_RANGES: dict[tuple[str, str], tuple[int, int, str]] = {
    ("blockIO", "weight"): _WEIGHT,
    ("blockIO", "leafWeight"): _WEIGHT,
    ("pids", "limit"): (-1, _MOST, "a number of processes, or -1 for no limit"),
    ("cpu", "quota"): _TIME,
    ("cpu", "realtimeRuntime"): _TIME,
    ("cpu", "idle"): (0, 1, "0 or 1"),
    ("memory", "limit"): _BYTES,
    ("memory", "swap"): _BYTES,
    ("memory", "reservation"): _BYTES,
}
_NUMBERS = {"blkio_weight": ("blockIO", "weight"), "pids_limit": ("pids", "limit")}


def main(cmd: Command) -> int:
    """Apply new limits.

    Raises:
        Failure: there is no such container, it does not run, a value is invalid, or the kernel refuses one.

    """
    container = store.open_container(cmd.root or store.default_root(), cmd.id)
    change = _from_json(cmd.resources) if cmd.resources else _from_options(cmd)
    update(container, change, cmd.l3_cache_schema, cmd.mem_bw_schema)
    return 0


def update(container: store.Container, change: dict[str, Any], *schemas: str | None) -> None:
    """Apply new limits.

    Args:
        container: its record.
        change: what changes, as in linux.resources; the rest stays.
        schemas: the Intel RDT schemata for the cache and for memory bandwidth.

    Raises:
        Failure: it does not run, a value is invalid, or the kernel refuses one.

    """
    for section, key in _RANGES:
        _check(section, key, (change.get(section) or {}).get(key), f"{section}.{key}")
    with closing(store.lock(container)):
        if store.status(container) not in ("created", "running", "paused"):
            raise Failure("container not running", step=container.id)
        config: Any = store.load_config(container)
        linux = config.setdefault("linux", {})
        facts = gather().cgroup
        plan, resources = cgroup_update.plan(
            container.cgroup,
            linux.get("resources") or {},
            change,
            facts,
            manager=container.cgroup_manager,
            devices_list=files.text(container.cgroup.get("devices", "") + "/devices.list"),
        )
        if any(schemas):
            from pyrunc.apply import intel_rdt

            intel_rdt.update(container.cgroup, linux.get("intelRdt"), *schemas)
        _apply(plan)
        linux["resources"] = resources
        store.save_config(container, dumps_indent(config).encode())


def parse(raw: bytes, path: str) -> dict[str, Any]:
    """Return a linux.resources object from its text.

    Args:
        raw: JSON.
        path: its name in messages.

    Raises:
        Failure: it is not valid; one line for each problem.

    """
    from pyrunc.spec import load

    change: Any = load.parse_resources(raw, path)
    unknown = [key for key in change if key not in _SECTIONS]
    if unknown:
        # In a configuration unknown properties are ignored (the specification). Here nothing else would be
        # left.
        log.warn(f"unknown resources are ignored: {', '.join(map(repr, unknown))}")
    found: dict[str, Any] = change
    return found


def _from_json(name: str) -> dict[str, Any]:
    """Read the section from a file, or from standard input for "-"."""
    from pyrunc.spec import load

    if name != "-":
        raw = load.read(name)
    else:
        with failing("cannot read standard input"):
            raw = files.read_whole(os.dup(0), load.LARGEST)
    return parse(raw, "standard input" if name == "-" else name)


_SECTIONS = frozenset(
    ("blockIO", "cpu", "devices", "hugepageLimits", "memory", "network", "pids", "rdma", "unified")
)


def _from_options(cmd: Command) -> dict[str, Any]:
    """Make the section from the options.

    Raises:
        Failure: "invalid value for cpu-quota: ...".

    """
    change: dict[str, Any] = {}
    for option, (section, key) in _NUMBERS.items():
        number = getattr(cmd, option)
        if number is not None and not (number == 0 and option == "blkio_weight"):  # 0: unchanged (runc)
            _check(section, key, number, option)
            change[section] = {key: number}
    if cmd.kernel_memory or cmd.kernel_memory_tcp:
        log.warn("Kernel memory settings are ignored and will be removed")
    for table, read in (
        (_UNSIGNED, _unsigned),
        (_SIGNED, _signed),
        (_SIZES, cgroup_update.size),
        (_LISTS, str),
    ):
        for option, (section, key) in table.items():
            text = getattr(cmd, option)
            if not text:
                continue
            try:
                value = read(text)
            except ValueError:
                raise _invalid(section, key, text, option) from None
            _check(section, key, value, option)
            change.setdefault(section, {})[key] = value
    return change


def _check(section: str, key: str, value: object, name: str) -> None:
    """Raise Failure if a number is out of range; name is the option or property.

    A weight of 0 means that none is given: engines send it with every other change.
    """
    least, most, _ = _RANGES.get((section, key), (0, 0, ""))
    if section == "blockIO" and value == 0:
        return
    if (section, key) in _RANGES and isinstance(value, int) and not least <= value <= most:
        raise _invalid(section, key, value, name)


def _invalid(section: str, key: str, value: object, name: str) -> Failure:
    words = _RANGES.get((section, key), (0, 0, ""))[2]
    hint = f"it is {words}" if words else ""
    return Failure(f"invalid value for {name.replace('_', '-')}: {value!r}", hint=hint)


def _unsigned(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) >= 2**64:
        raise ValueError(text)
    return int(text)


def _signed(text: str) -> int:
    value = _unsigned(text.removeprefix("-"))
    return -value if text.startswith("-") else value


def _apply(plan: CgroupPlan) -> None:
    """Write the values; after a failure restore all of them.

    Raises:
        Failure: the kernel refuses one.

    """
    before = _present(plan)
    try:
        if plan.unit is not None:
            from pyrunc.apply.cgroups import systemd

            systemd.update(plan, plan.unit.properties)
        if plan.needed:
            from pyrunc.apply.cgroups import version_2

            version_2.enable(plan, plan.paths[""])
        making.apply_limits(plan, plan.paths)
    except Failure:
        plan.writes = before
        plan.devices, plan.check = b"", (0, 0)
        try:
            making.apply_limits(plan, plan.paths)
        except Failure as again:
            log.warn(f"not all limits could be put back: {again.text()}")
        raise


def _present(plan: CgroupPlan) -> list[Any]:
    """Return the writes that restore the present values.

    Only for files with one value, which can be written as they are read. Lists by device are left alone.
    """
    from pyrunc.plan.cgroup_plan import CgroupWrite

    found = []
    for write in plan.writes:
        path = plan.paths.get(write.controller, "")
        for file in (write.file, *(write.other or ())[:1]):
            value = files.text(f"{path}/{file}").strip()
            if value and (file == "cpu.max" or len(value.split()) == 1):
                found.append(
                    CgroupWrite(controller=write.controller, file=file, value=value, pointer=write.pointer)
                )
                break
    return found
