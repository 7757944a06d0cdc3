"""A stand-in for `run`: starts the command of its arguments as pyrunc would and waits in the foreground.

Usage: front.py [--tty] [--notify DIRECTORY] [--subreaper] COMMAND...
"""

from __future__ import annotations

import os
import sys

from pyrunc.apply import foreground, notify, terminal
from pyrunc.plan.steps import Terminal

ANY_SIZE = Terminal(width=0, height=0, console=False)


def main(words: list[str]) -> int:
    options = set()
    directory = ""
    while words[0].startswith("--"):
        if words[0] == "--notify":
            directory = words.pop(1)
        options.add(words.pop(0))
    foreground.block_signals()
    relay = None
    if directory:
        relay = notify.serve(directory, os.environ["NOTIFY_SOCKET"], os.getpid(), once=False)
        os.environ["NOTIFY_SOCKET"] = f"{directory}/notify/notify.sock"
    master = slave = None
    if "--tty" in options:
        pts = os.open("/dev/pts", os.O_RDONLY | os.O_DIRECTORY)
        master, slave, _ = terminal.open_pty(pts, terminal.settings(ANY_SIZE, foreground=True))
        os.close(pts)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        if slave is not None:
            terminal.take(slave, os.getuid())
        foreground.restore_signals()
        os.execve(words[0], words, os.environ)
    if slave is not None:
        os.close(slave)
    pidfd = os.pidfd_open(pid)
    print(f"pid {pid}", file=sys.stderr, flush=True)
    return foreground.wait(pid, pidfd, master=master, subreaper="--subreaper" in options, notify=relay)


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(status)
