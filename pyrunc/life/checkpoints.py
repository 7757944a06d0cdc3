"""What checkpoint and restore share: the directories of the images and of CRIU's log, and messages."""

from __future__ import annotations

import os

from pyrunc import directories, log
from pyrunc.errors import failing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.cli.match import Command

# Names of the container's stdin, stdout and stderr: a restore puts its own in place of pipes. The file is
# runc's.
DESCRIPTORS = "descriptors.json"


def warn_rootless(verb: str) -> None:
    """Warn that CRIU needs the rights of root."""
    if os.geteuid() != 0:
        log.warn(f"{verb} is untested with rootless containers")


def image_path(cmd: Command) -> str:
    """Return the directory of the image files."""
    return os.path.abspath(cmd.image_path or "checkpoint")


def work_path(cmd: Command, images: str) -> str:
    """Return the directory of the log, and make it if it is missing; CRIU's default is that of the images."""
    if not cmd.work_path:
        return images
    work = os.path.abspath(cmd.work_path)
    make(work)
    return work


def make(directory: str) -> None:
    """Make a directory for images or a log, if it is missing.

    Raises:
        Failure: it cannot be made.

    """
    with failing(f"make directory {directory}"):
        directories.make(directory, 0o700, parents=0o700)


def debug_options(options: dict[str, Any]) -> None:
    """Log what CRIU is asked for."""
    for name, value in options.items():
        log.debug(f"CRIU option {name} with value {value}")
