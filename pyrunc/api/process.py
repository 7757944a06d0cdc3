"""A process that runs in a container: its streams and its exit status.

Names and behaviour are those of subprocess, and so are the constants (PIPE, DEVNULL, STDOUT) and exceptions.
"""

from __future__ import annotations

import _signal
import io
import os
import select
import subprocess
import time
from typing import TYPE_CHECKING, Any

from pyrunc.api import worker
from pyrunc.errors import Failure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO, Self, TypeAlias

    # What may be given for a stream: None (the caller's own), a descriptor, a file, or PIPE, DEVNULL, STDOUT.
    Completed: TypeAlias = subprocess.CompletedProcess[Any]
    Given: TypeAlias = int | IO[bytes] | IO[str] | None

_CHUNK = 1 << 16


class Streams:
    """The standard streams of a process, and the caller's ends of their pipes.

    Attributes:
        theirs: the three descriptors for the worker.
        stdin, stdout, stderr: our ends of pipes, None for a stream that is not a pipe.

    """

    def __init__(self, stdin: Given, stdout: Given, stderr: Given) -> None:
        """Open the pipes that are asked for."""
        self.theirs: list[int] = []
        self._opened: list[int] = []
        self.stdin: io.FileIO | None = None
        self.stdout: io.FileIO | None = None
        self.stderr: io.FileIO | None = None
        if stdin == subprocess.PIPE:
            reader, writer = os.pipe()
            self._opened.append(reader)
            self.theirs.append(reader)
            self.stdin = io.FileIO(writer, "wb")
        else:
            self.theirs.append(_descriptor(stdin, 0))
        self.stdout = self._output(stdout, 1)
        self.stderr = self._output(stderr, 2)

    def _output(self, given: Given, number: int) -> io.FileIO | None:
        if given == subprocess.PIPE:
            reader, writer = os.pipe()
            self._opened.append(writer)
            self.theirs.append(writer)
            return io.FileIO(reader, "rb")
        if given == subprocess.STDOUT and number == 2:
            self.theirs.append(self.theirs[1])
        else:
            self.theirs.append(_descriptor(given, number))
        return None

    def handed_over(self) -> None:
        """Close our copies of the process's ends of the pipes."""
        for fd in self._opened:
            os.close(fd)
        self._opened.clear()

    def close(self) -> None:
        """Close everything."""
        self.handed_over()
        for file in (self.stdin, self.stdout, self.stderr):
            if file is not None:
                file.close()


def _descriptor(given: Given, own: int) -> int:
    """Return a descriptor for a stream; worker.NOTHING for /dev/null."""
    if given is None:
        try:
            os.fstat(own)
        except OSError:
            return worker.NOTHING
        return own
    if given == subprocess.DEVNULL:
        return worker.NOTHING
    return given if isinstance(given, int) else given.fileno()


