"""Read the kernel's mount table; plan/mount_table.py parses it."""

from __future__ import annotations

from pyrunc import files
from pyrunc.errors import failing
from pyrunc.plan import mount_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.mount_table import Row


def read(pid: int | str = "self") -> list[Row]:
    """Return the mount table of a process, by default of this one.

    Raises:
        Failure: there is no such process, or it may not be read.

    """
    with failing(f"read the mount table of process {pid}"):
        text = files.read(f"/proc/{pid}/mountinfo")
    return mount_table.parse(text.decode("utf-8", "surrogateescape"))
