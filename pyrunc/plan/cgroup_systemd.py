"""The systemd cgroup manager as data: the unit, its slice, its properties.

Law 1: the requests are decided here, and sent by apply/cgroups/systemd.py. After systemd has made the unit,
the limits are also written to the cgroup's files as without systemd, because some have no property.

Sources: runc's docs/systemd.md, org.freedesktop.systemd1(5), systemd.resource-control(5), systemd.slice(5).
"""

from __future__ import annotations

from pyrunc.errors import Failure
from pyrunc.jsonio import decimal
from pyrunc.plan.cgroup_plan import Unit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.plan.cgroup_plan import Property
    from pyrunc.plan.facts import CgroupFacts

PATH = "/linux/cgroupsPath"
_ANNOTATION = "org.systemd.property."
_INFINITY = 2**64 - 1
_PERIOD = 100_000  # microseconds, the kernel's default

# unified file -> the property, of one number, with the same meaning
_NUMBERS = {
    "cpu.weight": "CPUWeight",
    "memory.high": "MemoryHigh",
    "memory.low": "MemoryLow",
    "memory.max": "MemoryMax",
    "memory.min": "MemoryMin",
    "memory.swap.max": "MemorySwapMax",
    "pids.max": "TasksMax",
}


def names(wanted: str, container_id: str, *, rootless: bool) -> tuple[str, str]:
    """Return (slice, unit) for a cgroupsPath of the form "slice:prefix:name", or for none.

    Raises:
        Failure: it has another form.

    """
    if not wanted:
        return "user.slice" if rootless else "system.slice", f"pyrunc-{container_id}.scope"
    parts = wanted.split(":")
    if len(parts) != 3 or "/" in wanted:
        raise Failure(
            'expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups,'
            f" got {wanted!r} instead",
            pointer=PATH,
        )
    parent, prefix, name = parts
    if name.endswith(".slice"):
        unit = name
    else:
        if not name:
            raise Failure(f"{wanted!r} names no unit", pointer=PATH)
        unit = f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
    return parent or ("user.slice" if rootless else "system.slice"), unit


def expand(name: str) -> str:
    """Return the path of a slice: "a-b.slice" is "/a.slice/a-b.slice", "-.slice" is the root.

    Raises:
        Failure: systemd would refuse the name.

    """
    stem = name.removesuffix(".slice")
    if stem == name or "/" in name:
        raise Failure(f"invalid slice name: {name}", pointer=PATH)
    if stem == "-":
        return ""
    path = prefix = ""
    for part in stem.split("-"):
        if not part:
            raise Failure(f"invalid slice name: {name}", pointer=PATH)
        prefix += part
        path += f"/{prefix}.slice"
        prefix += "-"
    return path


def paths(facts: CgroupFacts, wanted: str, container_id: str) -> dict[str, str]:
    """Return controller -> the directory that systemd will give the unit.

    Raises:
        Failure: cgroupsPath is no name for systemd, or the systemd of an ordinary user cannot be found.

    """
    parent, unit = names(wanted, container_id, rootless=facts.rootless)
    inner = f"{expand(parent)}/{unit}"
    if facts.rootless:
        # A user's units are below the user's systemd. So is pyrunc, or no cgroup could be delegated to it.
        own = facts.own.get("", "")
        parts = own.split("/")
        for index, part in enumerate(parts):
            if part.startswith("user@") and part.endswith(".service"):
                inner = "/".join(parts[: index + 1]) + inner
                break
        else:
            raise Failure(
                f"no systemd user manager above the runtime's own cgroup {own or '/'}",
                pointer=PATH,
                hint="start from a login session, or give --cgroup-manager cgroupfs",
            )
    return {name: mount + inner for name, mount in facts.mounts.items()}


