"""The mounts array, lowered to steps in its own order.

Law 1: pure; which file system a source lies on, or whether a target exists, is asked when the step is carried
out. Source: runtime-spec config.md "Mounts".
"""

from __future__ import annotations

from pyrunc.errors import Failure
from pyrunc.linux.flags import CLONE_NEWUSER
from pyrunc.plan import mount_options, namespaces, paths
from pyrunc.plan.mount_options import Options
from pyrunc.plan.mount_steps import Bind, FileSystem, InnerBind, Mount, Overlay, Reconfigure, Remount
from pyrunc.plan.steps import EnterCgroupNamespace, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.plan.facts import Facts
    from pyrunc.plan.mount_options import Attributes
    from pyrunc.plan.steps import Namespaces
    from pyrunc.spec.types import Config
    from pyrunc.spec.types import Mount as MountEntry

# close_range(2). What else there is no other way for (openat2 5.6, mount ids and setns by a pidfd 5.8) is
# older.
OLDEST_KERNEL = (5, 9)

# File systems whose read-only state belongs to the mount, not to the (shared or kernel-made) superblock.
PSEUDO = frozenset(("proc", "sysfs", "tmpfs", "ramfs", "devpts", "mqueue", "cgroup", "cgroup2", "overlay"))

# What SELinux does not let a `context=` be given for, or labels itself.
_UNLABELLED = frozenset(("proc", "sysfs", "cgroup", "cgroup2", "mqueue"))

_PROPAGATION = {word: flag for flag, word in mount_options.PROPAGATIONS.items()}


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
    around = _Around(config, "/", "")
    for index, entry in enumerate(config.get("mounts") or ()):
        try:
            mount = _entry(around, index, entry)
            if isinstance(mount, Overlay):
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
    kinds = namespaces.paths(config)
    around = _Around(config, rootfs, bundle)
    around.decide(facts, spaces, kinds)
    made: list[Step] = []
    entered = False
    for index, entry in enumerate(config.get("mounts") or ()):
        mount = _entry(around, index, entry)
        if not around.shared:
            around.shared = any(flag == mount_options.SHARED for flag, _deep in mount.attributes.propagation)
        if isinstance(mount, FileSystem):
            if mount.fstype in ("cgroup", "cgroup2"):
                from pyrunc.plan import cgroup_mounts

                if not entered:
                    made.append(EnterCgroupNamespace(new="cgroup" in kinds and not kinds["cgroup"]))
                    entered = True
                made += cgroup_mounts.lower(
                    mount, facts, cgroup_paths, own_view="cgroup" in kinds, user="user" in kinds
                )
                continue
            if isinstance(mount, Overlay):
                from pyrunc.plan import overlay

                overlay.lower(mount, rootfs, bundle, facts)
        made.append(mount)
    if not entered:
        made.append(EnterCgroupNamespace(new="cgroup" in kinds and not kinds["cgroup"]))
    return made


