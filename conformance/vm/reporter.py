"""A plugin for the pytest inside the virtual machine: shares out tests, and reports at once how each ended.

Several pytest processes with this plugin work on the same list, one for each processor: a free process takes
the next test. The environment has PYRUNC_VM_LIST, a file with the ids of the tests to run, PYRUNC_VM_CLAIMS,
a directory, and PYRUNC_VM_LINE, the serial line for the reports, which results.py reads. As a program it says
what machine this is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

MARK = "guest-test "
LENGTH = 12000  # characters of one failure; a serial line takes about a second for 100,000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave only what is on the list."""
    with open(os.environ["PYRUNC_VM_LIST"], encoding="utf-8") as file:
        wanted = set(file.read().splitlines())
    items[:] = [item for item in items if item.nodeid in wanted]


def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run the tests that no other worker has taken."""
    if session.testsfailed:
        return None  # files that cannot be collected: pytest says so
    taken = _claims(session.items)
    item = next(taken, None)
    while item is not None:
        # The next one is taken early: it decides which fixtures the first one's end takes down.
        following = next(taken, None)
        _say({"id": item.nodeid, "begins": True})
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        item = following
    return True


def _claims(items: list[pytest.Item]) -> Iterator[pytest.Item]:
    for index, item in enumerate(items):
        try:
            os.close(os.open(f"{os.environ['PYRUNC_VM_CLAIMS']}/{index}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        yield item


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Say how a part of a test ended: all but the usual ends of set-up and tear-down."""
    if report.when != "call" and report.passed:
        return
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
    sections = "".join(f"\n--- {name}\n{content}" for name, content in report.sections)
    _say(
        {
            "id": report.nodeid,
            "outcome": report.outcome,
            "seconds": round(report.duration, 1),
            "text": (text + sections)[-LENGTH:] if not report.passed else "",
        }
    )


def system() -> dict[str, str]:
    """Return what machine this is, and which command the tests call."""
    names = ("INSTALLED_PYRUNC", "PYRUNC")
    given = next((os.environ[name] for name in names if name in os.environ), "")
    words = [given] if given else [sys.executable, "-m", "pyrunc"]
    said = subprocess.run([*words, "--version"], capture_output=True, text=True, check=False).stdout
    facts = dict(line.split(": ", 1) for line in said.splitlines() if ": " in line)
    unified = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
    return {
        "kernel": os.uname().release,
        "architecture": os.uname().machine,
        "cgroups": "v2" if unified else "v1",
        "python": facts.get("python", ""),
        "command": facts.get("command", given).split(" (")[0],
    }


def _say(what: dict[str, object]) -> None:
    # One write: the kernel does not mix it with those of others.
    fd = os.open(os.environ["PYRUNC_VM_LINE"], os.O_WRONLY | os.O_NOCTTY | os.O_APPEND)
    try:
        os.write(fd, f"\n{MARK}{json.dumps(what)}\n".encode())
    finally:
        os.close(fd)


if __name__ == "__main__":
    _say({"system": system()})
