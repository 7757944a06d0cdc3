"""Linux constants by the kernel's names, and the helpers that print them by name.

Purpose: the one place where a number of the kernel's ABI is written down, so that no other module says
0x20000 (house rule: flags are printed by name). Law 2 binds it: it is on the hot path of every verb, so it
holds integers and dicts only and imports nothing. What only slow code wants is in flags_slow.py.

The values are those of asm-generic, which x86, arm, riscv, s390 and loongarch share for everything listed
here (powerpc for all but the ioctls of terminals); `_linux.h` refuses to build on alpha and mips, where more
differ. O_* that differ between architectures come from `os`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# From clone(2), unshare(2), setns(2)
CLONE_NEWTIME = 0x80
CLONE_VM = 0x100
CLONE_PIDFD = 0x1000
CLONE_PARENT = 0x8000
CLONE_NEWNS = 0x20000
CLONE_NEWCGROUP = 0x2000000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_CLEAR_SIGHAND = 0x100000000
CLONE_INTO_CGROUP = 0x200000000

# From memfd_create(2), fcntl(2)
MFD_CLOEXEC = 0x1
MFD_ALLOW_SEALING = 0x2
MFD_EXEC = 0x10
F_ADD_SEALS = 1033
F_SEAL_ALL = 0xF  # F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE

# From mount(2)
MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_SYNCHRONOUS = 0x10
MS_REMOUNT = 0x20
MS_MANDLOCK = 0x40
MS_DIRSYNC = 0x80
MS_NOSYMFOLLOW = 0x100
MS_NOATIME = 0x400
MS_NODIRATIME = 0x800
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_SILENT = 0x8000
MS_UNBINDABLE = 0x20000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MS_RELATIME = 0x200000
MS_I_VERSION = 0x800000
MS_STRICTATIME = 0x1000000
MS_LAZYTIME = 0x2000000

# From statfs(2) f_flags and statvfs(3) f_flag
ST_RDONLY = 0x1
ST_NOSUID = 0x2
ST_NODEV = 0x4
ST_NOEXEC = 0x8
ST_SYNCHRONOUS = 0x10
ST_MANDLOCK = 0x40
ST_NOATIME = 0x400
ST_NODIRATIME = 0x800
ST_RELATIME = 0x1000
ST_NOSYMFOLLOW = 0x2000

# From mount_setattr(2) and fsmount(2)
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_RELATIME = 0x0
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

# From open_tree(2), move_mount(2), fsopen(2), fspick(2), fsconfig(2), umount2(2)
OPEN_TREE_CLONE = 0x1
OPEN_TREE_CLOEXEC = 0x80000
MOVE_MOUNT_F_SYMLINKS = 0x1
MOVE_MOUNT_F_AUTOMOUNTS = 0x2
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_SYMLINKS = 0x10
MOVE_MOUNT_T_AUTOMOUNTS = 0x20
MOVE_MOUNT_T_EMPTY_PATH = 0x40
MOVE_MOUNT_SET_GROUP = 0x100
MOVE_MOUNT_BENEATH = 0x200
FSOPEN_CLOEXEC = 0x1
FSMOUNT_CLOEXEC = 0x1
FSPICK_CLOEXEC = 0x1
FSPICK_SYMLINK_NOFOLLOW = 0x2
FSPICK_NO_AUTOMOUNT = 0x4
FSPICK_EMPTY_PATH = 0x8
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_SET_BINARY = 2
FSCONFIG_SET_PATH = 3
FSCONFIG_SET_PATH_EMPTY = 4
FSCONFIG_SET_FD = 5
FSCONFIG_CMD_CREATE = 6
FSCONFIG_CMD_RECONFIGURE = 7
FSCONFIG_CMD_CREATE_EXCL = 8
MNT_FORCE = 0x1
MNT_DETACH = 0x2
MNT_EXPIRE = 0x4
UMOUNT_NOFOLLOW = 0x8

# From statx(2), statmount(2), listmount(2)
STATX_MNT_ID = 0x1000
STATX_MNT_ID_UNIQUE = 0x4000
LSMT_ROOT = 0xFFFFFFFFFFFFFFFF
STATMOUNT_SB_BASIC = 0x1
STATMOUNT_MNT_BASIC = 0x2
STATMOUNT_PROPAGATE_FROM = 0x4
STATMOUNT_MNT_ROOT = 0x8
STATMOUNT_MNT_POINT = 0x10
STATMOUNT_FS_TYPE = 0x20

# From openat(2) family, openat2(2), close_range(2)
AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_REMOVEDIR = 0x200
AT_SYMLINK_FOLLOW = 0x400
AT_NO_AUTOMOUNT = 0x800
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
RESOLVE_NO_XDEV = 0x1
RESOLVE_NO_MAGICLINKS = 0x2
RESOLVE_NO_SYMLINKS = 0x4
RESOLVE_BENEATH = 0x8
RESOLVE_IN_ROOT = 0x10
RESOLVE_CACHED = 0x20
CLOSE_RANGE_UNSHARE = 0x2
CLOSE_RANGE_CLOEXEC = 0x4

# From statfs(2) f_type, as _linux.fstatfs() gives it
PROC_SUPER_MAGIC = 0x9FA0
SYSFS_MAGIC = 0x62656572
DEVPTS_SUPER_MAGIC = 0x1CD1
CGROUP_SUPER_MAGIC = 0x27E0EB
CGROUP2_SUPER_MAGIC = 0x63677270
TMPFS_MAGIC = 0x1021994
RAMFS_MAGIC = 0x858458F6
OVERLAYFS_SUPER_MAGIC = 0x794C7630
MQUEUE_MAGIC = 0x19800202
NSFS_MAGIC = 0x6E736673

# From prctl(2)
PR_SET_PDEATHSIG = 1
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
PR_GET_KEEPCAPS = 7
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_GET_SECCOMP = 21
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_GET_SECUREBITS = 27
PR_SET_SECUREBITS = 28
PR_SET_TIMERSLACK = 29
PR_SET_MM = 35
PR_SET_CHILD_SUBREAPER = 36
PR_GET_CHILD_SUBREAPER = 37
PR_SET_NO_NEW_PRIVS = 38
PR_GET_NO_NEW_PRIVS = 39
PR_SET_THP_DISABLE = 41
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_IS_SET = 1
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_LOWER = 3
PR_CAP_AMBIENT_CLEAR_ALL = 4
PR_SET_IO_FLUSHER = 57
PR_GET_IO_FLUSHER = 58
PR_SET_MDWE = 65
PR_SET_MEMORY_MERGE = 67

# From securebits, capabilities(7)
SECBIT_NOROOT = 0x1
SECBIT_NO_SETUID_FIXUP = 0x4
SECBIT_KEEP_CAPS = 0x10
SECBIT_NO_CAP_AMBIENT_RAISE = 0x40

# From seccomp(2)
SECCOMP_SET_MODE_STRICT = 0
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_GET_ACTION_AVAIL = 2
SECCOMP_GET_NOTIF_SIZES = 3
SECCOMP_FILTER_FLAG_TSYNC = 0x1
SECCOMP_FILTER_FLAG_LOG = 0x2
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 0x4
SECCOMP_FILTER_FLAG_NEW_LISTENER = 0x8
SECCOMP_FILTER_FLAG_TSYNC_ESRCH = 0x10
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 0x20

# From bpf(2)
BPF_PROG_TYPE_CGROUP_DEVICE = 15
BPF_CGROUP_DEVICE = 6
BPF_F_ALLOW_OVERRIDE = 0x1
BPF_F_ALLOW_MULTI = 0x2
BPF_F_REPLACE = 0x4

# From ioprio_set(2)
IOPRIO_WHO_PROCESS = 1
IOPRIO_CLASS_SHIFT = 13

# From ioctl_tty(2), ioctl_ns(2)
TIOCSCTTY = 0x540E
TIOCGWINSZ = 0x5413
TIOCSWINSZ = 0x5414
TIOCGPTN = 0x80045430
TIOCSPTLCK = 0x40045431
TIOCGPTPEER = 0x5441
NS_GET_USERNS = 0xB701
NS_GET_NSTYPE = 0xB703

# /proc/PID/stat, field 9
PF_FORKNOEXEC = 0x40

# The device nodes that are checked by number: (major, minor)
NULL_DEVICE = (1, 3)
PTMX_DEVICE = (5, 2)


def names(value: int, prefix: str, table: Mapping[str, int] | None = None) -> str:
    """Print a set of flags by name.

    Args:
        value: the flags, or-ed together.
        prefix: how the wanted names begin: "MS_", "CLONE_", "RESOLVE_".
        table: name -> number; this module's own constants unless given.

    Returns:
        "MS_RDONLY|MS_NOSUID"; bits without a name as one hexadecimal number; "0" for no flag.
        A name that stands for several bits (a mask) is not used.
    """
    found = []
    rest = value
    for name, bit in (globals() if table is None else table).items():
        if name.startswith(prefix) and type(bit) is int and bit > 0 and not bit & (bit - 1) and rest & bit:
            found.append(name)
            rest &= ~bit
    if rest or not found:
        found.append(hex(rest) if rest else "0")
    return "|".join(found)


def name_of(value: int, prefix: str, table: Mapping[str, int] | None = None) -> str:
    """Print one number that is not a set: an operation, a signal, a magic number.

    Args:
        value: the number.
        prefix: how the wanted name begins: "PR_", "SIG", "FSCONFIG_".
        table: name -> number; this module's own constants unless given.

    Returns:
        The first name that has this value, or the number in hexadecimal.
    """
    for name, number in (globals() if table is None else table).items():
        if name.startswith(prefix) and type(number) is int and number == value:
            return name
    return hex(value)