class _Around:
    """What decides about mounts beside their own entries.

    Attributes:
        config: the configuration.
        rootfs: absolute path of the root file system on the host.
        bundle: absolute path of the bundle, where relative sources begin.
        inherited: propagation of a bind for which nothing else asks.
        everywhere: linux.rootfsPropagation if it is recursive, else 0.
        whole: it is set on all mounts at once.
        locked: a mount that comes from outside a user namespace keeps what restricts it there, as the kernel
            would have it.
        host_sys: no new sysfs can be had.
        shared: a mount before is shared, and what lies on it may have become so.

    """

    def __init__(self, config: Config, rootfs: str, bundle: str) -> None:
        """Begin as if each mount were alone, which is enough to find what is wrong with one."""
        self.config = config
        self.rootfs = rootfs
        self.bundle = bundle
        self.inherited = self.everywhere = 0
        self.whole = self.locked = self.host_sys = self.shared = False
        self._parsed: dict[tuple[str, ...], Options] = {}
        self._decided: dict[tuple[int, bool, bool], Attributes] = {}

    def decide(self, facts: Facts, spaces: Namespaces, kinds: dict[str, str]) -> None:
        """Find out what counts for all mounts of a container; the arguments are those of lower()."""
        flag, recursive = root_propagation(self.config)
        self.everywhere = flag if recursive else 0
        self.whole = at_once(self.config)
        self.inherited = tree_propagation(self.config)
        ordinary = facts.in_user_namespace or facts.euid != 0
        self.locked = "user" in kinds or ordinary
        # A new sysfs wants a network namespace that our user namespace owns.
        owned = bool(spaces.flags & CLONE_NEWUSER) or ordinary
        self.host_sys = owned and not ("network" in kinds and not kinds["network"])

    def options(self, words: list[str]) -> Options:
        """Return what options mean: most mounts of a container have the same."""
        key = tuple(words)
        found = self._parsed.get(key)
        if found is None:
            found = self._parsed[key] = mount_options.parse(words)
        return found

    def attributes(self, options: Options, *, bind: bool) -> Attributes:
        """Return what is set on the next mount with these options, one record for all that are alike.

        Args:
            options: what options() returned.
            bind: it is a bind.

        """
        key = id(options), bind, self.shared
        found = self._decided.get(key)
        if found is None:
            found = self._decided[key] = self.new_attributes(options, bind=bind)
        return found

    def new_attributes(self, options: Options, *, bind: bool) -> Attributes:
        """Return what is set on a mount with these options, as a record of its own."""
        made = mount_options.attributes(options)
        if bind:
            made.locked = self.locked
            if self.locked:
                # Taken back only where it is not locked.
                made.must_mask &= ~mount_options.NODIRATIME | made.must_be
            made.may_be_private = not options.propagation
            mount_options.propagate(made, options, self.inherited)
        elif self.shared and self.everywhere and not options.propagation:
            made.propagation = ((self.everywhere, False),)
        mount_options.expect(made, options, self.everywhere, whole=self.whole)
        made.after = self.shared and bool(options.propagation or self.everywhere)
        return made


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


def _entry(around: _Around, index: int, entry: MountEntry) -> Mount:
    """Return the step of one entry.

    Args:
        around: what else decides about it.
        index: its place in the array.
        entry: the entry.

    Raises:
        Failure: it can never be mounted.

    """
    pointer = f"/mounts/{index}"
    options = around.options(entry.get("options") or [])
    ext = options.ext
    destination = paths.place(entry["destination"], around.rootfs)
    if destination == "/":
        raise Failure(
            "the mount point is on the top of rootfs: nothing can be mounted on /",
            pointer=pointer + "/destination",
            hint="name the file system to use as root in /root/path",
        )
    same: dict[str, Any] = {
        "pointer": pointer,
        "index": index,
        "destination": destination,
        "options": options,
        "dest_nofollow": "dest-nofollow" in ext,
    }
    if entry["destination"].rstrip("/") != destination:
        same["spelled"] = entry["destination"]
    make = _remount if "remount" in ext else _bind if options.bind else _new
    mount = make(around, entry, same)
    if options.idmap or entry.get("uidMappings") or entry.get("gidMappings"):
        from pyrunc.plan import id_mapped

        id_mapped.lower(mount, entry, around.config)
    return mount


def _bind(around: _Around, entry: MountEntry, same: dict[str, Any]) -> Bind | InnerBind:
    """Return a bind. On which side of the root file system its source is, its path says.

    What lies at a source inside the root is known only once the mounts before it are made: order is the
    list's order.
    """
    options: Options = same["options"]
    subpath = ""
    for word in options.data:
        if not word.startswith("subpath="):
            raise _unknown_option(entry, word, same["pointer"])
        subpath = word[8:]
    source = entry.get("source")
    if not source:
        raise Failure("a bind mount needs a source", pointer=same["pointer"])
    ext = options.ext
    if "tmpcopyup" in ext:
        raise _copy_up_what("a bind", same["pointer"])
    if source[0] != "/":
        source = f"{around.bundle}/{source}"
    attributes = around.attributes(options, bind=True)
    nofollow = "src-nofollow" in ext
    within = paths.inside(source, around.rootfs)
    if within:
        if subpath:
            within = f"{within}/{subpath}"
        return InnerBind(source=within, fstype="bind", attributes=attributes, src_nofollow=nofollow, **same)
    return Bind(
        source=source,
        fstype="bind",
        attributes=attributes,
        subpath=subpath,
        src_nofollow=nofollow,
        copy_symlink="copy-symlink" in ext,
        **same,
    )


