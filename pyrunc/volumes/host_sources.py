"""The host's side of a mount: check the source, make it if allowed, set label and owner.

The path of a bind's source comes from the caller and is trusted. Its content may have been changed by a
container, so trees are changed only through descriptors (apply/directory_trees.py).
"""

from __future__ import annotations

import os

from pyrunc import directories
from pyrunc.apply import directory_trees, mount_table
from pyrunc.errors import Failure
from pyrunc.files import closing
from pyrunc.linux import _linux
from pyrunc.plan import namespaces
from pyrunc.volumes.grammar import invalid, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.spec.types import Config
    from pyrunc.volumes.grammar import Request

# To label these, or to change the owner of everything in them, is always a mistake. Docker and Podman refuse
# it, too.
_SYSTEM = frozenset(
    (
        *(
            "/",
            "/bin",
            "/boot",
            "/dev",
            "/etc",
            "/home",
            "/lib",
            "/lib32",
            "/lib64",
            "/media",
            "/mnt",
            "/opt",
        ),
        *(
            "/proc",
            "/root",
            "/run",
            "/sbin",
            "/srv",
            "/sys",
            "/usr",
            "/var",
            "/var/lib",
            "/var/log",
            "/var/run",
        ),
        "/tmp",  # noqa: S108 - a name to be compared with
    )
)
_SHARED_LABEL = "system_u:object_r:container_file_t:s0"
_SELINUX = "/sys/fs/selinux/enforce"


def check(request: Request, asked: str) -> None:
    """Refuse a bind that cannot work, before anything is made.

    Args:
        request: the mount.
        asked: the option, for messages.

    Raises: Failure: the source is missing and may not be made; its mount cannot have the propagation; it is
        the system's own.

    """
    if request.kind != "bind":
        return
    source = request.source
    there = os.path.lexists(source) if request.nofollow else os.path.exists(source)
    if not there and not request.create:
        raise Failure(
            'invalid mount config for type "bind": bind source path does not exist: '
            + shown(source, quote=""),
            hint="-v would make a directory",
        )
    if there and (request.chown or request.relabel):
        _refuse_system(os.stat(source, follow_symlinks=not request.nofollow), request, asked)
    if request.propagation.removeprefix("r") in ("shared", "slave"):
        _check_propagation(source, request.propagation)


def _refuse_system(found: os.stat_result, request: Request, asked: str) -> None:
    """Refuse to change the system's own directories, whatever path leads to them."""
    for path in _SYSTEM:
        try:
            same = os.path.samestat(found, os.stat(path))
        except OSError:
            continue
        if same:
            what = "chown (U)" if request.chown else f"SELinux relabeling ({request.relabel})"
            source = request.source if request.source == path else f"{request.source} ({path})"
            raise invalid(asked, f"{what} of {source} is not allowed: the host needs it as it is")


def _check_propagation(source: str, wanted: str) -> None:
    """A mount can receive or send mount events only if its source does."""
    path = source
    while not os.path.exists(path):
        path = os.path.dirname(path)
    with closing(os.open(path, os.O_PATH | os.O_CLOEXEC)) as fd:
        number = _linux.statx_mnt(fd)[0]
    row = next((row for row in mount_table.read() if row.id == number), None)
    if row is None or row.shared or (row.master and not wanted.endswith("shared")):
        return
    kind = "a shared" if wanted.endswith("shared") else "a shared or slave"
    raise Failure(
        f"path {source} is mounted on {row.point} but it is not {kind} mount",
        hint=f"mount --make-shared {row.point}",
    )


def missing(path: str) -> list[str]:
    """Return the parts of a path that do not exist, the outermost first."""
    found: list[str] = []
    while not os.path.lexists(path):
        found.insert(0, path)
        path = os.path.dirname(path)
    return found


def ready(request: Request, asked: str, made: list[tuple[str, int, int]]) -> None:
    """Make a missing host directory, if the option allows it.

    Args:
        request: the mount.
        asked: the option, for messages.
        made: is extended by path, device and inode of what is made.

    Raises:
        Failure: it cannot be made.

    """
    if not request.create or os.path.exists(request.source):
        return
    try:
        directories.make(request.source, 0o755, made=made)
    except OSError as exc:
        raise Failure(
            f"{shown(asked, quote='')}: make host directory {request.source}", errno=exc.errno or 0
        ) from None


def settle(source: str, request: Request, config: Config, asked: str, *, opened: int = -1) -> None:
    """Give a source to the container's user (U) and label it (z, Z), if asked for.

    Another container may be able to change what its path leads to. So it is opened once, and the open file is
    checked and changed.

    Args:
        source: the directory or file.
        request: what is asked for.
        config: the configuration, with the container's user and label.
        asked: the option, for messages.
        opened: its descriptor, if the caller has one.

    Raises:
        Failure: it cannot be done, or the source is one of the system's own directories.

    """
    context = label(request.relabel, config) if request.relabel else ""
    if not request.chown and not context:
        return
    how = os.O_PATH | os.O_CLOEXEC | (os.O_NOFOLLOW if request.nofollow else 0)
    try:
        fd = os.dup(opened) if opened >= 0 else os.open(source, how)
    except OSError as exc:
        raise Failure(f"{shown(asked, quote='')}: open {source}", errno=exc.errno or 0) from None
    with closing(fd):
        _refuse_system(os.fstat(fd), request, asked)
        if request.chown:
            uid, gid = owner(config)
            directory_trees.chown(fd, uid, gid, source)
        if context:
            directory_trees.label(fd, context, source)


def owner(config: Config) -> tuple[int, int]:
    """Return the container's user and group as ids of the host.

    Raises:
        Failure: the user namespace has no such id.

    """
    process: Any = config.get("process") or {}
    user = process.get("user") or {}
    uids, gids = namespaces.own_ids(config)
    found = []
    for key, number, ranges in (("uid", user.get("uid", 0), uids), ("gid", user.get("gid", 0), gids)):
        outside = number if not ranges else -1
        for inside, base, size in ranges:
            if inside <= number < inside + size:
                outside = base + number - inside
        if outside < 0:
            raise Failure(
                f"{key} {number} is not mapped in the container's user namespace",
                pointer=f"/process/user/{key}",
            )
        found.append(outside)
    return found[0], found[1]


def label(word: str, config: Config) -> str:
    """Return the SELinux context for z or Z, "" if labels have no effect.

    They have one if the host has SELinux and the container a mount label. Otherwise z and Z are accepted and
    do nothing, as in every engine.
    """
    own = (config.get("linux") or {}).get("mountLabel") or ""
    if not own or not os.path.exists(_SELINUX):
        return ""
    if word == "Z":
        return own
    # The same type without the container's own categories: all containers may use it.
    parts = own.split(":")
    return ":".join([*parts[:3], "s0"]) if len(parts) > 3 else _SHARED_LABEL
