"""The mounts array, lowered to steps in its own order.

Law 1: pure; which file system a source lies on, or whether a target exists, is asked when the step is carried
out.
Source: runtime-spec config.md "Mounts".
"""

from __future__ import annotations

from pyrunc.errors import Failure
from pyrunc.plan import mount_options, namespaces
from pyrunc.plan.mount_options import Options
from pyrunc.plan.steps import EnterCgroupNamespace, Mount, Step, Symlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.facts import Facts
    from pyrunc.plan.steps import Namespaces
    from pyrunc.spec.types import Config
    from pyrunc.spec.types import Mount as MountEntry

# File systems whose read-only state belongs to the mount, not to the (shared or kernel-made) superblock.
PSEUDO = frozenset(("proc", "sysfs", "tmpfs", "ramfs", "devpts", "mqueue", "cgroup", "cgroup2", "overlay"))

_PROPAGATION = {
    "shared": mount_options.SHARED,
    "slave": mount_options.SLAVE,
    "private": mount_options.PRIVATE,
    "unbindable": mount_options.UNBINDABLE,
}


def root_propagation(config: Config) -> tuple[int, bool]:
    """Return linux.rootfsPropagation as (flag, recursive), (0, False) when it is not given.

    Raises:
        Failure: it is no propagation type.

    """
    word = (config.get("linux") or {}).get("rootfsPropagation") or ""
    if not word:
        return 0, False
    recursive = word.startswith("r")
    flag = _PROPAGATION.get(word[1:] if recursive else word)
    if flag is None:
        raise Failure(
            f"rootfsPropagation={word} is not supported",
            pointer="/linux/rootfsPropagation",
            hint="use " + ", ".join((*_PROPAGATION, *("r" + name for name in _PROPAGATION))),
        )
    return flag, recursive


def tree_propagation(config: Config) -> int:
    """Return what the tree inherited from the host becomes: never shared, or mounts would flow there."""
    flag, _recursive = root_propagation(config)
    if flag in (mount_options.PRIVATE, mount_options.UNBINDABLE):
        return mount_options.PRIVATE
    return mount_options.SLAVE


def problems(config: Config) -> list[Failure]:
    """Return what is wrong with the entries of the mounts array, one each: for a report on the whole file."""
    found = []
    for index, entry in enumerate(config.get("mounts") or ()):
        try:
            _entry(index, entry)
        except Failure as problem:
            found.append(problem)
    return found


def lower(
    config: Config, facts: Facts, spaces: Namespaces, cgroup_paths: dict[str, str], rootfs: str
) -> list[Step]:
    """Return the steps of the mounts array.

    Args:
        config: an accepted config.json.
        facts: the host.
        spaces: the namespaces step, which decides how /sys and cgroups can be mounted.
        cgroup_paths: where the container's cgroups will be: controller -> directory.
        rootfs: absolute path of the root file system on the host.

    Raises:
        Failure: an entry that can never be mounted; the pointer says which.

    """
    made: list[Step] = []
    flag, _ = root_propagation(config)
    inherited = 0 if flag == mount_options.SHARED else tree_propagation(config)
    kinds = namespaces.paths(config)
    entered = False
    for index, entry in enumerate(config.get("mounts") or ()):
        mount = _entry(index, entry)
        if mount.destination.startswith(rootfs + "/") and rootfs != "/":
            # Some callers name the mount point as the host sees it; every runtime takes that for the place
            # inside.
            mount.destination = mount.destination[len(rootfs) :]
        if mount.kind == "bind":
            mount.default_propagation = inherited
            if mount.source.startswith(rootfs + "/") and rootfs != "/":
                # What lies there is known only once the mounts before it are made: order is the list's order.
                mount.kind, mount.source = "inner-bind", mount.source[len(rootfs) :]
        if mount.fstype == "overlay" and mount.kind == "new":
            mount.early = not _touches(mount.options, rootfs)
        if mount.fstype in ("cgroup", "cgroup2") and mount.kind == "new":
            if not entered:
                made.append(EnterCgroupNamespace(new="cgroup" in kinds and not kinds["cgroup"]))
                entered = True
            made += _cgroup(mount, facts, cgroup_paths, own_view="cgroup" in kinds, user="user" in kinds)
            continue
        if mount.fstype == "sysfs" and mount.kind == "new" and _needs_host_sys(spaces, facts, kinds):
            # A new sysfs wants a network namespace that the container's user namespace owns. What is asked to
            # be read-only must be so for everything visible there (CVE-2023-25809).
            options = mount.options
            options.rattr_set |= options.attr_set
            options.attr_set = 0
            mount.kind, mount.source, options.bind, options.data = "bind", "/sys", "rbind", ()
            mount.default_propagation = inherited
        made.append(mount)
    if not entered:
        made.append(EnterCgroupNamespace(new="cgroup" in kinds and not kinds["cgroup"]))
    return made


def _touches(options: Options, rootfs: str) -> bool:
    """Tell whether a layer of an overlay lies in the root file system, where mounts before it count.

    A relative layer is taken for one: nobody can tell where it lies.
    """
    for word in options.data:
        name, _, value = word.partition("=")
        if name in ("lowerdir", "upperdir", "workdir"):
            for path in value.replace("\\:", "").split(":"):
                if not path.startswith("/") or (path + "/").startswith(rootfs.rstrip("/") + "/"):
                    return True
    return False


