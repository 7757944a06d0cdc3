"""Podman of an ordinary user. The user need not exist on the machine.

Each call runs in a mount namespace of its own, in which /etc/passwd, group, subuid and subgid have one line
more; nothing of the machine's is changed. Podman makes a user namespace with newuidmap, and calls the runtime
as its root. The runtime gets no --root: where it keeps its state for such a caller is judged too.
"""

from __future__ import annotations

import contextlib
import glob
import os
import signal
from typing import TYPE_CHECKING

from conformance.engines import host
from conformance.engines.podman import Podman, copy_with_a_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from conformance.engines.host import Session

USER = "conformer"
UID = 61234  # unused: above the ids of useradd(8), below those of systemd
FIRST, COUNT = 700000, 65536  # subordinate ids

_ENTER = """\
#!/bin/sh
# In a mount namespace where {user} exists, become {user} and run a command.
exec unshare --mount --propagation slave sh -ec '
for file in passwd group subuid subgid; do mount --bind "$0/$file" "/etc/$file"; done
exec setpriv --reuid {uid} --regid {uid} --clear-groups "$@"
' {directory} "$@"
"""


class RootlessPodman(Podman):
    """`podman` called by USER, with copies instead of overlays and without cgroups."""

    def __init__(self, session: Session) -> None:
        """Write what makes the user, and give it a directory."""
        outer = session.part("rootless")._replace(overlay=False)
        place = outer.directory
        super().__init__(outer)
        self.build_words = ("build", "--network", "none")
        self.wrapper = session.runtime
        self.config = self.configure("containers.conf", os.path.basename(self.wrapper))
        self.run_directory = f"{self.directory}/xdg"
        self.runtime_root = f"{self.run_directory}/{os.path.basename(session.runtime)}"
        self.enter = host.write_script(f"{place}/enter", _ENTER.format(user=USER, uid=UID, directory=place))
        lines = {
            "passwd": f"{USER}:x:{UID}:{UID}::{self.directory}:/bin/sh",
            "group": f"{USER}:x:{UID}:",
            "subuid": f"{USER}:{FIRST}:{COUNT}",
            "subgid": f"{USER}:{FIRST}:{COUNT}",
        }
        for name, line in lines.items():
            copy_with_a_line(place, name, line)
        os.mkdir(self.run_directory, 0o700)
        for path in (self.directory, self.run_directory):
            os.chown(path, UID, UID)

    def argv(self, *words: str, runtime: str | None = None) -> list[str]:
        """The words of a `podman` command, called by the user."""
        return [self.enter, *super().argv(*words, runtime=runtime)]

    def environment(self) -> Mapping[str, str]:
        """What a log-in would have set, and the configuration."""
        return {
            **super().environment(),
            "HOME": self.directory,
            "USER": USER,
            "XDG_RUNTIME_DIR": self.run_directory,
        }

    def run_words(self, *words: str) -> list[str]:
        """The words of `podman run`."""
        return ["run", *words]

    def leftovers(self) -> list[str]:
        """What is still there though no container is: state, processes; "@..." is the runtime's own cache."""
        found = [name for name in host.states(self.runtime_root) if not name.startswith("@")]
        return found + [
            f"{pid} {line}" for pid, line in host.processes_with(f"{self.directory}/root").items()
        ]

    def close(self) -> None:
        """End the process that keeps the user namespace open between calls."""
        for path in glob.glob(f"{self.directory}/**/pause.pid", recursive=True):
            with open(path, encoding="ascii") as file, contextlib.suppress(ProcessLookupError):
                os.kill(int(file.read()), signal.SIGKILL)
