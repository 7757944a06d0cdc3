"""The mount options: one table for the parser, `features` and suggestions.

Each row is name -> (kind, what). The last of conflicting options wins. Options conflict if they are in one
group: every attribute bit is a group, the access-time options are one group together. A recursive option wins
over an earlier plain one of its group. What a recursive option restricts stays restricted, also if a plain
option comes after it: rro, rw is read-only, as in runc and crun, which set recursive options last. Options
that the table does not have are data for the file system (runtime-spec, config.md, "mounts").

Law 1: pure. The numbers are the kernel's (mount_setattr(2), Linux 5.12; MOUNT_ATTR_NOSYMFOLLOW 5.14).
"""

from __future__ import annotations

from pyrunc.linux import flags
from pyrunc.plan.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.steps import IdMap
    from pyrunc.spec.types import Config

# The bits of mount_setattr(2), and those of mount(2) for the propagation types, by short names.
RDONLY = flags.MOUNT_ATTR_RDONLY
NOSUID = flags.MOUNT_ATTR_NOSUID
NODEV = flags.MOUNT_ATTR_NODEV
NOEXEC = flags.MOUNT_ATTR_NOEXEC
ATIME_MASK = flags.MOUNT_ATTR__ATIME
RELATIME = flags.MOUNT_ATTR_RELATIME
NOATIME = flags.MOUNT_ATTR_NOATIME
STRICTATIME = flags.MOUNT_ATTR_STRICTATIME
NODIRATIME = flags.MOUNT_ATTR_NODIRATIME
ID_MAPPED = flags.MOUNT_ATTR_IDMAP
NOSYMFOLLOW = flags.MOUNT_ATTR_NOSYMFOLLOW
UNBINDABLE = flags.MS_UNBINDABLE
PRIVATE = flags.MS_PRIVATE
SLAVE = flags.MS_SLAVE
SHARED = flags.MS_SHARED

# All that an option can say about one mount, except access times.
FLAGS = RDONLY | NOSUID | NODEV | NOEXEC | NOSYMFOLLOW
# What cannot be removed in a user namespace from a mount that comes from outside (mount_namespaces(7)).
LOCKABLE = RDONLY | NOSUID | NODEV | NOEXEC

# For each bit, the option that sets it and the one that clears it.
ATTRIBUTES = (
    (RDONLY, "ro", "rw"),
    (NOSUID, "nosuid", "suid"),
    (NODEV, "nodev", "dev"),
    (NOEXEC, "noexec", "exec"),
    (NODIRATIME, "nodiratime", "diratime"),
    (NOSYMFOLLOW, "nosymfollow", "symfollow"),
)
ATIMES = {RELATIME: "relatime", NOATIME: "noatime", STRICTATIME: "strictatime"}
PROPAGATIONS = {SHARED: "shared", SLAVE: "slave", PRIVATE: "private", UNBINDABLE: "unbindable"}

(
    SET,
    CLEAR,
    ATIME,
    NO_ATIME,
    RSET,
    RCLEAR,
    RATIME,
    SUPER,
    PROPAGATION,
    RPROPAGATION,
    BIND,
    EXT,
    IDMAP,
    NOTHING,
) = range(14)

