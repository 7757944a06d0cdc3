"""The sections of linux.resources, except devices, as cgroup files.

Law 1: numbers are converted between the two versions of cgroups only here. A value that the version in use
cannot express is a Failure, and never dropped. 0 means "not set" where all engines use it so (runc reads the
configuration into integers whose zero value is 0).

Sources: runtime-spec config-linux.md (1.3), Documentation/admin-guide/cgroup-v1/ (memory, cpusets,
blkio-controller, hugetlb, net_cls, net_prio, rdma), scheduler/sched-bwc.rst, admin-guide/cgroup-v2.rst of
Linux 6.18.
"""

from __future__ import annotations

from pyrunc.errors import Failure
from pyrunc.plan.cgroup_plan import RESOURCES, CgroupWrite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyrunc.plan.cgroup_plan import CgroupPlan
    from pyrunc.plan.facts import CgroupFacts

_CPU_PERIOD = 100_000  # microseconds; cpu.max has it if no period is set (cgroup-v2.rst)
_RDMA_MAX = 2**32 - 1

# The controllers of Linux 6.18 (cgroup-v2.rst). A file with another prefix ("cgroup.", "irq.", or a newer
# one) is written as asked for, as the specification says.
_CONTROLLERS = frozenset(("cpu", "cpuset", "dmem", "hugetlb", "io", "memory", "misc", "pids", "rdma"))

# Files of the unified hierarchy that move or kill processes: never written for a configuration.
_NOT_SETTINGS = ("cgroup.procs", "cgroup.threads", "cgroup.kill")


class _Sink:
    """Collects the writes of the section functions, and answers their questions about the host."""

    __slots__ = ("facts", "made", "section", "update")

    def __init__(self, made: CgroupPlan, facts: CgroupFacts, *, update: bool) -> None:
        self.made = made
        self.facts = facts
        self.update = update
        self.section = ""

    def pointer(self, key: str) -> str:
        return f"{RESOURCES}/{self.section}/{key}" if key else f"{RESOURCES}/{self.section}"

    def fail(self, message: str, key: str, hint: str = "") -> Failure:
        return Failure(message, pointer=self.pointer(key), hint=hint)

    def version(self, key: str, v1: str, v2: str = "") -> int:
        """Return the version of cgroups in which a controller can be used on this host.

        Args:
            key: what asks for it.
            v1: its name in version 1.
            v2: its name in version 2, "" if it has none.

        """
        made, facts = self.made, self.facts
        if made.version == 1 and v1 in made.paths:
            return 1
        if v2 in facts.controllers and "" in made.paths:
            made.needed.setdefault(v2, self.pointer(key))
            if v2 not in made.enable:
                made.enable += (v2,)
            return 2
        name = (v2 or v1) if made.version == 2 else v1
        if made.version == 2 and not v2:
            raise self.fail(f"{key or self.section} has no meaning in cgroup v2", key)
        if made.version == 2:
            have = " ".join(facts.controllers) or "none"
            where = facts.mounts[""]
        else:
            have = " ".join(sorted(n for n in facts.mounts if n and "=" not in n)) or "none"
            where = "this host"
        raise self.fail(
            f"the limit needs the cgroup controller {name}, which {where} does not offer (it has: {have})",
            key,
        )

    def write(self, controller: str, file: str, value: object, key: str, **more: Any) -> None:
        self.made.writes.append(
            CgroupWrite(controller=controller, file=file, value=str(value), pointer=self.pointer(key), **more)
        )


def add(made: CgroupPlan, resources: dict[str, Any], facts: CgroupFacts, *, update: bool) -> None:
    """Append the sections' values to made.writes; `unified` comes last, so that it wins.

    Raises:
        Failure: see the module.

    """
    sink = _Sink(made, facts, update=update)
    for name, put in _SECTIONS:
        section = resources.get(name)
        if section:
            sink.section = name
            put(sink, section)


