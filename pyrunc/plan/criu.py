"""Checkpoint and restore as data: the requests to CRIU.

Law 1: a request is decided here from the configuration, the command line and the mount table, with the names
of CRIU's own protocol (apply/criu/messages.py), and sent elsewhere.

A container's mounts that show something of the host are "external" to CRIU. It must be told their mount
points for a dump, and what to mount there, under the same names, for a restore. The names are those that runc
and crun use, so that images made by one can be restored by the other.

Sources: CRIU 4.2 (images/rpc.proto, Documentation/criu.txt), https://criu.org/External_bind_mounts,
https://criu.org/CGroups.
"""

from __future__ import annotations

from pyrunc.errors import Failure
from pyrunc.jsonio import decimal
from pyrunc.linux.flags import CLONE_NEWNET
from pyrunc.plan import namespaces, steps
from pyrunc.plan.mount_steps import Bind, CgroupBind, FileSystem, Mount
from pyrunc.plan.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from pyrunc.plan.mount_table import Row
    from pyrunc.spec.types import Config

    Message = dict[str, Any]

# enum criu_cg_mode; 6 leaves the choice to CRIU (soft).
MODES = {"ignore": 0, "soft": 3, "full": 4, "strict": 5, None: 6}
# enum criu_network_lock_method
LOCKS = {"iptables": 1, "nftables": 2, "skip": 3}
# --empty-ns
EMPTY = {"network": CLONE_NEWNET}

# CRIU's names of the namespaces.
NAMES = {"network": "net", "mount": "mnt"}
# Those that it leaves alone if the container joined them: dumped as "net[inode]:extRootNetNS", restored into
# the descriptor with that name. It can enter all others by their path.
LEFT_ALONE = ("network", "pid")

# Lines of a log that do not explain a failure: a limit that could not be raised, and the failure itself.
_NO_CAUSE = ("RLIMIT_NOFILE", "Dumping FAILED", "Restoring FAILED")
_QUOTED = 3

_LOG_LEVEL = 4  # everything: pyrunc and engines look for the reason of a failure in the log
_CGROUPS = ("cgroup", "cgroup2")
_NULL = "/dev/null"


class External(Record):
    """A mount that shows something of the host.

    Attributes:
        destination: its destination in the configuration; may have symlinks.
        source: the host's path.
        recursive: with all that is mounted below the source.
        covered: it is on a file system of the container's own: CRIU restores its mount point.
        step: the mount step, None for a device.

    """

    destination: str
    source: str
    recursive: bool = False
    covered: bool = False
    step: Mount | None = None


def externals(plan: steps.Plan) -> list[External]:
    """Return the mounts of a plan that show something of the host, in their order."""
    found = []
    own: list[str] = []
    for step in plan.child:
        if isinstance(step, Mount):
            covered = _below(step.destination, own)
            if isinstance(step, (Bind, CgroupBind)):
                source = step.source if step.source.startswith("/") else f"{plan.bundle}/{step.source}"
                found.append(
                    External(
                        destination=step.destination,
                        source=source,
                        recursive=step.attributes.recursive,
                        covered=covered,
                        step=step,
                    )
                )
            elif isinstance(step, FileSystem):
                own.append(step.destination)
        elif isinstance(step, steps.Device) and step.bind:
            found.append(External(destination=step.path, source=step.path, covered=_below(step.path, own)))
    return found


def points(plan: steps.Plan) -> list[Mount]:
    """Return the mounts whose mount points must exist in the root file system before CRIU restores.

    Not those on a file system of the container's own, which CRIU restores with its directories.
    """
    found = []
    own: list[str] = []
    for step in plan.child:
        if isinstance(step, Mount):
            if step.fstype not in _CGROUPS and not _below(step.destination, own):
                found.append(step)
            if isinstance(step, FileSystem):
                own.append(step.destination)
    return found


def _below(path: str, places: Iterable[str]) -> bool:
    return any(path != place and path.startswith(place.rstrip("/") + "/") for place in places)


def masks(plan: steps.Plan) -> list[str]:
    """Return the masked paths of a plan."""
    return [step.path for step in plan.child if isinstance(step, steps.MaskedPath)]


def covers(plan: steps.Plan) -> list[str]:
    """Return the read-only paths of a plan: they are mounts, too, but CRIU finds their source itself."""
    return [step.path for step in plan.child if isinstance(step, steps.ReadonlyPath)]


def dumped_mounts(plan: steps.Plan, located: dict[str, str], rows: list[Row]) -> list[Message]:
    """Return the external mounts for the request of a dump.

    Args:
        plan: the container's.
        located: destination -> mount point in the container, without symlinks; without those that do not
            exist.
        rows: the container's mount table.

    """
    named: dict[str, str] = {}
    taken = {located[path] for path in (*masks(plan), *covers(plan)) if path in located}
    mounts = [external for external in externals(plan) if external.destination in located]
    taken.update(located[external.destination] for external in mounts)
    for external in mounts:
        point = located[external.destination]
        named[point] = point
        if external.recursive:
            for row in rows:
                if _below(row.point, [point]) and row.point not in taken:
                    named[row.point] = row.point
    by_point = {row.point: row for row in rows}
    for path in masks(plan):
        cover = by_point.get(located.get(path, ""))
        # A masked directory has an empty tmpfs of the container's own.
        if cover is not None and cover.root != "/":
            named[cover.point] = _NULL
    return [{"key": key, "val": value} for key, value in named.items()]


