"""Devices: the nodes and links every container has, and linux.devices.

Source: runtime-spec config-linux.md "Default Devices" and "Devices", config.md "/dev symbolic links".
"""

from __future__ import annotations

from pyrunc.errors import Failure
from pyrunc.plan.mount_steps import Mount
from pyrunc.plan.paths import clean
from pyrunc.plan.steps import Device, Step, Symlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrunc.plan.facts import Facts
    from pyrunc.spec.types import Config

DEFAULT = (
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
)

LINKS = (
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
)


# Required by the specification: made for each container, whatever the image has there.
PTMX = "/dev/ptmx"


def wanted(tree: Sequence[Step]) -> bool:
    """Tell whether /dev is to be filled: a bind of the host's /dev is left unchanged.

    Args:
        tree: the steps of the mounts.

    """
    return not any(
        isinstance(step, Mount) and step.destination == "/dev" and step.options.bind for step in tree
    )


def lower(config: Config, facts: Facts, tree: Sequence[Step], *, user_namespace: bool) -> list[Step]:
    """Return the steps that fill /dev.

    Args:
        config: an accepted config.json.
        facts: the host.
        tree: the steps of the mounts.
        user_namespace: nodes cannot be made, so the host's are bound.

    Raises:
        Failure: a device has no name.

    """
    linux = config.get("linux") or {}
    own: list[Step] = []
    named = set()
    for index, device in enumerate(linux.get("devices") or ()):
        mode = device.get("fileMode")
        path = clean(device["path"])
        if path == "/":
            raise Failure(
                f"device path {device['path']} does not name a file", pointer=f"/linux/devices/{index}/path"
            )
        if path == PTMX:
            continue  # the link below is made instead, as in runc
        own.append(
            Device(
                path=path,
                type="c" if device["type"] == "u" else device["type"],
                major=device.get("major") or 0,
                minor=device.get("minor") or 0,
                mode=0o666 if mode is None else mode & 0o7777,
                uid=device.get("uid") or 0,
                gid=device.get("gid") or 0,
                bind=user_namespace and device["type"] != "p",  # a fifo can be made everywhere
                pointer=f"/linux/devices/{index}",
            )
        )
        named.add(path)
    steps: list[Step] = [
        Device(
            path=path,
            type="c",
            major=major,
            minor=minor,
            mode=0o666,
            uid=0,
            gid=0,
            bind=user_namespace,
            default=True,
        )
        for path, major, minor in DEFAULT
        if path not in named
    ]
    steps += own
    steps += [Symlink(path=path, target=target) for path, target in LINKS]
    if facts.kcore:
        steps.append(Symlink(path="/dev/core", target="/proc/kcore"))
    if not any(isinstance(step, Mount) and step.destination == PTMX for step in tree):
        # The image may have a node of its own there, which would be the host's pty device.
        steps.append(Symlink(path=PTMX, target="pts/ptmx", replace=True))
    return steps