class Process:
    """A process in a container that this program has started.

    Attributes:
        args: its program and arguments.
        pid: its pid on the host.
        returncode: its exit status, -N for signal N; None while it runs, and before the first poll or wait.
        stdin, stdout, stderr: our ends of the pipes that were asked for, as unbuffered binary files.

    """

    def __init__(self, args: Sequence[str], channel: worker.Channel, streams: Streams) -> None:
        """Take over the process that a worker has made."""
        self.args = list(args)
        self.pid = channel.pid
        self.returncode: int | None = None
        self.stdin, self.stdout, self.stderr = streams.stdin, streams.stdout, streams.stderr
        self._streams = streams
        self._channel = channel
        self._pidfd = channel.pidfd

    def poll(self) -> int | None:
        """Return its exit status, None while it runs."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended.

        Args:
            timeout: seconds to wait at most.

        Returns:
            Its exit status, or -N when signal N ended it.

        Raises:
            subprocess.TimeoutExpired: it still runs.
            Failure: the worker that would report the status was killed.

        """
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return code

    def _ended(self, seconds: float | None) -> int | None:
        if self.returncode is None:
            if self._pidfd < 0:
                raise Failure("its exit status is not known any more")
            self.returncode = self._channel.status(seconds)
            if self.returncode is not None:
                self._forget()
        return self.returncode

    def kill(self, signal: int | str = "TERM") -> None:
        """Send it a signal, by number or name.

        Raises:
            Failure: there is no such signal, or it has ended ("process not running").

        """
        from pyrunc.life import signals

        number = signals.number(str(int(signal) if isinstance(signal, int) else signal))
        if self.poll() is not None:
            raise Failure("process not running")
        try:
            _signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            raise Failure("process not running") from None

    def communicate(
        self,
        input: bytes | None = None,  # noqa: A002 - subprocess's name for it
        timeout: float | None = None,
    ) -> tuple[bytes | None, bytes | None]:
        """Write to its stdin, read its stdout and stderr, and wait until it has ended.

        Args:
            input: what to write; its stdin must be PIPE.
            timeout: seconds to wait at most.

        Returns:
            All that it wrote to stdout and to stderr; None for a stream that is not a PIPE.

        Raises:
            subprocess.TimeoutExpired: it still runs, and goes on running.

        """
        end = None if timeout is None else time.monotonic() + timeout
        kept: dict[int, list[bytes]] = {
            file.fileno(): [] for file in (self.stdout, self.stderr) if file is not None
        }
        if not self._exchange(input or b"", kept, end):
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        read = {fd: b"".join(parts) for fd, parts in kept.items()}
        out, err = (None if f is None else read[f.fileno()] for f in (self.stdout, self.stderr))
        if self._ended(None if end is None else end - time.monotonic()) is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0, out, err)
        self._streams.close()
        return out, err

    def _exchange(self, data: bytes, kept: dict[int, list[bytes]], end: float | None) -> bool:
        """Write data and read until the ends of files; return False when the time is over."""
        poll = select.poll()
        for fd in kept:
            poll.register(fd, select.POLLIN)
        writing = self.stdin is not None and not self.stdin.closed
        if self.stdin is not None and writing:
            os.set_blocking(self.stdin.fileno(), False)
            poll.register(self.stdin, select.POLLOUT)
        reading = set(kept)
        while reading or writing:
            left = None if end is None else min(worker.LONGEST, max(0.0, end - time.monotonic()) * 1000)
            ready = poll.poll(left)
            if not ready:
                return False
            for fd, _events in ready:
                if fd in kept:
                    part = os.read(fd, _CHUNK)
                    kept[fd].append(part)
                    if not part:
                        poll.unregister(fd)
                        reading.remove(fd)
                elif self.stdin is not None:
                    data = _write(fd, data)
                    if not data:
                        poll.unregister(fd)
                        self.stdin.close()
                        writing = False
        return True

    def _forget(self) -> None:
        self._channel.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def close(self) -> None:
        """Close its streams and stop waiting for it. It goes on running; its exit status is lost."""
        self._streams.close()
        self._forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_pidfd"):
            self.close()

    def __repr__(self) -> str:
        how = "runs" if self.returncode is None else f"ended with {self.returncode}"
        return f"<pyrunc.Process {self.pid} {self.args} {how}>"


def _write(fd: int, data: bytes) -> bytes:
    """Write what the pipe takes without blocking, and return the rest; b"" if the reader is gone."""
    try:
        return data[os.write(fd, data[:_CHUNK]) :] if data else b""
    except BlockingIOError:
        return data
    except BrokenPipeError:
        return b""


def _text(data: bytes | None, *, text: bool) -> bytes | str | None:
    """Return what a process wrote, decoded if text is set."""
    return data if data is None or not text else data.decode("utf-8", "replace")


def finish(
    process: Process, given: bytes | str | None, timeout: float | None, *, text: bool, check: bool
) -> Completed:
    """Exchange data with a process until its end and return the result, as subprocess.run() does."""
    data = given.encode() if isinstance(given, str) else given
    out, err = process.communicate(data, timeout)
    done = subprocess.CompletedProcess(
        process.args, process.wait(), _text(out, text=text), _text(err, text=text)
    )
    if check:
        done.check_returncode()
    return done


def captured(
    given: bytes | str | None, stdin: Given, stdout: Given, stderr: Given, *, capture: bool
) -> tuple[Given, Given, Given]:
    """Return the three streams, with those that input and capture_output ask for."""
    if given is not None and stdin is not None:
        raise ValueError("input and stdin exclude each other")
    if capture and (stdout is not None or stderr is not None):
        raise ValueError("capture_output excludes stdout and stderr")
    if capture:
        stdout = stderr = subprocess.PIPE
    return (subprocess.PIPE if given is not None else stdin), stdout, stderr
