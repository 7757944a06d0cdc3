"""Devices: the nodes and links every container has, and linux.devices.

Source: runtime-spec config-linux.md "Default Devices" and "Devices", config.md "/dev symbolic links".
"""

from __future__ import annotations

from pyrunc.plan.steps import Device, Step, Symlink

TYPE_CHECKING = False
if TYPE_CHECKING:
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


def wanted(config: Config) -> bool:
    """Tell whether /dev is ours to fill: a bind of the host's /dev is left as it is."""
    for mount in config.get("mounts") or ():
        if mount["destination"].rstrip("/") in ("/dev", "dev"):
            options = mount.get("options") or ()
            if "bind" in options or "rbind" in options:
                return False
    return True


def lower(config: Config, facts: Facts, *, user_namespace: bool) -> list[Step]:
    """Return the steps that fill /dev. In a user namespace nodes cannot be made, so the host's are bound."""
    linux = config.get("linux") or {}
    own: list[Step] = []
    named = set()
    for index, device in enumerate(linux.get("devices") or ()):
        mode = device.get("fileMode")
        own.append(
            Device(
                path=device["path"],
                type="c" if device["type"] == "u" else device["type"],
                major=device.get("major") or 0,
                minor=device.get("minor") or 0,
                mode=0o666 if mode is None else mode,
                uid=device.get("uid") or 0,
                gid=device.get("gid") or 0,
                bind=user_namespace and device["type"] != "p",  # a fifo can be made anywhere
                pointer=f"/linux/devices/{index}",
            )
        )
        named.add(device["path"])
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
    if any(mount["destination"].rstrip("/") == "/dev/pts" for mount in config.get("mounts") or ()):
        # The image may bring a node of its own there, which would be the host's pty device.
        steps.append(Symlink(path="/dev/ptmx", target="pts/ptmx", replace=True))
    return steps
