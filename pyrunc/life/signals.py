"""Send signals to a container's init, or to all its processes.

Source: runtime-spec runtime.md "Kill". Engines match on "container not running".
"""

from __future__ import annotations

import _signal
import os

from pyrunc import jsonio, store
from pyrunc.errors import Failure
from pyrunc.files import closing


def number(word: str) -> int:
    """Return a signal's number from its number or name, with or without SIG, in any case.

    Raises:
        Failure: there is no such signal.

    """
    given = jsonio.decimal(word, 64)
    if given is not None:
        return given
    name = word.upper()
    found = getattr(_signal, name if name.startswith("SIG") else "SIG" + name, None)
    if isinstance(found, int) and "_" not in name:
        return int(found)
    if name.startswith(("RTMIN", "SIGRTMIN", "RTMAX", "SIGRTMAX")):
        number = _realtime(name.removeprefix("SIG"))
        if number:
            return number
    raise Failure(f"unknown signal {word!r}", hint="use a name such as TERM or a number up to 64")


def _realtime(name: str) -> int:
    base, offset = (
        (int(_signal.SIGRTMIN), name[5:]) if name.startswith("RTMIN") else (int(_signal.SIGRTMAX), name[5:])
    )
    if not offset:
        return base
    sign = {"+": 1, "-": -1}.get(offset[0], 0)
    distance = jsonio.decimal(offset[1:], 64)
    if not sign or distance is None:
        return 0
    number = base + sign * distance
    return number if int(_signal.SIGRTMIN) <= number <= int(_signal.SIGRTMAX) else 0


def send(container: store.Container, number: int, *, everyone: bool) -> None:
    """Send a signal.

    Args:
        container: its record.
        number: the signal's number; 0 only checks whether init exists.
        everyone: signal every process in the container's cgroup; then a stopped container is no failure.

    Raises:
        Failure: "container not running".

    """
    state = store.status(container)
    all_of_them = everyone or (number == _signal.SIGKILL and container.namespaces.get("pid", "-") != "")
    if all_of_them and not container.cgroup:
        from pyrunc.apply import processes

        processes.signal_others(container, number)
        if everyone and state == "stopped":
            return
    elif all_of_them:
        # Without a pid namespace of its own the other processes do not end with init.
        from pyrunc.apply.cgroups import cgroup

        if state == "stopped" and not everyone and not cgroup.pids(container.cgroup):
            raise Failure("container not running", step=container.id)
        cgroup.kill_all(container.cgroup, number)
        return
    if state in ("stopped", "creating"):
        raise Failure("container not running", step=container.id)
    try:
        with closing(os.pidfd_open(container.pid)) as pidfd:
            stat = store.process_stat(container.pid)
            if stat is None or stat[2] != container.start:
                raise Failure("container not running", step=container.id)
            _signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        raise Failure("container not running", step=container.id) from None
    except OSError as exc:
        raise Failure(f"signal {number} to process {container.pid}", errno=exc.errno or 0) from None
    if number == _signal.SIGKILL and (state == "paused" or _divided(container)):
        from pyrunc.apply.cgroups import cgroup

        cgroup.thaw_all(container.cgroup)


def _divided(container: store.Container) -> bool:
    """Tell whether there are cgroups below the container's. One may be frozen and keep a process from ending.

    Only in version 1, where the link count is the number of directories plus two.
    """
    freezer = container.cgroup.get("freezer")
    try:
        return freezer is not None and os.stat(freezer).st_nlink > 2
    except OSError:
        return False
