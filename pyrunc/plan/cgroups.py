"""linux.cgroupsPath and linux.resources as data: which directories, which files and values, in which order.

Law 1: everything that will be written to a cgroup is decided here, from the configuration and the host's
hierarchies; apply/cgroups only makes directories and writes lines. The values come from cgroup_limits, the
device rules from cgroup_devices; both are imported only if the configuration needs them.

Sources: runtime-spec config-linux.md "Control groups" (1.3), cgroups(7), Documentation/admin-guide/cgroup-v1/
and cgroup-v2.rst of Linux 6.18.
"""

from __future__ import annotations

from pyrunc.errors import Failure
from pyrunc.plan.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.plan.cgroup_systemd import Unit
    from pyrunc.plan.intel_rdt import IntelRdtPlan

RESOURCES = "/linux/resources"

# The device rules that every engine expects from a runtime, added after the configuration's (whose first rule
# usually is "deny all"): make any node (a node alone opens nothing), and use the harmless memory devices,
# terminals and tun.
DEFAULT_DEVICES = (
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",  # null
    "c 1:5 rwm",  # zero
    "c 1:7 rwm",  # full
    "c 1:8 rwm",  # random
    "c 1:9 rwm",  # urandom
    "c 5:0 rwm",  # tty
    "c 5:2 rwm",  # ptmx
    "c 136:* rwm",  # pts/*
    "c 10:200 rwm",  # net/tun
)


class CgroupFacts(Record):
    """What the planner may know of the host's cgroup hierarchies.

    Attributes:
        version: 2 if there is only the unified hierarchy, 1 for version 1 with or without a unified one
            beside it, 0 when nothing is mounted.
        mounts: controller (or "name=systemd"; "" for the unified hierarchy) -> mount point of its hierarchy.
        own: the same keys -> the runtime's own cgroup in that hierarchy, as a path below the mount.
        controllers: controllers that can be enabled in the unified hierarchy (cgroup.controllers of its
            root).
        rootless: without the host's full rights: an ordinary user, or root of a user namespace.
        rdt: where the resctrl filesystem is mounted, "" when it is not.

    """

    version: int
    mounts: dict[str, str]
    own: dict[str, str]
    controllers: tuple[str, ...] = ()
    rootless: bool = False
    rdt: str = ""


class CgroupWrite(Record):
    """One setting: a file of the container's cgroup and its value.

    Attributes:
        controller: the key of CgroupPlan.paths in whose directory the file is ("" in the unified hierarchy).
        file: the file's name, one path component.
        value: what to write; each line is one write, because the kernel accepts one setting at a time.
        pointer: the place in config.json that asked for it.
        other: (file, value) to use if the first file does not exist: the same limit under another I/O
            scheduler.
        optional: "missing" when a host without the file already does what is asked, "denied" when in addition
            a refusal for want of rights changes nothing (device rules in a user namespace).

    """

    controller: str
    file: str
    value: str
    pointer: str
    other: tuple[str, str] | None = None
    optional: str = ""

    def describe(self) -> str:
        """Return one line for people."""
        value = self.value.replace("\n", ", ")
        return f"{self.controller or 'unified'}: {self.file} = {value}"


class CgroupPlan(Record):
    """The container's cgroup and its settings.

    Attributes:
        manager: "cgroupfs", "systemd" or "disabled".
        version: as in CgroupFacts.
        roots: controller -> mount point of its hierarchy; nothing above it is changed.
        paths: controller -> the container's directory, absolute. Empty if no cgroup is made.
        writes: the settings, in order. One the kernel calls invalid is tried again after the others: many are
            only valid together with a partner (quota and period, memory and memory+swap), in an order that
            depends on the present values.
        enable: controllers to enable from the root of the unified hierarchy down.
        needed: controller of the unified hierarchy -> pointer of the first limit that needs it.
        devices: a program for BPF_CGROUP_DEVICE (version 2), b"" for none.
        devices_optional: a missing right to load it is no failure (user namespace).
        optional: rootless, and no cgroup was asked for by name: without the right to make it the container
            does without, unless a limit depends on it.
        spared: hierarchies an ordinary user's container does without in the same way although a cgroup was
            asked for by name: beside version 1 the unified one, which engines do not delegate then.
        owner: host user id the cgroup is handed to, -1 to keep it.
        check: (limit, memory plus swap) in bytes that must not be below the present use, 0 for none.
        unit: what to ask of systemd, None without it.
        rdt: the resctrl group, None without one; its directories are in paths too.

    """

    manager: str
    version: int
    roots: dict[str, str]
    paths: dict[str, str]
    writes: list[CgroupWrite]
    enable: tuple[str, ...] = ()
    needed: dict[str, str]
    devices: bytes = b""
    devices_optional: bool = False
    optional: bool = False
    spared: tuple[str, ...] = ()
    owner: int = -1
    check: tuple[int, int] = (0, 0)
    unit: Unit | None = None
    rdt: IntelRdtPlan | None = None

    def describe(self) -> list[str]:
        """Return the lines `pyrunc plan` shows."""
        lines = [f"cgroup {path}" for path in dict.fromkeys(self.paths[name] for name in self.roots)]
        if self.unit is not None:
            lines += self.unit.describe()
        lines += [write.describe() for write in self.writes]
        if self.devices:
            lines.append(f"device filter: {len(self.devices) // 8} BPF instructions")
        if self.owner >= 0:
            lines.append(f"owner of the cgroup: uid {self.owner}")
        if self.rdt is not None:
            lines += self.rdt.describe()
        return lines


