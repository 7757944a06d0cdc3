"""What a container has used, in the format of `runc events` (containerd and others parse that).

Law 4: read from the kernel each time. A value without a file is left out. Names and units are runc's
(types/events.go): nanoseconds, bytes, memory and swap as one number even on version 2.

Sources: Documentation/admin-guide/cgroup-v1/{cpuacct,memory,blkio-controller,hugetlb}.rst and cgroup-v2.rst
of Linux 6.18.
"""

from __future__ import annotations

import os

from pyrunc import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeAlias

    Values: TypeAlias = dict[str, object]
    Paths: TypeAlias = dict[str, str]

_TICKS = 100  # USER_HZ, the unit of cpuacct.stat; the same on every architecture Linux supports today
_NO_LIMIT = 2**64 - 1

_CPUSET = (
    ("cpu_exclusive", "cpuset.cpu_exclusive"),
    ("mem_hardwall", "cpuset.mem_hardwall"),
    ("mem_exclusive", "cpuset.mem_exclusive"),
    ("memory_migrate", "cpuset.memory_migrate"),
    ("memory_spread_page", "cpuset.memory_spread_page"),
    ("memory_spread_slab", "cpuset.memory_spread_slab"),
    ("memory_pressure", "cpuset.memory_pressure"),
    ("sched_load_balance", "cpuset.sched_load_balance"),
    ("sched_relax_domain_level", "cpuset.sched_relax_domain_level"),
)

_BLKIO = (
    ("ioServiceBytesRecursive", "io_service_bytes_recursive"),
    ("ioServicedRecursive", "io_serviced_recursive"),
    ("ioQueueRecursive", "io_queued_recursive"),
    ("ioServiceTimeRecursive", "io_service_time_recursive"),
    ("ioWaitTimeRecursive", "io_wait_time_recursive"),
    ("ioMergedRecursive", "io_merged_recursive"),
    ("ioTimeRecursive", "time_recursive"),
    ("sectorsRecursive", "sectors_recursive"),
)

# io.stat word -> (table, operation)
_IO = {
    "rbytes": ("ioServiceBytesRecursive", "Read"),
    "wbytes": ("ioServiceBytesRecursive", "Write"),
    "rios": ("ioServicedRecursive", "Read"),
    "wios": ("ioServicedRecursive", "Write"),
}


def stats(paths: Paths) -> Values:
    """Return the `data` object of an event of type "stats"."""
    return {
        "cpu": _with_pressure(_cpu(paths), paths, "cpu"),
        "cpuset": _cpuset(paths),
        "memory": _with_pressure(_memory(paths), paths, "memory"),
        "pids": _pids(paths),
        "blkio": _with_pressure(_blkio(paths), paths, "io"),
        "hugetlb": _hugetlb(paths),
        "intel_rdt": _rdt(paths),
        "network_interfaces": None,
    }


def _text(path: str | None, file: str) -> str | None:
    """Return a file's text, or None if it does not exist or has no data."""
    if path is None:
        return None
    try:
        return files.read(f"{path}/{file}").decode(errors="replace")
    except OSError:
        # EOPNOTSUPP: pressure information is turned off by a boot option; ENODEV: the cgroup is being
        # removed.
        return None


def _number(path: str | None, file: str) -> int | None:
    text = _text(path, file)
    if text is None:
        return None
    word = text.strip()
    if word == "max":
        return _NO_LIMIT
    try:
        return int(word)
    except ValueError:
        return None


def _table(path: str | None, file: str) -> dict[str, int]:
    """Return the numbers of a file of "name number" lines."""
    found = {}
    for line in (_text(path, file) or "").splitlines():
        name, _, value = line.partition(" ")
        if value.isdecimal():
            found[name] = int(value)
    return found


def _full(values: Mapping[str, object], *always: str) -> Values:
    """Leave out empty values, as Go's omitempty does, except for the names given."""
    return {name: value for name, value in values.items() if value or name in always}


