"""Mounts that differ from the request, for real: a hook changes one before the container is ready.

A createContainer hook runs in the container's mount namespace when all mounts are made, so it can do what a
kernel or a file system that ignores a flag would do. Both ways to ask the kernel find the difference.
"""

from __future__ import annotations

import sys
import sysconfig
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import TOP
from tests.support.engine import FOREIGN, Engine

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.containers import Bundle

pytestmark = pytest.mark.skipif(FOREIGN, reason="no other runtime looks at its mounts again")

# The command of this checkout, on a kernel whose statmount(2) fails.
OLDER = """
import sys
sys.path[:0] = {0!r}
from pyrunc.apply import facts
facts._statmount = lambda: False
from pyrunc.__main__ import main
main()
"""


class OlderEngine(Engine):
    """An engine on a kernel without statmount(2)."""

    def argv(self, *words: str) -> list[str]:
        """Return the words of a call."""
        program = OLDER.format([str(TOP), sysconfig.get_path("platlib")])
        return [sys.executable, "-I", "-S", "-c", program, "--root", str(self.root), *words]


@pytest.fixture(params=["statmount", "mountinfo"])
def asker(request: pytest.FixtureRequest, engine: Engine) -> Engine:
    """Return an engine that asks the kernel in one of the two ways."""
    if request.param == "statmount":
        return engine
    other = OlderEngine(engine.directory)
    other.ids = engine.ids  # the first one deletes them
    return other


def change(bundle: Bundle, script: str) -> None:
    """Let a hook change the tree while it is made; the hook starts in the root file system on the host."""
    bundle.config["hooks"] = {
        "createContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script]}],
    }


@pytest.fixture
def data(bundle: Bundle, place: Path) -> Bundle:
    """A bundle with a mount for the hook to change."""
    (place / "source").mkdir()
    bundle.mount("/data", place / "source", "rbind", "ro", "nosuid", "rprivate")
    return bundle


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("mount -o remount,bind,rw,nosuid data", "the mount is rw, not ro"),
        ("mount -o remount,bind,ro,suid data", "the mount is suid, not nosuid"),
        ("mount -o remount,bind,rw,suid data", "the mount is rw, not ro and is suid, not nosuid"),
        ("mount --make-shared data", "the mount is shared, not private"),
        ("umount data", "the mount is not there any more"),
    ],
)
def test_a_mount_that_is_changed(asker: Engine, data: Bundle, script: str, said: str) -> None:
    change(data, script)
    asker.front(data, "echo started").fails("error mounting /mounts/5", "/source on /data", said)


def test_a_mount_that_is_given_more(asker: Engine, data: Bundle) -> None:
    """A mount that is more restricted than asked for is accepted."""
    change(data, "mount -o remount,bind,ro,nosuid,noexec,nodev data")
    assert asker.front(data, "echo started").ok().out == "started\n"


def test_what_covers_a_mount_is_no_difference(asker: Engine, data: Bundle) -> None:
    """The mount is as requested, below another one."""
    change(data, "mount -t tmpfs none data")
    assert asker.front(data, "echo started").ok().out == "started\n"


def test_several_kinds(asker: Engine, bundle: Bundle, place: Path) -> None:
    """There is no difference: new file systems, binds, a remount, a read-only root, propagation."""
    (place / "source").mkdir()
    bundle.config["root"]["readonly"] = True
    bundle.linux["rootfsPropagation"] = "rslave"
    bundle.mount("/one", place / "source", "rbind", "rro", "noatime", "rshared")
    bundle.mount("/two", "tmpfs", "ro", "noexec", kind="tmpfs")
    bundle.mount("/two", "", "remount", "bind", "ro", "nosuid", kind="none")
    bundle.mount("/three", place / "source", "bind", "strictatime", "nodiratime")
    bundle.mount("/sys/fs/cgroup", "cgroup", "ro", kind="cgroup")
    assert asker.front(bundle, "echo started").ok().out == "started\n"
