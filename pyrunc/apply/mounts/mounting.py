"""What mount steps share when they are carried out in a running container, or before a restore."""

from __future__ import annotations

import os

from pyrunc.apply.mounts import mount_points
from pyrunc.linux import _linux, flags
from pyrunc.plan.mount_steps import Bind, Remount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from pyrunc.plan.mount_steps import FileSystem, Mount

    class Tree(Protocol):
        """Where mounts are made."""

        root: int
        procfs: int
        mounts: dict[int, int]
        mounting: Mounting


class Mounting:
    """The state of the mount steps; made by the parent, inherited by the child.

    Attributes:
        made: which mount points were made.
        links: id of a step -> the target of its source, a symlink.
        noted: (mount id, step) of every mount, for the check at the end.
        places: mount id -> mount point below the root, if the kernel may give an id to another mount later.
        lonely: ids of steps for slave mounts whose source is not shared, so that they cannot be slaves.
        readonly_last: mounts that become read-only at the end.
        again: mounts whose propagation is set again at the end.
        copy: fills a tmpfs with what it will cover (tmpcopyup.fill), if a step asks for it.

    """

    def __init__(self) -> None:
        """Make it without any mounts."""
        self.made = mount_points.Made()
        self.links: dict[int, str] = {}
        self.noted: list[tuple[int, Mount]] = []
        self.places: dict[int, str] = {}
        self.lonely: set[int] = set()
        self.readonly_last: list[tuple[int, Mount]] = []
        self.again: list[tuple[int, Mount]] = []
        self.copy: Callable[[FileSystem, int, int], None] | None = None

    def source(self, child: Tree, step: Mount) -> int:
        """Return the mount that the parent has opened for a step, -1 if there is none."""
        return child.mounts.pop(id(step), -1)

    def note(self, child: Tree, fd: int, step: Mount) -> None:
        """Remember a mount that has been attached."""
        mount, _is_root = _linux.statx_mnt(fd, self.made.mask)
        if self.made.mask == flags.STATX_MNT_ID:
            top, here = (os.readlink(f"self/fd/{each}", dir_fd=child.procfs) for each in (child.root, fd))
            self.places[mount] = here[len(top.rstrip("/")) :]
        if isinstance(step, Remount):
            # After a remount the earlier options do not apply any more.
            self.noted = [other for other in self.noted if other[0] != mount]
        self.noted.append((mount, step))
        if isinstance(step, Bind):
            self.made.bases[mount] = step.full_source
        if step.attributes.again:
            self.again.append((os.dup(fd), step))
