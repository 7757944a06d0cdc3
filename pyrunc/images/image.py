"""An image that was found: its configuration, and its layers."""

from __future__ import annotations

import os
from errno import ENOENT
from typing import TYPE_CHECKING

from pyrunc.errors import Failure, printable
from pyrunc.images import streams
from pyrunc.images.platforms import name

if TYPE_CHECKING:
    from typing import Any

    from pyrunc.images.image_files import Files
    from pyrunc.images.platforms import Platform

FORMS = "it takes an OCI image layout or what docker save or podman save writes, as a directory or a tar"


class Layer:
    """A layer.

    Attributes:
        file: its name among the image's files.
        digest: of the file, "" if unknown.
        size: of the file, -1 if unknown.
        content: digest of the uncompressed tar (diffID).

    """

    def __init__(self, file: str, content: str, digest: str = "", size: int = -1) -> None:
        """Keep the values."""
        self.file = file
        self.content = content
        self.digest = digest
        self.size = size


class Image:
    """An image.

    Attributes:
        files: its files.
        config: its configuration (config.md of the image specification).
        layers: its layers, the lowest first.

    """

    def __init__(self, files: Files, config: Any, layers: list[Layer]) -> None:
        """Keep the values.

        Raises:
            Failure: its configuration is invalid.

        """
        self.files = files
        self.config: dict[str, Any] = checked(config, dict, f"the configuration of {files.path}")
        self.layers = layers

    def contents(self) -> list[str]:
        """Return the digests of the layers' uncompressed tars, which identify the tree."""
        return [layer.content for layer in self.layers]


def checked(value: Any, kind: type, what: str) -> Any:
    """Return a value of an image's JSON, after a check of its type.

    Raises:
        Failure: it has another type.

    """
    if not isinstance(value, kind):
        raise Failure(f"{what} is not what it should be: {printable(repr(value)[:80])}")
    return value


def content_digests(config: Any, count: int, what: str) -> list[str]:
    """Return the digests of the uncompressed layers that a configuration names.

    Args:
        config: the configuration.
        count: how many layers there are.
        what: the image's name in messages.

    Raises:
        Failure: it names another number of them.

    """
    checked(config, dict, f"the configuration of {what}")
    found = checked(config.get("rootfs"), dict, f"rootfs in the configuration of {what}").get("diff_ids")
    checked(found, list, f"rootfs.diff_ids in the configuration of {what}")
    if len(found) != count:
        raise Failure(f"{what} has {count} layers, but its configuration names {len(found)}")
    for number, digest in enumerate(found, 1):
        streams.digest(digest, f"layer {number} of {what}")
    return [str(digest) for digest in found]


def check_platform(config: Any, wanted: Platform, what: str) -> None:
    """Check that an image is for a platform; one that names none is accepted.

    Raises:
        Failure: it is for another one.

    """
    if not config.get("os") and not config.get("architecture"):
        return
    if wanted.rank(config) is None:
        hint = "" if wanted.asked else f"--platform {name(config)} unpacks it all the same"
        raise Failure(f"{what} is an image for {name(config)}, not for {wanted}", hint=hint)


def split(reference: str) -> tuple[str, str]:
    """Return path and tag of IMAGE[:TAG]; both may have colons.

    Raises:
        Failure: it does not exist.

    """
    path, tag = reference, ""
    while True:
        if os.path.exists(path):
            return path, tag
        path, colon, last = path.rpartition(":")
        if not colon:
            break
        tag = f"{last}:{tag}" if tag else last
    raise Failure(f"open {reference.partition(':')[0] or reference}", errno=ENOENT, hint=FORMS)
