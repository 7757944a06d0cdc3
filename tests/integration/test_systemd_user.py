"""The systemd cgroup manager for an ordinary user: scopes of the user's own manager, on the user's own bus.

Here the manager is a service of the system's systemd, as systemd-logind would have started it, with the same
name and at the same path, for a user whom the machine must know: conformance/vm/selection.toml makes one.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import wait_for
from tests.support.ordinary import UID, Ordinary, give

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.containers import Bundle
    from tests.support.engine import Engine

BUS = Path("/usr/lib/systemd/user/dbus.socket")
KNOWN = any(entry.pw_uid == UID for entry in pwd.getpwall())
pytestmark = [
    pytest.mark.skipif(not Path("/run/systemd/system").is_dir(), reason="systemd does not run here"),
    pytest.mark.skipif(not KNOWN, reason=f"there is no user {UID}"),
    pytest.mark.skipif(not BUS.exists(), reason="needs a user's bus (package dbus-user-session)"),
]

MiB = 1 << 20
SERVICE = f"user@{UID}.service"
MANAGER = f"""
[Unit]
DefaultDependencies=no
[Service]
User={UID}
Type=notify
Slice=user-{UID}.slice
Delegate=pids memory cpu
Environment=HOME=/ XDG_RUNTIME_DIR=/run/user/{UID}
ExecStart=/lib/systemd/systemd --user --unit=dbus.socket
"""


class LoggedIn(Ordinary):
    """An ordinary user in a session."""

    def environment(self) -> dict[str, str]:
        """Return what pam_systemd would set; only the runtime directory is the test's own."""
        return {**super().environment(), "DBUS_SESSION_BUS_ADDRESS": f"unix:path=/run/user/{UID}/bus"}


@pytest.fixture(scope="module")
def session() -> Iterator[Path]:
    """Start a user's manager; yield the cgroup of a session below it."""
    lock = os.open("/run/lock-of-pyrunc-tests", os.O_CREAT | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_EX)  # there is one such user for all who run these tests at once
    runtime = Path(f"/run/user/{UID}")
    unit = Path("/run/systemd/system", SERVICE)
    runtime.mkdir(parents=True)
    runtime.chmod(0o700)
    os.chown(runtime, UID, UID)
    unit.write_text(MANAGER)
    try:
        subprocess.run(["systemctl", "daemon-reload"], check=True)
        subprocess.run(["systemctl", "start", SERVICE], check=True)
        assert wait_for((runtime / "bus").exists)
        leaf = Path(f"/sys/fs/cgroup/user.slice/user-{UID}.slice/{SERVICE}/session")
        leaf.mkdir()
        for path in (leaf, leaf / "cgroup.procs"):
            os.chown(path, UID, UID)
        yield leaf
    finally:
        subprocess.run(["systemctl", "stop", SERVICE], check=True)
        unit.unlink()
        subprocess.run(["systemctl", "daemon-reload"], check=True)
        shutil.rmtree(runtime)
        os.close(lock)


@pytest.fixture
def user(engine: Engine, place: Path, session: Path, reachable_command: list[str]) -> Iterator[LoggedIn]:
    made = LoggedIn(place, reachable_command)
    made.ids = engine.ids
    made.cgroups = [str(session)]
    yield made
    made.close()


@pytest.fixture
def bundle(bundle: Bundle) -> Bundle:
    give(bundle)
    return bundle


def test_a_scope_of_the_users_own(user: LoggedIn, bundle: Bundle, session: Path) -> None:
    bundle.linux["resources"] = {"pids": {"limit": 17}, "memory": {"limit": 64 * MiB}}
    bundle.process["args"] = ["/bin/sleep", "1000"]
    bundle.write()
    name = user.new_id()
    user.call("--systemd-cgroup", "run", "--detach", "--bundle", str(bundle.path), name).ok()
    where = Path(json.loads((user.root / name / "state.json").read_text())["cgroup"][""])
    assert where == session.parent / "user.slice" / f"pyrunc-{name}.scope"
    assert (where / "pids.max").read_text() == "17\n"
    assert (where / "memory.max").read_text() == f"{64 * MiB}\n"
    assert (where / "cgroup.procs").read_text() == f"{user.state(name)['pid']}\n"
    user.call("update", "--pids-limit", "18", name).ok()
    assert (where / "pids.max").read_text() == "18\n"
    user.call("pause", name).ok()
    assert user.status(name) == "paused"
    user.call("resume", name).ok()
    user.delete(name)
    assert wait_for(lambda: not where.exists())


def test_without_a_bus_it_is_said(user: LoggedIn, bundle: Bundle, session: Path) -> None:
    bus = session  # any path that is no socket
    user.environment = lambda: {  # type: ignore[method-assign]
        **LoggedIn.environment(user),
        "DBUS_SESSION_BUS_ADDRESS": f"unix:path={bus}",
    }
    bundle.write()
    failed = user.call("--systemd-cgroup", "run", "--bundle", str(bundle.path), user.new_id())
    failed.fails("connect to the D-Bus at", str(bus), "dbus-user-session")


def test_outside_of_a_session_it_is_said(user: LoggedIn, bundle: Bundle) -> None:
    user.cgroups = []
    bundle.write()
    failed = user.call("--systemd-cgroup", "run", "--bundle", str(bundle.path), user.new_id())
    failed.fails("no systemd user manager above the runtime's own cgroup", "--cgroup-manager cgroupfs")
