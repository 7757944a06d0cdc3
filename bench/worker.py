"""One runtime's side of the comparison: reads orders as JSON lines, runs commands, and reports their times.

Each runtime has a worker of its own, because Debian's crun only works if /sys/fs/cgroup is cgroup v2: on
other hosts the worker is in a mount namespace where it is. Only the command is timed, from its spawn to the
end of its process, without a wrapper.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any

NULL = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1, 2)]


def spawn(words: list[str]) -> int:
    """Start a command whose three standard streams are /dev/null."""
    return os.posix_spawnp(words[0], words, os.environ, file_actions=NULL, setsigdef=[signal.SIGPIPE])


def timed(commands: list[list[str]]) -> float:
    """Run commands one after the other; return the seconds they took; exit if one fails."""
    taken = 0.0
    for words in commands:
        start = time.perf_counter()
        pid = spawn(words)
        _, status = os.waitpid(pid, 0)
        taken += time.perf_counter() - start
        if status != 0:
            fail(words, status)
    return taken


def fail(words: list[str], status: int) -> None:
    """Run the command once more to show its error, and exit."""
    said = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    sys.exit(f"{' '.join(words)}: wait status {status}; once more it says: {said.stdout}{said.stderr}")


def parallel(commands: list[list[str]]) -> float:
    """Run commands at the same time; return the seconds until the last one has ended."""
    start = time.perf_counter()
    pids = {spawn(words): words for words in commands}
    while pids:
        pid, status = os.waitpid(-1, 0)
        words = pids.pop(pid, None)
        if words is not None and status != 0:
            fail(words, status)
    return time.perf_counter() - start


def reap(pid_file: str) -> float:
    """Wait for a container's process, an orphan whose parent we are now. This is not measured."""
    with open(pid_file, encoding="ascii") as file:
        pid = int(file.read())
    handle = os.pidfd_open(pid)
    select.select([handle], [], [], 10)
    os.close(handle)
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                break
        except ChildProcessError:
            break
    os.unlink(pid_file)
    return 0.0


def main() -> None:
    """Answer orders until standard input ends."""
    # The worker is the parent of orphaned container processes, as an engine's shim is.
    import prctl

    prctl.set_child_subreaper(1)
    for line in sys.stdin:
        order: dict[str, Any] = json.loads(line)
        answer: Any
        if order["do"] == "timed":
            answer = timed(order["commands"])
        elif order["do"] == "parallel":
            answer = parallel(order["commands"])
        elif order["do"] == "reap":
            answer = reap(order["pid_file"])
        else:
            said = subprocess.run(order["command"], capture_output=True, text=True, check=False)
            answer = [said.returncode, said.stdout, said.stderr]
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


main()
