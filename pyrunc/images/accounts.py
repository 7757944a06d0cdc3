"""The user of an image's process: the configuration's User, looked up in the image's own accounts.

Source: the image specification, config.md. The files belong to the image: they are read through target.py,
with a limit; a line in another form is skipped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrunc import jsonio
from pyrunc.apply import target
from pyrunc.errors import Failure
from pyrunc.images.tar_entries import quoted

if TYPE_CHECKING:
    from typing import Any

_LARGEST = 1 << 20
_LAST = 0xFFFFFFFE


def find(root: int, text: str) -> dict[str, Any]:
    """Return process.user of config.json.

    Args:
        root: descriptor of the root file system.
        text: USER[:GROUP], each a name or a number; "" is root.

    Raises:
        Failure: a name has no account.

    """
    user, _, group = text.partition(":")
    accounts = _lines(root, "/etc/passwd", 4)
    found = next((line for line in accounts if user and line[0] == user), None)
    uid = _id(found[2]) if found else _id(user or "0")
    if uid is None:
        raise Failure(
            f"the image's user {quoted(text)} is not in its /etc/passwd", hint="say who with --user UID[:GID]"
        )
    found = found or next((line for line in accounts if _id(line[2]) == uid), None)
    groups = _lines(root, "/etc/group", 4)
    if group:
        named = next((line for line in groups if line[0] == group), None)
        gid = _id(named[2]) if named else _id(group)
        if gid is None:
            raise Failure(
                f"the image's group {quoted(text)} is not in its /etc/group",
                hint="say which with --user UID[:GID]",
            )
        return _user(uid, gid)
    if not found:
        return _user(uid, 0)
    members = (_id(line[2]) for line in groups if found[0] in line[3].split(","))
    return _user(uid, _id(found[3]) or 0, *(gid for gid in members if gid is not None))


def _user(uid: int, gid: int, *more: int) -> dict[str, Any]:
    """Return process.user; its first group is an additional one, or it could be left (CVE-2022-36109)."""
    return {"uid": uid, "gid": gid, "additionalGids": [*dict.fromkeys((gid, *more))]}


def _id(text: str) -> int | None:
    return jsonio.decimal(text, _LAST)


def _lines(root: int, path: str, fields: int) -> list[list[str]]:
    text = target.read(root, path, _LARGEST).decode("utf-8", "surrogateescape")
    lines = (line.split(":") for line in text.split("\n"))
    return [line for line in lines if len(line) >= fields]
