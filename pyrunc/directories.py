"""Make directories on the host with their parents, each with the right mode.

os.makedirs() uses the umask for parents, which may be 0: then everybody could write to them. Here the mode is
set through a descriptor, whatever the umask is. Slow path: only if something is missing.
"""

from __future__ import annotations

import os

_PLACE = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_MADE = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def make(
    path: str, mode: int, *, parents: int = 0o755, made: list[tuple[str, int, int]] | None = None
) -> None:
    """Make a directory and its missing parents; existing ones stay unchanged.

    Args:
        path: the directory. An existing part may be a symlink: the path comes from a trusted caller.
        mode: its mode.
        parents: the mode of parents that are made.
        made: is extended by path, device and inode of each that is made.

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
    """Make one directory and return its descriptor; one that another process makes meanwhile is kept."""
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
