"""The kernel's mount table, read; what its rows are is plan/mount_table.py's business."""

from __future__ import annotations

from pyrunc import files
from pyrunc.errors import failing
from pyrunc.plan import mount_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.mount_table import Row


def read(pid: int | str = "self") -> list[Row]:
    """Return the mount table of a process, our own unless another is named.

    Raises:
        Failure: there is no such process, or it does not let itself be looked at.

    """
    with failing(f"read the mount table of process {pid}"):
        text = files.read(f"/proc/{pid}/mountinfo")
    return mount_table.parse(text.decode("utf-8", "surrogateescape"))
