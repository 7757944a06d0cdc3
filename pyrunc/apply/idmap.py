"""Write a user namespace's id mappings (user_namespaces(7)).

Directly with the host's rights; as an ordinary user a mapping of oneself directly, anything more through
newuidmap and newgidmap, found in fixed places only (no PATH: nobody may choose what runs with their rights).
"""

from __future__ import annotations

import os

from pyrunc.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.steps import IdMaps

_EPERM = 1
_PLACES = ("/usr/bin/", "/usr/sbin/", "/usr/local/bin/", "/bin/")


def write(pid: int, step: IdMaps) -> None:
    """Write both maps of a process that has just entered a new user namespace.

    Raises:
        Failure: the kernel or the helper refuses a mapping; it is quoted.

    """
    privileged = os.geteuid() == 0
    _one(pid, "uid_map", step.uids, "/linux/uidMappings", "newuidmap")
    if not privileged and _is_own(step.gids, os.getegid()):
        # Without privileges a group map can only be written once setgroups is given up.
        _put(pid, "setgroups", "deny", "/linux/gidMappings")
    _one(pid, "gid_map", step.gids, "/linux/gidMappings", "newgidmap")


def _is_own(maps: tuple[tuple[int, int, int], ...], own: int) -> bool:
    return len(maps) == 1 and maps[0][1] == own and maps[0][2] == 1


def _one(pid: int, file: str, maps: tuple[tuple[int, int, int], ...], pointer: str, helper: str) -> None:
    if not maps:
        return
    text = "".join(f"{inside} {outside} {size}\n" for inside, outside, size in maps)
    own = os.geteuid() if file == "uid_map" else os.getegid()
    if os.geteuid() == 0 or _is_own(maps, own):
        _put(pid, file, text, pointer)
    else:
        _helper(pid, maps, pointer, helper)


def _put(pid: int, file: str, text: str, pointer: str) -> None:
    try:
        fd = os.open(f"/proc/{pid}/{file}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as exc:
        raise Failure(
            f"write {file} ({text.strip()!r})",
            pointer=pointer,
            errno=exc.errno or 0,
            hint="ranges must not overlap, and the host ids must be ours to give",
        ) from None


def _helper(pid: int, maps: tuple[tuple[int, int, int], ...], pointer: str, helper: str) -> None:
    path = next((place + helper for place in _PLACES if os.access(place + helper, os.X_OK)), "")
    if not path:
        raise Failure(
            f"mapping more than one's own id needs {helper}",
            pointer=pointer,
            hint="install the package uidmap",
        )
    words = [helper, str(pid)]
    for entry in maps:
        words += [str(number) for number in entry]
    reader, writer = os.pipe()
    actions = [(os.POSIX_SPAWN_DUP2, writer, 2), (os.POSIX_SPAWN_DUP2, writer, 1)]
    child = os.posix_spawn(path, words, {}, file_actions=actions)
    os.close(writer)
    said = os.read(reader, 4096).decode("utf-8", "replace").strip()
    os.close(reader)
    _pid, status = os.waitpid(child, 0)
    if status:
        raise Failure(
            f"{helper} refused {maps}: {said}",
            pointer=pointer,
            errno=_EPERM,
            hint="see /etc/subuid and /etc/subgid",
        )
