"""Groups that a process should not have: CVE-2022-2989, CVE-2022-2990, CVE-2022-2995, CVE-2022-36109.

The groups of the runtime's caller, and a group given twice, change what a process may read (or, with
negative permissions, may not). A process has the groups its configuration names and no other.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from tests.support.containers import command

if TYPE_CHECKING:
    from tests.support.containers import Bundle, Runtime

SHOW = ["/bin/sh", "-c", "grep ^Groups /proc/self/status"]


def groups(text: str) -> list[str]:
    """Return the groups of a "Groups:" line."""
    (line,) = (line for line in text.splitlines() if line.startswith("Groups:"))
    return line.split()[1:]


def test_the_callers_groups_stay_outside(bundle: Bundle, runtime: Runtime) -> None:
    bundle.process["args"] = SHOW
    bundle.write()
    name = runtime.new_id()
    words = [*command(), "--root", str(runtime.root), "run", "--bundle", str(bundle.path), name]
    mine = os.getgroups()
    os.setgroups([4, 27, 4242])
    try:
        shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    finally:
        os.setgroups(mine)
    assert groups(shown) == []


def test_the_callers_groups_stay_outside_of_exec(bundle: Bundle, runtime: Runtime) -> None:
    name = runtime.started(bundle)
    mine = os.getgroups()
    os.setgroups([4, 27, 4242])
    try:
        shown = runtime("exec", "--user", "1000:1000", name, *SHOW).stdout
    finally:
        os.setgroups(mine)
    assert groups(shown) == []


def test_groups_are_those_asked_for(bundle: Bundle, runtime: Runtime) -> None:
    bundle.process["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [1000, 20, 20]}
    bundle.process["args"] = SHOW
    assert sorted(set(groups(runtime.output(bundle)))) == ["1000", "20"]


def test_a_user_namespace_hides_none(bundle: Bundle, runtime: Runtime) -> None:
    bundle.user_namespace()
    bundle.process["args"] = SHOW
    bundle.write()
    mine = os.getgroups()
    os.setgroups([4, 27, 4242])
    try:
        shown = runtime.run(bundle)
    finally:
        os.setgroups(mine)
    assert shown.returncode == 0, shown.stdout
    assert groups(shown.stdout) == []