def _memory(sink: _Sink, memory: dict[str, Any]) -> None:
    limit, swap = memory.get("limit") or 0, memory.get("swap") or 0
    reservation = memory.get("reservation") or 0
    if limit or swap:
        if sink.version("limit" if limit else "swap", "memory", "memory") == 1:
            _memory_v1(sink, limit, swap)
        else:
            _memory_v2(sink, limit, swap)
            if memory.get("checkBeforeUpdate"):
                sink.made.check = (max(limit, 0), max(swap, 0))
    if reservation:
        if sink.version("reservation", "memory", "memory") == 1:
            sink.write("memory", "memory.soft_limit_in_bytes", reservation, "reservation")
        else:
            sink.write("", "memory.low", _or_max(reservation), "reservation")
    swappiness = memory.get("swappiness")
    if swappiness is not None:
        if swappiness > 100:
            raise sink.fail(f"swappiness {swappiness} is not between 0 and 100", "swappiness")
        _only_v1(sink, "memory", "swappiness")
        sink.write("memory", "memory.swappiness", swappiness, "swappiness")
    for key, file in (
        ("kernel", "memory.kmem.limit_in_bytes"),
        ("kernelTCP", "memory.kmem.tcp.limit_in_bytes"),
    ):
        # -1 asks for no limit, which is already so: Linux 5.16 removed the kernel memory limit.
        if (memory.get(key) or 0) > 0:
            _only_v1(sink, "memory", key)
            sink.write("memory", file, memory[key], key)
    if memory.get("useHierarchy"):
        if sink.version("useHierarchy", "memory", "memory") == 1:
            sink.write("memory", "memory.use_hierarchy", 1, "useHierarchy", optional="missing")
    if memory.get("disableOOMKiller"):
        _only_v1(sink, "memory", "disableOOMKiller")
        sink.write("memory", "memory.oom_control", 1, "disableOOMKiller")
    elif sink.update and memory.get("disableOOMKiller") is False and sink.made.version == 1:
        sink.write("memory", "memory.oom_control", 0, "disableOOMKiller")


def _memory_v1(sink: _Sink, limit: int, swap: int) -> None:
    if limit == -1 and not swap:
        # No memory limit is above any old memory+swap limit: remove both.
        sink.write("memory", "memory.memsw.limit_in_bytes", -1, "limit", optional="missing")
    if limit:
        sink.write("memory", "memory.limit_in_bytes", limit, "limit")
    if swap:
        optional = "missing" if swap < 0 else ""
        sink.write("memory", "memory.memsw.limit_in_bytes", swap, "swap", optional=optional)


def _memory_v2(sink: _Sink, limit: int, swap: int) -> None:
    alone = swap_v2(limit, swap, sink)
    if alone:
        # A kernel without swap accounting has no such file; then no swap and unlimited swap are the same.
        sink.write(
            "",
            "memory.swap.max",
            alone,
            "swap" if swap else "limit",
            optional="missing" if alone in ("max", "0") else "",
        )
    if limit:
        sink.write("", "memory.max", _or_max(limit), "limit")


def swap_v2(limit: int, swap: int, sink: _Sink) -> str:
    """Return memory.swap.max for version 1's memory+swap limit, "" to leave it unchanged.

    Version 1 counts memory and swap together, version 2 only swap.
    """
    if swap == 0:
        return "max" if limit == -1 else ""
    if swap == -1:
        return "max"
    if swap < -1:
        raise sink.fail(f"invalid memory+swap limit {swap}", "swap")
    if limit == 0:
        raise sink.fail("unable to set swap limit without memory limit", "swap")
    if limit < 0:
        raise sink.fail("a memory+swap limit needs a memory limit that is not -1", "swap")
    if swap < limit:
        raise sink.fail(f"memory+swap limit {swap} should be >= memory limit {limit}", "swap")
    return str(swap - limit)


def _or_max(value: int) -> str:
    return "max" if value < 0 else str(value)


