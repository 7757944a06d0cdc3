"""An image's configuration as a container's config.json.

Source: the image specification, conversion.md, and config.md for the fields. What the image does not set is
as in `pyrunc spec`, with two exceptions: the root file system is writable, and the process has the
capabilities that engines give by default, because images are written for them.

An image's labels become annotations, except those that runtimes obey: an image is not trusted, and these have
an effect on the host (docs/annotations.md).
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
# Podman's set. An entrypoint that begins as root and changes owners of files needs most of them.
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
# Annotations that tell a runtime what to do, pyrunc or another one that may get the bundle.
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
        base: the configuration of `pyrunc spec`; it is changed in place.
        account: process.user.
        args: the command instead of the image's, if not empty.
        tty: the process has a terminal.

    Raises:
        Failure: the image's configuration is invalid.

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
    """Return a list of strings; a single string is Docker's old form.

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
    """Return the annotations: those of the specification, overridden by the labels."""
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
    """Return the destinations of the image's volumes."""
    found = set()
    for key in _keys(settings, "Volumes"):
        place = posixpath.normpath("/" + key.lstrip("/"))
        if ":" in key or ".." in key.split("/") or place == "/" or not key.isprintable():
            warnings.append(f"left out: the image's volume {quoted(key)}, which is no place for one")
        else:
            found.add(place)
    return sorted(found)
