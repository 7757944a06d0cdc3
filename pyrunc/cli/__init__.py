"""The logging settings of the command line, and debug() and warn() for the verbs.

They are here because every verb imports this file anyway: a verb that warns imports nothing more for it, and
one that does not warn pays nothing (law 2). cli/log.py, which writes the records, is only imported when there
is one.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

log_fd = -1  # where log records go; -1: there is no log, everything goes to stderr
log_json = False
log_service = ""  # "syslog:ID" or "journald:ID" when log_fd is a socket of one of these
color = ""  # "always" or "never"; else as the terminal has it
debugging = False
holding = False  # with a log, stderr is the container's: keep warnings from it unless the call fails
listener: Callable[[str], object] | None = (
    None  # set by the Python interface: warnings are passed to it, not written to stderr
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