def _only_v1(sink: _Sink, controller: str, key: str) -> None:
    """Refuse what version 2 cannot express (the specification: "the runtime MUST generate an error")."""
    if (
        sink.version(key, controller) != 1
    ):  # pragma: no cover - version() without a v2 name returns 1 or raises
        raise AssertionError


def _cpu(sink: _Sink, cpu: dict[str, Any]) -> None:
    for key in ("cpus", "mems"):
        if cpu.get(key):
            version = sink.version(key, "cpuset", "cpuset")
            sink.write("cpuset" if version == 1 else "", "cpuset." + key, cpu[key], key)
    _check_burst(sink, cpu)
    asked = [
        key for key in ("shares", "quota", "period", "realtimeRuntime", "realtimePeriod") if cpu.get(key)
    ]
    asked += [key for key in ("burst", "idle") if cpu.get(key) is not None]
    if not asked:
        return
    if sink.version(asked[0], "cpu", "cpu") == 1:
        _cpu_v1(sink, cpu)
    else:
        _cpu_v2(sink, cpu)


def _check_burst(sink: _Sink, cpu: dict[str, Any]) -> None:
    burst, quota = cpu.get("burst") or 0, cpu.get("quota") or 0
    if 0 < quota < burst:
        raise sink.fail(f"burst {burst} is larger than quota {quota}", "burst")


def _cpu_v1(sink: _Sink, cpu: dict[str, Any]) -> None:
    shares = cpu.get("shares") or 0
    if shares:
        # The kernel silently changes other values to the nearest of these.
        if shares < 2:
            raise sink.fail(f"cpu shares {shares}: the minimum allowed cpu-shares is 2", "shares")
        if shares > 262144:
            raise sink.fail(f"cpu shares {shares}: the maximum allowed cpu-shares is 262144", "shares")
        sink.write("cpu", "cpu.shares", shares, "shares")
    for key, file in (
        ("realtimePeriod", "cpu.rt_period_us"),
        ("realtimeRuntime", "cpu.rt_runtime_us"),
        ("period", "cpu.cfs_period_us"),
        ("quota", "cpu.cfs_quota_us"),
    ):
        if cpu.get(key):
            sink.write("cpu", file, cpu[key], key)
    burst, idle = cpu.get("burst"), cpu.get("idle")
    if burst is not None:
        sink.write("cpu", "cpu.cfs_burst_us", burst, "burst", optional="" if burst else "missing")
    if idle is not None:
        sink.write("cpu", "cpu.idle", idle, "idle", optional="" if idle else "missing")


def _cpu_v2(sink: _Sink, cpu: dict[str, Any]) -> None:
    for key in ("realtimeRuntime", "realtimePeriod"):
        if cpu.get(key):
            _only_v1(sink, "cpu", key)
    if cpu.get("shares"):
        sink.write("", "cpu.weight", weight(cpu["shares"]), "shares")
    quota, period = cpu.get("quota") or 0, cpu.get("period") or 0
    if quota or period:
        allowed = str(quota) if quota > 0 else "max"
        sink.write("", "cpu.max", f"{allowed} {period or _CPU_PERIOD}", "quota" if quota else "period")
    burst, idle = cpu.get("burst"), cpu.get("idle")
    if burst is not None:
        sink.write("", "cpu.max.burst", burst, "burst", optional="" if burst else "missing")
    if idle is not None:
        sink.write("", "cpu.idle", idle, "idle", optional="" if idle else "missing")


def weight(shares: int) -> int:
    """Return cpu.weight (1 to 10000) for cpu.shares (2 to 262144).

    The curve maps 2 to 1, the default 1024 to the default 100, and 262144 to 10000. It is the quadratic in
    log2(shares) that runc 1.4, crun 1.22 and systemd's users agreed on. The earlier straight line between the
    ends mapped 1024 to 39, so that containers got less than everything else on the host.
    """
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    from math import ceil, log2

    bits = log2(shares)
    return ceil(10 ** ((bits * bits + 125 * bits) / 612 - 7 / 34))