def _cpu(paths: Paths) -> Values:
    if "cpuacct" in paths or "cpu" in paths:
        account, throttle = paths.get("cpuacct"), _table(paths.get("cpu"), "cpu.stat")
        split = _table(account, "cpuacct.stat")
        usage: Values = {
            "total": _number(account, "cpuacct.usage") or 0,
            "percpu": [int(word) for word in (_text(account, "cpuacct.usage_percpu") or "").split()],
            "percpu_kernel": _per_cpu(account, 2),
            "percpu_user": _per_cpu(account, 1),
            "kernel": split.get("system", 0) * 1_000_000_000 // _TICKS,
            "user": split.get("user", 0) * 1_000_000_000 // _TICKS,
        }
        waited = throttle.get("throttled_time", 0)
    else:
        throttle = _table(paths.get(""), "cpu.stat")
        usage = {
            "total": throttle.get("usage_usec", 0) * 1000,
            "kernel": throttle.get("system_usec", 0) * 1000,
            "user": throttle.get("user_usec", 0) * 1000,
        }
        waited = throttle.get("throttled_usec", 0) * 1000
    throttling = _full(
        {
            "periods": throttle.get("nr_periods", 0),
            "throttledPeriods": throttle.get("nr_throttled", 0),
            "throttledTime": waited,
        }
    )
    return _full({"usage": _full(usage, "kernel", "user"), "throttling": throttling})


def _per_cpu(path: str | None, column: int) -> list[int]:
    """Return one column of cpuacct.usage_all, whose lines are "cpu user system" after a title."""
    rows = [line.split() for line in (_text(path, "cpuacct.usage_all") or "").splitlines()[1:]]
    return [int(row[column]) for row in rows if len(row) > column]


def _cpuset(paths: Paths) -> Values:
    path = paths.get("cpuset")
    values: Values = {
        "cpus": numbers(_text(path, "cpuset.cpus") or ""),
        "mems": numbers(_text(path, "cpuset.mems") or ""),
    }
    for name, file in _CPUSET:
        values[name] = _number(path, file) or 0
    return _full(values, *(name for name, _file in _CPUSET))


def numbers(ranges: str) -> list[int]:
    """Return the numbers of a list such as "0-3,7"."""
    found: list[int] = []
    for part in ranges.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdecimal():
            found += range(int(first), int(last or first) + 1)
    return found


def _memory(paths: Paths) -> Values:
    if "memory" in paths:
        path = paths["memory"]
        raw = _table(path, "memory.stat")
        values: Values = {
            "cache": raw.get("cache", 0),
            "usage": _memory_v1(path, "memory"),
            "swap": _memory_v1(path, "memory.memsw"),
            "kernel": _memory_v1(path, "memory.kmem"),
            "kernelTCP": _memory_v1(path, "memory.kmem.tcp"),
            "raw": raw,
        }
        return _full(values)
    path = paths.get("", "")
    raw = _table(path, "memory.stat")
    usage, swap = _memory_v2(path, "memory"), _memory_v2(path, "memory.swap")
    both = dict(swap)
    if swap or usage:
        # Version 1 counts memory and swap together; there is no common peak.
        limits = (usage.get("limit", 0), swap.get("limit", 0))
        both["limit"] = swap["limit"] if limits[1] == _NO_LIMIT else min(sum(limits), _NO_LIMIT)
        both["usage"] = usage.get("usage", 0) + swap.get("usage", 0)
        both.pop("max", None)
    return _full({"cache": raw.get("file", 0), "usage": _entry(usage), "swap": _entry(both), "raw": raw})


def _entry(values: dict[str, int]) -> Values:
    if not any(values.values()):
        return {}
    return _full({"limit": 0, **values, "failcnt": values.get("failcnt", 0)}, "limit", "failcnt")


def _memory_v1(path: str, prefix: str) -> Values:
    usage = _number(path, prefix + ".usage_in_bytes")
    if usage is None:
        return {}
    return _entry(
        {
            "limit": _number(path, prefix + ".limit_in_bytes") or 0,
            "usage": usage,
            "max": _number(path, prefix + ".max_usage_in_bytes") or 0,
            "failcnt": _number(path, prefix + ".failcnt") or 0,
        }
    )


