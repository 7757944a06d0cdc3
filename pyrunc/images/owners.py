"""The owners of an image's files on this host.

Root gives each file the image's owner. An ordinary user is root in a user namespace of his own. With
subordinate ids (subuid(5), newuidmap(1)) the image's users are these; without them every file belongs to the
user.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pyrunc.errors import Failure
from pyrunc.images.tar_entries import quoted
from pyrunc.plan.steps import IdMaps

if TYPE_CHECKING:
    from pyrunc.images.tar_entries import Entry

_HELPERS = ("newuidmap", "newgidmap")
_PLACES = ("/usr/bin/", "/usr/sbin/", "/usr/local/bin/", "/bin/")
_ALL = 1 << 32


class Owners:
    """The rules for owners.

    Attributes:
        devices: devices can be made.

    """

    def __init__(self, users: int = _ALL, groups: int = _ALL, *, devices: bool = True) -> None:
        """Set them.

        Args:
            users: the ids below this one exist here; with 1 every file gets id 0.
            groups: the same for groups.
            devices: devices can be made.

        """
        self.users = users
        self.groups = groups
        self.devices = devices

    def of(self, entry: Entry) -> tuple[int, int]:
        """Return the owner of an entry's file.

        Raises:
            Failure: there are not enough subordinate ids.

        """
        if self.users == 1 or self.groups == 1:
            return 0, 0
        if entry.uid >= self.users or entry.gid >= self.groups:
            raise Failure(
                f"{quoted(entry.path)} belongs to {entry.uid}:{entry.gid}, and there are only "
                f"{self.users} user ids and {self.groups} group ids",
                hint="give yourself more in /etc/subuid and /etc/subgid",
            )
        return entry.uid, entry.gid


def mappings() -> IdMaps:
    """Return the mappings of an ordinary user: himself as root, then his subordinate ids, if he has both."""
    import pwd

    uid, gid = os.geteuid(), os.getegid()
    users: tuple[tuple[int, int, int], ...] = ((0, uid, 1),)
    groups: tuple[tuple[int, int, int], ...] = ((0, gid, 1),)
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = ""
    own, shared = _ranges("/etc/subuid", name, uid), _ranges("/etc/subgid", name, uid)
    if own and shared and all(_found(helper) for helper in _HELPERS):
        users += own
        groups += shared
    return IdMaps(uids=users, gids=groups)


def _found(helper: str) -> bool:
    return any(os.access(place + helper, os.X_OK) for place in _PLACES)


def _ranges(path: str, name: str, uid: int) -> tuple[tuple[int, int, int], ...]:
    """Return a user's ranges in a file as lines of a mapping that continues from 1."""
    found = []
    inside = 1
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read(1 << 20).split("\n")
    except OSError:
        return ()
    for line in lines:
        whose, _, numbers = line.partition(":")
        first, _, count = numbers.partition(":")
        if (
            whose in (name, str(uid))
            and whose
            and first.isdecimal()
            and count.strip().isdecimal()
            and int(count)
        ):
            found.append((inside, int(first), int(count)))
            inside += int(count)
    return tuple(found)