OPTIONS: dict[str, tuple[int, int | str]] = {
    "async": (SUPER, "async"),
    # These three only cancel an earlier option: then the source's setting, or the kernel's default, stays.
    "atime": (NO_ATIME, NOATIME),
    "bind": (BIND, "bind"),
    "copy-symlink": (EXT, "copy-symlink"),
    "defaults": (NOTHING, ""),
    "dest-nofollow": (EXT, "dest-nofollow"),
    "dev": (CLEAR, NODEV),
    "diratime": (CLEAR, NODIRATIME),
    "dirsync": (SUPER, "dirsync"),
    "exec": (CLEAR, NOEXEC),
    "idmap": (IDMAP, "idmap"),
    # File systems with i_version decide about it themselves: accepted, nothing to do.
    "iversion": (NOTHING, ""),
    "lazytime": (SUPER, "lazytime"),
    "loud": (NOTHING, ""),
    # Linux 5.15 removed mandatory locking; the options are accepted and do nothing.
    "mand": (NOTHING, ""),
    "noatime": (ATIME, NOATIME),
    "nodev": (SET, NODEV),
    "nodiratime": (SET, NODIRATIME),
    "noexec": (SET, NOEXEC),
    "noiversion": (NOTHING, ""),
    "nolazytime": (SUPER, "nolazytime"),
    "nomand": (NOTHING, ""),
    "norelatime": (NO_ATIME, RELATIME),
    "nostrictatime": (NO_ATIME, STRICTATIME),
    "nosuid": (SET, NOSUID),
    "nosymfollow": (SET, NOSYMFOLLOW),
    "notmpcopyup": (EXT, "notmpcopyup"),
    "private": (PROPAGATION, PRIVATE),
    # The recursive forms of options about the superblock are crun's, and mean the same as the plain ones.
    "rasync": (SUPER, "async"),
    "ratime": (RATIME, RELATIME),
    "rbind": (BIND, "rbind"),
    "rdev": (RCLEAR, NODEV),
    "rdiratime": (RCLEAR, NODIRATIME),
    "rdirsync": (SUPER, "dirsync"),
    "relatime": (ATIME, RELATIME),
    "remount": (EXT, "remount"),
    "rexec": (RCLEAR, NOEXEC),
    "ridmap": (IDMAP, "ridmap"),
    "rmand": (NOTHING, ""),
    "rnoatime": (RATIME, NOATIME),
    "rnodev": (RSET, NODEV),
    "rnodiratime": (RSET, NODIRATIME),
    "rnoexec": (RSET, NOEXEC),
    "rnomand": (NOTHING, ""),
    "rnorelatime": (RATIME, RELATIME),
    "rnostrictatime": (RATIME, RELATIME),
    "rnosuid": (RSET, NOSUID),
    "rnosymfollow": (RSET, NOSYMFOLLOW),
    "ro": (SET, RDONLY),
    "rprivate": (RPROPAGATION, PRIVATE),
    "rrelatime": (RATIME, RELATIME),
    "rro": (RSET, RDONLY),
    "rrw": (RCLEAR, RDONLY),
    "rshared": (RPROPAGATION, SHARED),
    "rslave": (RPROPAGATION, SLAVE),
    "rstrictatime": (RATIME, STRICTATIME),
    "rsuid": (RCLEAR, NOSUID),
    "rsymfollow": (RCLEAR, NOSYMFOLLOW),
    "rsync": (SUPER, "sync"),
    "runbindable": (RPROPAGATION, UNBINDABLE),
    "rw": (CLEAR, RDONLY),
    "shared": (PROPAGATION, SHARED),
    # MS_SILENT only suppresses kernel messages about the superblock; fsconfig(2) has no such option.
    "silent": (NOTHING, ""),
    "slave": (PROPAGATION, SLAVE),
    "src-nofollow": (EXT, "src-nofollow"),
    "strictatime": (ATIME, STRICTATIME),
    "suid": (CLEAR, NOSUID),
    "symfollow": (CLEAR, NOSYMFOLLOW),
    "sync": (SUPER, "sync"),
    "tmpcopyup": (EXT, "tmpcopyup"),
    "unbindable": (PROPAGATION, UNBINDABLE),
}

# Options with a path: a comma is a part of it, unless one of the options that may follow begins after it.
_LAYERS = ("lowerdir", "lowerdir+", "datadir+", "upperdir", "workdir")
_OVERLAY_WORDS = frozenset(
    (
        *("default_permissions", "fsync", "index", "metacopy", "nfs_export", "override_creds"),
        *("nooverride_creds", "redirect_dir", "userxattr", "uuid", "verity", "volatile", "xino"),
        *_LAYERS,
    )
)
_LABELS = ("context", "fscontext", "defcontext", "rootcontext")

