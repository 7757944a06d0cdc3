"""A progress bar on standard error, for work that takes longer than a second, on a terminal.

It costs nothing during that second: the total is counted only after it.
"""

from __future__ import annotations

import os
import time

from pyrunc.errors import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_PATIENCE = 1.0  # seconds before anything is shown
_EVERY = 0.1  # seconds between two updates
_WIDTH = 30
_STDERR = 2


class Progress:
    """One bar.

    Args:
        title: a short description of the work.
        total: a function that returns the number of files (or of what is counted), 0 if unknown; called once,
            when the bar appears.

    """

    def __init__(self, title: str, total: Callable[[], int]) -> None:
        """Start the clock."""
        self.title = printable(title)
        self._count = total
        self._total = -1
        self._next = time.monotonic() + _PATIENCE
        self.shown = False
        self._terminal = os.isatty(_STDERR)

    def tick(self, files: int, size: int, done: Callable[[], int] | None = None) -> None:
        """Update the bar, if it is time to.

        Args:
            files: files done.
            size: bytes done.
            done: a function that returns how much of the total is done, if the total is not in files.

        """
        if not self._terminal or time.monotonic() < self._next:
            return
        if self._total < 0:
            self._total = self._count()
        line = picture(self.title, files, size, self._total, done() if done else files)
        self._write("\r" + line + "\x1b[K")
        self.shown = True
        self._next = time.monotonic() + _EVERY

    def close(self) -> None:
        """Remove the bar."""
        if self.shown:
            self._write("\r\x1b[K")
            self.shown = False

    @staticmethod
    def _write(text: str) -> None:
        try:
            os.write(_STDERR, text.encode("utf-8", "replace"))
        except OSError:
            pass  # the terminal is gone; the work continues


def picture(title: str, files: int, size: int, total: int, done: int) -> str:
    """Return the line: a bar if the total is known, and numbers.

    Args:
        title: a description of the work.
        files: files done.
        size: bytes done.
        total: the total, 0 if unknown.
        done: how much of it is done.

    """
    line = title
    if total:
        part = min(done / total, 1.0)
        full = int(part * _WIDTH)
        line += f" [{'#' * full}{'.' * (_WIDTH - full)}] {part:4.0%}"
    return f"{line} {files:,} files, {human(size)}"


def human(size: float) -> str:
    """Return a number of bytes as Docker writes it: four digits at most, powers of a thousand."""
    units = ("B", "kB", "MB", "GB", "TB", "PB")
    power = 0
    while size >= 1000 and power < len(units) - 1:
        size /= 1000
        power += 1
    return f"{size:.4g}{units[power]}"