def _host_sys(around: _Around, same: dict[str, Any]) -> Bind:
    """Return the host's /sys, to stand in for a new sysfs.

    What is asked to be read-only must be so for everything visible there (CVE-2023-25809).
    """
    asked: Options = same["options"]
    options = Options(
        bind="rbind",
        rattr_set=asked.rattr_set | asked.attr_set,
        rattr_clear=asked.rattr_clear,
        propagation=asked.propagation,
        idmap=asked.idmap,
    )
    return Bind(
        **{**same, "options": options, "dest_nofollow": False},
        source="/sys",
        fstype="sysfs",
        attributes=around.new_attributes(options, bind=True),
        no_symlink=True,
    )


def _new(around: _Around, entry: MountEntry, same: dict[str, Any]) -> FileSystem | Bind:
    fstype = entry.get("type") or ""
    options: Options = same["options"]
    if fstype in ("", "bind", "none"):
        what = (
            f"type {fstype} needs the option bind or rbind"
            if fstype
            else "no type, and no option bind or rbind"
        )
        hint = 'add "rbind" to its options, or name a file system type'
        raise Failure(what, pointer=same["pointer"], hint=hint)
    data = (*options.superblock, *options.data)
    copy_up = "tmpcopyup" in options.ext
    if copy_up and fstype != "tmpfs":
        raise _copy_up_what(f"type {fstype}", same["pointer"])
    if fstype == "sysfs" and around.host_sys:
        return _host_sys(around, same)
    label = ""
    if fstype == "mqueue":
        label = (around.config.get("linux") or {}).get("mountLabel") or ""
    elif fstype not in _UNLABELLED:
        data += mount_options.context(around.config)
    attributes = around.attributes(options, bind=False)
    readonly = options.attr_set & mount_options.RDONLY
    late = fstype == "tmpfs" or same["destination"] == "/dev"
    kind = Overlay if fstype == "overlay" else FileSystem
    return kind(
        source=entry.get("source") or fstype,
        fstype=fstype,
        attributes=attributes,
        data=data,
        readonly="ro" if readonly and fstype not in PSEUDO else "",
        label=label,
        copy_up=copy_up,
        no_symlink=fstype in ("proc", "sysfs"),
        readonly_last=late and bool(readonly),
        **same,
    )


def _copy_up_what(what: str, pointer: str) -> Failure:
    return Failure(f"only a tmpfs can be filled from what it covers (tmpcopyup), not {what}", pointer=pointer)


def _remount(around: _Around, entry: MountEntry, same: dict[str, Any]) -> Remount:
    """Return the step that changes what is mounted there: the mount, or without bind its file system."""
    options: Options = same["options"]
    if options.bind and options.data:
        raise _unknown_option(entry, options.data[0], same["pointer"])
    fstype = entry.get("type") or ""
    attributes = around.attributes(options, bind=False)
    if options.bind:
        return Remount(source="", fstype=fstype, attributes=attributes, **same)
    readonly = ""
    if fstype not in PSEUDO:
        for word, bits in (("rw", attributes.own_clear), ("ro", attributes.own_set)):
            readonly = word if bits & mount_options.RDONLY else readonly
    data = (*options.superblock, *options.data)
    return Reconfigure(source="", fstype=fstype, attributes=attributes, data=data, readonly=readonly, **same)


def _unknown_option(entry: MountEntry, word: str, pointer: str) -> Failure:
    from pyrunc.near import nearest  # the configuration is refused: explaining well counts now, not speed

    words = entry.get("options") or []
    at = next(at for at, given in enumerate(words) if word in mount_options.separate([given]))
    near = nearest(word, mount_options.OPTIONS)
    guess = f', did you mean "{near}"?' if near else ""
    return Failure(
        f'"{word}" is not a mount option{guess} (bind mounts cannot have any filesystem-specific options'
        " applied)",
        pointer=f"{pointer}/options/{at}",
    )