# Options that cancel each other: the later one replaces the earlier one.
_OPPOSITES = {
    "async": "sync",
    "lazytime": "nolazytime",
    "nolazytime": "lazytime",
    "notmpcopyup": "tmpcopyup",
    "sync": "async",
    "tmpcopyup": "notmpcopyup",
}


class Options(Record):
    """What a mount's options ask for; attr_* concern the mount itself, rattr_* the mount and all below it.

    attr_set and attr_clear never share a bit, nor do rattr_set and rattr_clear. atime and ratime are None
    when no word of that group is in force. asked says that there was a word about the mount itself at all.
    The pairs of propagation are (flag, recursive), to be applied in their order.
    """

    bind: str = ""
    asked: bool = False
    attr_set: int = 0
    attr_clear: int = 0
    atime: int | None = None
    rattr_set: int = 0
    rattr_clear: int = 0
    ratime: int | None = None
    superblock: tuple[str, ...] = ()
    propagation: tuple[tuple[int, bool], ...] = ()
    ext: tuple[str, ...] = ()
    idmap: str = ""
    data: tuple[str, ...] = ()

    def own(self) -> tuple[int, int, int]:
        """Return the MOUNT_ATTR_* bits of the mount itself: (to set, to clear, to clear by default).

        If a mount has any word about itself, it has exactly what its words say, as with mount(8)'s remount:
        other attributes of the source are cleared. Access times are all cleared, or all kept.
        """
        if not self.asked:
            return 0, 0, 0
        deep = self.rattr_set | self.rattr_clear
        implied = FLAGS & ~(self.attr_set | self.attr_clear | deep)
        if self.atime is None and not self.attr_set & NODIRATIME:
            return self.attr_set, self.attr_clear, implied
        if self.atime is None and self.ratime is not None:
            return self.attr_set, self.attr_clear, implied
        implied |= NODIRATIME & ~(self.attr_set | self.attr_clear | deep)
        return self.attr_set | (self.atime or RELATIME), self.attr_clear | ATIME_MASK, implied

    def deep(self) -> tuple[int, int]:
        """Return the MOUNT_ATTR_* bits of the mount and all below it: (to set, to clear)."""
        if self.ratime is None:
            return self.rattr_set, self.rattr_clear
        return self.rattr_set | self.ratime, self.rattr_clear | ATIME_MASK


class Attributes(Record):
    """What is set on a mount, and what it is compared with in the end.

    Attributes:
        recursive: deep_set and deep_clear are for all that is mounted below, too (rbind).
        own_set, own_clear: MOUNT_ATTR_* bits of the mount itself.
        implied_clear: bits that were not asked for: cleared, unless they are locked.
        deep_set, deep_clear: MOUNT_ATTR_* bits of the mount and all below it; own ones win.
        atime: the access times the options ask for (ATIME_MASK), None for none.
        must_mask, must_be: MOUNT_ATTR_* bits that are compared in the end, and what they must be.
        locked: the mount comes from outside a user namespace: what restricts it there stays, and asking for
            less is an error.
        propagation: propagation types to set, in this order: (flag, recursive).
        below: propagation type of what is mounted below a bind's source, where only its top has one of its
            own.
        expected: MS_* bits of the mount's propagation in the end, 0 when nothing was asked.
        may_be_private: it is also as expected if it is private and not a slave: only of a bind of the host's
            is it known whether there is anything it could be a slave of.
        after: its propagation is set once more when it is attached: it may lie on a shared mount.
        again: propagation types to set once more after linux.rootfsPropagation has changed all mounts.
        id_maps: user and group mapping of an id-mapped mount: (id in the file system, id on the host, size).
        id_space: path of a user namespace to take that mapping from instead, "" for none.
        deep_ids: the mapping is for everything below the mount as well.

    """

    recursive: bool = False
    own_set: int = 0
    own_clear: int = 0
    implied_clear: int = 0
    deep_set: int = 0
    deep_clear: int = 0
    atime: int | None = None
    must_mask: int = 0
    must_be: int = 0
    locked: bool = False
    propagation: tuple[tuple[int, bool], ...] = ()
    below: int = 0
    expected: int = 0
    may_be_private: bool = True
    after: bool = False
    again: tuple[tuple[int, bool], ...] = ()
    id_maps: tuple[IdMap, IdMap] | None = None
    id_space: str = ""
    deep_ids: bool = False

    @property
    def id_mapped(self) -> bool:
        """Whether the mount is id-mapped."""
        return self.id_maps is not None or self.id_space != ""


