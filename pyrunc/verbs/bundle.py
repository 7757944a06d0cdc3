"""bundle: make a bundle from an image, which is a directory or a tar archive (docs/images.md)."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from pyrunc import log
from pyrunc.errors import Failure
from pyrunc.images import bundle, layer_store, unpack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrunc.cli.match import Command


def main(cmd: Command) -> int:
    """Make the bundle; after a signal, remove what was made and stop."""
    try:
        args = [word for text in cmd.args for word in shlex.split(text)]
    except ValueError as exc:
        raise Failure(f"--args: {exc}", hint="quote as for a shell") from None
    unpack.interruptible()
    make(cmd, args)
    return 0


def make(cmd: Command, args: Sequence[str]) -> None:
    """Make the bundle; what cannot be done as the image has it is a warning.

    Args:
        cmd: the options of bundle.
        args: the command instead of the image's, if not empty.

    Raises:
        Failure: the bundle cannot be made; nothing is left of it.

    """
    layers = cmd.layer_root or (layer_store.default_path() if cmd.shared_layers else None)
    warnings = bundle.make(
        cmd.image,
        cmd.directory,
        platform=cmd.platform,
        args=args,
        user=cmd.user,
        tty=cmd.tty,
        layers=layers,
    )
    for warning in warnings:
        log.warn(warning)
