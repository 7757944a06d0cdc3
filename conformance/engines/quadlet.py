"""Quadlet: units of systemd that Podman's generator makes of short files, for the machine's own Podman.

The timers of health checks call `podman` without any options. So there can be no storage and no configuration
of the session's own: these checks write to /etc/containers and to Podman's own storage, and run in a guest
only (conformance/vm). The configuration is the one that docs/engines.md tells people to write.
"""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from conformance.engines import host, images

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.engines.host import Result, Session

DOCUMENTED = Path(__file__).resolve().parents[2] / "docs/engines.md"
GENERATOR = "/usr/lib/systemd/system-generators/podman-system-generator"
UNITS = "/run/containers/systemd"
SLICE = "/sys/fs/cgroup/system.slice"


def missing() -> str:
    """Return why there can be no checks of Quadlet here, "" when there can."""
    if not os.path.isdir("/run/systemd/system"):
        return "systemd does not run here"
    if not os.path.exists(GENERATOR):
        return "this Podman has no Quadlet"
    if "PYRUNC_VM_LINE" not in os.environ:
        return "these checks change the machine's own Podman: they run in a guest"
    return ""


def configuration(runtime: str) -> str:
    """Return the containers.conf(5) of docs/engines.md, for a runtime of this path, with a pod's image."""
    found = re.search(r"```toml\n(\[engine\]\n.*?)```", DOCUMENTED.read_text(encoding="utf-8"), re.DOTALL)
    assert found, "docs/engines.md has no configuration for Podman"
    name = os.path.basename(runtime)
    text = found[1].replace("/usr/local/bin/pyrunc", runtime)
    text = re.sub(r"^pyrunc = ", f"{name} = ", text, flags=re.MULTILINE).replace('"pyrunc"', f'"{name}"')
    return text.replace("[engine]\n", f'[engine]\ninfra_image = "{images.PAUSE}"\n')


class Quadlet:
    """The machine's own Podman, with a runtime as its default, and units for it."""

    def __init__(self, session: Session) -> None:
        """Write the configuration and fill the storage, if no other worker of the guest's has."""
        self.session = session
        self.name = os.path.basename(session.runtime)
        self.made: list[str] = []
        with open("/run/lock-of-quadlet", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.makedirs(UNITS, exist_ok=True)
            Path("/etc/containers/containers.conf").write_text(configuration(session.runtime))
            if self.podman("image", "exists", images.PAUSE).code != 0:
                self.succeed("load", "--input", session.archive)
                changes = ("--change", 'CMD ["/bin/pause"]', "--change", "ENV PATH=/bin")
                self.succeed("import", *changes, session.rootfs_tar, images.PAUSE)

    def podman(self, *words: str) -> Result:
        """Call `podman` as anybody would."""
        return host.call([host.program("podman"), *words])

    def succeed(self, *words: str) -> str:
        """Call `podman`, which has to succeed; its standard output."""
        done = self.podman(*words)
        assert done.code == 0, str(done)
        return done.out

    def systemctl(self, *words: str) -> Result:
        """Call `systemctl`; what a unit said is added to the answer, for a failing assertion."""
        done = host.call(["systemctl", *words], timeout=120)
        return done if done.code == 0 else done._replace(err=f"{done.err}{self.journal(words[-1])}")

    def journal(self, unit: str) -> str:
        """Return what a unit said."""
        return host.succeed(["journalctl", "--no-pager", "--output=cat", "--unit", unit])

    def write(self, file: str, text: str) -> None:
        """Write a unit's file; `load` has Quadlet read it."""
        Path(UNITS, file).write_text(text)
        self.made.append(file)

    def container(self, name: str, command: str, *lines: str, service: str = "") -> None:
        """Write a container's file.

        Args:
            name: its name and its unit's.
            command: a script of the shell for it.
            lines: more for [Container].
            service: lines for [Service].

        """
        head = ("[Container]", f"Image={images.NAME}", f"ContainerName={name}", *lines)
        if not any(line.startswith(("Network=", "Pod=")) for line in lines):
            head += ("Network=none",)
        if not any(line.startswith("StopSignal=") for line in lines):
            head += ("StopSignal=KILL",)  # a shell or sleep as first process ignores TERM
        body = "\n".join((*head, f'Exec=sh -ec "{command}"', "[Service]", service, ""))
        self.write(f"{name}.container", body)

    def load(self) -> None:
        """Have systemd read the files."""
        host.succeed(["systemctl", "daemon-reload"])

    def start(self, unit: str) -> None:
        """Start a unit, which has to succeed."""
        self.load()
        done = self.systemctl("start", unit)
        assert done.code == 0, done

    def stop(self, unit: str) -> None:
        """Stop a unit, which has to succeed."""
        done = self.systemctl("stop", unit)
        assert done.code == 0, done

    def shows(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return host.succeed(["systemctl", "show", "--value", "--property", name, unit]).strip()

    def inspect(self, container: str, template: str) -> str:
        """One value of `container inspect`, by a Go template."""
        return self.succeed("container", "inspect", "--format", template, container).strip()

    @contextmanager
    def cleared(self) -> Iterator[None]:
        """Stop and remove what a check makes, and look whether its units have left cgroups."""
        try:
            yield
        finally:
            services = [self.service(file) for file in self.made]
            self.systemctl("stop", *services)
            self.systemctl("reset-failed", *services)
            for file in self.made:
                Path(UNITS, file).unlink()
            self.made.clear()
            self.load()
        left = [path for service in services if os.path.exists(path := f"{SLICE}/{service}")]
        assert left == [], "cgroups of units that have been stopped"

    @staticmethod
    def service(file: str) -> str:
        """Return the name of the service that Quadlet makes of a file."""
        name, _, ending = file.rpartition(".")
        return f"{name}{'' if ending in {'container', 'kube'} else f'-{ending}'}.service"
