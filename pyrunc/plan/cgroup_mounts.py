"""A cgroup entry of the mounts array: one mount on version 2, a directory of hierarchies on version 1.

Law 1: pure. With a cgroup namespace of the container's own, a new mount begins at the container's cgroup
(cgroup_namespaces(7)). Without one a container gets a bind: on version 1 of its own part of each hierarchy;
on version 2 of the host's mount, or of its own part if it has a user namespace.

A new mount of version 2 is never made in the initial cgroup namespace. It would set the options of the only
hierarchy (nsdelegate, memory_recursiveprot, favordynmods) for the whole host to those of the container, and
take 4 to 17 ms (measured on 6.18; the bind takes 0.02 ms).

Source: runtime-spec config-linux.md "Cgroup ownership", cgroups(7).
"""

from __future__ import annotations

from pyrunc.errors import Failure
from pyrunc.plan import mount_options
from pyrunc.plan.mount_options import Options
from pyrunc.plan.mount_steps import CgroupBind, FileSystem
from pyrunc.plan.steps import Step, Symlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.facts import CgroupFacts, Facts
    from pyrunc.plan.mount_options import Attributes

_SAFE = mount_options.NOSUID | mount_options.NODEV | mount_options.NOEXEC


def lower(
    mount: FileSystem, facts: Facts, paths: dict[str, str], *, own_view: bool, user: bool
) -> list[Step]:
    """Return the steps for a cgroup entry.

    Args:
        mount: the entry as a new file system.
        facts: the host.
        paths: the container's cgroups: controller -> directory.
        own_view: the container has a cgroup namespace.
        user: the container has a user namespace.

    Raises:
        Failure: the host has no cgroups.

    """
    host = facts.cgroup
    if host.version == 0:
        raise Failure("no cgroup hierarchy is mounted on this host", pointer=mount.pointer)
    if host.version != 2 and mount.fstype == "cgroup2":
        # A host with both versions, or without a mounted version 2: version 1 is meant.
        own = paths.get("") or host.mounts.get("", "")
        return [mount] if own_view or not own else [_bind(mount, mount.destination, own, "")]
    if host.version != 2:
        return _hierarchies(mount, facts, paths, own_view=own_view)
    mount.fstype = "cgroup2"
    if own_view:
        return [mount]
    if user and "" in paths:
        return [_bind(mount, mount.destination, paths[""], _stays(host, ""))]
    return [_bind(mount, mount.destination, host.mounts[""], "")]


def _stays(host: CgroupFacts, name: str) -> str:
    """Return the cgroup of a container without one of its own: pyrunc's, if it can be seen."""
    own = host.own.get(name, "/")
    return host.mounts[name] + ("" if own.startswith("/..") else own.rstrip("/"))


def _hierarchies(mount: FileSystem, facts: Facts, paths: dict[str, str], *, own_view: bool) -> list[Step]:
    top = _new(mount, mount.destination, "tmpfs", ("mode=755",))
    # Hierarchies and links are still to be made in it.
    top.readonly_last = bool(mount.options.attr_set & mount_options.RDONLY)
    steps: list[Step] = [top]
    by_place: dict[str, list[str]] = {}
    for name, place in facts.cgroup.mounts.items():
        by_place.setdefault(place, []).append(name)
    for place, names in by_place.items():
        if names[0] not in paths and not own_view:
            continue
        base = place.rpartition("/")[2]
        here = f"{mount.destination}/{base}"
        if not own_view:
            steps.append(_bind(mount, here, paths[names[0]], _stays(facts.cgroup, names[0])))
        elif names == [""]:
            steps.append(_new(mount, here, "cgroup2", ()))
        else:
            steps.append(_new(mount, here, "cgroup", tuple(names)))
        steps += [
            Symlink(path=f"{mount.destination}/{name}", target=base, pointer=mount.pointer)
            for name in names
            if name and name != base and not name.startswith("name=")
        ]
    return steps


def _bind(mount: FileSystem, destination: str, bound: str, instead: str) -> CgroupBind:
    """Return one of the mounts as a bind of a cgroup, or of what replaces it if that is not made."""
    options = _options(mount, "bind")
    return CgroupBind(
        index=mount.index,
        destination=destination,
        source=bound,
        fstype="bind",
        options=options,
        attributes=_attributes(mount, options),
        instead=instead,
        pointer=mount.pointer,
    )


def _new(mount: FileSystem, destination: str, fstype: str, data: tuple[str, ...]) -> FileSystem:
    """Return one of the mounts as a new file system."""
    options = _options(mount, "")
    return FileSystem(
        index=mount.index,
        destination=destination,
        source=fstype,
        fstype=fstype,
        options=options,
        attributes=_attributes(mount, options),
        data=data,
        pointer=mount.pointer,
    )


def _options(mount: FileSystem, bind: str) -> Options:
    """Return the entry's own options, without those that a cgroup does not need."""
    asked = mount.options
    return Options(
        bind=bind,
        asked=True,
        attr_set=asked.attr_set | _SAFE,
        atime=asked.atime,
        propagation=asked.propagation,
    )


def _attributes(mount: FileSystem, options: Options) -> Attributes:
    made = mount_options.attributes(options)
    made.expected, made.again = mount.attributes.expected, mount.attributes.again
    return made
