"""Do something that cannot be undone in a forked child, and return its result."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

DEADLINE = 20  # seconds after which a child that hangs is killed


def in_child(function: Callable[[], object]) -> object:
    """Return what function returned in a forked child.

    Args:
        function: its result must have a JSON form; an OSError becomes {"errno": number}.

    Returns:
        The result, or {"signal": number} if a signal ended the child, or {"exit": status} if it exited on
        its own.

    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(DEADLINE)
        try:
            answer: object = function()
        except OSError as exc:
            answer = {"errno": exc.errno}
        except BaseException as exc:  # noqa: BLE001 - nothing may leave the child but a message
            answer = {"exception": repr(exc)}
        os.write(writer, json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answers:
        text = answers.read()
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        return {"signal": os.WTERMSIG(status)}
    if not text:
        return {"exit": os.waitstatus_to_exitcode(status)}
    return json.loads(text)
