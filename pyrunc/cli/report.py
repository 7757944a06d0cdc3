"""The edge: what became of a call that failed is said here, once, and becomes an exit status.

Law 2 (explain slowly): imported when something has failed. One line for people, one record for engines;
wording is an interface, because engines match on it. No traceback without --debug: somebody else's error
message is no place for one.
"""

from __future__ import annotations

import os

from pyrunc import cli
from pyrunc.cli import log
from pyrunc.errors import Failure, printable, strerror

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

# What runc says before the reason; engines' users search for these words.
_PREFIXES = {"create": "pyrunc create failed: ", "run": "pyrunc run failed: ", "exec": "exec failed: "}

# `exec` hands on the status of a process, so a failure of its own is told apart by this one (as runc does).
_ENOSYS = 38  # importing errno costs 0.3 ms
_EXEC_FAILED = 255

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def failure(verb: str, exc: BaseException) -> int:
    """Say why a verb failed, to the log and to stderr, and return the exit status.

    Args:
        verb: the verb that was running, "" before one was known.
        exc: what it raised; anything but a Failure is a fault of pyrunc itself.

    """
    if isinstance(exc, Failure):
        text, code = exc.text(), exc.code
    else:
        text, code = _internal(exc), 1
    if not (isinstance(exc, Failure) and exc.lines):
        text = printable(text, keep="\t")
    # A report of several lines (config.json:LINE: ...) begins on a line of its own.
    prefix = _PREFIXES.get(verb, "")
    log.record("error", prefix.rstrip() + "\n" + text if prefix and "\n" in text else prefix + text)
    if cli.debugging:
        _traceback(exc)
    return _EXEC_FAILED if verb == "exec" and code == 1 else code


def usage(message: str, code: int = 1) -> int:
    """Say what is wrong with a command line, and return the exit status."""
    log.record("error", message)
    return code


def _internal(exc: BaseException) -> str:
    """Return one line about an exception nobody expected: what, and where in pyrunc."""
    if isinstance(exc, OSError) and exc.errno == _ENOSYS:
        return (
            f"a system call that pyrunc needs is not there ({_place(exc.__traceback__)}): it takes Linux 5.9,"
            " and no seccomp filter around us that refuses the calls of this kernel"
        )
    if isinstance(exc, OSError) and exc.errno:
        name = exc.filename
        if isinstance(name, bytes):
            name = os.fsdecode(name)
        what = (f"{name}: " if name is not None else "") + strerror(exc.errno)
    else:
        what = " ".join(f"{type(exc).__name__}: {exc}".split()).rstrip(":")
    return f"internal error: {what} ({_place(exc.__traceback__)}); --debug shows the traceback"


def _place(frame: TracebackType | None) -> str:
    """Return file:line of the innermost frame that is pyrunc's own."""
    place = "pyrunc"
    while frame is not None:
        path = os.path.abspath(frame.tb_frame.f_code.co_filename)
        if path.startswith(_PACKAGE + "/"):
            place = f"pyrunc/{path[len(_PACKAGE) + 1 :]}:{frame.tb_lineno}"
        frame = frame.tb_next
    return place


def _traceback(exc: BaseException) -> None:
    """Log where it happened, for the one who debugs."""
    import traceback

    for line in "".join(traceback.format_exception(exc)).splitlines():
        log.record("debug", line)