def plan(
    config: dict[str, Any],
    facts: CgroupFacts,
    container_id: str,
    manager: str = "cgroupfs",
) -> CgroupPlan:
    """Decide on the container's cgroup.

    Args:
        config: an accepted config.json.
        facts: the host's hierarchies.
        container_id: name of the cgroup if the configuration has none.
        manager: "cgroupfs", "systemd" or "disabled".

    Raises:
        Failure: this host, or this version of cgroups, cannot do what a place in the configuration asks for.

    """
    linux = config.get("linux") or {}
    made = _plan(linux, config, facts, container_id, manager)
    if linux.get("intelRdt") is not None:
        from pyrunc.plan import intel_rdt

        made.rdt = intel_rdt.plan(linux["intelRdt"], facts.rdt, container_id)
        made.paths.update(made.rdt.paths())
    return made


def _plan(
    linux: dict[str, Any], config: dict[str, Any], facts: CgroupFacts, container_id: str, manager: str
) -> CgroupPlan:
    resources = linux.get("resources") or {}
    if manager == "disabled":
        _refuse_limits(resources, "the cgroup manager is disabled")
        return CgroupPlan(manager=manager, version=facts.version, roots={}, paths={}, writes=[], needed={})
    if not facts.mounts:
        _refuse_limits(resources, "no cgroup hierarchy is mounted on this host")
        if not facts.rootless:
            hint = "mount one on /sys/fs/cgroup, or give --cgroup-manager disabled"
            raise Failure("no cgroup hierarchy is mounted on this host", hint=hint)
        return CgroupPlan(manager=manager, version=0, roots={}, paths={}, writes=[], needed={})
    wanted = linux.get("cgroupsPath") or ""
    if manager == "systemd":
        from pyrunc.plan import cgroup_systemd

        paths = cgroup_systemd.paths(facts, wanted, container_id)
    else:
        paths = _paths(facts, wanted, container_id)
    made = CgroupPlan(
        manager=manager,
        version=facts.version,
        roots={name: facts.mounts[name] for name in paths},
        paths=paths,
        writes=[],
        needed={},
        enable=facts.controllers if facts.version == 2 else (),
        owner=_owner(config) if facts.version == 2 else -1,
    )
    made.optional = facts.rootless and not wanted
    if facts.rootless and facts.version == 1:
        made.spared = ("",)
    if manager == "systemd":
        made.unit = cgroup_systemd.unit(config, facts, container_id)
        resources = cgroup_systemd.round_quota(resources)
    set_resources(made, resources, facts)
    return made


def set_resources(
    made: CgroupPlan,
    resources: dict[str, Any],
    facts: CgroupFacts,
    *,
    update: bool = False,
    devices_list: str = "",
) -> None:
    """Add what follows from linux.resources.

    Args:
        made: gets writes, needed, devices, enable and check.
        resources: the section; for an update only what is to change, with the partners it depends on.
        facts: the host's hierarchies.
        update: the cgroup is in use: device rules stay as they are unless new ones are given.
        devices_list: its present devices.list (version 1), so that nothing is denied for a moment that is
            allowed before and after.

    Raises:
        Failure: as plan().

    """
    if not update or resources.get("devices") is not None:
        _set_devices(made, resources.get("devices") or [], facts, devices_list)
    for name in resources:
        if name != "devices":
            from pyrunc.plan import cgroup_limits

            cgroup_limits.add(made, resources, facts, update=update)
            break