def _pids(sink: _Sink, pids: dict[str, Any]) -> None:
    limit = pids.get("limit")
    if limit is None:
        return
    version = sink.version("limit", "pids", "pids")
    # 0 becomes 1, because systemd refuses 0. Joining is never limited and init already counts as one, so both
    # mean that it cannot fork.
    value = "max" if limit < 0 else str(limit or 1)
    sink.write("pids" if version == 1 else "", "pids.max", value, "limit")


# blockIO key -> (version 1 file, version 2 word in io.max)
_THROTTLES = {
    "throttleReadBpsDevice": ("blkio.throttle.read_bps_device", "rbps"),
    "throttleWriteBpsDevice": ("blkio.throttle.write_bps_device", "wbps"),
    "throttleReadIOPSDevice": ("blkio.throttle.read_iops_device", "riops"),
    "throttleWriteIOPSDevice": ("blkio.throttle.write_iops_device", "wiops"),
}


def _block_io(sink: _Sink, block: dict[str, Any]) -> None:
    asked = [key for key, value in block.items() if value]
    if not asked:
        return
    if sink.version(asked[0], "blkio", "io") == 1:
        _block_io_v1(sink, block)
    else:
        _block_io_v2(sink, block)


def _block_io_v1(sink: _Sink, block: dict[str, Any]) -> None:
    if block.get("weight"):
        value = str(block["weight"])
        sink.write("blkio", "blkio.weight", value, "weight", other=("blkio.bfq.weight", value))
    if block.get("leafWeight"):
        sink.write("blkio", "blkio.leaf_weight", block["leafWeight"], "leafWeight")
    for index, device in enumerate(block.get("weightDevice") or ()):
        number = f"{device['major']}:{device['minor']}"
        if device.get("weight"):
            value = f"{number} {device['weight']}"
            key = f"weightDevice/{index}/weight"
            sink.write("blkio", "blkio.weight_device", value, key, other=("blkio.bfq.weight_device", value))
        if device.get("leafWeight"):
            value = f"{number} {device['leafWeight']}"
            sink.write("blkio", "blkio.leaf_weight_device", value, f"weightDevice/{index}/leafWeight")
    for name, (file, _word) in _THROTTLES.items():
        for index, device in enumerate(block.get(name) or ()):
            sink.write(
                "blkio", file, f"{device['major']}:{device['minor']} {device['rate']}", f"{name}/{index}"
            )


def _block_io_v2(sink: _Sink, block: dict[str, Any]) -> None:
    if block.get("leafWeight"):
        raise sink.fail("leafWeight has no meaning in cgroup v2", "leafWeight")
    if block.get("weight"):
        value = block["weight"]
        other = ("io.weight", str(io_weight(value, sink, "weight")))
        sink.write("", "io.bfq.weight", value, "weight", other=other)
    for index, device in enumerate(block.get("weightDevice") or ()):
        key = f"weightDevice/{index}"
        number = f"{device['major']}:{device['minor']}"
        if device.get("leafWeight"):
            raise sink.fail("leafWeight has no meaning in cgroup v2", key + "/leafWeight")
        if device.get("weight"):
            other = ("io.weight", f"{number} {io_weight(device['weight'], sink, key + '/weight')}")
            sink.write("", "io.bfq.weight", f"{number} {device['weight']}", key + "/weight", other=other)
    for name, (_file, word) in _THROTTLES.items():
        for index, device in enumerate(block.get(name) or ()):
            # Version 1 removes a throttle with 0, version 2 with "max".
            value = f"{device['major']}:{device['minor']} {word}={device['rate'] or 'max'}"
            sink.write("", "io.max", value, f"{name}/{index}")


