"""A cgroup entry of the mounts array: one mount on version 2, a directory of hierarchies on version 1.

Law 1: pure. With a cgroup namespace of its own a new mount begins at the container's cgroup by itself
(cgroup_namespaces(7)). Without one a container gets a bind: of its own part of each hierarchy on version 1,
and of the host's mount on version 2, or of its own part there if it has a user namespace.

A new mount of version 2 from the initial cgroup namespace is never made: it would set the options of the one
hierarchy there is (nsdelegate, memory_recursiveprot, favordynmods) for the whole host to those of the
container, and waits 4 to 17 ms for the kernel to do so (measured on 6.18; the bind takes 0.02).
Source: runtime-spec config-linux.md "Cgroup ownership", cgroups(7).
"""

from __future__ import annotations

from pyrunc.errors import Failure
from pyrunc.plan import mount_options
from pyrunc.plan.mount_options import Options
from pyrunc.plan.steps import Mount, Step, Symlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.cgroups import CgroupFacts
    from pyrunc.plan.facts import Facts

_SAFE = mount_options.NOSUID | mount_options.NODEV | mount_options.NOEXEC


def lower(mount: Mount, facts: Facts, paths: dict[str, str], *, own_view: bool, user: bool) -> list[Step]:
    """Return the steps that a cgroup entry becomes.

    Args:
        mount: the entry as a new file system.
        facts: the host.
        paths: where the container's cgroups will be: controller -> directory.
        own_view: the container has a cgroup namespace.
        user: the container has a user namespace.

    Raises:
        Failure: the host has no cgroups.

    """
    host = facts.cgroup
    if host.version == 0:
        raise Failure("no cgroup hierarchy is mounted on this host", pointer=mount.pointer)
    if host.version != 2 and mount.fstype == "cgroup2":
        # A host with both versions, or with none of version 2 mounted: it is the one that is meant.
        own = paths.get("") or host.mounts.get("", "")
        return [mount] if own_view or not own else [_part(mount, mount.destination, "bind", bound=own)]
    if host.version != 2:
        return _hierarchies(mount, facts, paths, own_view=own_view)
    mount.fstype = "cgroup2"
    if own_view:
        return [mount]
    if user and "" in paths:
        return [_part(mount, mount.destination, "bind", bound=paths[""], instead=_stays(host, ""))]
    return [_part(mount, mount.destination, "bind", bound=host.mounts[""])]


def _stays(host: CgroupFacts, name: str) -> str:
    """Return where a container stays that has no cgroup of its own: the runtime's, if it is in sight."""
    own = host.own.get(name, "/")
    return host.mounts[name] + ("" if own.startswith("/..") else own.rstrip("/"))


def _hierarchies(mount: Mount, facts: Facts, paths: dict[str, str], *, own_view: bool) -> list[Step]:
    steps: list[Step] = [_part(mount, mount.destination, "tmpfs", ("mode=755",))]
    by_place: dict[str, list[str]] = {}
    for name, place in facts.cgroup.mounts.items():
        by_place.setdefault(place, []).append(name)
    for place, names in by_place.items():
        if names[0] not in paths and not own_view:
            continue
        base = place.rpartition("/")[2]
        here = f"{mount.destination}/{base}"
        if not own_view:
            instead = _stays(facts.cgroup, names[0])
            steps.append(_part(mount, here, "bind", bound=paths[names[0]], instead=instead))
        elif names == [""]:
            steps.append(_part(mount, here, "cgroup2"))
        else:
            steps.append(_part(mount, here, "cgroup", tuple(names)))
        steps += [
            Symlink(path=f"{mount.destination}/{name}", target=base, pointer=mount.pointer)
            for name in names
            if name and name != base and not name.startswith("name=")
        ]
    return steps


def _part(
    mount: Mount,
    destination: str,
    fstype: str,
    data: tuple[str, ...] = (),
    *,
    bound: str = "",
    instead: str = "",
) -> Mount:
    """Return one of the mounts, with the entry's own options and without what no cgroup needs.

    Args:
        mount: the entry.
        destination: where this one goes.
        fstype: its type.
        data: options of its file system.
        bound: the directory of the host it is a bind of, "" for a new file system.
        instead: what it is a bind of if the container does without that directory.

    """
    asked = mount.options
    options = Options(
        bind="bind" if bound else "",
        asked=True,
        attr_set=asked.attr_set | _SAFE,
        atime=asked.atime,
        propagation=asked.propagation,
    )
    own = options.own()
    mask, value = mount_options.demand(own, (0, 0))
    return Mount(
        kind="late-bind" if bound else "new",
        index=mount.index,
        destination=destination,
        source=bound or fstype,
        fstype=fstype,
        options=options,
        data=data,
        own_set=own[0],
        own_clear=own[1],
        implied_clear=own[2],
        must_mask=mask,
        must_be=value,
        locked=mount.locked,
        propagation=asked.propagation,
        expected=mount.expected,
        again=mount.again,
        # Hierarchies and links are still to be put into it.
        readonly_last=fstype == "tmpfs" and bool(asked.attr_set & mount_options.RDONLY),
        instead=instead,
        pointer=mount.pointer,
    )
