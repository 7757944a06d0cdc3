"""Every failure of the mount tree that a container may report gets a message."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from pyrunc import store
from pyrunc.apply import parent
from pyrunc.errors import Failure
from pyrunc.plan import program_first, steps
from pyrunc.plan.lowering import Beginning
from pyrunc.plan.program import NAMES
from tests.support.programs import created
from tests.support.specs import with_linux

if TYPE_CHECKING:
    from typing import Any

HEAD = struct.Struct("=IIIiQ")


def config() -> dict[str, Any]:
    """Return a configuration with a step of each kind."""
    found = with_linux(
        without=("cgroup",),
        also=("cgroup", "time"),
        maskedPaths=["/proc/kcore"],
        readonlyPaths=["/proc/sys"],
        rootfsPropagation="rslave",
        sysctl={"net.ipv4.ip_forward": "1"},
        devices=[{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}],
    )
    found["process"]["terminal"] = True
    found["process"]["cwd"] = "/work"
    found["root"]["readonly"] = True
    found["hostname"], found["domainname"] = "h", "d"
    found["hooks"] = {"createContainer": [{"path": "/h"}], "prestart": [{"path": "/h"}]}
    overlay = ["lowerdir=/l1:/l2", "upperdir=/u", "workdir=/w"]
    found["mounts"] = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance"]},
        {"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "tmpcopyup"]},
        {"destination": "/o", "type": "overlay", "source": "overlay", "options": overlay},
        {"destination": "/b", "type": "bind", "source": "/s", "options": ["rbind", "ro", "rslave"]},
        {"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["remount", "size=2m"]},
        {"destination": "/b", "type": "bind", "source": "", "options": ["bind", "remount", "ro"]},
    ]
    return found


def launched() -> parent.Launch:
    """Return the parent's side of a start, for reports that any container could send."""
    plan = created(config())
    launch = parent.Launch(store.Container("/nowhere", "c1"), plan)
    launch.sock.close()
    launch.far.close()
    nothing: dict[Any, Any] = {}
    beginning = Beginning(
        kinds=plan.namespaces.flags,
        way="helped",
        filters=nothing,
        opened=nothing,
        later=nothing,
        links=nothing,
        places=nothing,
        seen=nothing,
    )
    launch.program = program_first.lower(plan, beginning)
    return launch


LAUNCH = launched()
assert LAUNCH.program is not None
OPERATIONS = LAUNCH.program.operations
# The process's own are tried in test_words.py.
NUMBERS = [
    number
    for number, operation in enumerate(OPERATIONS)
    if not isinstance(operation.step, (steps.Program, steps.Cwd, steps.Identity))
]


@given(
    st.sampled_from(NUMBERS),
    st.integers(0, 3) | st.integers(0, (1 << 32) - 1),
    st.integers(0, 133) | st.integers(-(1 << 31), (1 << 31) - 1),
    st.integers(0, 8) | st.integers(0, (1 << 64) - 1) | st.just(1 << 63),
    st.binary(max_size=24),
)
@settings(max_examples=500, deadline=None)
def test_a_forged_report_is_a_failure(number: int, tag: int, errno: int, detail: int, said: bytes) -> None:
    code = NAMES.index(OPERATIONS[number].name)
    found = LAUNCH._reported(HEAD.pack(number, code, tag, errno, detail) + said)
    assert isinstance(found, Failure)
    assert str(found)
