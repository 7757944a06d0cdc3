"""The caller's terminal: CVE-2017-5226 (bubblewrap), CVE-2019-10063, CVE-2023-28100, CVE-2016-10124.

A process that has its caller's terminal as controlling terminal can type into it (TIOCSTI, TIOCLINUX), and
the commands run after the container is gone. So every process is in a session of its own, terminal or not.
"""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import command

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.containers import Bundle, Runtime

TYPE = r"""
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
int main(void)
{
    int fd, typed = 0;
    for (fd = 0; fd < 3; fd++) {
        /* The upper half of the number is garbage to the kernel, and must be to a filter. */
        if (!ioctl(fd, TIOCSTI, "X") || !ioctl(fd, 0x100000000UL | TIOCSTI, "X"))
            typed++;
        if (!ioctl(fd, TIOCSCTTY, 0) && !ioctl(fd, TIOCSTI, "X"))
            typed++;
    }
    fd = open("/dev/tty", O_RDWR);
    printf("typed %d session %s tty %s\n", typed, getsid(0) == getpid() ? "own" : "foreign",
           fd < 0 ? strerror(errno) : "opened");
    return 0;
}
"""


def in_terminal(words: list[str]) -> tuple[str, str]:
    """Run a command with a controlling terminal as stdio; return its output and its input."""
    pid, master = pty.fork()
    if pid == 0:
        try:
            subprocess.run(words, check=False)
            time.sleep(0.2)
            # What is in the terminal's input now, somebody typed.
            import fcntl
            import termios

            waiting = int.from_bytes(fcntl.ioctl(0, termios.FIONREAD, bytes(4)), "little")
            os.write(1, f"waiting {waiting}\n".encode())
        finally:
            os._exit(0)
    shown = b""
    while select.select([master], [], [], 60)[0]:
        try:
            part = os.read(master, 4096)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.waitpid(pid, 0)
    os.close(master)
    text = shown.decode(errors="replace").replace("\r", "")
    return text, text.rpartition("waiting ")[2].strip()


@pytest.fixture
def typist(bundle: Bundle, compiled: Callable[..., Path]) -> Bundle:
    program = compiled("typist", TYPE)
    (bundle.rootfs / "typist").write_bytes(program.read_bytes())
    (bundle.rootfs / "typist").chmod(0o755)
    return bundle


@pytest.mark.parametrize("privileged", [False, True])
def test_run_without_a_terminal_of_its_own(typist: Bundle, runtime: Runtime, *, privileged: bool) -> None:
    if privileged:
        typist.capabilities("CAP_SYS_ADMIN")
    typist.process["args"] = ["/typist"]
    typist.write()
    name = runtime.new_id()
    words = [*command(), "--root", str(runtime.root), "run", "--bundle", str(typist.path), name]
    shown, waiting = in_terminal(words)
    assert "session own tty No such device or address" in shown
    # With CAP_SYS_ADMIN the kernel lets anybody type into a terminal he has open: no runtime can stop that.
    if not privileged:
        assert "typed 0" in shown
        assert waiting == "0"


def test_exec_without_a_terminal_of_its_own(typist: Bundle, runtime: Runtime) -> None:
    name = runtime.started(typist)
    words = [*command(), "--root", str(runtime.root), "exec", name, "/typist"]
    shown, waiting = in_terminal(words)
    assert "typed 0 session own tty No such device or address" in shown
    assert waiting == "0"


def test_with_a_terminal_of_its_own_nothing_reaches_the_callers(typist: Bundle, runtime: Runtime) -> None:
    name = runtime.started(typist)
    words = [*command(), "--root", str(runtime.root), "exec", "--tty", name, "/typist"]
    shown, waiting = in_terminal(words)
    assert "tty opened" in shown
    assert waiting == "0"
