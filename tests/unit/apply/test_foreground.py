"""The foreground: which signals and data reach the process, and what comes back."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyrunc.apply import foreground
from pyrunc.errors import Failure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO, Any

REPOSITORY = Path(__file__).parents[3]
FRONT = [sys.executable, "-I", "-c"]
PROLOGUE = f"import sys, runpy; sys.path.insert(0, {str(REPOSITORY)!r}); "
RUN = PROLOGUE + "runpy.run_path({!r}, run_name='__main__')".format(
    str(REPOSITORY / "tests/support/front.py")
)
SHELL = "/bin/sh"


def ignore_and_block() -> None:
    """Ignore and block signals, as nohup and some service managers do for what they start."""
    for ignored in (signal.SIGHUP, signal.SIGUSR2, signal.SIGRTMIN + 3):
        signal.signal(ignored, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1})


def front(*words: str) -> list[str]:
    return [*FRONT, RUN, *words]


class Front(subprocess.Popen[bytes]):
    """The process that waits, once its child exists."""

    def __init__(self, *words: str, **options: Any) -> None:
        super().__init__(front(*words), stderr=subprocess.PIPE, **options)
        assert self.stderr is not None
        line = self.stderr.readline()
        assert line.startswith(b"pid "), line + self.stderr.read()

    @property
    def out(self) -> IO[bytes]:
        assert self.stdout is not None
        return self.stdout


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137), ("kill -TERM $$", 143)]
)
def test_the_exit_status_is_the_process_s(script: str, status: int) -> None:
    assert subprocess.run(front(SHELL, "-c", script), capture_output=True, check=False).returncode == status


def catcher(names: list[str]) -> str:
    """Return a shell script that prints which signals it got."""
    traps = "; ".join(f"trap 'echo {name}' {name}" for name in names)
    return f"{traps}; trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done"


def test_signals_reach_the_process_in_its_own_session() -> None:
    names = ["HUP", "INT", "QUIT", "USR1", "USR2", "ALRM", "WINCH", "CONT", "TSTP", "PIPE"]
    with Front(SHELL, "-c", catcher(names), stdout=subprocess.PIPE) as process:
        assert process.out.readline() == b"up\n"
        for name in names:
            process.send_signal(getattr(signal, f"SIG{name}"))
            assert process.out.readline().decode().strip() == name
        process.send_signal(signal.SIGTERM)
        assert process.out.read() == b"bye\n"
        assert process.wait() == 3


@pytest.mark.parametrize("number", [signal.SIGCHLD, signal.SIGURG])
def test_some_signals_are_ours_alone(number: signal.Signals) -> None:
    # Not the shell: it would get SIGCHLD from its own children.
    script = f"""if True:
        import signal
        wanted = {{{int(number)}, signal.SIGUSR1, signal.SIGTERM}}
        signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
        print("up", flush=True)
        while (got := signal.sigwait(wanted)) != signal.SIGTERM:
            print(got.name, flush=True)
        """
    with Front(sys.executable, "-c", script, stdout=subprocess.PIPE) as process:
        assert process.out.readline() == b"up\n"
        process.send_signal(number)
        process.send_signal(signal.SIGUSR1)
        assert process.out.readline() == b"SIGUSR1\n"
        process.send_signal(signal.SIGTERM)
        assert process.out.read() == b""
        assert process.wait() == 0


def test_the_process_has_no_signal_of_its_caller_s() -> None:
    """Signals that the caller ignores (nohup) or blocks would stay so across execve."""
    script = "grep -E '^Sig(Blk|Ign)' /proc/self/status"
    run = subprocess.run(
        front(SHELL, "-c", script), capture_output=True, check=True, preexec_fn=ignore_and_block
    )
    masks = dict(line.split(":\t") for line in run.stdout.decode().splitlines())
    # Two signals are the C library's, which lets nobody change them.
    found = {name: int(mask, 16) & ~(3 << 31) for name, mask in masks.items()}
    assert found == {"SigBlk": 0, "SigIgn": 0}


def test_a_caller_that_ignores_sigchld_loses_no_exit_status() -> None:
    def ignore() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    run = subprocess.run(front(SHELL, "-c", "exit 5"), capture_output=True, check=False, preexec_fn=ignore)
    assert run.returncode == 5


def test_orphans_are_collected_as_subreaper() -> None:
    script = "(sh -c 'sleep 0.3; echo orphan' &); (exit 0 &); sleep 0.6; cat /proc/$PPID/task/$PPID/children"
    run = subprocess.run(front("--subreaper", SHELL, "-c", script), capture_output=True, check=True)
    lines = run.stdout.decode().splitlines()
    assert lines[0] == "orphan"
    assert len(lines[1].split()) == 1  # only the shell itself, no zombie


def test_somebody_else_s_process_is_a_failure() -> None:
    with pytest.raises(Failure, match="process 1 is not our child"):
        foreground.reap(1)


class Caller:
    """A terminal of the caller's, with the stand-in on its other side."""

    def __init__(self, *words: str, stdout: int | None = None) -> None:
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("4H", 33, 77, 0, 0))
        self.before = termios.tcgetattr(self.slave)
        self.process = Front(
            "--tty",
            *words,
            stdin=self.slave,
            stdout=self.slave if stdout is None else stdout,
            start_new_session=True,
        )
        self.seen = b""

    def read_until(self, text: bytes) -> bytes:
        end = time.monotonic() + 30
        while text not in self.seen:
            assert time.monotonic() < end, self.seen
            if select.select([self.master], [], [], 1)[0]:
                self.seen += os.read(self.master, 4096)
        before, self.seen = self.seen.split(text, 1)
        return before

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        with self.process:
            pass  # waits and closes
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def callers() -> Iterator[list[Caller]]:
    opened: list[Caller] = []
    yield opened
    for caller in opened:
        caller.close()


