"""The container's terminal, as its caller sees it: the console socket, size and output mode.

The init program makes the terminal (init/terminal.c). Law 5: the parent decides size and output mode before
that.
"""

from __future__ import annotations

import fcntl
import os
import sys
import termios

from pyrunc.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.steps import Terminal

_POINTER = "/process/terminal"


def check_socket(*, terminal: bool, detach: bool, socket: str | None) -> None:
    """Check the rule for a console socket: it is needed exactly if the terminal outlives this command.

    Args:
        terminal: the process wants a terminal.
        detach: pyrunc does not wait in the foreground (create, and run or exec with --detach).
        socket: the value of --console-socket.

    Raises:
        Failure: one without the other. The message begins with runc's words, which people search for.

    """
    if terminal and detach and not socket:
        raise Failure(
            "cannot allocate tty if runc will detach without setting console socket",
            pointer=_POINTER,
            hint="set /process/terminal to false, or pass --console-socket PATH",
        )
    if socket and not (terminal and detach):
        wish = "drop --console-socket"
        if not terminal:
            wish = "set /process/terminal to true, or " + wish
        raise Failure("cannot use console socket if runc will not detach or allocate tty", hint=wish)


class Settings:
    """Size and output mode of a new terminal."""

    __slots__ = ("clean", "size")

    def __init__(self, size: bytes | None, *, clean: bool) -> None:
        """Keep a struct winsize (None: 0 by 0), and whether a newline stays a newline."""
        self.size = size
        self.clean = clean


def settings(step: Terminal, *, foreground: bool) -> Settings:
    """Decide size and output mode, in the parent.

    Args:
        step: its size is used if both numbers are positive (config.md, "process").
        foreground: the caller's stdin and stdout will be connected with the terminal.

    """
    size = None
    if step.height > 0 and step.width > 0:
        size = _winsize(step.height, step.width)
    elif foreground:
        size = caller_size()
    # A new pseudo-terminal has ONLCR: "\n" is written as "\r\n". A caller's terminal in raw mode needs that.
    # A file, a pipe, or a terminal that does this translation itself must not get it.
    return Settings(size, clean=foreground and not (os.isatty(0) and os.isatty(1)))


def _winsize(rows: int, columns: int) -> bytes:
    """Build a struct winsize (ioctl_tty(2)): four unsigned shorts, of which the two for pixels are 0."""
    return b"".join(min(value, 0xFFFF).to_bytes(2, sys.byteorder) for value in (rows, columns, 0, 0))


def caller_size() -> bytes | None:
    """Return the struct winsize of the caller's terminal, None without one."""
    for fd in (0, 1, 2):
        try:
            return fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8))
        except OSError:
            continue
    return None


def copy_size(master: int) -> None:
    """Give the container's terminal the size of the caller's."""
    size = caller_size()
    if size is not None and any(size):
        try:
            fcntl.ioctl(master, termios.TIOCSWINSZ, size)
        except OSError:
            pass  # the container has hung up; the next read notices