def _paths(facts: CgroupFacts, wanted: str, container_id: str) -> dict[str, str]:
    """Return controller -> directory for the cgroupfs manager.

    An absolute cgroupsPath starts at the mount point. A relative one, or the default (the container's id),
    starts at pyrunc's own cgroup; on pure version 2 beside it, because a cgroup with processes cannot enable
    controllers for its children ("no internal processes").
    """
    inner = clean(wanted) if wanted else "/" + container_id
    if wanted.startswith("/"):
        if inner == "/":
            raise Failure("the root cgroup cannot be a container's", pointer="/linux/cgroupsPath")
        return {name: mount + inner for name, mount in facts.mounts.items()}
    if inner == "/":
        raise Failure(f"{wanted!r} names no cgroup", pointer="/linux/cgroupsPath")
    paths = {}
    for name, mount in facts.mounts.items():
        own = facts.own.get(name, "/")
        if facts.version == 2:
            own = own.rpartition("/")[0]
        if own.startswith("/.."):
            raise Failure(
                f"the runtime's own cgroup {own} is outside what is mounted on {mount}",
                pointer="/linux/cgroupsPath",
                hint="give an absolute cgroupsPath",
            )
        paths[name] = mount + own.rstrip("/") + inner
    return paths


def clean(path: str) -> str:
    """Return a path with a leading slash and without "", "." and ".." components, never above its root.

    Raises:
        Failure: the kernel would refuse a component as a name.

    """
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            if "\0" in part or "\n" in part or len(part.encode()) > 255:
                raise Failure(f"{part[:40]!r} cannot be a cgroup's name", pointer="/linux/cgroupsPath")
            parts.append(part)
    return "/" + "/".join(parts)


def _limits(resources: dict[str, Any]) -> list[str]:
    """Return the names of the sections with limits; device rules are no limit."""
    return [name for name, value in resources.items() if value and name != "devices" and _asks(value)]


def _asks(value: object) -> bool:
    if isinstance(value, dict):
        return any(_asks(item) for item in value.values())
    return bool(value)


def _refuse_limits(resources: dict[str, Any], why: str) -> None:
    for name in _limits(resources):
        raise Failure(f"cannot set {name} limits: {why}", pointer=f"{RESOURCES}/{name}")


def _set_devices(
    made: CgroupPlan,
    rules: list[dict[str, Any]],
    facts: CgroupFacts,
    devices_list: str,
) -> None:
    """Add the device rules: nothing is allowed at first, even without any rules (see cgroup_devices)."""
    pointer = RESOURCES + "/devices"
    default = not rules or (len(rules) == 1 and _denies_all(rules[0]))
    made.devices_optional = facts.rootless
    if facts.version == 2:
        from pyrunc.plan import cgroup_devices

        made.devices = cgroup_devices.program(cgroup_devices.parse(rules))
        return
    if "devices" not in made.paths:
        if facts.rootless:
            return
        raise Failure(
            "device access cannot be restricted: no cgroup hierarchy with the devices controller is mounted",
            pointer=pointer,
            hint="mount -t cgroup -o devices cgroup /sys/fs/cgroup/devices",
        )
    if devices_list:
        from pyrunc.plan import cgroup_devices

        lines = cgroup_devices.transition(devices_list, cgroup_devices.parse(rules))
    elif default:
        lines = [("devices.deny", "a"), ("devices.allow", "\n".join(DEFAULT_DEVICES))]
    else:
        from pyrunc.plan import cgroup_devices

        lines = cgroup_devices.lines(cgroup_devices.parse(rules))
    optional = "denied" if facts.rootless else ""
    made.writes += [
        CgroupWrite(controller="devices", file=file, value=value, pointer=pointer, optional=optional)
        for file, value in lines
    ]


def _denies_all(rule: dict[str, Any]) -> bool:
    return (
        not rule.get("allow")
        and rule.get("type") in (None, "", "a")
        and rule.get("major") in (None, -1)
        and rule.get("minor") in (None, -1)
        and rule.get("access") == "rwm"
    )


def _owner(config: dict[str, Any]) -> int:
    """Return the host user id for the delegation of the cgroup, -1 for none.

    runtime-spec "Cgroup ownership": only with a cgroup namespace of the container's own and a writable cgroup
    mount.
    """
    linux = config.get("linux") or {}
    if not any(ns.get("type") == "cgroup" and not ns.get("path") for ns in linux.get("namespaces") or ()):
        return -1
    from pyrunc.plan import mount_options, mounts

    for mount in config.get("mounts") or ():
        if mount.get("source") == "cgroup" and mounts.clean(mount["destination"]) == "/sys/fs/cgroup":
            options = mount_options.parse(mount.get("options") or [])
            if (options.attr_set | options.rattr_set) & mount_options.RDONLY:
                return -1
            break
    else:
        return -1
    uid = ((config.get("process") or {}).get("user") or {}).get("uid") or 0
    mappings = linux.get("uidMappings") or ()
    if not any(ns.get("type") == "user" for ns in linux.get("namespaces") or ()):
        mappings = ()
    if not mappings:
        return int(uid) or -1
    for mapping in mappings:
        first, size = mapping["containerID"], mapping["size"]
        if first <= uid < first + size:
            return int(mapping["hostID"] + uid - first)
    return -1
