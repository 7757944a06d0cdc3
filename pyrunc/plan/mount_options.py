"""The mount option grammar: one table for the parser, `features`, did-you-mean and the documentation.

Each row is name -> (kind, what). Of conflicting words the last one wins, per group: every attribute bit is a
group of its own, the access-time words are one group together, and a recursive word beats an earlier plain
one of its group. Words the table does not know are data for the file system (runtime-spec, config.md,
"mounts").

Law 1: pure. The numbers are the kernel's own (mount_setattr(2), Linux 5.12; MOUNT_ATTR_NOSYMFOLLOW 5.14).
"""

from __future__ import annotations

from pyrunc.plan.record import Record

RDONLY = 0x1
NOSUID = 0x2
NODEV = 0x4
NOEXEC = 0x8
ATIME_MASK = 0x70
RELATIME = 0x0
NOATIME = 0x10
STRICTATIME = 0x20
NODIRATIME = 0x80
NOSYMFOLLOW = 0x200000

# mount(2) flags for the propagation types (include/uapi/linux/mount.h)
UNBINDABLE = 1 << 17
PRIVATE = 1 << 18
SLAVE = 1 << 19
SHARED = 1 << 20

SET, CLEAR, ATIME, RSET, RCLEAR, RATIME, SUPER, PROPAGATION, RPROPAGATION, BIND, EXT, IDMAP, NOTHING = range(
    13
)

OPTIONS: dict[str, tuple[int, int | str]] = {
    "async": (SUPER, "async"),
    "atime": (ATIME, RELATIME),
    "bind": (BIND, "bind"),
    "copy-symlink": (EXT, "copy-symlink"),
    "defaults": (NOTHING, ""),
    "dest-nofollow": (EXT, "dest-nofollow"),
    "dev": (CLEAR, NODEV),
    "diratime": (CLEAR, NODIRATIME),
    "dirsync": (SUPER, "dirsync"),
    "exec": (CLEAR, NOEXEC),
    "idmap": (IDMAP, "idmap"),
    # The kernel decides about i_version itself on the file systems that have it: accepted, nothing to do.
    "iversion": (NOTHING, ""),
    "lazytime": (SUPER, "lazytime"),
    "loud": (NOTHING, ""),
    # Mandatory locking left the kernel in 5.15; the words are accepted and do nothing.
    "mand": (NOTHING, ""),
    "noatime": (ATIME, NOATIME),
    "nodev": (SET, NODEV),
    "nodiratime": (SET, NODIRATIME),
    "noexec": (SET, NOEXEC),
    "noiversion": (NOTHING, ""),
    "nolazytime": (SUPER, "nolazytime"),
    "nomand": (NOTHING, ""),
    "norelatime": (ATIME, RELATIME),
    "nostrictatime": (ATIME, RELATIME),
    "nosuid": (SET, NOSUID),
    "nosymfollow": (SET, NOSYMFOLLOW),
    "notmpcopyup": (EXT, "notmpcopyup"),
    "private": (PROPAGATION, PRIVATE),
    "ratime": (RATIME, RELATIME),
    "rbind": (BIND, "rbind"),
    "rdev": (RCLEAR, NODEV),
    "rdiratime": (RCLEAR, NODIRATIME),
    "relatime": (ATIME, RELATIME),
    "remount": (EXT, "remount"),
    "rexec": (RCLEAR, NOEXEC),
    "ridmap": (IDMAP, "ridmap"),
    "rnoatime": (RATIME, NOATIME),
    "rnodev": (RSET, NODEV),
    "rnodiratime": (RSET, NODIRATIME),
    "rnoexec": (RSET, NOEXEC),
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
    "runbindable": (RPROPAGATION, UNBINDABLE),
    "rw": (CLEAR, RDONLY),
    "shared": (PROPAGATION, SHARED),
    # MS_SILENT only quietens kernel messages about the superblock; fsconfig(2) has no such word.
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

# Words that undo each other in SUPER: the later one replaces the earlier one.
_OPPOSITE = {
    "sync": "async",
    "async": "sync",
    "lazytime": "nolazytime",
    "nolazytime": "lazytime",
}


class Options(Record):
    """What a mount's options ask for; attr_* concern the mount itself, rattr_* the mount and all below it.

    attr_set and attr_clear never share a bit, nor do rattr_set and rattr_clear. atime and ratime are None
    when no word of that group was given. propagation keeps the order of the words: (flag, recursive) pairs.
    """

    bind: str = ""
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


def parse(words: list[str]) -> Options:
    """Return what a mount's `options` mean; total: any list of strings has a meaning.

    Args:
        words: config.json's `/mounts/N/options`.

    """
    got = Options()
    for word in words:
        kind, what = OPTIONS.get(word, (-1, ""))
        if kind == -1:
            if word.startswith(("idmap=", "ridmap=")):
                got.idmap = word
            else:
                got.data += (word,)
        elif kind in (PROPAGATION, RPROPAGATION):
            got.propagation += ((int(what), kind == RPROPAGATION),)
        elif isinstance(what, int):
            _attribute(got, kind, what)
        elif kind == BIND:
            # rbind includes bind, in whichever order the two words come
            got.bind = "rbind" if got.bind == "rbind" else what
        elif kind == IDMAP:
            got.idmap = what
        elif kind == EXT:
            got.ext = (*(have for have in got.ext if have not in (what, _COPYUP.get(what))), what)
        elif kind == SUPER:
            undone = (what, _OPPOSITE.get(what))
            got.superblock = (*(have for have in got.superblock if have not in undone), what)
    return got


_COPYUP = {"tmpcopyup": "notmpcopyup", "notmpcopyup": "tmpcopyup"}


def _attribute(got: Options, kind: int, bit: int) -> None:
    if kind == ATIME:
        got.atime = bit
    elif kind == RATIME:
        got.ratime = bit
        got.atime = None
    elif kind == SET:
        got.attr_set |= bit
        got.attr_clear &= ~bit
    elif kind == CLEAR:
        got.attr_clear |= bit
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
