"""What the command line said about logging, and the two words a verb has for it.

Here because this file is on the way to every verb anyway: a verb that warns or explains imports nothing for
it, and one that does neither pays nothing (law 2). cli/log.py, which writes the records, is only imported
when there is one.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

log_fd = -1  # where log records go; -1: there is no log, everything goes to stderr
log_json = False
log_service = ""  # "syslog:ID" or "journald:ID" when log_fd is a socket of one of these
debugging = False
holding = False  # with a log, stderr is the container's: keep warnings from it unless the call fails
listener: Callable[[str], object] | None = (
    None  # whoever uses pyrunc as a library is told here, not on stderr
)
warnings = False  # log warnings too; without it a log holds nothing but the error of a call that failed


def debug(message: str) -> None:
    """Log one line of what is being done, if --debug asks for it.

    Callable in the container's child as well: with --debug, everything it needs was imported before the fork.
    """
    if debugging:
        from pyrunc.cli import log

        log.record("debug", message)


def warn(message: str) -> None:
    """Say what the user should know although nothing has failed. Not in the container's child (law 6)."""
    if listener is not None:
        listener(message)
        return
    from pyrunc.cli import log

    log.record("warning", message)