def unit(config: dict[str, Any], facts: CgroupFacts, container_id: str) -> Unit:
    """Return the unit with all its properties.

    Raises:
        Failure: an annotation's name or value is invalid.

    """
    linux = config.get("linux") or {}
    wanted = linux.get("cgroupsPath") or ""
    parent, name = names(wanted, container_id, rootless=facts.rootless)
    properties: list[Property] = [("Description", "s", f"pyrunc container {container_id}", 0)]
    if name.endswith(".slice"):
        properties.append(("Wants", "as", [parent], 0))
    else:
        properties += [("Slice", "s", parent, 0), ("Delegate", "b", True, 0)]
    accounting = ("Memory", "CPU", "Tasks", "IO" if facts.version == 2 else "BlockIO")
    properties += [(kind + "Accounting", "b", True, 0) for kind in accounting]
    properties.append(("DefaultDependencies", "b", False, 0))
    resources = linux.get("resources") or {}
    properties += limits(resources, facts.version)
    if facts.version == 2 and "memory.oom.group" in (resources.get("unified") or {}):
        # They cannot be changed while the unit runs.
        policy = "kill" if resources["unified"]["memory.oom.group"].strip() == "1" else "continue"
        properties.append(("OOMPolicy", "s", policy, 253))
    properties += asked(config.get("annotations") or {})
    return Unit(name=name, properties=properties, user=facts.rootless)


def limits(resources: dict[str, Any], version: int) -> list[Property]:
    """Return the limits for which systemd has properties, so that it does not set its defaults for them."""
    from pyrunc.plan.cgroup_limits import weight

    found: list[Property] = []
    memory, cpu = resources.get("memory") or {}, resources.get("cpu") or {}
    limit, swap = memory.get("limit") or 0, memory.get("swap") or 0
    if limit:
        found.append(("MemoryMax" if version == 2 else "MemoryLimit", "t", _number(limit), 0))
    if version == 2:
        if memory.get("reservation"):
            found.append(("MemoryLow", "t", _number(memory["reservation"]), 0))
        if swap < 0 or (limit == -1 and not swap):
            found.append(("MemorySwapMax", "t", _INFINITY, 0))
        elif 0 < limit <= swap:
            found.append(("MemorySwapMax", "t", swap - limit, 0))
    if cpu.get("idle") == 1 and version == 2:
        found.append(("CPUWeight", "t", 0, 252))
    elif cpu.get("shares"):
        name, value = ("CPUWeight", weight(cpu["shares"])) if version == 2 else ("CPUShares", cpu["shares"])
        found.append((name, "t", value, 0))
    found += _quota(cpu.get("quota") or 0, cpu.get("period") or 0)
    if version == 2:
        for key, name in (("cpus", "AllowedCPUs"), ("mems", "AllowedMemoryNodes")):
            if cpu.get(key):
                found.append((name, "ay", bits(cpu[key]), 244))
    elif (resources.get("blockIO") or {}).get("weight"):
        found.append(("BlockIOWeight", "t", resources["blockIO"]["weight"], 0))
    pids = (resources.get("pids") or {}).get("limit")
    if pids is not None:
        found.append(("TasksMax", "t", _number(pids or 1), 0))
    return found + unified(resources.get("unified") or {})


def _number(value: int) -> int:
    return _INFINITY if value < 0 else value