def _needs_host_sys(spaces: Namespaces, facts: Facts, kinds: dict[str, str]) -> bool:
    owner = spaces.flags & namespaces.NEWUSER or facts.in_user_namespace or facts.euid != 0
    return bool(owner) and not ("network" in kinds and not kinds["network"])


def _entry(index: int, entry: MountEntry) -> Mount:
    pointer = f"/mounts/{index}"
    words = entry.get("options") or []
    options = mount_options.parse(words)
    fstype = entry.get("type") or ""
    destination = "/" + entry["destination"].strip("/")
    if destination == "/":
        raise Failure(
            "the mount point is on the top of rootfs: nothing can be mounted on /",
            pointer=pointer + "/destination",
            hint="name the file system to use as root in /root/path",
        )
    if not options.bind:
        if fstype in ("bind", "none"):
            raise Failure(
                f"type {fstype} needs the option bind or rbind",
                pointer=pointer,
                hint='add "rbind" to its options, or name a file system type',
            )
        if not fstype:
            raise Failure(
                "no type, and no option bind or rbind",
                pointer=pointer,
                hint='add "rbind" to its options, or name a file system type',
            )
        return _new(index, destination, entry, options)
    subpath = ""
    for word in options.data:
        if not word.startswith("subpath="):
            raise _unknown_option(words, word, pointer)
        subpath = word[8:]
    options.data = ()
    if not entry.get("source"):
        raise Failure("a bind mount needs a source", pointer=pointer)
    return Mount(
        kind="bind",
        index=index,
        destination=destination,
        source=entry["source"],
        fstype="bind",
        options=options,
        make="source",
        pointer=pointer,
        uid_maps=namespaces.id_maps(entry.get("uidMappings")),
        gid_maps=namespaces.id_maps(entry.get("gidMappings")),
        recursive_idmap=options.idmap.startswith("ridmap"),
        subpath=subpath,
    )


def _new(index: int, destination: str, entry: MountEntry, options: Options) -> Mount:
    pointer = f"/mounts/{index}"
    fstype = entry.get("type") or ""
    if entry.get("uidMappings") or entry.get("gidMappings") or options.idmap:
        raise Failure("only bind mounts can be id-mapped", pointer=pointer)
    return Mount(
        kind="new",
        index=index,
        destination=destination,
        source=entry.get("source") or fstype,
        fstype=fstype,
        options=options,
        no_symlink=fstype in ("proc", "sysfs"),
        readonly_last=bool(options.attr_set & mount_options.RDONLY)
        and (fstype == "tmpfs" or destination == "/dev"),
        pointer=pointer,
    )


def _unknown_option(words: list[str], word: str, pointer: str) -> Failure:
    import difflib  # the configuration is refused: from here on explaining well counts, not speed

    near = difflib.get_close_matches(word, mount_options.OPTIONS, 1)
    guess = f', did you mean "{near[0]}"?' if near else ""
    return Failure(
        f'"{word}" is not a mount option{guess} '
        "(bind mounts cannot have any filesystem-specific options applied)",
        pointer=f"{pointer}/options/{words.index(word)}",
    )


def _cgroup(mount: Mount, facts: Facts, paths: dict[str, str], *, own_view: bool, user: bool) -> list[Step]:
    """Return what a cgroup entry becomes: one mount on version 2, a directory of hierarchies on version 1."""
    host = facts.cgroup
    if host.version == 0:
        raise Failure("no cgroup hierarchy is mounted on this host", pointer=mount.pointer)
    if host.version == 2:
        mount.fstype = "cgroup2"
        if user and not own_view and "" in paths:
            mount.kind, mount.source, mount.fstype = "late-bind", paths[""], "bind"
        return [mount]
    return _cgroup_v1(mount, facts, paths, own_view=own_view)


def _cgroup_v1(mount: Mount, facts: Facts, paths: dict[str, str], *, own_view: bool) -> list[Step]:
    options = mount.options
    readonly = options.attr_set & mount_options.RDONLY
    safe = mount_options.NOSUID | mount_options.NODEV | mount_options.NOEXEC
    top = Mount(
        kind="new",
        index=mount.index,
        destination=mount.destination,
        source="tmpfs",
        fstype="tmpfs",
        options=Options(attr_set=options.attr_set | safe, atime=options.atime, data=("mode=755",)),
        readonly_last=bool(readonly),
        pointer=mount.pointer,
    )
    steps: list[Step] = [top]
    by_place: dict[str, list[str]] = {}
    for name, place in facts.cgroup.mounts.items():
        by_place.setdefault(place, []).append(name)
    for place, names in by_place.items():
        base = place.rpartition("/")[2]
        data = tuple(names)
        fstype = "cgroup2" if names == [""] else "cgroup"
        source = fstype
        kind = "new"
        if not own_view or names[0] not in paths:
            if names[0] not in paths:
                continue
            kind, source, data, fstype = "late-bind", paths[names[0]], (), "bind"
        elif fstype == "cgroup2":
            data = ()
        steps.append(
            Mount(
                kind=kind,
                index=mount.index,
                destination=f"{mount.destination}/{base}",
                source=source,
                fstype=fstype,
                options=Options(attr_set=options.attr_set | safe, data=data),
                pointer=mount.pointer,
            )
        )
        steps += [
            Symlink(path=f"{mount.destination}/{name}", target=base, pointer=mount.pointer)
            for name in names
            if name and name != base and not name.startswith("name=")
        ]
    return steps
