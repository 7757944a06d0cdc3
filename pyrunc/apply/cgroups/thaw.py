"""What a container has frozen from within: found, and let go on.

A container with a cgroup mount of its own can freeze what is below its cgroup. Imported only when something
is to die or does not answer.
"""

from __future__ import annotations

from pyrunc import files
from pyrunc.apply.cgroups import cgroup


def is_frozen(paths: dict[str, str], pid: int) -> bool:
    """Tell whether a process is in a frozen cgroup: the container's, or one that it has made below."""
    file = "freezer.state" if "freezer" in paths else "cgroup.events"
    words = (b"FROZEN", b"FREEZING", b"frozen 1")
    found: list[bool] = []

    def look(directory: int) -> None:
        if pid in cgroup.members(directory):
            lines = cgroup.read("", file, directory).split(b"\n")
            found.append(any(line in words for line in lines))

    top = paths.get("freezer", paths.get(""))
    if top:
        cgroup.walk(top, look)
    return any(found)


def thaw_all(paths: dict[str, str]) -> None:
    """Let the processes go on that were frozen from within, too, so that they can die.

    Version 1 lets no frozen process end, and a container with a cgroup mount of its own can freeze what is
    below its cgroup. In version 2 a frozen one ends like any other.

    Raises:
        Failure: the kernel refuses.

    """
    if "freezer" in paths:
        # The topmost last: as long as that is frozen nobody is there to freeze another.
        cgroup.walk(paths["freezer"], leave=_thaw_one)
    cgroup.thaw(paths)


def _thaw_one(directory: int, name: str) -> None:
    try:
        files.write(f"{name}/freezer.state", b"THAWED", dir_fd=directory)
    except OSError:
        return  # gone