def io_weight(value: int, sink: _Sink, key: str) -> int:
    """Return io.weight (1 to 10000) for a blkio weight (10 to 1000)."""
    if not 10 <= value <= 1000:
        raise sink.fail(f"blkio weight {value} is not between 10 and 1000", key)
    return 1 + (value - 10) * 9999 // 990


def _hugepages(sink: _Sink, limits: list[dict[str, Any]]) -> None:
    for index, entry in enumerate(limits):
        size, limit = entry["pageSize"], entry["limit"]
        key = f"{index}/pageSize"
        if not size[:-2].isdecimal() or size[-2:] not in ("KB", "MB", "GB") or not size.isascii():
            raise sink.fail(f"{size!r} is no huge page size", key, "write it as 64KB, 2MB or 1GB")
        version = sink.version(key, "hugetlb", "hugetlb")
        where, end = ("hugetlb", "limit_in_bytes") if version == 1 else ("", "max")
        sink.write(where, f"hugetlb.{size}.{end}", limit, f"{index}/limit")
        # Reservation accounting exists since Linux 5.7; without it the limit above applies at the page fault.
        sink.write(where, f"hugetlb.{size}.rsvd.{end}", limit, f"{index}/limit", optional="missing")


def _network(sink: _Sink, network: dict[str, Any]) -> None:
    if network.get("classID"):
        sink.version("classID", "net_cls")
        sink.write("net_cls", "net_cls.classid", network["classID"], "classID")
    for index, entry in enumerate(network.get("priorities") or ()):
        key = f"priorities/{index}"
        name = entry["name"]
        if not name or len(name.split()) != 1 or "/" in name:
            raise sink.fail(f"{name!r} is no network interface's name", key + "/name")
        sink.version(key, "net_prio")
        sink.write("net_prio", "net_prio.ifpriomap", f"{name} {entry['priority']}", key)


def _rdma(sink: _Sink, devices: dict[str, dict[str, Any]]) -> None:
    for device, limits in devices.items():
        escaped = device.replace("~", "~0").replace("/", "~1")
        if not device or len(device.split()) != 1:
            raise sink.fail(f"{device!r} is no RDMA device's name", escaped)
        words = [
            f"{word}={'max' if limits[key] >= _RDMA_MAX else limits[key]}"
            for key, word in (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object"))
            if limits.get(key) is not None
        ]
        if not words:
            raise sink.fail("one of hcaHandles and hcaObjects is needed", escaped)
        version = sink.version(escaped, "rdma", "rdma")
        sink.write("rdma" if version == 1 else "", "rdma.max", f"{device} {' '.join(words)}", escaped)


def _unified(sink: _Sink, unified: dict[str, str]) -> None:
    for file, value in unified.items():
        key = file.replace("~", "~0").replace("/", "~1")
        if "/" in file or "\0" in file or file in (".", ".."):
            raise sink.fail(f"unified resource {file!r} must be a file name (no slashes)", key)
        controller, dot, rest = file.partition(".")
        if not (controller and dot and rest):
            raise sink.fail(f"unified resource {file!r} must be in the form CONTROLLER.PARAMETER", key)
        if file in _NOT_SETTINGS:
            raise sink.fail(f"unified resource {file!r} acts on processes, it is no setting", key)
        if sink.made.version != 2 and (controller not in sink.facts.controllers or "" not in sink.made.paths):
            raise sink.fail(f"invalid configuration: cannot use unified on cgroup v1 ({file})", key)
        if controller in sink.facts.controllers:
            sink.version(key, "", controller)
        elif controller in _CONTROLLERS:
            raise sink.fail(
                f"unified resource {file!r} can't be set: controller {controller!r} not available", key
            )
        sink.write("", file, value, key)


_SECTIONS: tuple[tuple[str, Callable[[_Sink, Any], None]], ...] = (
    ("pids", _pids),
    ("memory", _memory),
    ("cpu", _cpu),
    ("blockIO", _block_io),
    ("hugepageLimits", _hugepages),
    ("network", _network),
    ("rdma", _rdma),
    ("unified", _unified),
)
