"""Buildah with a storage of its own. It has no monitor: it waits for the container's first process itself.

That process must become its child. Buildah calls `state` every 100 ms, and when the process has ended it
calls `delete` at once, without `--force`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from conformance.engines import host

if TYPE_CHECKING:
    from collections.abc import Sequence

    from conformance.engines.host import Result, Session

# Buildah asks for 1048576 by default, and raising a hard limit takes CAP_SYS_RESOURCE (setrlimit(2)).
ULIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")


class Buildah:
    """`buildah` with its files in the session's directory and its cgroups below the session's tag."""

    def __init__(self, session: Session) -> None:
        """Make the directories."""
        self.session = session.part("buildah")
        self.directory = self.session.directory
        self.runtime_root = f"{self.directory}/runtime"
        self.image = "localhost/built-from-tar"
        self.from_options = ("--cgroup-parent", f"/{self.session.tag}", "--network", "none", *ULIMITS)
        self.run_options = ("--runtime", session.runtime, "--runtime-flag", f"root={self.runtime_root}")
        self.known_leftovers: set[str] = set()
        os.makedirs(f"{self.directory}/tmp")

    def argv(self, *words: str) -> list[str]:
        """The words of a `buildah` command."""
        return [
            host.program("buildah"),
            *("--root", f"{self.directory}/root", "--runroot", f"{self.directory}/run"),
            *("--storage-driver", "overlay" if self.session.overlay else "vfs"),
            *words,
        ]

    def environment(self) -> dict[str, str]:
        """Bundles are made in TMPDIR."""
        return {"TMPDIR": f"{self.directory}/tmp"}

    def buildah(self, *words: str) -> Result:
        """Call `buildah`."""
        return host.call(self.argv(*words), env=self.environment())

    def succeed(self, *words: str) -> str:
        """Call `buildah`, which has to succeed; its standard output."""
        result = self.buildah(*words)
        assert result.code == 0, str(result)
        return result.out

    def make_image(self) -> None:
        """An image from the tar of a root file system."""
        container = self.succeed("from", "scratch").strip()
        self.succeed("add", container, self.session.rootfs_tar, "/")
        self.succeed("config", "--env", "PATH=/bin", "--cmd", "sh", container)
        self.succeed("commit", "--rm", container, self.image)

    def build(self, name: str, *lines: str, options: Sequence[str] = ()) -> Result:
        """Build an image from the lines of a Containerfile."""
        context = f"{self.directory}/{name}"
        os.mkdir(context)
        with open(f"{context}/Containerfile", "w", encoding="utf-8") as file:
            file.write("\n".join((f"FROM {self.image}", *lines, "")))
        return self.buildah("build", *self.run_options, *self.from_options, *options, "--tag", name, context)

    def leftovers(self) -> list[str]:
        """What is still there though nothing runs: state, cgroups, processes, bundles."""
        # What `RUN --mount=type=cache` has kept is to be kept; newer ones add the user's id to the name.
        found = [name for name in os.listdir(f"{self.directory}/tmp") if not name.startswith("buildah-cache")]
        found += host.states(self.runtime_root)
        tag = self.session.tag
        found += [path for path in host.cgroups_of(tag) if os.path.basename(path) != tag]
        found += [f"{pid} {line}" for pid, line in host.processes_of(tag).items()]
        # The storage keeps a bind mount of itself, made private, from its first use on.
        storage = f"{self.directory}/root/overlay"
        found += [point for point in host.mounts_below(self.directory) if point != storage]
        return found

    def remove_everything(self) -> None:
        """Remove the working containers."""
        self.buildah("rm", "--all")
