"""A stand-in for `run`: starts the command of its arguments as pyrunc would and waits in the foreground.

Usage: front.py [--tty] [--notify DIRECTORY] [--subreaper] COMMAND...
"""

from __future__ import annotations

import fcntl
import os
import sys
import termios

from pyrunc.apply import children, foreground, notify, proxy, terminal
from pyrunc.plan.steps import Terminal

ANY_SIZE = Terminal(width=0, height=0, console=False)


def open_terminal(wanted: terminal.Settings) -> tuple[int, int]:
    """Make a terminal as the init program does: return master and slave."""
    master, slave = os.openpty()
    if wanted.size is not None:
        fcntl.ioctl(master, termios.TIOCSWINSZ, wanted.size)
    if wanted.clean:
        modes = termios.tcgetattr(slave)
        modes[1] &= ~termios.ONLCR
        termios.tcsetattr(slave, termios.TCSANOW, modes)
    return master, slave


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
        master, slave = open_terminal(terminal.settings(ANY_SIZE, foreground=True))
    pid = os.fork()
    if pid == 0:
        if slave is None:
            os.setsid()
        else:
            os.login_tty(slave)
        children.restore_signals()
        os.execve(words[0], words, os.environ)
    if slave is not None:
        os.close(slave)
    pidfd = os.pidfd_open(pid)
    print(f"pid {pid}", file=sys.stderr, flush=True)
    watchers: list[foreground.Watcher] = [relay] if relay else []
    if master is not None:
        watchers.append(proxy.Proxy(master))
    return foreground.wait(pid, pidfd, watchers, subreaper="--subreaper" in options)


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(status)
