"""What is said beside the answer of a verb: debug() and warn(), and where that goes.

Law 2: a verb that says nothing pays for nothing. log_records.py, which writes, is only imported when there is
something to write.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

fd = -1  # where log records go; -1: there is no log, everything goes to stderr
as_json = False
service = ""  # "syslog:ID" or "journald:ID" when fd is a socket of one of these
debugging = False
holding = False  # with a log, stderr is the container's: keep warnings from it unless the call fails
warnings = False  # log warnings too; without it a log holds nothing but the error of a call that failed
listener: Callable[[str], object] | None = (
    None  # set by the Python interface: warnings are passed to it, not written to stderr
)


def debug(message: str) -> None:
    """Log one line of what is being done, if --debug asks for it."""
    if debugging:
        record("debug", message)


def warn(message: str) -> None:
    """Say what the user should know although nothing has failed."""
    if listener is not None:
        listener(message)
        return
    record("warning", message)


def record(level: str, message: str) -> None:
    """Write one record ("debug", "warning" or "error") to wherever it belongs."""
    from pyrunc import log_records

    way = "logged" if warnings else "held" if holding else "shown"
    log_records.write(level, message, fd=fd, as_json=as_json, service=service, warnings=way)
