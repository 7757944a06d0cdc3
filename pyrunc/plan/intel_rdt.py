"""linux.intelRdt as data: the container's group in the resctrl file system.

Law 1: decided here are the directory, whether pyrunc makes and removes it, and the lines of its schemata file
in their order.

Sources: runtime-spec config-linux.md "IntelRdt" (1.3), Documentation/filesystems/resctrl.rst of Linux 6.18.
"""

from __future__ import annotations

from pyrunc.errors import Failure
from pyrunc.plan.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

POINTER = "/linux/intelRdt"

# Keys of the container's paths: a group made for it, one that existed or is shared, its monitoring group. The
# first and the last are removed with the container.
OWN, SHARED, MONITOR = "intel_rdt", "intel_rdt_clos", "intel_rdt_mon"


class IntelRdtPlan(Record):
    """The resource group.

    Attributes:
        root: mount point of resctrl.
        path: the group's directory.
        shared: the configuration names it, so it is not removed with the container.
        create: make it if it is missing; without schemata a named group must exist.
        compare: lines that an existing group must have.
        lines: (line, pointer) to write to its schemata file.
        monitor: the monitoring group's directory, "" for none.

    """

    root: str
    path: str
    shared: bool
    create: bool
    compare: tuple[str, ...]
    lines: list[tuple[str, str]]
    monitor: str = ""

    def paths(self) -> dict[str, str]:
        """Return the entries for the container's paths, the outer group first: it is joined first."""
        found = {SHARED if self.shared else OWN: self.path}
        if self.monitor:
            found[MONITOR] = self.monitor
        return found

    def describe(self) -> list[str]:
        """Return the lines `pyrunc plan` shows."""
        return [f"resctrl group {path}" for path in self.paths().values()] + [line for line, _ in self.lines]


def plan(section: dict[str, Any], root: str, container_id: str) -> IntelRdtPlan:
    """Decide on the group.

    Args:
        section: linux.intelRdt.
        root: where resctrl is mounted, "" when it is not.
        container_id: name of the group if the section has none, and of the monitoring group.

    Raises:
        Failure: no resctrl filesystem, a closID that is no name, a schema of another resource.

    """
    if not root:
        raise Failure(
            "intelRdt needs a mounted resctrl filesystem",
            pointer=POINTER,
            hint="on a processor that has it: mount -t resctrl resctrl /sys/fs/resctrl",
        )
    named = section.get("closID")
    if named is not None and named != "/" and ("/" in named or "\n" in named or named in ("", ".", "..")):
        raise Failure(f"closID {named!r} is no directory name", pointer=POINTER + "/closID")
    lines = schemas(section.get("l3CacheSchema"), section.get("memBwSchema"))
    compare = tuple(line for line, _pointer in lines)
    for index, line in enumerate(section.get("schemata") or ()):
        lines.append((_one_line(line, f"{POINTER}/schemata/{index}"), f"{POINTER}/schemata/{index}"))
    path = root if named == "/" else f"{root}/{named or container_id}"
    return IntelRdtPlan(
        root=root,
        path=path,
        shared=named is not None,
        create=named is None or (bool(lines) and named != "/"),
        compare=compare if named is not None else (),
        lines=lines,
        monitor=f"{path}/mon_groups/{container_id}" if section.get("enableMonitoring") else "",
    )


def schemas(cache: str | None, bandwidth: str | None) -> list[tuple[str, str]]:
    """Return (line, pointer) of the two schemata with a property of their own, the cache first.

    Raises:
        Failure: one is not about its resource.

    """
    lines = []
    # "L3" is also the beginning of L3CODE and L3DATA, the halves of a cache with code and data
    # prioritization.
    for text, key, prefix in ((cache, "l3CacheSchema", "L3"), (bandwidth, "memBwSchema", "MB:")):
        if not text:
            continue
        pointer = f"{POINTER}/{key}"
        for line in text.split("\n") if prefix == "L3" else [text]:
            if not line.strip().startswith(prefix):
                raise Failure(f"{key} {line!r} does not begin with {prefix!r}", pointer=pointer)
            lines.append((_one_line(line.strip(), pointer), pointer))
    return lines


def _one_line(text: str, pointer: str) -> str:
    if "\n" in text:
        raise Failure(f"{text!r} is more than one line", pointer=pointer)
    return text
