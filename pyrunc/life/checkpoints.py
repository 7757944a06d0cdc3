"""What checkpoint and restore have in common: where the images and CRIU's log are, and what is said."""

from __future__ import annotations

import os

from pyrunc import directories, log
from pyrunc.errors import failing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.cli.match import Command

# Names of the container's stdin, stdout and stderr: a restore puts its own in the place of pipes. As runc's.
DESCRIPTORS = "descriptors.json"


def warn_rootless(verb: str) -> None:
    """Say that CRIU needs the rights of root."""
    if os.geteuid() != 0:
        log.warn(f"{verb} is untested with rootless containers")


def image_path(cmd: Command) -> str:
    """Return the directory of the image files."""
    return os.path.abspath(cmd.image_path or "checkpoint")


def work_path(cmd: Command, images: str) -> str:
    """Return the directory of the log, made when it is not there; CRIU's default is that of the images."""
    if not cmd.work_path:
        return images
    work = os.path.abspath(cmd.work_path)
    make(work)
    return work


def make(directory: str) -> None:
    """Make a directory for images or a log, if it is not there.

    Raises:
        Failure: it cannot be made.

    """
    with failing(f"make directory {directory}"):
        directories.make(directory, 0o700, parents=0o700)


def debug_options(options: dict[str, Any]) -> None:
    """Log what CRIU is asked for."""
    for name, value in options.items():
        log.debug(f"CRIU option {name} with value {value}")
