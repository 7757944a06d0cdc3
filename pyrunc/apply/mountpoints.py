"""Which mount points were made for a container, so that delete can take them away again.

Written down one by one, and before each is made: whenever init is killed, nothing that it made is unknown
(law 4). A line is the JSON text of [directory on the host, path below it]; `null` takes the line before it
back.

What lies on a file system made for the container goes with it and is not noted; neither is what lies on
something mounted below a bind's source, of which only the kernel knows where it comes from.
"""

from __future__ import annotations

import os

from pyrunc import jsonio
from pyrunc.errors import Failure
from pyrunc.linux import _linux, flags

FILE = "made"


class Made:
    """The list for one container, from the side of its init.

    Attributes:
        file: descriptor of the list, -1 for none.
        bases: mount id -> directory on the host that is mounted there.
        mask: which kind of mount id: STATX_MNT_ID_UNIQUE, or STATX_MNT_ID where the kernel has no other.
        count: how many were made.

    """

    def __init__(self) -> None:
        """Begin with nothing made."""
        self.file = -1
        self.bases: dict[int, str] = {}
        self.mask = flags.STATX_MNT_ID_UNIQUE
        self.count = 0
        self._noted = False

    def open(self, directory: str) -> int:
        """Make the list's file in a state directory, and return its descriptor; by the parent.

        Raises:
            Failure: it cannot be made.

        """
        how = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self.file = os.open(f"{directory}/{FILE}", how, 0o600)
        except OSError as exc:
            raise Failure(f"make {directory}/{FILE}", errno=exc.errno or 0) from None
        return self.file

    def intend(self, stack: list[int], names: list[str], name: str) -> None:
        """Note what is about to be made.

        Args:
            stack: descriptors of the directories from the root down.
            names: their names, the root's not among them.
            name: what will be made in the last one.

        """
        self.count += 1
        self._noted = False
        if self.file < 0:
            return
        for depth in range(len(stack) - 1, -1, -1):
            mount, is_top = _linux.statx_mnt(stack[depth], self.mask)
            if is_top or not depth:
                base = self.bases.get(mount)
                if base is not None:
                    self._write([base, "/".join((*names[depth:], name))])
                    self._noted = True
                return

    def retract(self) -> None:
        """Take the last note back: somebody else was faster."""
        self.count -= 1
        if self._noted:
            self._write(None)

    def _write(self, line: object) -> None:
        os.write(self.file, jsonio.dumps(line).encode() + b"\n")
