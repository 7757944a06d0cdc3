"""Write a user namespace's id mappings (user_namespaces(7)).

With the host's rights they are written directly. An ordinary user may write only a mapping of his own ids;
all others need newuidmap and newgidmap. These programs are taken from fixed directories and not from PATH,
because they run with more rights than the caller has.
"""

from __future__ import annotations

import os
from errno import EPERM

from pyrunc import files
from pyrunc.apply import children, identity
from pyrunc.errors import Failure
from pyrunc.linux import flags
from pyrunc.plan.steps import IdMaps, OomScore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from pyrunc.plan.steps import Plan

    Maps: TypeAlias = tuple[tuple[int, int, int], ...]

# The limits of one write (user_namespaces(7)): 340 lines since Linux 4.15, and less than a page.
_EXTENTS, _PAGE = 340, 4096
_SHOWN = 5  # ranges a message names
_PLACES = ("/usr/bin/", "/usr/sbin/", "/usr/local/bin/", "/bin/")


def carry_out(plan: Plan, pid: int, do: Callable[..., object]) -> None:
    """Write the plan's mappings for a process in a new user namespace, or compare a joined one's.

    Args:
        plan: the plan.
        pid: the process.
        do: carries out a step (parent.Launch.do).

    Raises:
        Failure: as write() and compare().

    """
    own = plan.namespaces.flags & flags.CLONE_NEWUSER
    for step in plan.parent:
        if isinstance(step, IdMaps):
            do(step, write if own else compare, pid, step)


def dress(plan: Plan, pid: int, do: Callable[..., object]) -> None:
    """Write id mappings and OOM score of an ordinary user's first process, while it is dumpable.

    The kernel lets an ordinary user write only to a dumpable process. Init inherits the values; it is not
    dumpable itself, so its files in /proc belong to root.

    Args:
        plan: the plan.
        pid: the process.
        do: carries out a step (parent.Launch.do).

    Raises:
        Failure: as carry_out().

    """
    carry_out(plan, pid, do)
    for step in plan.parent:
        if isinstance(step, OomScore):
            do(step, identity.set_oom_score, pid, step)


def write(pid: int, step: IdMaps) -> None:
    """Write both maps of a process that has just entered a new user namespace.

    Raises:
        Failure: the kernel or the helper program refuses a mapping, which the message quotes.

    """
    privileged = os.geteuid() == 0
    _one(pid, "uid_map", step.uids, "/linux/uidMappings", "newuidmap")
    if not privileged and _is_own(step.gids, os.getegid()):
        # Without privileges the group mapping may be written only after setgroups has been denied.
        _put(pid, "setgroups", "deny")
    _one(pid, "gid_map", step.gids, "/linux/gidMappings", "newgidmap")


def _is_own(maps: Maps, own: int) -> bool:
    return len(maps) == 1 and maps[0][1] == own and maps[0][2] == 1


def _one(pid: int, file: str, maps: Maps, pointer: str, helper: str) -> None:
    if not maps:
        return
    own = os.geteuid() if file == "uid_map" else os.getegid()
    if os.geteuid() != 0 and not _is_own(maps, own):
        _helper(pid, maps, pointer, helper)
        return
    try:
        _put(pid, file, _text(maps))
    except OSError as exc:
        raise _refused(file, maps, pointer, exc.errno or 0) from None


def _text(maps: Maps) -> str:
    return "".join(f"{inside} {outside} {size}\n" for inside, outside, size in maps)


def compare(pid: int, step: IdMaps) -> None:
    """Check that a joined user namespace has the mappings of config.json.

    Raises:
        Failure: it has others.

    """
    for file, maps in (("uid_map", step.uids), ("gid_map", step.gids)):
        with open(f"/proc/{pid}/{file}", encoding="ascii") as text:
            found = sorted(tuple(map(int, line.split())) for line in text)
        if maps and found != sorted(maps):
            raise Failure(
                "user namespaces enabled, but both namespace path and non-matching mapping specified",
                pointer=f"/linux/{file[:3]}Mappings",
                hint=f"leave them out, or give those of the namespace: {_shown(found)}",
            )


def _put(pid: int, file: str, text: str) -> None:
    files.write(f"/proc/{pid}/{file}", text.encode())


def _refused(file: str, maps: Maps, pointer: str, errno: int) -> Failure:
    """Explain why the kernel refuses a mapping: EINVAL has four possible causes."""
    hint = ""
    if errno == EPERM:
        hint = "the host ids must be the caller's to give"
    elif len(maps) > _EXTENTS:
        hint = f"there are {len(maps)} ranges, the kernel takes {_EXTENTS}"
    elif len(_text(maps)) >= _PAGE:
        hint = f"the map is {len(_text(maps))} bytes long, the kernel takes {_PAGE - 1}: use fewer ranges"
    else:
        hint = _overlap(maps)
    return Failure(f"write {file} ({_shown(maps)})", pointer=pointer, errno=errno, hint=hint)


def _overlap(maps: Maps) -> str:
    for index, one in enumerate(maps):
        for other in maps[:index]:
            for side, name in ((0, "container"), (1, "host")):
                if one[side] < other[side] + other[2] and other[side] < one[side] + one[2]:
                    return f"the ranges {_shown([other])} and {_shown([one])} share {name} ids"
    return ""


def _shown(maps: Sequence[Sequence[int]]) -> str:
    shown = ", ".join(f"{inside}:{outside}:{size}" for inside, outside, size in maps[:_SHOWN])
    return shown + (f" and {len(maps) - _SHOWN} more" if len(maps) > _SHOWN else "")


def _helper(pid: int, maps: Maps, pointer: str, helper: str) -> None:
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
    signals = children.default_signals()
    child = os.posix_spawn(path, words, {}, file_actions=actions, setsigdef=signals, setsigmask=())
    os.close(writer)
    said = os.read(reader, 4096).decode("utf-8", "replace").strip()
    os.close(reader)
    _pid, status = os.waitpid(child, 0)
    if status:
        raise Failure(
            f"{helper} refused {_shown(maps)}: {said}",
            pointer=pointer,
            errno=EPERM,
            hint="see /etc/subuid and /etc/subgid",
        )
