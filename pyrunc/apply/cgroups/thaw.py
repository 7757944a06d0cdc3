"""Find and thaw what a container has frozen itself.

A container with a cgroup mount of its own can freeze cgroups below its own. Imported only when a process has
to end or does not answer.
"""

from __future__ import annotations

from pyrunc import files
from pyrunc.apply.cgroups import cgroup


def is_frozen(paths: dict[str, str], pid: int) -> bool:
    """Tell whether a process is in a frozen cgroup: the container's, or one below it."""
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
    """Thaw all cgroups of a container, also those it has frozen itself, so that its processes can end.

    In version 1 a frozen process cannot end. In version 2 it can.

    Raises:
        Failure: the kernel refuses.

    """
    if "freezer" in paths:
        # The topmost last: while it is frozen, no process can freeze another one.
        cgroup.walk(paths["freezer"], leave=_thaw_one)
    cgroup.thaw(paths)


def _thaw_one(directory: int, name: str) -> None:
    try:
        files.write(f"{name}/freezer.state", b"THAWED", dir_fd=directory)
    except OSError:
        return  # it does not exist any more