def _memory_v2(path: str, prefix: str) -> dict[str, int]:
    usage = _number(path, prefix + ".current")
    if usage is None:
        return {}
    limit = _number(path, prefix + ".max")
    return {"limit": limit or 0, "usage": usage, "max": _number(path, prefix + ".peak") or 0}


def _pids(paths: Paths) -> Values:
    path = paths.get("pids", paths.get(""))
    current = _number(path, "pids.current")
    if current is None:
        current = (_text(path, "cgroup.procs") or "").count("\n")
    limit = _number(path, "pids.max") or 0
    return _full({"current": current, "limit": 0 if limit == _NO_LIMIT else limit})


def _blkio(paths: Paths) -> Values:
    path = paths.get("blkio")
    if path is None:
        return _io(paths.get(""))
    for prefix in ("blkio.bfq.", "blkio.", "blkio.throttle."):
        found = {name: _entries(_text(path, prefix + file)) for name, file in _BLKIO}
        if any(found.values()):
            return _full(dict(found))
    return {}


def _entries(text: str | None) -> list[Values]:
    """Parse lines of "major:minor [operation] value"."""
    entries = []
    for line in (text or "").splitlines():
        fields = line.replace(":", " ").split()
        if len(fields) in (3, 4):
            operation = fields[2] if len(fields) == 4 else ""
            entries.append(_device(fields[0], fields[1], operation, fields[-1]))
    return entries


def _device(major: str, minor: str, operation: str, value: str) -> Values:
    return _full({"major": int(major), "minor": int(minor), "op": operation, "value": int(value)})


def _io(path: str | None) -> Values:
    found: dict[str, list[Values]] = {}
    for line in (_text(path, "io.stat") or "").splitlines():
        number, *words = line.split()
        major, _, minor = number.partition(":")
        for word in words:
            name, _, value = word.partition("=")
            if name in _IO and value.isdecimal():
                table, operation = _IO[name]
                found.setdefault(table, []).append(_device(major, minor, operation, value))
    return dict(found)


def _hugetlb(paths: Paths) -> Values:
    found: Values = {}
    for name, usage, peak, failed in (
        ("hugetlb", "usage_in_bytes", "max_usage_in_bytes", "failcnt"),
        ("", "current", "", "events"),
    ):
        path = paths.get(name)
        if path is None:
            continue
        for size in _page_sizes(path, usage):
            prefix = f"hugetlb.{size}."
            reserved = prefix + "rsvd."
            used = _number(path, reserved + usage)
            if used is None:
                used, reserved = _number(path, prefix + usage), prefix
            count = (
                _table(path, prefix + failed).get("max", 0) if not name else _number(path, reserved + failed)
            )
            values = {
                "usage": used,
                "max": _number(path, reserved + peak) if peak else 0,
                "failcnt": count or 0,
            }
            found[size] = _full(values, "failcnt")
    return found


def _page_sizes(path: str, end: str) -> list[str]:
    try:
        names = os.listdir(path)
    except OSError:
        return []
    return sorted(n.split(".")[1] for n in names if n.startswith("hugetlb.") and n.endswith("B." + end))


def _with_pressure(values: Values, paths: Paths, name: str) -> Values:
    """Add pressure stall information, which the unified hierarchy has for every controller."""
    found: Values = {}
    for line in (_text(paths.get(""), name + ".pressure") or "").splitlines():
        kind, *words = line.split()
        pairs = (word.partition("=") for word in words)
        found[kind] = {key: int(value) if key == "total" else float(value) for key, _, value in pairs}
    if found:
        values["psi"] = found
    return values


def _rdt(paths: Paths) -> Values:
    path = paths.get("intel_rdt_clos", paths.get("intel_rdt"))
    lines = [line.strip() for line in (_text(path, "schemata") or "").splitlines()]
    if not lines:
        return {}
    values: Values = {"schemata": lines}
    for name, prefix in (("l3_cache_schema", "L3"), ("mem_bw_schema", "MB")):
        values[name] = "\n".join(line for line in lines if line.startswith(prefix))
    return _full(values)
