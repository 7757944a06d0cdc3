"""Run a test program of others so that it cannot hang, and leaves nothing behind.

The runner is the subreaper (PR_SET_CHILD_SUBREAPER) of all that the program starts: a process that daemonises
stays below us. It is waited for at once, and killed when the program has ended or its time is over.
"""

from __future__ import annotations

import contextlib
import os
import pty
import select
import shutil
import signal
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING, NamedTuple

import prctl

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

TIMED_OUT = 124  # as of timeout(1)


class Outcome(NamedTuple):
    """How a program ended: exit status (128+n for a signal, TIMED_OUT) and its two streams."""

    status: int
    out: str
    err: str


def run(
    argv: Sequence[str], *, cwd: str, env: Mapping[str, str], limit: float, terminal: bool = False
) -> Outcome:
    """Run a program to its end, or to the limit.

    Args:
        argv: the program, by absolute path or found in env's PATH, and its arguments.
        cwd: where it starts.
        env: its whole environment.
        limit: seconds it may take.
        terminal: give it a controlling terminal as standard input; else it is /dev/null.

    """
    prctl.set_child_subreaper(1)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid, master = pty.fork() if terminal else (os.fork(), -1)
        if pid == 0:
            _become(argv, cwd, env, (out.fileno(), err.fileno()), terminal=terminal)
        try:
            status = _wait(pid, master, time.monotonic() + limit)
        finally:
            _kill_descendants()
            if master >= 0:
                os.close(master)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
    return Outcome(status, texts[0], texts[1])


def _become(
    argv: Sequence[str], cwd: str, env: Mapping[str, str], streams: tuple[int, int], *, terminal: bool
) -> None:
    """Be the program; never returns."""
    try:
        if not terminal:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(streams[0], 1)
        os.dup2(streams[1], 2)
        os.chdir(cwd)
        program = shutil.which(argv[0], path=env.get("PATH")) or argv[0]
        os.execve(program, list(argv), dict(env))
    except OSError as exc:
        os.write(2, f"{argv[0]}: {exc.strerror}\n".encode())
    finally:
        os._exit(127)


def _wait(pid: int, master: int, end: float) -> int:
    """Wait for the program, reaping orphans on the way and draining its terminal."""
    while True:
        with contextlib.suppress(ChildProcessError):
            while True:
                done, status = os.waitpid(-1, os.WNOHANG)
                if done == pid:
                    code = os.waitstatus_to_exitcode(status)
                    return code if code >= 0 else 128 - code
                if not done:
                    break
        if time.monotonic() > end:
            return TIMED_OUT
        if master >= 0 and select.select([master], [], [], 0.02)[0]:
            with contextlib.suppress(OSError):  # EIO: the other end is not open at this moment
                os.read(master, 65536)
        time.sleep(0.02)


def descendants(root: int) -> list[int]:
    """Return the processes below one, parents first."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                text = file.read()
        except OSError:
            continue
        # The name, in parentheses, may contain anything, also ")" (proc(5)).
        parent = int(text[text.rindex(b")") + 2 :].split()[1])
        children.setdefault(parent, []).append(int(name))
    found: list[int] = []
    todo = [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def _kill_descendants() -> None:
    """Kill what is below us until nothing is: killing a parent hands us its children."""
    for _ in range(100):
        below = descendants(os.getpid())
        if not below:
            return
        for pid in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


@contextlib.contextmanager
def workplace(runtime: str) -> Iterator[str]:
    """Make a directory for one test, and remove it with every mount and container in it.

    Args:
        runtime: deletes the containers; their state directories are those named `state` below the directory.

    """
    # Below /tmp: sockets in it have to fit into sun_path. Open to others: a mapped root is one of them.
    directory = tempfile.mkdtemp(prefix="pyrunc-suite-", dir="/tmp")
    os.chmod(directory, 0o755)
    try:
        yield directory
    finally:
        for place, names, _ in os.walk(directory):
            if os.path.basename(place) == "state":
                for name in names:
                    command = [runtime, "--root", place, "delete", "--force", name]
                    subprocess.run(command, capture_output=True, timeout=60, check=False)
                names.clear()
        for mount in reversed(_mounts_below(directory)):
            subprocess.run(["umount", "--lazy", mount], capture_output=True, check=False)
        if not _mounts_below(directory):
            shutil.rmtree(directory, ignore_errors=True)


def _mounts_below(directory: str) -> list[str]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = [line.split()[4] for line in file]
    return [point for point in points if point.startswith(directory + "/")]
