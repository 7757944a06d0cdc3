"""What is valid in a config.json, but probably a mistake: each with its place, its severity, and what to do.

Law 2, the slow path: only `validate` uses it. create accepts such a file and carries it out, as the
specification wants. Pure: the rules see only the file, not the root file system or the host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pyrunc.jsonio import quoted
from pyrunc.plan import mount_options
from pyrunc.spec import meaning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from pyrunc.spec.meaning import View
    from pyrunc.spec.types import Config

ERROR, WARNING, NOTE = "error", "warning", "note"


class Slip(NamedTuple):
    """One of them: JSON pointer, severity, a sentence."""

    pointer: str
    severity: str
    text: str


def find(config: Config, *, systemd: bool = False) -> list[Slip]:
    """Return all slips of a valid config.json.

    Args:
        config: it has passed the schema and the rules of meaning.py.
        systemd: systemd is to make the cgroups.

    """
    view = meaning.View(config)
    found = [slip for rule in RULES for slip in rule(view)]
    return found + list(cgroup(view, systemd=systemd))


# ------------------------------------------------------------------------------------ process


def user(view: View) -> Iterator[Slip]:
    """A user by name is Windows's, and then root runs the program."""
    if view.process is not None and meaning.only_named(view.process):
        yield Slip("/process/user/username", WARNING, meaning.USER_BY_NAME)


def capabilities(view: View) -> Iterator[Slip]:
    """A capability counts only where all the sets it needs have it (capabilities(7))."""
    if view.process is None:
        return
    sets: Any = view.process.get("capabilities") or {}
    named = {kind: set(sets.get(kind) or ()) for kind in ("bounding", "permitted", "effective", "ambient")}
    lost = named["effective"] - named["permitted"]
    if lost:
        yield Slip(
            "/process/capabilities/effective",
            WARNING,
            f"{_some(lost)} without being permitted has no effect: add it to permitted, too",
        )
    # A program of a user other than root begins only with the ambient ones.
    is_root = not (view.process.get("user") or {}).get("uid")
    idle = named["effective"] & named["permitted"] - named["ambient"]
    if idle and not is_root:
        yield Slip(
            "/process/capabilities/effective",
            NOTE,
            f"a user who is not root loses {_some(idle)} when the program is executed: add it to inheritable"
            " and ambient, too",
        )
    unbound = named["permitted"] - named["bounding"]
    if unbound and is_root:
        yield Slip(
            "/process/capabilities/bounding",
            WARNING,
            f"root loses {_some(unbound)} when the program is executed: add it to bounding, too",
        )


def privileges(view: View) -> Iterator[Slip]:
    """Programs with a set-user-ID bit give rights, unless noNewPrivileges takes that from them."""
    if view.process is None:
        return
    program = (view.process.get("args") or [""])[0].rpartition("/")[2]
    if view.process.get("noNewPrivileges"):
        if program in SETUID and (view.process.get("user") or {}).get("uid"):
            text = f"{program} needs its set-user-ID bit, which noNewPrivileges makes void"
            yield Slip("/process/noNewPrivileges", WARNING, text)
    elif (view.process.get("user") or {}).get("uid"):
        text = (
            "without noNewPrivileges a set-user-ID program of the image makes this user root in the container"
        )
        yield Slip("/process", NOTE, text)


# Common programs that do not work without the bit.
SETUID = frozenset(("chsh", "doas", "gpasswd", "mount", "newgrp", "passwd", "pkexec", "su", "sudo", "umount"))


# ------------------------------------------------------------------------------------ mounts


def hidden(view: View) -> Iterator[Slip]:
    """What is mounted at a place, or above it, later on hides what was mounted there."""
    places = []
    for mount in view.config.get("mounts") or ():
        path = "/" + "/".join(part for part in mount["destination"].split("/") if part not in ("", "."))
        covers = "remount" not in mount_options.parse(mount.get("options") or []).ext
        places.append((path, covers))
    for index, (path, covers) in enumerate(places):
        for later, (above, hides) in enumerate(places[index + 1 :], index + 1):
            if covers and hides and (path + "/").startswith(above.rstrip("/") + "/"):
                text = (
                    f"hidden by /mounts/{later}, which is mounted on {above} later: mount it before this one"
                )
                if path == above:
                    text = f"hidden by /mounts/{later}, which is mounted on {above}, too"
                yield Slip(f"/mounts/{index}", WARNING, text)
                break


# ------------------------------------------------------------------------------------ linux


def namespaces(view: View) -> Iterator[Slip]:
    """What has no namespace of its own is the host's."""
    for kind, severity, text in SHARED:
        if kind not in view.spaces:
            yield Slip("/linux/namespaces", severity, f"no {kind} namespace: {text}")


SHARED = (
    ("mount", WARNING, "mounts are made in the host's own tree, and stay there"),
    ("pid", WARNING, "the container sees the host's processes, and can signal those of its users"),
    ("ipc", NOTE, "System V IPC and POSIX message queues are shared with the host"),
    ("network", NOTE, "the host's network is shared, abstract sockets and services on localhost included"),
)


def seccomp(view: View) -> Iterator[Slip]:
    """A filter that allows by default also allows every call of newer kernels."""
    section = view.linux.get("seccomp")
    if section is None or section.get("defaultAction") not in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG"):
        return
    place = "/linux/seccomp/defaultAction"
    refusing = [
        rule
        for rule in section.get("syscalls") or ()
        if rule["action"] not in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG")
    ]
    if refusing:
        text = "all calls but those listed are allowed, also those that later kernels bring"
        yield Slip(place, NOTE, f"{text}: SCMP_ACT_ERRNO and a list of what is needed is safer")
    else:
        yield Slip(place, WARNING, "the filter refuses nothing: every system call is allowed")


def limits(view: View) -> Iterator[Slip]:
    """-1 is no limit; what is below it most likely was to be something else."""
    resources: Any = view.linux.get("resources") or {}
    for section, key in (
        ("memory", "limit"),
        ("memory", "reservation"),
        ("memory", "swap"),
        ("pids", "limit"),
        ("cpu", "quota"),
    ):
        value = (resources.get(section) or {}).get(key)
        if isinstance(value, int) and value < -1:
            text = f"{value} is no limit that one can mean: -1 says that there is none"
            yield Slip(f"/linux/resources/{section}/{key}", WARNING, text)


def cgroup(view: View, *, systemd: bool) -> Iterator[Slip]:
    """slice:prefix:name is for systemd; to everybody else it is a directory with colons."""
    path = view.linux.get("cgroupsPath") or ""
    if path.count(":") == 2 and "/" not in path and not systemd:
        text = f"{quoted(path)} is for systemd, and becomes a directory of that name without --systemd-cgroup"
        yield Slip("/linux/cgroupsPath", WARNING, text)


RULES: tuple[Callable[[View], Iterator[Slip]], ...] = (
    user,
    capabilities,
    privileges,
    hidden,
    namespaces,
    seccomp,
    limits,
)


def _some(names: set[str]) -> str:
    """Return a few names; of many the first ones."""
    found = sorted(names)
    return ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
