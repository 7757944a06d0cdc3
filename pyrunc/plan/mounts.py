"""The mounts array, lowered to steps in its own order.

Law 1: pure; which file system a source lies on, or whether a target exists, is asked when the step is carried
out. Source: runtime-spec config.md "Mounts".
"""

from __future__ import annotations

from pyrunc.errors import Failure
from pyrunc.linux.flags import CLONE_NEWUSER
from pyrunc.plan import mount_options, namespaces
from pyrunc.plan.mount_options import Options
from pyrunc.plan.steps import EnterCgroupNamespace, Mount, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from pyrunc.plan.facts import Facts
    from pyrunc.plan.steps import Namespaces
    from pyrunc.spec.types import Config
    from pyrunc.spec.types import Mount as MountEntry

    # Words -> what they mean, its own() and deep(), and what these demand
    Known: TypeAlias = dict[
        tuple[str, ...], tuple[Options, tuple[int, int, int], tuple[int, int], tuple[int, int]]
    ]

# close_range(2). What else there is no other way for (openat2 5.6, mount ids and setns by a pidfd 5.8) is
# older.
OLDEST_KERNEL = (5, 9)

# File systems whose read-only state belongs to the mount, not to the (shared or kernel-made) superblock.
PSEUDO = frozenset(("proc", "sysfs", "tmpfs", "ramfs", "devpts", "mqueue", "cgroup", "cgroup2", "overlay"))

# What SELinux does not let a `context=` be given for, or labels itself.
_UNLABELLED = frozenset(("proc", "sysfs", "cgroup", "cgroup2", "mqueue"))
_CONTEXT_TYPE = "run.oci.mount_context_type"

_PROPAGATION = {
    "shared": mount_options.SHARED,
    "slave": mount_options.SLAVE,
    "private": mount_options.PRIVATE,
    "unbindable": mount_options.UNBINDABLE,
}


# Words for a mount that has peers or a master.
_CONNECTED = frozenset(("shared", "rshared", "slave", "rslave"))


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
    """Return what the tree inherited from the host becomes: not shared, or mounts would flow to the host."""
    flag, _recursive = root_propagation(config)
    if flag in (mount_options.PRIVATE, mount_options.UNBINDABLE):
        return mount_options.PRIVATE
    return mount_options.SLAVE


def at_once(config: Config) -> bool:
    """Tell whether linux.rootfsPropagation is set on all mounts at once, when the tree stands.

    Not where that would take a peer group or a master from a mount whose own words ask for one: what is lost
    cannot be given back. And mounts without words are slaves or private to begin with.
    """
    flag, recursive = root_propagation(config)
    if flag == mount_options.SHARED:
        return recursive
    words = (mount_options.separate(entry.get("options") or []) for entry in config.get("mounts") or ())
    return recursive and flag == mount_options.UNBINDABLE and all(map(_CONNECTED.isdisjoint, words))


def problems(config: Config) -> list[Failure]:
    """Return what is wrong with the entries of the mounts array, one each: for a report on the whole file."""
    found = []
    for index, entry in enumerate(config.get("mounts") or ()):
        try:
            mount = _entry(index, entry, config, {}, "/")
            if mount.fstype == "overlay" and mount.kind == "new":
                from pyrunc.plan import overlay

                overlay.parse(mount)
        except Failure as problem:
            found.append(problem)
    return found


