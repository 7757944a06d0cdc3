"""Mount tables, as the kernel shows them, and mounts of the host as sources for containers."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from struct import unpack_from
from typing import TYPE_CHECKING

from pyrunc.linux import _linux, flags
from pyrunc.plan.mount_table import unescape
from tests.support.forked import in_child

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# How /proc/PID/mountinfo names the attributes, in its order (fs/proc_namespace.c, show_mnt_opts()).
_ATTRIBUTES = (
    (flags.MOUNT_ATTR_NOSUID, "nosuid"),
    (flags.MOUNT_ATTR_NODEV, "nodev"),
    (flags.MOUNT_ATTR_NOEXEC, "noexec"),
    (flags.MOUNT_ATTR_NOATIME, "noatime"),
    (flags.MOUNT_ATTR_NODIRATIME, "nodiratime"),
    (0, "relatime"),
    (flags.MOUNT_ATTR_NOSYMFOLLOW, "nosymfollow"),
    (flags.MOUNT_ATTR_IDMAP, "idmapped"),
)
_PROPAGATION = (
    (flags.MS_SHARED, "shared"),
    (flags.MS_SLAVE, "master"),
    (flags.MS_UNBINDABLE, "unbindable"),
)


@contextmanager
def on_the_root_mount() -> Iterator[Path]:
    """Make a temporary directory on the mount of "/": /tmp is often another mount (a tmpfs on Debian 13)."""
    root = os.stat("/").st_dev
    above = next(place for place in ("/tmp", "/var/tmp", "/opt", "/") if os.stat(place).st_dev == root)
    made = Path(tempfile.mkdtemp(prefix="pyrunc-test-", dir=above))
    made.chmod(0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made)


class Row:
    """One line of a mountinfo table (proc_pid_mountinfo(5))."""

    def __init__(self, line: str) -> None:
        """Parse it."""
        left, _, right = line.partition(" - ")
        words = left.split(" ")
        self.line = line
        self.id, self.parent = int(words[0]), int(words[1])
        self.root, self.place = unescape(words[3]), unescape(words[4])
        self.options = words[5]
        self.tags = dict(word.partition(":")[::2] for word in words[6:] if word)
        self.kind, self.source, self.superblock = right.split(" ")[:3]

    @property
    def words(self) -> set[str]:
        """Its options, one by one."""
        return set(self.options.split(","))

    @property
    def propagation(self) -> str:
        """Its propagation in words: "shared", "master", "shared+master", "unbindable" or "private"."""
        return "+".join(word for _, word in _PROPAGATION if word in self.tags) or "private"

    def __repr__(self) -> str:
        """The line, for the report of a failed assertion."""
        return self.line


def parse_rows(text: str) -> list[Row]:
    """Return the rows of a mountinfo table, in its order."""
    # Only a newline ends a line: a name may contain other characters that Python takes for line ends.
    return [Row(line) for line in text.split("\n") if line]


def read_rows(pid: int | str = "self") -> list[Row]:
    """Return the mounts of a process as the host sees them, in the order of the table."""
    return parse_rows(Path(f"/proc/{pid}/mountinfo").read_bytes().decode(errors="surrogateescape"))


def rows(text: str) -> dict[str, Row]:
    """Return mount point -> row; of several mounts on one place the topmost, which comes last."""
    return {row.place: row for row in parse_rows(text)}


def table(pid: int | str = "self") -> dict[str, Row]:
    """Return the mounts of a process as the host sees them: mount point -> row."""
    return {row.place: row for row in read_rows(pid)}


def statmounts(pid: int, places: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return what statmount(2) says in a process's mount namespace: mount point -> (options, propagation).

    The words are those of mountinfo, so that the two can be compared.
    """
    wanted = list(places)

    def ask() -> dict[str, tuple[str, str]]:
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY)
        _linux.setns(os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY), flags.CLONE_NEWNS)
        found = {}
        for place in wanted:
            fd = _linux.openat2(root, place, os.O_PATH | os.O_NOFOLLOW, 0, flags.RESOLVE_IN_ROOT)
            unique, is_top = _linux.statx_mnt(fd, flags.STATX_MNT_ID_UNIQUE)
            assert is_top, place
            raw = _linux.statmount(unique, flags.STATMOUNT_MNT_BASIC, 512)
            # offsetof(struct statmount, mnt_attr), then mnt_propagation (include/uapi/linux/mount.h)
            found[place] = _words(*unpack_from("=QQ", raw, 64))
            os.close(fd)
        return found

    answer = in_child(ask)
    assert isinstance(answer, dict), answer
    assert set(answer) == set(wanted), answer
    return {place: (options, propagation) for place, (options, propagation) in answer.items()}


def _words(attributes: int, propagation: int) -> tuple[str, str]:
    shown = ["ro" if attributes & flags.MOUNT_ATTR_RDONLY else "rw"]
    for bit, word in _ATTRIBUTES:
        if word == "relatime":
            if not attributes & (flags.MOUNT_ATTR_NOATIME | flags.MOUNT_ATTR_STRICTATIME):
                shown.append(word)
        elif attributes & bit:
            shown.append(word)
    kinds = "+".join(word for bit, word in _PROPAGATION if propagation & bit)
    return ",".join(shown), kinds or "private"


def restrict(place: Path, words: int) -> None:
    """Set MS_* bits of a mount, with a call that all kernels have: mount_setattr(2) came with Linux 5.12."""
    _linux.mount(None, str(place), None, flags.MS_REMOUNT | flags.MS_BIND | words, None)


class HostMounts:
    """Mounts made on the host, all of them removed again by close()."""

    def __init__(self) -> None:
        """Begin with none."""
        self.made: list[Path] = []

    def tmpfs(self, place: Path, data: str = "mode=755", propagation: int = flags.MS_PRIVATE) -> Path:
        """Mount a tmpfs, on a directory that is made."""
        place.mkdir(parents=True, exist_ok=True)
        _linux.mount("tmpfs", str(place), "tmpfs", 0, data)
        self.made.append(place)
        _linux.mount(None, str(place), None, propagation, None)
        return place

    def bind(self, source: Path, place: Path, words: int = 0, propagation: int = 0) -> Path:
        """Bind a directory on another one, with MS_* bits."""
        place.mkdir(parents=True, exist_ok=True)
        _linux.mount(str(source), str(place), None, flags.MS_BIND, None)
        self.made.append(place)
        if words:
            restrict(place, words)
        if propagation:
            _linux.mount(None, str(place), None, propagation, None)
        return place

    def umount(self, place: Path) -> None:
        """Remove one."""
        _linux.umount2(str(place), flags.MNT_DETACH)
        self.made.remove(place)

    def close(self) -> None:
        """Remove all, the last one first."""
        while self.made:
            self.umount(self.made[-1])