def attributes(options: Options) -> Attributes:
    """Return the attributes of a mount with these options, as far as they alone decide.

    Args:
        options: what parse() returned.

    """
    own_set, own_clear, implied = options.own()
    deep_set, deep_clear = options.deep()
    # Bits that are cleared only by default do not matter at the end: if one is still set, it only restricts.
    mask = own_set | own_clear
    return Attributes(
        recursive=options.bind == "rbind",
        own_set=own_set,
        own_clear=own_clear,
        implied_clear=implied,
        deep_set=deep_set,
        deep_clear=deep_clear,
        atime=options.atime,
        # Access times are one value in several bits, and 0 is a value of it.
        must_mask=mask | deep_set | deep_clear,
        must_be=own_set | (deep_set & ~mask),
        propagation=options.propagation,
    )


def propagate(made: Attributes, options: Options, inherited: int) -> None:
    """Decide a bind's propagation: its own options, and the container's default for what they do not reach.

    The default is set first on all mounts at once, unless that would remove a peer group or a master from the
    top mount that its own option keeps.

    Args:
        made: the bind's attributes, changed.
        options: its options.
        inherited: the default.

    """
    words = options.propagation
    if options.bind == "bind" and words:
        made.propagation = tuple((flag, False) for flag, _ in words)
    elif any(deep for _, deep in words):
        made.propagation = words
    elif not words or words[-1][0] in (PRIVATE, UNBINDABLE):
        made.propagation = ((inherited, True), *words)
    elif words == ((inherited, False),):
        made.propagation = ((inherited, True),)
    else:
        made.propagation, made.below = words, inherited


def expect(made: Attributes, options: Options, everywhere: int, *, whole: bool) -> None:
    """Decide what a mount's propagation must be in the end, for the check.

    Args:
        made: attributes whose propagation is decided, changed.
        options: the mount's options.
        everywhere: linux.rootfsPropagation if it is recursive, else 0.
        whole: it is set on all mounts at once.

    """
    if options.propagation:
        made.expected = options.propagation[-1][0]
        made.again = made.propagation if whole else ()
    elif everywhere:
        made.expected = everywhere
        if whole or everywhere == UNBINDABLE:
            # A mount above it may change all below it; or nothing is set on all at once.
            made.again = ((everywhere, False),)


def separate(words: list[str]) -> list[str]:
    """Return options one by one: several may be in one string, and an empty string is none.

    mount(2) takes all options in one string, so some callers write "size=1m,mode=700" as one. A program that
    splits an empty text at commas gets an empty string (Podman 5.4 with --systemd=always).

    Args:
        words: config.json's `/mounts/N/options`.

    """
    found: list[str] = []
    for word in words:
        if "," in word:
            found += _split(word)
        elif word:
            found.append(word)
    return found


def _split(text: str) -> list[str]:
    """Split a string at commas that separate options."""
    found: list[str] = []
    for part in text.split(","):
        if found and _goes_on(found[-1], part):
            found[-1] += "," + part
        elif part:
            found.append(part)
    return [_bare(word) for word in found]


