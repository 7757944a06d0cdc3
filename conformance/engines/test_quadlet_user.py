"""Quadlet for an ordinary user: rootless Podman in units of the user's own systemd, with delegated cgroups.

The user's manager is a service of the system's, as systemd-logind would have started it; conformance/vm makes
the user.
"""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conformance.engines import host, images, quadlet
from conformance.engines.client import POLITE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.engines.host import Result, Session

UID = 61235
HOME = "/tmp/home-of-ordinary"
KNOWN = any(entry.pw_uid == UID for entry in pwd.getpwall())
WHY_NOT = quadlet.missing() or ("" if KNOWN else f"there is no user {UID}")
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)

SERVICE = f"user@{UID}.service"
MANAGER = f"""
[Unit]
DefaultDependencies=no
[Service]
User={UID}
Type=notify
Slice=user-{UID}.slice
Delegate=pids memory cpu
Environment=HOME={HOME} XDG_RUNTIME_DIR=/run/user/{UID} PATH={host.PATH}
ExecStart=/lib/systemd/systemd --user --unit=dbus.socket
"""


class User:
    """An ordinary user in a session of systemd's."""

    def __init__(self, session: Session) -> None:
        """Start the user's manager and fill the user's storage."""
        self.name = os.path.basename(session.runtime)
        self.units = Path(HOME, ".config/containers/systemd")
        self.units.mkdir(parents=True)
        (self.units.parent / "containers.conf").write_text(quadlet.configuration(session.runtime))
        runtime = Path(f"/run/user/{UID}")
        runtime.mkdir(parents=True)
        runtime.chmod(0o700)
        host.succeed(["chown", "-R", f"{UID}:{UID}", HOME, str(runtime)])
        Path("/run/systemd/system", SERVICE).write_text(MANAGER)
        host.succeed(["systemctl", "daemon-reload"])
        host.succeed(["systemctl", "start", SERVICE], timeout=120)
        host.wait_until("the user's bus is there", (runtime / "bus").exists)
        self.succeed("podman", "load", "--input", session.archive)

    def call(self, *words: str) -> Result:
        """Call a program as that user."""
        variables = {
            "HOME": HOME,
            "USER": "ordinary",
            "XDG_RUNTIME_DIR": f"/run/user/{UID}",
            "DBUS_SESSION_BUS_ADDRESS": f"unix:path=/run/user/{UID}/bus",
        }
        become = ["setpriv", "--reuid", str(UID), "--regid", str(UID), "--clear-groups"]
        return host.call([*become, *words], env=variables, directory=HOME, timeout=120)

    def succeed(self, *words: str) -> str:
        """Call a program as that user, which has to succeed."""
        done = self.call(*words)
        assert done.code == 0, done
        return done.out

    def close(self) -> None:
        """End the user's manager."""
        host.succeed(["systemctl", "stop", SERVICE], timeout=120)
        Path("/run/systemd/system", SERVICE).unlink()
        shutil.rmtree(f"/run/user/{UID}")


@pytest.fixture(scope="module")
def user(session: Session) -> Iterator[User]:
    """The user, for the checks below."""
    made = User(session)
    yield made
    made.close()


def test_a_unit_of_the_users_own(user: User, name: str) -> None:
    """It starts in the user's own slice with its limits, runs as the user, is seen healthy, and stops."""
    lines = (
        *("[Container]", f"Image={images.NAME}", f"ContainerName={name}", "Network=none", "StopSignal=USR2"),
        *("PidsLimit=17", "PodmanArgs=--memory=64m"),
        *("HealthCmd=true", "HealthInterval=2s", "Notify=healthy"),
        f'Exec=sh -ec "{POLITE.replace("TERM", "USR2")}"',
        "",
    )
    (user.units / f"{name}.container").write_text("\n".join(lines))
    user.succeed("systemctl", "--user", "daemon-reload")
    user.succeed("systemctl", "--user", "start", name)
    show = "{{.OCIRuntime}} {{.State.Pid}} {{.State.Health.Status}} {{.Id}}"
    runtime, pid, health, container = user.succeed("podman", "inspect", "--format", show, name).split()
    assert (runtime, health) == (user.name, "healthy")
    assert os.stat(f"/proc/{pid}").st_uid == UID
    group = Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::")
    unit = f"/user.slice/user-{UID}.slice/{SERVICE}/app.slice/{name}.service"
    assert group.startswith(f"{unit}/libpod-payload-")
    directory = Path(f"/sys/fs/cgroup{group}")
    assert (directory / "pids.max").read_text() == "17\n"
    assert (directory / "memory.max").read_text() == f"{64 << 20}\n"
    state = Path(f"/run/user/{UID}/{user.name}/{container}")
    assert state.exists()
    user.succeed("systemctl", "--user", "stop", name)
    shown = user.succeed("systemctl", "--user", "show", "--property", "ActiveState,ExecMainStatus", name)
    assert set(shown.split()) == {"ActiveState=failed", "ExecMainStatus=5"}
    assert not state.exists()
    assert not directory.exists()
