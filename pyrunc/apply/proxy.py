"""Connect the caller's terminal with the container's: bytes both ways, window size, raw mode meanwhile.

Law 5: no thread and no helper process copies; this is a watcher of foreground.wait(). No write blocks, so a
reader that has stopped reading cannot keep a signal from the container.
"""

from __future__ import annotations

import _signal
import _stat
import os
import select
import termios

from pyrunc.apply import terminal
from pyrunc.apply.foreground import numbers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# A pseudo-terminal returns at most 4 KiB at a time; a pipe that poll(2) calls writable takes PIPE_BUF bytes
# without blocking (pipe(7)).
_CHUNK = 4096
# More than the kernel buffers for the terminal: 8 KiB in the pair (pty_common_install), 4 in the line.
_LEFTOVER = 65536


def _stops(signals: Iterable[int]) -> bool:
    """Tell whether one of these signals asks a program to end."""
    return not {_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP, _signal.SIGQUIT}.isdisjoint(signals)


class Proxy:
    """A watcher (foreground.Watcher) that copies between descriptors 0 and 1 and a terminal's master."""

    __slots__ = ("_ended", "_eof", "_input", "_last", "_master", "_out", "_output", "_saved")

    def __init__(self, master: int) -> None:
        """Make stdin raw if it is a terminal, and set the size of the container's terminal."""
        self._master = master
        self._input = b""  # read from stdin, not yet written to the container
        self._output = b""  # printed by the container, not yet written to stdout
        self._last = b"\n"
        self._eof = False
        self._ended = False
        self._out = 1
        self._saved: list[object] | None = None
        os.set_blocking(master, False)
        self._out = _own_stdout()
        terminal.copy_size(master)
        self._raw()

    def wants(self) -> dict[int, int]:
        """Read from a side only after the data from it has been written to the other side."""
        wanted = {}
        master = 0
        if not self._ended:
            if not self._output:
                master |= select.POLLIN
            if self._input:
                master |= select.POLLOUT
            elif not self._eof:
                wanted[0] = select.POLLIN
        # A descriptor without events is left out: poll would report its hang-up again and again.
        if master:
            wanted[self._master] = master
        if self._output:
            wanted[self._out] = select.POLLOUT
        return wanted

    def ready(self, fd: int, events: int) -> None:
        """Move one chunk."""
        if fd == self._out and fd != self._master:
            self._print()
        elif fd == self._master:
            if self._input and events & (select.POLLOUT | select.POLLERR | select.POLLHUP):
                self._type()
            if not self._output and events & (select.POLLIN | select.POLLERR | select.POLLHUP):
                self._listen()
        else:
            self._read_stdin()

    def signal(self, number: int) -> bool:
        """Set the window size. SIGWINCH is not forwarded: the resized terminal sends its own."""
        if number == _signal.SIGCONT:
            # A shell that brings the job back to the foreground has set its own modes meanwhile.
            self._raw()
        if number in {_signal.SIGWINCH, _signal.SIGCONT}:
            terminal.copy_size(self._master)
        return bool(number == _signal.SIGWINCH)

    def finish(self, signals: int) -> None:
        """Print what the container wrote before it ended, unless a signal asks pyrunc to stop.

        Since Linux 4.5 a read of the master waits for the kernel's queue behind the terminal (n_tty_read
        flushes it before EAGAIN), so all that was written before the end is there.
        """
        # With a limit: processes that the container leaves in a shared pid namespace may go on printing.
        left = _LEFTOVER
        while True:
            if not self._output:
                count = self._listen()
                left -= count
                if not count or left < 0:
                    return
            poll = select.poll()
            poll.register(signals, select.POLLIN)
            poll.register(self._out, select.POLLOUT)
            for fd, _ in poll.poll():
                if fd == self._out:
                    self._print()
                elif _stops(number for number, _ in numbers(signals)):
                    return

    def close(self) -> None:
        """Restore the modes of the caller's terminal."""
        if self._saved is not None:
            try:
                termios.tcsetattr(0, termios.TCSANOW, self._saved)  # type: ignore[arg-type]
            except termios.error:
                pass  # the terminal has gone away
        if self._out != 1:
            os.close(self._out)
        os.close(self._master)

    def _raw(self) -> None:
        """Set the modes as cfmakeraw(3) does: every key goes to the container's terminal."""
        if not os.isatty(0):
            return
        modes = termios.tcgetattr(0)
        if self._saved is None:
            self._saved = list(modes)
        modes[0] &= ~(
            termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
            | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
        )  # fmt: skip
        modes[1] &= ~termios.OPOST
        modes[2] = modes[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        modes[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        modes[6] = list(modes[6])
        modes[6][termios.VMIN] = 1
        modes[6][termios.VTIME] = 0
        try:
            termios.tcsetattr(0, termios.TCSANOW, modes)
        except termios.error:
            pass  # EIO: a background job whose shell is gone may not change the modes; the rest works

    def _read_stdin(self) -> None:
        try:
            data = os.read(0, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # closed, hung up, or a terminal in whose foreground this process can never be
        if data:
            self._input = data
            self._last = data[-1:]
            return
        # A terminal has no end of file. A program sees one when the EOF character comes at the start of a
        # line; in the middle of a line the first one only sends that line.
        self._eof = True
        mark: bytes = termios.tcgetattr(self._master)[6][termios.VEOF]
        self._input = mark if self._last == b"\n" else mark + mark

    def _type(self) -> None:
        try:
            count = os.write(self._master, self._input)
        except BlockingIOError:
            return
        except OSError:
            count = len(self._input)  # no process has the terminal open any more
        self._input = self._input[count:]

    def _listen(self) -> int:
        """Read what the container has printed; return the number of bytes."""
        try:
            self._output = os.read(self._master, _CHUNK)
        except BlockingIOError:
            return 0
        except OSError:
            self._output = b""  # EIO: the last descriptor of the slave was closed
        if not self._output:
            self._ended = True
        return len(self._output)

    def _print(self) -> None:
        try:
            count = os.write(self._out, self._output)
        except BlockingIOError:
            return
        except OSError:
            # The reader of stdout is gone. Read on, so that the container does not block on a full terminal.
            count = len(self._output)
        self._output = self._output[count:]


def _own_stdout() -> int:
    """Open stdout a second time, so that O_NONBLOCK does not also change the caller's descriptor.

    Only for a pipe or a terminal. A file never blocks, a socket cannot be opened, and opening a master of a
    pseudo-terminal would make a new terminal.
    """
    try:
        facts = os.fstat(1)
        if not _stat.S_ISFIFO(facts.st_mode) and (not os.isatty(1) or facts.st_rdev == os.makedev(5, 2)):
            return 1
        return os.open("/proc/self/fd/1", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return 1
