"""bundle: make a bundle of an image that is there as a directory or a tar (docs/images.md)."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from pyrunc import log
from pyrunc.errors import Failure
from pyrunc.images import bundle, shared, unpack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrunc.cli.match import Command


def main(cmd: Command) -> int:
    """Make the bundle; a signal ends that, and takes away what was begun."""
    try:
        args = [word for text in cmd.args for word in shlex.split(text)]
    except ValueError as exc:
        raise Failure(f"--args: {exc}", hint="quote as for a shell") from None
    unpack.interruptible()
    make(cmd, args)
    return 0


def make(cmd: Command, args: Sequence[str]) -> None:
    """Make the bundle; what cannot be as the image has it is a warning.

    Args:
        cmd: the options of bundle.
        args: the command in place of the image's, if there are any words.

    Raises:
        Failure: nothing is made.

    """
    layers = cmd.layer_root or (shared.default_path() if cmd.shared_layers else None)
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
