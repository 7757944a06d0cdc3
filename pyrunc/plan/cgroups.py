"""linux.cgroupsPath and linux.resources as data: which directories, which files and values, in which order.

Law 1: everything that will be written to a cgroup is decided here, from the configuration and the host's
hierarchies; apply/cgroups only makes directories and writes lines. The values come from cgroup_limits, the
device rules from cgroup_devices; both are imported only if the configuration needs them.

Sources: runtime-spec config-linux.md "Control groups" (1.3), cgroups(7), Documentation/admin-guide/cgroup-v1/
and cgroup-v2.rst of Linux 6.18.
"""

from __future__ import annotations

from pyrunc.errors import Failure
from pyrunc.plan.cgroup_plan import DEFAULT_DEVICES, RESOURCES, CgroupPlan, CgroupWrite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.plan.facts import CgroupFacts


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
    from pyrunc.plan import mount_options, paths

    for mount in config.get("mounts") or ():
        if mount.get("source") == "cgroup" and paths.clean(mount["destination"]) == "/sys/fs/cgroup":
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
