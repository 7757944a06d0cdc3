"""Directories made on the host with their parents, each with the mode it is meant to have.

os.makedirs() leaves parents to the umask, which may be 0: then they are everybody's to write. Here a mode is
set through a descriptor of what was made, whatever the umask is. Slow path: only when something is missing.
"""

from __future__ import annotations

import os

_PLACE = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_MADE = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def make(
    path: str, mode: int, *, parents: int = 0o755, made: list[tuple[str, int, int]] | None = None
) -> None:
    """Make a directory and whatever is missing above it; one that is there stays as it is.

    Args:
        path: the directory. What is there already may be a symlink, as the path is its maker's own word.
        mode: its mode.
        parents: the mode of those above it that are made as well.
        made: gets the path, device and inode of each that is made.

    Raises:
        OSError: one cannot be made.

    """
    missing: list[str] = []
    place = os.path.abspath(path)
    while True:
        try:
            here = os.open(place, _PLACE)
            break
        except FileNotFoundError:
            place, _, name = place.rpartition("/")
            missing.insert(0, name)
            place = place or "/"
    try:
        while missing:
            name = missing.pop(0)
            place = f"{place.rstrip('/')}/{name}"
            inner = _step(here, name, parents if missing else mode, place, made)
            os.close(here)
            here = inner
    finally:
        os.close(here)


def _step(here: int, name: str, mode: int, path: str, noted: list[tuple[str, int, int]] | None) -> int:
    """Make one directory and return its descriptor; one that somebody else makes meanwhile is theirs."""
    try:
        os.mkdir(name, 0o700, dir_fd=here)
    except FileExistsError:
        return os.open(name, _MADE, dir_fd=here)
    made = os.open(name, _MADE, dir_fd=here)
    try:
        if noted is not None:
            found = os.fstat(made)
            noted.append((path, found.st_dev, found.st_ino))
        os.fchmod(made, mode)
    except OSError:
        os.close(made)
        raise
    return made
