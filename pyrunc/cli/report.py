"""Report the failure of a command, and return its exit status.

Law 2: imported after a failure. One line for people, one record for engines. The wording is an interface,
because engines match on it. There is no traceback without --debug, because engines show the message as a part
of theirs.
"""

from __future__ import annotations

import os
from errno import EDQUOT, EIO, EMFILE, ENFILE, ENOENT, ENOMEM, ENOSPC, ENOSYS

from pyrunc import log
from pyrunc.errors import Failure, printable, strerror

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

# runc's words before the reason; users of engines search for them.
_PREFIXES = {"create": "pyrunc create failed: ", "run": "pyrunc run failed: ", "exec": "exec failed: "}

# `exec` and `wait` return the exit status of a process; this one means that they failed themselves (for
# `exec` as in runc).
_HANDED_ON, _FAILED = ("exec", "wait"), 255

# Errors of any system call when the machine is short of something, and what to do about them.
_SHORT = {
    EMFILE: "pyrunc needs more open files than its limit allows: raise it (ulimit -n)",
    ENFILE: "no process may open more files on this machine: see fs.file-max",
    ENOMEM: "memory is short: see the limit of the address space (ulimit -v), of the cgroup, and `free`",
    ENOSPC: "a file system that pyrunc writes to is full, or the kernel takes no more of such objects",
    EDQUOT: "a disk quota is used up",
    EIO: "a device or file system does not work as it should: see dmesg",
}

# Messages of dlopen(3) and of the installed command's interpreter (embed.c) about a shortage.
_NO_ROOM = ("shared object", "the interpreter did not start")

_PACKAGE = __file__.rpartition("/cli/")[0]


def failure(verb: str, exc: BaseException) -> int:
    """Report why a verb failed, to the log and to stderr, and return the exit status.

    Args:
        verb: the verb that was running, "" before one was known.
        exc: what it raised; anything but a Failure is a bug of pyrunc.

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
    if log.debugging:
        _traceback(exc)
    return _FAILED if verb in _HANDED_ON and code == 1 else code


def usage(message: str, code: int = 1) -> int:
    """Report what is wrong with a command line, and return the exit status."""
    log.record("error", message)
    return code


def _internal(exc: BaseException) -> str:
    """Return one line about an unexpected exception: what, and where in pyrunc."""
    if isinstance(exc, OSError) and exc.errno == ENOSYS:
        return (
            f"a system call that pyrunc needs is not there ({_place(exc.__traceback__)}): it takes Linux 5.9,"
            " and no seccomp filter around us that refuses the calls of this kernel"
        )
    if isinstance(exc, MemoryError):
        return f"out of memory; {_SHORT[ENOMEM]}"
    if isinstance(exc, ImportError) and any(words in str(exc) for words in _NO_ROOM):
        return f"{exc}; memory or open files are short: see ulimit -v and ulimit -n"
    if isinstance(exc, OSError) and exc.errno:
        name = exc.filename
        if isinstance(name, bytes):
            name = os.fsdecode(name)
        what = (f"{name}: " if name is not None else "") + strerror(exc.errno)
        if exc.errno == ENOENT and name is None and _directory_is_gone():
            return "the current directory does not exist any more: change to one that does"
        if exc.errno in _SHORT:
            return f"{what}; {_SHORT[exc.errno]}"
    else:
        what = " ".join(f"{type(exc).__name__}: {exc}".split()).rstrip(":")
    if _memory_is_short():  # libraries may raise any exception then
        return f"{what}; {_SHORT[ENOMEM]}"
    return f"internal error: {what} ({_place(exc.__traceback__)}); --debug shows the traceback"


def _memory_is_short() -> bool:
    """Tell whether even a little memory cannot be allocated."""
    try:
        bytearray(4 << 20)
    except MemoryError:
        return True
    return False


def _directory_is_gone() -> bool:
    """Tell whether the current directory has been removed: then relative paths mean nothing."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _place(frame: TracebackType | None) -> str:
    """Return file:line of the innermost frame in pyrunc."""
    place = "pyrunc"
    while frame is not None:
        path = frame.tb_frame.f_code.co_filename
        if path.startswith(_PACKAGE + "/"):
            place = f"pyrunc/{path[len(_PACKAGE) + 1 :]}:{frame.tb_lineno}"
        frame = frame.tb_next
    return place


def _traceback(exc: BaseException) -> None:
    """Log the traceback."""
    import traceback

    for line in "".join(traceback.format_exception(exc)).splitlines():
        log.record("debug", line)