def _quota(quota: int, period: int) -> list[Property]:
    found: list[Property] = []
    if period:
        found.append(("CPUQuotaPeriodUSec", "t", period, 242))
    if quota or period:
        per_second = _INFINITY
        if quota > 0:
            exact = -(-quota * 1_000_000 // (period or _PERIOD) // 10_000) * 10_000
            per_second = min(exact, _INFINITY)
        found.append(("CPUQuotaPerSecUSec", "t", per_second, 0))
    return found


def round_quota(resources: dict[str, Any]) -> dict[str, Any]:
    """Return the resources with the quota as systemd rounds it: whole percents of a processor, rounded up.

    It is also written to the file, so that both are equal and no child's quota is larger than its parent's.
    """
    cpu = resources.get("cpu") or {}
    quota, period = cpu.get("quota") or 0, cpu.get("period") or _PERIOD
    if quota <= 0:
        return resources
    percents = -(-quota * 100 // period)
    return {**resources, "cpu": {**cpu, "quota": percents * period // 100}}


def unified(values: dict[str, str]) -> list[Property]:
    """Return the properties for files of the unified hierarchy; a file without one is only written."""
    found: list[Property] = []
    idle = values.get("cpu.idle", "").strip() == "1"
    for file, text in values.items():
        value = text.strip()
        if file == "cpu.idle" and idle:
            found.append(("CPUWeight", "t", 0, 252))
        elif file == "cpu.max":
            word, _, rest = value.partition(" ")
            quota = -1 if word == "max" else decimal(word, _INFINITY)
            period = decimal(rest.strip() or str(_PERIOD), _INFINITY)
            if quota is not None and period:
                found += _quota(quota, period)
        elif file in ("cpuset.cpus", "cpuset.mems"):
            name = "AllowedCPUs" if file == "cpuset.cpus" else "AllowedMemoryNodes"
            found.append((name, "ay", bits(value), 244))
        elif file in _NUMBERS and not (file == "cpu.weight" and idle):
            number = _INFINITY if value == "max" else decimal(value, _INFINITY)
            if number is not None:
                found.append((_NUMBERS[file], "t", number or (1 if file == "pids.max" else 0), 0))
    return found


def bits(ranges: str) -> bytes:
    """Return a list such as "0-3,7" as a mask, lowest byte first, as D-Bus wants it."""
    mask = 0
    for part in ranges.replace("\n", ",").split(","):
        first, _, last = part.strip().partition("-")
        low, high = decimal(first, 1 << 16), decimal(last or first, _INFINITY)
        if low is not None and high is not None:
            for number in range(low, min(high, 1 << 16) + 1):
                mask |= 1 << number
    return mask.to_bytes((mask.bit_length() + 7) // 8, "little")


# ----------------------------------------------------------------------------------------------- annotations


# Properties with an effect outside the container's own unit (CVE-2024-3154: the user who starts a container
# can often set its annotations): on the host, on other units, or on other processes, which would be moved
# into this unit and killed with it.
_BEYOND = frozenset(
    (
        "BindsTo",
        "Conflicts",
        "ControlGroup",
        "FailureAction",
        "JobTimeoutAction",
        "JobTimeoutRebootArgument",
        "JoinsNamespaceOf",
        "OnFailure",
        "OnSuccess",
        "PIDFDs",
        "PIDs",
        "PropagatesReloadTo",
        "PropagatesStopTo",
        "RebootArgument",
        "Requires",
        "Requisite",
        "Slice",
        "StartLimitAction",
        "SuccessAction",
        "Upholds",
        "Wants",
    )
)


def asked(values: dict[str, str]) -> list[Property]:
    """Return the properties that annotations "org.systemd.property.NAME" ask for.

    Raises:
        Failure: NAME cannot be a property, or the value is not in GVariant's text form.

    """
    found: list[Property] = []
    for key, text in values.items():
        if not key.startswith(_ANNOTATION):
            continue
        pointer = "/annotations/" + key.replace("~", "~0").replace("/", "~1")
        name = key[len(_ANNOTATION) :]
        if len(name) < 3 or not (name.isascii() and name.isalpha()):
            raise Failure(f"{name!r} cannot be a systemd property", pointer=pointer)
        if name in _BEYOND:
            raise Failure(f"the systemd property {name} reaches beyond the container's unit", pointer=pointer)
        read = _read(text.strip())
        if read is not None and name.endswith("Sec") and not name.endswith("USec"):
            name, read = _timed(name, *read)
        if read is None:
            raise Failure(
                f"{text!r} is no value",
                pointer=pointer,
                hint="write it as GVariant text: true, 'words', uint64 5, ['a', 'b']",
            )
        found.append((name, *read, 0))
    return found


def _timed(name: str, signature: str, value: object) -> tuple[str, tuple[str, object] | None]:
    """Return a time as D-Bus wants it: in microseconds; unit files have seconds."""
    if not isinstance(value, (int, float)):
        return name, (signature, value)
    exact = value * 1_000_000
    return name[:-3] + "USec", ("t", int(exact)) if 0 <= exact <= _INFINITY else None


_TYPES = {
    "byte": "y",
    "int16": "n",
    "uint16": "q",
    "int32": "i",
    "uint32": "u",
    "int64": "x",
    "uint64": "t",
    "double": "d",
    "handle": "h",
}
_BITS = {"y": 8, "n": -16, "q": 16, "i": -32, "u": 32, "x": -64, "t": 64, "h": 32}  # negative: signed
_DEPTH = 8  # of arrays; no property has more than two


def _sized(signature: str, value: object) -> tuple[str, object]:
    """Return a value of a type if it is valid for it.

    Raises:
        ValueError: it is too large, or there is no such type.

    """
    if signature in _BITS:
        bits = _BITS[signature]
        low, high = (0, 1 << bits) if bits > 0 else (-(1 << -bits - 1), 1 << -bits - 1)
        if type(value) is int and low <= value < high:
            return signature, value
    elif signature == "d" and isinstance(value, (int, float)):
        return signature, float(value)
    elif (signature == "b" and type(value) is bool) or (signature == "s" and isinstance(value, str)):
        return signature, value
    raise ValueError(signature)


def _read(text: str) -> tuple[str, object] | None:
    """Return (signature, value) of a whole text, None if it is not one value."""
    try:
        signature, value, rest = _variant(text, _DEPTH)
    except (ValueError, IndexError, OverflowError):
        return None
    return None if rest.strip() else (signature, value)


def _variant(text: str, depth: int, *, typed: bool = False) -> tuple[str, object, str]:
    """Parse one GVariant text value; return (signature, value, rest of the text).

    Raises:
        ValueError, IndexError: there is no value.

    """
    if depth < 0:
        raise ValueError("too deep")
    if text[0] in "'\"":
        return _string(text)
    if text[0] == "[":
        return _array(text[1:].lstrip(), depth - 1)
    if text[0] == "@":
        signature, _, rest = text[1:].partition(" ")
        if signature == "as":
            _found, value, rest = _array(rest.lstrip()[1:].lstrip(), depth - 1)
            return signature, value, rest
        _found, value, rest = _variant(rest.lstrip(), depth - 1, typed=True)
        return (*_sized(signature, value), rest)
    word = text
    for stop in ",] ":
        word = word.partition(stop)[0]
    rest = text[len(word) :]
    if word in _TYPES:
        _found, value, rest = _variant(rest.lstrip(), depth - 1, typed=True)
        return (*_sized(_TYPES[word], value), rest)
    if word in ("true", "false"):
        return "b", word == "true", rest
    if "." in word or "e" in word.lower().removeprefix("0x"):
        return "d", float(word), rest
    number = int(word, 0)
    return ("i", number, rest) if typed else (*_sized("i", number), rest)


def _string(text: str) -> tuple[str, object, str]:
    quote, made, index = text[0], "", 1
    while text[index] != quote:
        if text[index] == "\\":
            index += 1
            made += {"n": "\n", "t": "\t"}.get(text[index], text[index])
        else:
            made += text[index]
        index += 1
    return "s", made, text[index + 1 :]


def _array(text: str, depth: int) -> tuple[str, object, str]:
    items: list[object] = []
    signature = "s"
    while text[0] != "]":
        signature, item, text = _variant(text, depth)
        items.append(item)
        text = text.lstrip()
        if text[0] == ",":
            text = text[1:].lstrip()
        elif text[0] != "]":
            raise ValueError(text)
    return "a" + signature, items, text[1:]