def lower(
    config: Config,
    facts: Facts,
    spaces: Namespaces,
    cgroup_paths: dict[str, str],
    *,
    rootfs: str,
    bundle: str,
) -> list[Step]:
    """Return the steps of the mounts array.

    Args:
        config: an accepted config.json.
        facts: the host.
        spaces: the namespaces step, which decides how /sys and cgroups can be mounted.
        cgroup_paths: where the container's cgroups will be: controller -> directory.
        rootfs: absolute path of the root file system on the host.
        bundle: absolute path of the bundle, where relative sources begin.

    Raises:
        Failure: an entry that can never be mounted; the pointer says which.

    """
    if facts.kernel < OLDEST_KERNEL:
        raise Failure(
            f"containers need the system calls of Linux {_dotted(OLDEST_KERNEL)} (close_range(2)),"
            f" and this is Linux {_dotted(facts.kernel)}",
            hint="use a newer kernel",
        )
    made: list[Step] = []
    flag, recursive = root_propagation(config)
    everywhere, whole = flag if recursive else 0, at_once(config)
    inherited = tree_propagation(config)
    kinds = namespaces.paths(config)
    # A mount that comes from outside a user namespace keeps what restricts it there, as the kernel would have
    # it.
    locked = "user" in kinds or facts.in_user_namespace or facts.euid != 0
    entered = shared = False
    known: Known = {}
    for index, entry in enumerate(config.get("mounts") or ()):
        mount = _entry(index, entry, config, known, rootfs)
        _place(mount, rootfs, bundle)
        if mount.fstype == "sysfs" and mount.kind == "new" and _needs_host_sys(spaces, facts, kinds):
            _bind_sys(mount)
        if mount.kind in ("bind", "inner-bind"):
            mount.locked = locked
            if locked:
                # Taken back only where it is not locked.
                mount.must_mask &= ~mount_options.NODIRATIME | mount.must_be
            _propagate(mount, inherited)
        elif mount.options.propagation or not (shared and everywhere):
            mount.propagation = mount.options.propagation
        else:
            mount.propagation = ((everywhere, False),)
        _expect(mount, everywhere, whole=whole)
        mount.after = shared and bool(mount.options.propagation or everywhere)
        shared = shared or any(kind == mount_options.SHARED for kind, _ in mount.propagation)
        if mount.fstype == "overlay" and mount.kind == "new":
            from pyrunc.plan import overlay

            overlay.lower(mount, rootfs, bundle, facts)
        if mount.fstype in ("cgroup", "cgroup2") and mount.kind == "new":
            from pyrunc.plan import cgroup_mounts

            if not entered:
                made.append(EnterCgroupNamespace(new="cgroup" in kinds and not kinds["cgroup"]))
                entered = True
            made += cgroup_mounts.lower(
                mount, facts, cgroup_paths, own_view="cgroup" in kinds, user="user" in kinds
            )
            continue
        made.append(mount)
    if not entered:
        made.append(EnterCgroupNamespace(new="cgroup" in kinds and not kinds["cgroup"]))
    return made


def _propagate(mount: Mount, inherited: int) -> None:
    """Decide a bind's propagation: its own words, and for what no word reaches the container's default.

    The default is set first and everywhere at once, unless that would take something from the top which its
    own word wants to keep: a peer group, or a master.
    """
    words = mount.options.propagation
    if mount.options.bind == "bind" and words:
        mount.propagation = tuple((flag, False) for flag, _ in words)
    elif any(deep for _, deep in words):
        mount.propagation = words
    elif not words or words[-1][0] in (mount_options.PRIVATE, mount_options.UNBINDABLE):
        mount.propagation = ((inherited, True), *words)
    elif words == ((inherited, False),):
        mount.propagation = ((inherited, True),)
    else:
        mount.propagation, mount.below = words, inherited


def _expect(mount: Mount, everywhere: int, *, whole: bool) -> None:
    """Note what the mount's propagation must be in the end, for the check that comes last.

    Args:
        mount: a mount whose propagation is decided.
        everywhere: linux.rootfsPropagation if it is recursive, else 0.
        whole: it is set on all mounts at once.

    """
    if mount.options.propagation:
        mount.expected = mount.options.propagation[-1][0]
        mount.again = mount.propagation if whole else ()
    elif everywhere:
        mount.expected = everywhere
        if whole or everywhere == mount_options.UNBINDABLE:
            # A mount above it may be given something else for all below it; or nothing sets all at once.
            mount.again = ((everywhere, False),)