def restored_mounts(
    plan: steps.Plan, located: dict[str, str], sources: dict[str, str], rows: list[Row]
) -> list[Message]:
    """Return the sources of the external mounts for the request of a restore.

    Args:
        plan: the new container's.
        located: destination -> mount point in the root file system, without symlinks.
        sources: source -> the same without symlinks.
        rows: the host's mount table.

    """
    named: dict[str, str] = {}
    below: dict[str, str] = {}
    for external in externals(plan):
        point = located.get(external.destination, external.destination)
        named[point] = external.source
        source = sources.get(external.source, external.source)
        if external.recursive:
            for row in rows:
                if _below(row.point, [source]):
                    rest = row.point[len(source.rstrip("/")) :]
                    below[point.rstrip("/") + rest] = row.point
    if masks(plan):
        named[_NULL] = _NULL
    return [{"key": key, "val": value} for key, value in {**below, **named}.items()]


def common(cmd: Any, log: str, config_file: str) -> Message:
    """Return what both requests share.

    Args:
        cmd: the command line, with the options of both checkpoint and restore.
        log: name of the log file.
        config_file: CRIU's own configuration file, "" for none.

    Raises:
        Failure: --empty-ns names a namespace that cannot be empty.

    """
    # A runtime does not configure networks, so CRIU never restores the devices of a network namespace.
    empty = CLONE_NEWNET
    for name in cmd.empty_ns:
        if name not in EMPTY:
            raise Failure(
                f"namespace {name!r} is not supported", hint="--empty-ns takes: " + ", ".join(EMPTY)
            )
        empty |= EMPTY[name]
    return {
        "log_level": _LOG_LEVEL,
        "log_file": log,
        "manage_cgroups": True,
        "manage_cgroups_mode": MODES[cmd.manage_cgroups_mode],
        "notify_scripts": True,
        "shell_job": cmd.shell_job,
        "ext_unix_sk": cmd.ext_unix_sk,
        "tcp_established": cmd.tcp_established,
        "file_locks": cmd.file_locks,
        "empty_ns": empty,
        "orphan_pts_master": True,
        "auto_dedup": cmd.auto_dedup,
        "lazy_pages": cmd.lazy_pages,
        "network_lock": LOCKS[cmd.network_lock] if cmd.network_lock else None,
        "config_file": config_file or None,
    }


def dump(cmd: Any, *, pid: int, root: str, freezer: str) -> Message:
    """Return what a dump adds to common().

    Args:
        cmd: the command line.
        pid: the container's init.
        root: its root file system.
        freezer: cgroup directory with which CRIU freezes it, "" for none.

    Raises:
        Failure: --page-server is not ADDRESS:PORT.

    """
    return {
        "pid": pid,
        "root": root,
        "leave_running": cmd.leave_running,
        "tcp_skip_in_flight": cmd.tcp_skip_in_flight,
        "link_remap": cmd.link_remap,
        "freeze_cgroup": freezer or None,
        "ps": page_server(cmd.page_server) if cmd.page_server else None,
        "parent_img": cmd.parent_path or None,
        "track_mem": True if cmd.parent_path else None,
    }


def restore(cmd: Any, *, root: str) -> Message:
    """Return what a restore adds to common().

    Args:
        cmd: the command line.
        root: mount point of the root file system for CRIU.

    """
    return {
        "root": root,
        "evasive_devices": True,
        "rst_sibling": True,
        "tcp_close": True if cmd.tcp_close else None,
        "lsm_profile": cmd.lsm_profile or None,
        "lsm_mount_context": cmd.lsm_mount_context or None,
    }


def page_server(text: str) -> Message:
    """Return --page-server's address and port.

    Raises:
        Failure: it is not ADDRESS:PORT.

    """
    address, _, port = text.rpartition(":")
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]  # an IPv6 address is in brackets because of its colons
    if not address or not port:
        raise Failure(f"--page-server {text!r}: use --page-server ADDRESS:PORT to specify page server")
    number = decimal(port, (1 << 16) - 1)
    if not number:
        raise Failure(f"--page-server {text!r}: invalid port number")
    return {"address": address, "port": number}


def key(kind: str) -> str:
    """Return CRIU's name for a namespace that it leaves alone."""
    return f"extRoot{_name(kind).capitalize()}NS"


def dumped_namespaces(inodes: dict[str, int]) -> list[str]:
    """Return the namespaces that CRIU leaves alone, for the request of a dump.

    Args:
        inodes: type -> inode number of each that the container joined.

    """
    return [f"{_name(kind)}[{inode}]:{key(kind)}" for kind, inode in inodes.items()]


def joined(config: Config) -> dict[str, str]:
    """Return type -> path of the joined namespaces that CRIU leaves alone."""
    return {kind: path for kind, path in namespaces.paths(config).items() if path and kind in LEFT_ALONE}


def entered(config: Config) -> list[Message]:
    """Return the other joined namespaces, which CRIU enters in a restore.

    Raises:
        Failure: it cannot enter one of that type.

    """
    found = []
    for kind, path in namespaces.paths(config).items():
        if not path or kind in LEFT_ALONE:
            continue
        if kind == "cgroup":
            raise Failure("criu cannot restore into a cgroup namespace by path", pointer="/linux/namespaces")
        found.append({"ns": _name(kind), "ns_file": path})
    return found


def _name(kind: str) -> str:
    return NAMES.get(kind, kind)


def errors(log: str) -> list[str]:
    """Return the errors in a CRIU log, without the times: the first one and the last two.

    The first is mostly the cause; the last ones say what failed because of it.
    """
    found: list[str] = []
    for line in log.splitlines():
        at = line.find("Error (")
        text = line[at:].strip() if at >= 0 else ""
        if text and text not in found and not any(word in text for word in _NO_CAUSE):
            found.append(text)
    return found if len(found) <= _QUOTED else [found[0], *found[1 - _QUOTED :]]