def test_a_terminal_is_raw_while_it_lasts_and_restored_after(callers: list[Caller]) -> None:
    caller = Caller(SHELL, "-c", "tty; stty size; read line; echo got $line; exit 4")
    callers.append(caller)
    assert caller.read_until(b"33 77\r\n").startswith(b"/dev/pts/")
    modes = termios.tcgetattr(caller.slave)
    assert not modes[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
    os.write(caller.master, b"hello\r")
    caller.read_until(b"got hello\r\n")
    assert caller.process.wait() == 4
    assert termios.tcgetattr(caller.slave) == caller.before


def test_the_window_is_followed(callers: list[Caller]) -> None:
    caller = Caller(SHELL, "-c", "trap 'stty size; exit 0' WINCH; echo up; while :; do sleep 0.05; done")
    callers.append(caller)
    caller.read_until(b"up\r\n")
    fcntl.ioctl(caller.slave, termios.TIOCSWINSZ, struct.pack("4H", 11, 22, 0, 0))
    caller.process.send_signal(signal.SIGWINCH)
    caller.read_until(b"11 22\r\n")
    assert caller.process.wait() == 0


def test_an_interrupt_key_goes_to_the_container_s_terminal(callers: list[Caller]) -> None:
    caller = Caller(SHELL, "-c", "trap 'echo interrupted; exit 9' INT; echo up; while :; do sleep 0.05; done")
    callers.append(caller)
    caller.read_until(b"up\r\n")
    os.write(caller.master, b"\x03")
    caller.read_until(b"interrupted\r\n")
    assert caller.process.wait() == 9


def test_the_terminal_is_restored_when_a_signal_ends_it(callers: list[Caller]) -> None:
    caller = Caller(SHELL, "-c", "echo up; exec sleep 100")
    callers.append(caller)
    caller.read_until(b"up\r\n")
    caller.process.send_signal(signal.SIGTERM)
    assert caller.process.wait() == 143
    assert termios.tcgetattr(caller.slave) == caller.before


def test_a_large_paste_arrives_whole(callers: list[Caller]) -> None:
    lines = b"".join(b"%06d%s\r" % (number, b"x" * 90) for number in range(2000))
    caller = Caller(SHELL, "-c", "stty -echo; echo up; head -n 2000 | cksum")
    callers.append(caller)
    caller.read_until(b"up\r\n")
    expected = subprocess.run(["cksum"], input=lines.replace(b"\r", b"\n"), capture_output=True, check=True)
    os.set_blocking(caller.master, False)
    while lines:
        if select.select([], [caller.master], [], 30)[1]:
            lines = lines[os.write(caller.master, lines[:512]) :]
    os.set_blocking(caller.master, True)
    caller.read_until(expected.stdout.strip())
    assert caller.process.wait() == 0


def test_a_pipe_gets_every_byte_and_plain_newlines() -> None:
    script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"
    run = subprocess.run(
        front("--tty", SHELL, "-c", script), stdin=subprocess.DEVNULL, capture_output=True, check=True
    )
    assert run.stdout == b"".join(b"line %d\n" % number for number in range(20000))


@pytest.mark.parametrize(
    ("text", "shown"), [(b"one\ntwo\n", b"one|two|"), (b"one\ntwo", b"one|two|"), (b"", b"")]
)
def test_the_end_of_a_piped_stdin_is_the_end_of_the_terminal_s_input(text: bytes, shown: bytes) -> None:
    script = "stty -echo; echo; cat >/tmp/$$; tr '\\n' '|' < /tmp/$$; rm /tmp/$$"
    # The shell must have switched the echo off before the text comes.
    reader, writer = os.pipe()
    with Front("--tty", SHELL, "-c", script, stdin=reader, stdout=subprocess.PIPE) as process:
        os.close(reader)
        assert process.out.readline() == b"\n"
        os.write(writer, text)
        os.close(writer)
        assert process.out.read().rstrip(b"|") == shown.rstrip(b"|")
        assert process.wait() == 0


def test_a_reader_that_leaves_does_not_stop_the_container() -> None:
    with Front(
        "--tty", SHELL, "-c", "yes | head -c 300000; exit 6", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as process:
        process.out.close()
        assert process.wait() == 6


def pending(fd: int) -> int:
    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_a_reader_that_stalls_keeps_no_signal_from_the_container() -> None:
    reader, writer = os.pipe()
    with Front(
        "--tty",
        SHELL,
        "-c",
        "trap 'exit 8' TERM; yes & while :; do sleep 0.05; done",
        stdin=subprocess.DEVNULL,
        stdout=writer,
    ) as process:
        os.close(writer)
        waiting = -1
        while waiting <= 0 or waiting != pending(reader):  # until the pipe is full and nothing moves
            waiting = pending(reader)
            time.sleep(0.2)
        # The first ends the shell; one of the next ends our wait for the reader.
        while process.poll() is None:
            process.send_signal(signal.SIGTERM)
            time.sleep(0.05)
        assert process.wait() == 8
        os.close(reader)


def test_a_process_that_leaves_its_terminal_is_still_waited_for() -> None:
    run = subprocess.run(
        front("--tty", SHELL, "-c", "echo bye; exec <&- >&- 2>&-; sleep 0.3; exit 2"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert (run.returncode, run.stdout) == (2, b"bye\n")


def test_a_closed_stdin_is_no_busy_loop() -> None:
    script = "sleep 0.5; cat /proc/$PPID/stat"
    run = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" <&-', "sh", *front("--tty", SHELL, "-c", script)],
        capture_output=True,
        check=True,
    )
    ticks = run.stdout.rsplit(b")", 1)[1].split()
    assert int(ticks[11]) + int(ticks[12]) < 30  # user and system time in 1/100 s: far less than it slept