def warnings(config: Config, steps: list[Step]) -> list[str]:
    """Return what entries ask for that is taken otherwise, where that is no reason to refuse them."""
    found = [
        f'/mounts/{index}/destination: "{entry["destination"]}" is not absolute, which is deprecated;'
        f" it is taken for /{entry['destination']}"
        for index, entry in enumerate(config.get("mounts") or ())
        if entry["destination"][:1] != "/"
    ]
    found += [
        f"{step.pointer}/options: {' '.join(step.options.superblock)} belongs to the file system,"
        " which a bind cannot change"
        for step in steps
        if isinstance(step, Mount) and step.options.bind and step.options.superblock
    ]
    return found


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def clean(path: str) -> str:
    """Return an absolute path without empty components, "." and ".." (which nothing is above /)."""
    if path[:1] == "/" and path[-1] != "/" and "//" not in path and "/." not in path:
        return path  # nearly every one
    found: list[str] = []
    for name in path.split("/"):
        if name == "..":
            del found[-1:]
        elif name not in ("", "."):
            found.append(name)
    return "/" + "/".join(found)


def inside(path: str, rootfs: str) -> str:
    """Return the path inside the root file system of one on the host, "" if it lies elsewhere.

    Args:
        path: an absolute path, spelled in any way.
        rootfs: absolute path of the root file system on the host.

    """
    path = clean(path)
    if rootfs != "/" and (path + "/").startswith(rootfs + "/"):
        return path[len(rootfs) :] or "/"
    return ""


def place(destination: str, rootfs: str) -> str:
    """Return the one spelling of a mount point inside the root file system by which it is known from here on.

    Some callers name the mount point as the host sees it; every runtime takes that for the place inside. What
    is in its way, symlinks too, is looked at when it is opened.

    Args:
        destination: as config.json has it.
        rootfs: absolute path of the root file system on the host.

    """
    path = clean(destination)
    within = inside(path, rootfs)
    return within if len(within) > 1 else path


def _place(mount: Mount, rootfs: str, bundle: str) -> None:
    """Find out on which side of the root file system a bind's source is.

    What lies at a source inside the root is known only once the mounts before it are made: order is the
    list's order.
    """
    if mount.kind != "bind":
        return
    if not mount.source.startswith("/"):
        mount.source = f"{bundle}/{mount.source}"
    source = inside(mount.source, rootfs)
    if source:
        mount.kind, mount.source = "inner-bind", source


def _bind_sys(mount: Mount) -> None:
    """Let the host's /sys stand in for a new sysfs.

    What is asked to be read-only must be so for everything visible there (CVE-2023-25809).
    """
    asked = mount.options
    options = Options(
        bind="rbind",
        rattr_set=asked.rattr_set | asked.attr_set,
        rattr_clear=asked.rattr_clear,
        propagation=asked.propagation,
    )
    mount.kind, mount.source, mount.make, mount.options = "bind", "/sys", "source", options
    own, deep = options.own(), options.deep()
    mount.own_set, mount.own_clear, mount.implied_clear = own
    mount.deep_set, mount.deep_clear = deep
    mount.must_mask, mount.must_be = mount_options.demand(own, deep)


def _needs_host_sys(spaces: Namespaces, facts: Facts, kinds: dict[str, str]) -> bool:
    """Tell whether no new sysfs can be had: it wants a network namespace that our user namespace owns."""
    owner = spaces.flags & CLONE_NEWUSER or facts.in_user_namespace or facts.euid != 0
    return bool(owner) and not ("network" in kinds and not kinds["network"])


