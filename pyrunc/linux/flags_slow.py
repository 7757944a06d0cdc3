"""Linux constants that only slow code needs: messages, `features`, `plan`, tests.

Law 2: these tables are for explanations, and not in flags.py, so that no engine's call has to load them.
"""

from __future__ import annotations

from pyrunc.linux import flags

# From statfs(2) f_type -> the name of the filesystem, for "on /data: this is procfs, not ext4"
FILESYSTEMS: dict[int, str] = {
    flags.PROC_SUPER_MAGIC: "procfs",
    flags.SYSFS_MAGIC: "sysfs",
    flags.DEVPTS_SUPER_MAGIC: "devpts",
    flags.CGROUP_SUPER_MAGIC: "cgroup",
    flags.CGROUP2_SUPER_MAGIC: "cgroup2",
    flags.TMPFS_MAGIC: "tmpfs",
    flags.RAMFS_MAGIC: "ramfs",
    flags.OVERLAYFS_SUPER_MAGIC: "overlay",
    flags.MQUEUE_MAGIC: "mqueue",
    flags.NSFS_MAGIC: "nsfs",
    0xEF53: "ext2/ext3/ext4",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x2FC12FC1: "zfs",
    0x6969: "nfs",
    0x01021997: "9p",
    0x65735546: "fuse",
    0x73717368: "squashfs",
    0xE0F5E1E2: "erofs",
    0xFF534D42: "cifs",
    0xFE534D42: "smb2",
    0x64626720: "debugfs",
    0x74726163: "tracefs",
    0x73636673: "securityfs",
    0xCAFE4A11: "bpf",
    0x6165676C: "pstore",
    0xDE5E81E4: "efivarfs",
    0x62656570: "configfs",
    0x42494E4D: "binfmt_misc",
    0x958458F6: "hugetlbfs",
    0xF97CFF8C: "selinuxfs",
    0x19830326: "fhgfs",
}


def filesystem(magic: int) -> str:
    """Return the name of a file system for the f_type of statfs(2), or the number in hexadecimal."""
    return FILESYSTEMS.get(magic, f"filesystem {magic:#x}")
