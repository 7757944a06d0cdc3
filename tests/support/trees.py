"""Directory trees, compared."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path


def listing(top: Path) -> list[tuple[str, int, int, int, int, int, str]]:
    """Everything about a tree except access times: names, kinds, owners, times, sizes and content.

    A directory's size is left out: on tmpfs (Debian 13 has one on /tmp) it may still include removed entries.
    """
    found = []
    for directory, folders, files in os.walk(top):
        for name in ("", *folders, *files):
            path = Path(directory, name)
            status = path.lstat()
            content = ""
            if stat.S_ISREG(status.st_mode):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            found.append(
                (
                    str(path),
                    status.st_mode,
                    status.st_uid,
                    status.st_gid,
                    status.st_mtime_ns,
                    0 if stat.S_ISDIR(status.st_mode) else status.st_size,
                    content,
                )
            )
    return sorted(found)
