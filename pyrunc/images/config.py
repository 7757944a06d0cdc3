"""An image's configuration as config.json of a container.

Source: the image specification, conversion.md, and config.md for what the fields mean. What the image says
nothing about is as `pyrunc spec` has it, but for two things: the root file system can be written to, and the
process has the capabilities that engines give by default, since images are written for them.

An image's labels become annotations, but for those that a runtime obeys: an image is not trusted, and they
reach the host (docs/annotations.md).
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from pyrunc.errors import Failure, printable
from pyrunc.images.tar_entries import quoted
from pyrunc.plan import annotations as known

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_PREFIX = "org.opencontainers.image."
# What Podman gives. An entrypoint that begins as root to give its files to somebody else takes most of them.
CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Annotations by which a runtime is told what to do, this one or another that the bundle may be given to.
_ORDERS = (
    *known.APPLIED,
    *known.REFUSED,
    *known.IGNORED,
    *known.FOLLOW,
    known.PREFIX,
    "io.kubernetes.",
    "io.katacontainers.",
    "io.podman.",
    "io.crun.",
    "dev.gvisor.",
    "com.github.containers.",
)


def user(image: dict[str, Any]) -> str:
    """Return the User of an image's configuration."""
    return str(_settings(image).get("User") or "")


def convert(
    image: dict[str, Any], base: dict[str, Any], account: dict[str, Any], *, args: Sequence[str], tty: bool
) -> tuple[dict[str, Any], list[str]]:
    """Return the configuration of a container, and warnings.

    Args:
        image: the image's configuration.
        base: what `pyrunc spec` writes; it is changed in place.
        account: process.user.
        args: the command in place of the image's, if there are any words.
        tty: the process has a terminal.

    Raises:
        Failure: the image's configuration makes no sense.

    """
    settings = _settings(image)
    warnings: list[str] = []
    process = base["process"]
    process["terminal"] = tty
    process["user"] = account
    command = [*args] or [*_texts(settings, "Entrypoint"), *_texts(settings, "Cmd")]
    if command:
        process["args"] = command
    env = _texts(settings, "Env")
    names = {word.partition("=")[0] for word in env}
    if "PATH" not in names:
        env.insert(0, _PATH)
    if tty and "TERM" not in names:
        env.append("TERM=xterm")
    process["env"] = env
    process["cwd"] = posixpath.normpath("/" + str(settings.get("WorkingDir") or "").lstrip("/"))
    for kind in process["capabilities"]:
        process["capabilities"][kind] = list(CAPABILITIES)
    base["root"] = {"path": "rootfs"}
    notes = _notes(image, settings, warnings)
    volumes = _volumes(settings, warnings)
    if volumes:
        notes[known.VOLUMES] = ":".join(volumes)
    if notes:
        base["annotations"] = notes
    return base, warnings


def _settings(image: dict[str, Any]) -> dict[str, Any]:
    found = image.get("config")
    return found if isinstance(found, dict) else {}


def _texts(settings: dict[str, Any], name: str) -> list[str]:
    """Return a list of words; one word alone is as Docker once wrote it.

    Raises:
        Failure: it is something else.

    """
    found = settings.get(name)
    if found is None:
        return []
    if isinstance(found, str):
        return [found]
    if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
        raise Failure(
            f"{name} in the image's configuration is no list of words: {printable(repr(found)[:80])}"
        )
    return [*found]


def _notes(image: dict[str, Any], settings: dict[str, Any], warnings: list[str]) -> dict[str, str]:
    """Return the annotations: what the specification wants, then the labels, which win."""
    said = {
        "os": image.get("os"),
        "architecture": image.get("architecture"),
        "variant": image.get("variant"),
        "author": image.get("author"),
        "created": image.get("created"),
        "stopSignal": settings.get("StopSignal"),
        "exposedPorts": ",".join(sorted(_keys(settings, "ExposedPorts"))),
    }
    found = {_PREFIX + key: value for key, value in said.items() if isinstance(value, str) and value}
    refused = []
    labels = settings.get("Labels")
    for key, value in labels.items() if isinstance(labels, dict) else ():
        if not isinstance(value, str) or not key:
            continue
        if any(key == order or (key.startswith(order) and order.endswith(".")) for order in _ORDERS):
            refused.append(quoted(key))
        else:
            found[key] = value
    if refused:
        warnings.append(f"left out, as a runtime would obey it: the image's label {', '.join(refused)}")
    return found


def _keys(settings: dict[str, Any], name: str) -> list[str]:
    found = settings.get(name)
    return [key for key in found if isinstance(key, str)] if isinstance(found, dict) else []


def _volumes(settings: dict[str, Any], warnings: list[str]) -> list[str]:
    """Return the places of the image's volumes."""
    found = set()
    for key in _keys(settings, "Volumes"):
        place = posixpath.normpath("/" + key.lstrip("/"))
        if ":" in key or ".." in key.split("/") or place == "/" or not key.isprintable():
            warnings.append(f"left out: the image's volume {quoted(key)}, which is no place for one")
        else:
            found.add(place)
    return sorted(found)
