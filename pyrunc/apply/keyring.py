"""A session keyring of its own for each container (keyrings(7)).

Keys are in no namespace: without this a container would hold the keys of whoever started it.
Runs in the child, before the LSM label is set. Law 6: imported by the parent before the fork.
"""

from __future__ import annotations

from pyrunc.errors import Failure
from pyrunc.linux import _linux

_ENOSYS, _EDQUOT, _EPERM, _EACCES = 38, 122, 1, 13
# keyctl(2), KEYCTL_SETPERM: search for the key's owner, search for everybody.
_SEARCH_OWNER = 0x00080000
_SEARCH_OTHER = 0x00000008


def join_session_keyring(container_id: str, *, userns: bool) -> None:
    """Join the session keyring "_ses.ID", made if there is none; exec finds the same one by that name.

    Args:
        container_id: names the keyring.
        userns: the container has a user namespace; its users are then "others" to the keyring's owner.

    Raises:
        Failure: the quota of keys is spent, or the call is forbidden. A kernel without keyrings is no
            failure.

    """
    name = f"_ses.{container_id}"
    try:
        ring = _linux.keyctl_join(name)
        # type;uid;gid;permissions in hexadecimal;description
        now = int(_linux.keyctl_describe(ring).split(";")[3], 16)
        # Without the possessor's and owner's right to search, keys of the ring cannot be used after setuid.
        _linux.keyctl_setperm(ring, now | (_SEARCH_OTHER if userns else _SEARCH_OWNER))
    except OSError as exc:
        errno = exc.errno or 0
        if errno == _ENOSYS:
            return
        raise Failure(f"unable to join session keyring {name}", errno=errno, hint=hint(errno)) from exc


def hint(errno: int) -> str:
    """Return what to do about a keyring that cannot be joined, "" when nothing is certain to help."""
    if errno == _EDQUOT:
        return "raise /proc/sys/kernel/keys/maxkeys (root_maxkeys for root), or pass --no-new-keyring"
    if errno in {_EPERM, _EACCES}:
        return "pass --no-new-keyring where keyctl is forbidden, or where another user owns the keyring"
    return ""
