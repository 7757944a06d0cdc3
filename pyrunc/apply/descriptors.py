"""Which of the caller's descriptors a container gets: 0 to 2, LISTEN_FDS (sd_listen_fds(3)), --preserve-fds.

Both kinds begin at 3 without a gap, those of LISTEN_FDS first, and keep their numbers. Law 5: the parent
counts and checks them; the child only closes the others.
"""

from __future__ import annotations

import os

from pyrunc.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

FIRST = 3


def passed(preserve: int, environ: Mapping[str, str], *, listen: bool) -> tuple[int, list[str]]:
    """Count the descriptors to pass on from 3.

    Args:
        preserve: the value of --preserve-fds.
        environ: our own environment.
        listen: honour LISTEN_FDS (create and run; an exec'd process is no socket-activated service).

    Returns:
        How many, and the variables the process needs in addition.

    Raises:
        Failure: one of them is not open.

    """
    if preserve < 0:
        raise Failure(f"invalid value for preserve-fds: {preserve}", hint="it is a number of descriptors")
    count = 0
    env: list[str] = []
    if listen and environ.get("LISTEN_PID") == str(os.getpid()):
        # LISTEN_PID says which process the variable is for. A process may inherit it from an ancestor.
        listening = environ.get("LISTEN_FDS", "")
        if listening.isascii() and listening.isdigit() and len(listening) < 10 and int(listening):
            count = int(listening)
            # The container's process has pid 1 in its pid namespace; sd_listen_fds(3) compares LISTEN_PID
            # with that.
            env = [f"LISTEN_FDS={count}", "LISTEN_PID=1"]
            names = environ.get("LISTEN_FDNAMES")
            if names is not None:
                env.append(f"LISTEN_FDNAMES={names}")
    _check(FIRST, count, "LISTEN_FDS descriptor")
    _check(FIRST + count, preserve, "preserved-fd")
    return count + preserve, env


def _check(first: int, count: int, what: str) -> None:
    for fd in range(first, first + count):
        try:
            os.fstat(fd)
        except OSError as exc:
            place = f"{fd - first} (of {count}), descriptor {fd}"
            raise Failure(f"unable to stat {what} {place}", errno=exc.errno or 0) from exc
