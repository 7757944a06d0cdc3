"""The systemd cgroup manager as data: which unit, in which slice, with which properties.

Law 1: the bus is spoken by apply/cgroup_systemd; what is said is decided here. After systemd has made the
unit, the same limits are written to the cgroup's files as without it, because not every limit is a property.

Sources: runc's docs/systemd.md, org.freedesktop.systemd1(5), systemd.resource-control(5), systemd.slice(5).
"""

from __future__ import annotations

from pyrunc.plan.record import Record


class Unit(Record):
    """A transient unit.

    Attributes:
        name: "pyrunc-ID.scope", or a slice.
        properties: (name, D-Bus signature, value).
        user: of the user's own manager rather than the system's.

    """

    name: str
    properties: list[tuple[str, str, object]]
    user: bool = False

    def describe(self) -> list[str]:
        """Return the lines `pyrunc plan` shows."""
        return [f"systemd unit {self.name}"] + [
            f"{name}={value}" for name, _signature, value in self.properties
        ]
