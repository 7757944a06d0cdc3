"""Messages beside the answer of a verb: debug() and warn(), and where they are written.

Law 2: a verb without messages pays for nothing. log_records.py, which writes them, is imported only when
there is one.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

fd = -1  # the descriptor of the log; -1: there is no log, everything is written to stderr
as_json = False
service = ""  # "syslog:ID" or "journald:ID" when fd is a socket of one of these
debugging = False
holding = False  # with a log, stderr is the container's: show warnings on it only if the command fails
warnings = False  # log warnings too; without it a log has only the error of a failed command
listener: Callable[[str], object] | None = (
    None  # set by the Python interface: warnings are passed to it, not written to stderr
)


def debug(message: str) -> None:
    """Log one line about what is being done, with --debug."""
    if debugging:
        record("debug", message)


def warn(message: str) -> None:
    """Print a warning: nothing has failed, but the user should know."""
    if listener is not None:
        listener(message)
        return
    record("warning", message)


def record(level: str, message: str) -> None:
    """Write one record ("debug", "warning" or "error") to the log or to stderr."""
    from pyrunc import log_records

    way = "logged" if warnings else "held" if holding else "shown"
    log_records.write(level, message, fd=fd, as_json=as_json, service=service, warnings=way)