def _goes_on(word: str, part: str) -> bool:
    """Tell whether the text after a comma still belongs to the option before it."""
    name, _, value = word.partition("=")
    if name == "subpath":
        return True
    if name in _LAYERS:
        # A comma may be escaped, as in overlayfs.
        escaped = (len(word) - len(word.rstrip("\\"))) % 2
        return bool(escaped) or (part not in OPTIONS and part.partition("=")[0] not in _OVERLAY_WORDS)
    if name in _LABELS:
        # In quotes, as mount(8) has it, or the categories of an SELinux context: s0:c1,c2.
        return value.count('"') == 1 or (value[:1] != '"' and part[:1] == "c" and part[1:2].isdecimal())
    return name == "mpol" and part[:1].isdecimal()  # its nodes: bind:0,2 (tmpfs(5))


def _bare(word: str) -> str:
    """Return an option without the quotes or backslashes around its commas."""
    name, _, value = word.partition("=")
    if name in _LABELS and len(value) > 1 and value[0] == value[-1] == '"':
        return f"{name}={value[1:-1]}"
    if name in _LAYERS and name != "lowerdir":  # overlay.py removes those of lowerdir
        return word.replace("\\,", ",")
    return word


def parse(words: list[str]) -> Options:
    """Return what a mount's `options` mean; every list of strings has a meaning.

    Args:
        words: config.json's `/mounts/N/options`.

    """
    got = Options()
    for word in separate(words):
        kind, what = OPTIONS.get(word, (-1, ""))
        if kind == -1:
            if word.startswith(("idmap=", "ridmap=")):
                got.idmap = word
            else:
                got.data += (word,)
        elif kind in (PROPAGATION, RPROPAGATION):
            got.propagation = _propagate(got.propagation, int(what), deep=kind == RPROPAGATION)
        elif isinstance(what, int):
            _attribute(got, kind, what)
        elif kind == BIND:
            # rbind includes bind, in any order of the two
            got.bind = "rbind" if got.bind == "rbind" else what
        elif kind == IDMAP:
            got.idmap = what
        elif kind == EXT:
            got.ext = _latest(got.ext, what)
        elif kind == SUPER:
            got.superblock = _latest(got.superblock, what)
    return got


def _latest(words: tuple[str, ...], word: str) -> tuple[str, ...]:
    gone = (word, _OPPOSITES.get(word))
    return (*(have for have in words if have not in gone), word)


def _propagate(pairs: tuple[tuple[int, bool], ...], flag: int, *, deep: bool) -> tuple[tuple[int, bool], ...]:
    """Add a propagation type; it replaces earlier ones if it reaches all that they reach.

    Only slave followed by shared means both: such a mount receives events and passes them on.
    """
    kept = tuple(
        (have, wide) for have, wide in pairs if (wide and not deep) or (have == SLAVE and flag == SHARED)
    )
    return (*kept, (flag, deep))


def _attribute(got: Options, kind: int, bit: int) -> None:
    if kind in (SET, CLEAR, ATIME, NO_ATIME):
        got.asked = True
    if kind == ATIME:
        got.atime = bit
    elif kind == NO_ATIME:
        if got.atime == bit:
            got.atime = None
    elif kind == RATIME:
        got.ratime = bit
        got.atime = None
    elif kind == SET:
        got.attr_set |= bit
        got.attr_clear &= ~bit
    elif kind == CLEAR:
        got.attr_clear |= bit & ~got.rattr_set
        got.attr_set &= ~bit
    else:
        got.attr_set &= ~bit
        got.attr_clear &= ~bit
        if kind == RSET:
            got.rattr_set |= bit
            got.rattr_clear &= ~bit
        else:
            got.rattr_clear |= bit
            got.rattr_set &= ~bit


_CONTEXT_TYPE = "run.oci.mount_context_type"  # an annotation


def context(config: Config) -> tuple[str, ...]:
    """Return the word that gives a new file system the container's SELinux label, if there is one."""
    label = (config.get("linux") or {}).get("mountLabel") or ""
    kind = (config.get("annotations") or {}).get(_CONTEXT_TYPE) or "context"
    return (f"{kind}={label}",) if label else ()
