"""What is planned for a container's cgroup, as data: its directories, its settings, its systemd unit.

Law 1: cgroups.py and the modules for limits and devices fill these records; apply/cgroups carries them out.
"""

from __future__ import annotations

from pyrunc.plan.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from pyrunc.plan.intel_rdt import IntelRdtPlan

    # name, D-Bus signature, value, the first systemd that has the property
    Property: TypeAlias = tuple[str, str, object, int]

RESOURCES = "/linux/resources"

# The device rules that every engine expects from a runtime, added after the configuration's (whose first rule
# usually is "deny all"): make any node (a node alone opens nothing), and use the harmless memory devices,
# terminals and tun.
DEFAULT_DEVICES = (
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",  # null
    "c 1:5 rwm",  # zero
    "c 1:7 rwm",  # full
    "c 1:8 rwm",  # random
    "c 1:9 rwm",  # urandom
    "c 5:0 rwm",  # tty
    "c 5:2 rwm",  # ptmx
    "c 136:* rwm",  # pts/*
    "c 10:200 rwm",  # net/tun
)


class CgroupWrite(Record):
    """One setting: a file of the container's cgroup and its value.

    Attributes:
        controller: the key of CgroupPlan.paths in whose directory the file is ("" in the unified hierarchy).
        file: the file's name, one path component.
        value: what to write; each line is one write, because the kernel accepts one setting at a time.
        pointer: the place in config.json that asked for it.
        other: (file, value) to use if the first file does not exist: the same limit under another I/O
            scheduler.
        optional: "missing" when a host without the file already does what is asked, "denied" when in addition
            a refusal for want of rights changes nothing (device rules in a user namespace).

    """

    controller: str
    file: str
    value: str
    pointer: str
    other: tuple[str, str] | None = None
    optional: str = ""

    def describe(self) -> str:
        """Return one line for people."""
        value = self.value.replace("\n", ", ")
        return f"{self.controller or 'unified'}: {self.file} = {value}"


class Unit(Record):
    """A transient unit of systemd.

    Attributes:
        name: "pyrunc-ID.scope", or a slice.
        properties: its properties.
        user: it belongs to the user's systemd, not to the system's.

    """

    name: str
    properties: list[Property]
    user: bool = False

    def describe(self) -> list[str]:
        """Return the lines `pyrunc plan` shows."""
        return [f"systemd unit {self.name}"] + [
            f"{name}={value}" for name, _sign, value, _since in self.properties
        ]


class CgroupPlan(Record):
    """The container's cgroup and its settings.

    Attributes:
        manager: "cgroupfs", "systemd" or "disabled".
        version: as in CgroupFacts.
        roots: controller -> mount point of its hierarchy; nothing above it is changed.
        paths: controller -> the container's directory, absolute. Empty if no cgroup is made.
        writes: the settings, in order. One the kernel calls invalid is tried again after the others: many are
            only valid together with a partner (quota and period, memory and memory+swap), in an order that
            depends on the present values.
        enable: controllers to enable from the root of the unified hierarchy down.
        needed: controller of the unified hierarchy -> pointer of the first limit that needs it.
        devices: a program for BPF_CGROUP_DEVICE (version 2), b"" for none.
        devices_optional: a missing right to load it is no failure (user namespace).
        optional: rootless, and no cgroup was asked for by name: without the right to make it the container
            does without, unless a limit depends on it.
        spared: hierarchies an ordinary user's container does without in the same way although a cgroup was
            asked for by name: beside version 1 the unified one, which engines do not delegate then.
        owner: host user id the cgroup is handed to, -1 to keep it.
        check: (limit, memory plus swap) in bytes that must not be below the present use, 0 for none.
        unit: what to ask of systemd, None without it.
        rdt: the resctrl group, None without one; its directories are in paths too.

    """

    manager: str
    version: int
    roots: dict[str, str]
    paths: dict[str, str]
    writes: list[CgroupWrite]
    enable: tuple[str, ...] = ()
    needed: dict[str, str]
    devices: bytes = b""
    devices_optional: bool = False
    optional: bool = False
    spared: tuple[str, ...] = ()
    owner: int = -1
    check: tuple[int, int] = (0, 0)
    unit: Unit | None = None
    rdt: IntelRdtPlan | None = None

    def describe(self) -> list[str]:
        """Return the lines `pyrunc plan` shows."""
        lines = [f"cgroup {path}" for path in dict.fromkeys(self.paths[name] for name in self.roots)]
        if self.unit is not None:
            lines += self.unit.describe()
        lines += [write.describe() for write in self.writes]
        if self.devices:
            lines.append(f"device filter: {len(self.devices) // 8} BPF instructions")
        if self.owner >= 0:
            lines.append(f"owner of the cgroup: uid {self.owner}")
        if self.rdt is not None:
            lines += self.rdt.describe()
        return lines