def _entry(index: int, entry: MountEntry, config: Config, known: Known, rootfs: str) -> Mount:
    """Return the step of one entry.

    Args:
        index: its place in the array.
        entry: the entry.
        config: the configuration, for what counts for all mounts.
        known: options that were parsed before: most mounts of a container have the same. Filled.
        rootfs: absolute path of the root file system on the host.

    Raises:
        Failure: it can never be mounted.

    """
    pointer = f"/mounts/{index}"
    words = entry.get("options") or []
    key = tuple(words)
    if key not in known:
        options = mount_options.parse(words)
        own, deep = options.own(), options.deep()
        known[key] = options, own, deep, mount_options.demand(own, deep)
    options, own, deep, (mask, value) = known[key]
    mount = Mount(
        kind="new",
        index=index,
        destination=place(entry["destination"], rootfs),
        source=entry.get("source") or "",
        fstype=entry.get("type") or "",
        options=options,
        own_set=own[0],
        own_clear=own[1],
        implied_clear=own[2],
        deep_set=deep[0],
        deep_clear=deep[1],
        must_mask=mask,
        must_be=value,
        pointer=pointer,
    )
    if entry["destination"].rstrip("/") != mount.destination:
        mount.spelled = entry["destination"]
    if mount.destination == "/":
        raise Failure(
            "the mount point is on the top of rootfs: nothing can be mounted on /",
            pointer=pointer + "/destination",
            hint="name the file system to use as root in /root/path",
        )
    if "remount" in mount.options.ext:
        _remount(mount, words)
    elif mount.options.bind:
        _bind(mount, words)
    else:
        _new(mount, config)
    if mount.options.idmap or entry.get("uidMappings") or entry.get("gidMappings"):
        from pyrunc.plan import idmaps

        idmaps.lower(mount, entry, config)
    return mount


def _bind(mount: Mount, words: list[str]) -> None:
    mount.kind, mount.fstype, mount.make = "bind", "bind", "source"
    for word in mount.options.data:
        if not word.startswith("subpath="):
            raise _unknown_option(words, word, mount.pointer)
        mount.subpath = word[8:]
    if not mount.source:
        raise Failure("a bind mount needs a source", pointer=mount.pointer)
    if "tmpcopyup" in mount.options.ext:
        raise _copy_up_what(mount, "a bind")


def _new(mount: Mount, config: Config) -> None:
    fstype, options = mount.fstype, mount.options
    if fstype in ("", "bind", "none"):
        what = (
            f"type {fstype} needs the option bind or rbind"
            if fstype
            else "no type, and no option bind or rbind"
        )
        hint = 'add "rbind" to its options, or name a file system type'
        raise Failure(what, pointer=mount.pointer, hint=hint)
    mount.data = (*options.superblock, *options.data)
    if "tmpcopyup" in options.ext:
        if fstype != "tmpfs":
            raise _copy_up_what(mount, f"type {fstype}")
        mount.copy_up = True
    if fstype == "mqueue":
        mount.label = (config.get("linux") or {}).get("mountLabel") or ""
    elif fstype not in _UNLABELLED:
        mount.data += context(config)
    mount.source = mount.source or fstype
    mount.no_symlink = fstype in ("proc", "sysfs")
    late = fstype == "tmpfs" or mount.destination == "/dev"
    mount.readonly_last = late and bool(options.attr_set & mount_options.RDONLY)


def context(config: Config) -> tuple[str, ...]:
    """Return the word that gives a new file system the container's SELinux label, if there is one."""
    label = (config.get("linux") or {}).get("mountLabel") or ""
    kind = (config.get("annotations") or {}).get(_CONTEXT_TYPE) or "context"
    return (f"{kind}={label}",) if label else ()


def _copy_up_what(mount: Mount, what: str) -> Failure:
    return Failure(
        f"only a tmpfs can be filled from what it covers (tmpcopyup), not {what}", pointer=mount.pointer
    )


def _remount(mount: Mount, words: list[str]) -> None:
    """Make it the step that changes what is mounted there: the mount, or without bind its file system."""
    if mount.options.bind and mount.options.data:
        raise _unknown_option(words, mount.options.data[0], mount.pointer)
    mount.kind, mount.source = "remount", ""
    mount.data = (*mount.options.superblock, *mount.options.data)


def _unknown_option(words: list[str], word: str, pointer: str) -> Failure:
    from pyrunc.near import nearest  # the configuration is refused: explaining well counts now, not speed

    at = next(at for at, given in enumerate(words) if word in mount_options.separate([given]))
    near = nearest(word, mount_options.OPTIONS)
    guess = f', did you mean "{near}"?' if near else ""
    return Failure(
        f'"{word}" is not a mount option{guess} (bind mounts cannot have any filesystem-specific options'
        " applied)",
        pointer=f"{pointer}/options/{at}",
    )
