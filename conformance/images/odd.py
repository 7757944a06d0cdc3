"""An image with every kind of entry, and with every way in which a layer can change what is below it."""

from __future__ import annotations

import os
import struct
import subprocess
import tarfile
from typing import TYPE_CHECKING

from tests.support.images import Entry, folder, layer, link, symlink

if TYPE_CHECKING:
    from pathlib import Path

# struct vfs_cap_data of linux/capability.h, version 2: cap_net_bind_service, permitted and effective.
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)
# linux/posix_acl_xattr.h, version 2: user::rw-, user:7:r--, group::r--, mask::r--, other::---.
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *line)
    for line in (
        (1, 6, 0xFFFFFFFF),
        (2, 4, 7),
        (4, 4, 0xFFFFFFFF),
        (16, 4, 0xFFFFFFFF),
        (32, 0, 0xFFFFFFFF),
    )
)
X = "SCHILY.xattr."


def _words(data: bytes) -> str:
    """Return the value of a pax header; not UTF-8 goes through as it is."""
    return data.decode("utf-8", "surrogateescape")


def first() -> bytes:
    """The lowest layer: every kind."""
    long = "/".join(["a-directory-with-a-long-name"] * 12)
    return layer(
        folder("./", 0o755, time=1_400_000_000),
        folder("dir", 0o2775, uid=8, gid=9, pax={X + "user.note": "kept"}),
        folder("locked", 0o000),
        folder("sticky", 0o1777),
        Entry("dir/file", b"content\n", mode=0o640, uid=1000, gid=2000),
        Entry("dir/empty", mode=0o000),
        Entry("dir/setuid", b"x", mode=0o4755, uid=1),
        Entry("dir/setgid", b"x", mode=0o2755, gid=43),
        Entry("dir/capable", b"x", mode=0o755, pax={X + "security.capability": _words(CAPABILITY)}),
        Entry("dir/listed", b"x", pax={X + "system.posix_acl_access": _words(ACL)}, mode=0o640),
        Entry(
            "dir/noted", b"x", pax={X + "user.binary": _words(bytes(range(1, 256))), X + "user.text": "=\n="}
        ),
        Entry("dir/trusted", b"x", pax={X + "trusted.thing": "x"}),
        Entry("dir/nanoseconds", b"x", pax={"mtime": "1500000000.123456789", "atime": "1400000000.5"}),
        Entry("dir/before-1970", b"x", pax={"mtime": "-86400.25"}),
        Entry("dir/after-2038", b"x", pax={"mtime": "4102444800"}),
        Entry("dir/of-many", b"x", uid=3_000_000_000, gid=3_000_000_001),
        Entry("dir/\udcff\udcfe-no-text", b"x"),
        Entry("dir/ein schöner Name", b"x"),
        Entry("dir/line\nend", b"x"),
        Entry("dir/.hidden", b"x"),
        Entry("dir/..two-dots", b"x"),
        Entry("./dir//slashes", b"x"),
        Entry("old-style", b"x", kind=tarfile.AREGTYPE),
        Entry(f"{long}/file", b"deep"),
        Entry("n" * 255, b"the longest name"),
    )


def links() -> bytes:
    """What is no file of its own, and what another layer will find."""
    return layer(
        symlink("link-to-file", "dir/file", uid=5, gid=6),
        symlink("link-to-directory", "dir"),
        symlink("link-to-nothing", "nowhere"),
        symlink("link-absolute", "/dir/file"),
        symlink("dir/link-up", "../dir/file"),
        symlink("link-long", "x/" * 500 + "y"),
        link("hard", "dir/file"),
        link("hard-to-link", "link-to-nothing"),
        link("./hard-dotted", "./dir/file"),
        Entry("fifo", kind=tarfile.FIFOTYPE, mode=0o622),
        Entry("null", kind=tarfile.CHRTYPE, mode=0o666, device=(1, 3)),
        Entry("loop", kind=tarfile.BLKTYPE, mode=0o660, gid=6, device=(7, 200)),
        link("hard-to-device", "null"),
        folder("goes"),
        Entry("goes/file", b"x"),
        Entry("goes-alone", b"x"),
        folder("opaque"),
        Entry("opaque/below", b"x"),
        folder("opaque/deep"),
        Entry("opaque/deep/below", b"x"),
        folder("late"),
        Entry("late/below", b"x"),
        folder("late/both"),
        Entry("late/both/below", b"x"),
        Entry("becomes-directory", b"x"),
        folder("becomes-file"),
        Entry("becomes-file/below", b"x"),
        symlink("becomes-directory-too", "dir"),
        folder("becomes-link"),
        Entry("becomes-link/below", b"x"),
        folder("stays", 0o700, pax={X + "user.goes": "away"}),
        Entry("stays/below", b"x"),
        Entry("one", b"first"),
        link("two", "one"),
        Entry("dir/replaced-in-one-layer", b"old"),
        Entry("dir/replaced-in-one-layer", b"new"),
    )


def second() -> bytes:
    """The layer above it: whiteouts, and everything that becomes something else."""
    return layer(
        Entry(".wh.goes"),
        Entry(".wh.goes-alone"),
        Entry(".wh.never-was"),
        folder("opaque", 0o711),
        Entry("opaque/.wh..wh..opq"),
        Entry("opaque/above", b"x"),
        # The mark behind what it stands for, as some write it.
        folder("late"),
        Entry("late/above", b"x"),
        folder("late/both"),
        Entry("late/both/above", b"x"),
        Entry("late/.wh..wh..opq"),
        folder("becomes-directory"),
        Entry("becomes-directory/above", b"x"),
        Entry("becomes-file", b"x"),
        folder("becomes-directory-too"),
        Entry("becomes-directory-too/above", b"x"),
        symlink("becomes-link", "dir"),
        folder("stays", 0o750, uid=4),
        # One of two names gets a file of its own; the other keeps the old one.
        Entry("one", b"second"),
        link("three", "two"),
        # Without an entry for the directory: it keeps its times.
        Entry("dir/from-above", b"x"),
        Entry("link-to-directory/through-a-link", b"x"),
        Entry("link-absolute", b"no link any more"),
    )


def sparse(directory: Path) -> list[bytes]:
    """Layers of files with holes, in each form that pax archives have had; umoci knows no other."""
    source = directory / "sparse"
    source.mkdir()
    with (source / "holes").open("wb") as file:
        for place in (4096 * 3, 1 << 20, (1 << 22) + 7):
            file.seek(place)
            file.write(b"data" * 300)
        file.truncate(6 << 20)
    with (source / "only-a-hole").open("wb") as file:
        file.truncate(1 << 20)
    layers = []
    for version in ("0.0", "0.1", "1.0"):
        words = ["tar", "-C", str(source), "-cS", "--format=posix", f"--sparse-version={version}"]
        words += ["--transform", f"s,^\\.,sparse-{version},", "."]
        os.utime(source, (1_500_000_000, 1_500_000_000))
        layers.append(subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout)
    return layers
