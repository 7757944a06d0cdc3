"""Compare two trees, with all attributes of their files."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def describe(top: str) -> dict[str, dict[str, object]]:
    """Return all about each file of a tree, by its path; "" is the top."""
    found: dict[str, dict[str, object]] = {}
    names: dict[tuple[int, int], str] = {}
    for path in _walk(top):
        status = os.lstat(f"{top}/{path}")
        entry: dict[str, object] = {
            "mode": oct(status.st_mode),
            "owner": (status.st_uid, status.st_gid),
            "changed": status.st_mtime_ns,
            "attributes": _attributes(f"{top}/{path}"),
        }
        if stat.S_ISREG(status.st_mode):
            with open(f"{top}/{path}", "rb") as file:
                entry["content"] = hashlib.file_digest(file, "sha256").hexdigest()
            entry["size"] = status.st_size
        elif stat.S_ISLNK(status.st_mode):
            entry["target"] = os.readlink(f"{top}/{path}")
        elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            entry["device"] = (os.major(status.st_rdev), os.minor(status.st_rdev))
        if not stat.S_ISDIR(status.st_mode):
            entry["same file as"] = names.setdefault((status.st_dev, status.st_ino), path)
        found[path] = entry
    return found


@contextmanager
def merged(lowers: list[str], place: Path) -> Iterator[str]:
    """Mount an overlay of directories, highest first, that is not written to; return its path."""
    words = ["mount", "-t", "overlay", "overlay", "-o", f"ro,lowerdir={':'.join(lowers)}", str(place)]
    subprocess.run(words, check=True)
    try:
        yield str(place)
    finally:
        subprocess.run(["umount", str(place)], check=True)


def blocks(top: str) -> int:
    """Return what a tree takes on the disk, in kilobytes."""
    return sum(os.lstat(f"{top}/{path}").st_blocks for path in _walk(top)) // 2


def _walk(top: str) -> list[str]:
    found = [""]
    for directory, folders, files in os.walk(top):
        below = os.path.relpath(directory, top)
        found += [name if below == "." else f"{below}/{name}" for name in (*folders, *files)]
    return sorted(found)


def _attributes(path: str) -> dict[str, bytes]:
    names = os.listxattr(path, follow_symlinks=False)
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in sorted(names)}


def _later(entry: dict[str, object], begin: int) -> bool:
    changed = entry["changed"]
    return isinstance(changed, int) and changed >= begin


def differences(
    ours: dict[str, dict[str, object]], theirs: dict[str, dict[str, object]], begin: int
) -> list[str]:
    """Return what differs, a line each.

    Args:
        ours: what describe() says of a tree.
        theirs: the same of the other.
        begin: when unpacking began, in nanoseconds: a directory without an entry has a later time in both.

    """
    lines = []
    for path in sorted({*ours, *theirs}):
        one, other = ours.get(path), theirs.get(path)
        if one is None or other is None:
            lines.append(f"{path!a}: only {'theirs' if one is None else 'ours'}")
            continue
        lines += [
            f"{path!a}: {key} is {one.get(key)!a}, theirs is {other.get(key)!a}"
            for key in sorted({*one, *other})
            if one.get(key) != other.get(key)
            and not (key == "changed" and _later(one, begin) and _later(other, begin))
        ]
    return lines
