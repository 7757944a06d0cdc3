"""Podman with a storage and a configuration of its own. It has no daemon: conmon watches each container.

Conmon calls the runtime's `create`, and the container's first process must become its child; Podman calls
`start`, `kill`, `delete` and the rest. It gives the runtime no --root, so a script of one line adds it: the
checks must not use the runtime's default directory.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING

from conformance.engines import host, images
from conformance.engines.client import Client

if TYPE_CHECKING:
    from collections.abc import Mapping

    from conformance.engines.host import Result, Session

# Podman asks for 1048576 by default, and raising a hard limit takes CAP_SYS_RESOURCE (setrlimit(2)).
ULIMITS = ["nofile=1024:1024", "nproc=1024:1024"]

# `--userns=auto` gives out the subordinate ids of a user of this name (podman-run(1)).
AUTO_USER, AUTO_FIRST, AUTO_COUNT = "containers", 700000, 65536

_WITH_IDS = """\
#!/bin/sh
# In a mount namespace where there are such subordinate ids, run a command.
exec unshare --mount --propagation slave sh -ec '
for file in subuid subgid; do mount --bind "$0/$file" "/etc/$file"; done
exec "$@"
' {directory} "$@"
"""


def copy_with_a_line(directory: str, name: str, line: str) -> None:
    """Write a file of /etc into a directory, with one more line."""
    before = ""
    with contextlib.suppress(FileNotFoundError), open(f"/etc/{name}", encoding="utf-8") as file:
        before = file.read()
    with open(f"{directory}/{name}", "w", encoding="utf-8") as file:
        file.write(f"{before}{line}\n")


class Podman(Client):
    """`podman` with its files in the session's directory and its cgroups below the session's tag."""

    # With one --ulimit Podman no longer takes the others from its configuration.
    ulimits = ("--ulimit", "nproc=1024:1024")
    health_options = ("--health-interval", "disable")  # the clock would be systemd's

    def __init__(self, session: Session) -> None:
        """Write the configuration, and the script that stands for the runtime."""
        super().__init__(session.part("podman"))
        self.runtime_root = f"{self.directory}/runtime"
        self.wrapper = f"{self.directory}/judged"
        host.write_script(
            self.wrapper, f'#!/bin/sh\nexec {session.runtime} --root {self.runtime_root} "$@"\n'
        )
        self.build_words = ("build", "--network", "none", "--cgroup-parent", f"/{self.session.tag}")
        self.config = self.configure("containers.conf", "judged")
        # What makes a runtime's errors be read from its standard error instead of its log.
        self.without_json = {"CONTAINERS_CONF": self.configure("no-json.conf", "judged", writes_json=False)}

    def configure(
        self, name: str, runtime: str, *, writes_json: bool = True, engine: Mapping[str, object] | None = None
    ) -> str:
        """Write a containers.conf(5) for a runtime of this name, and return its path.

        Args:
            name: the file's name.
            runtime: the runtime's name.
            writes_json: whether Podman is to read the runtime's errors from its log.
            engine: more of the table of that name; it wins.
        """
        path = f"{self.directory}/{name}"
        tables: dict[str, dict[str, object]] = {
            "containers": {
                "cgroupns": "private",
                "default_ulimits": ULIMITS,
                "log_driver": "k8s-file",
                "netns": "none",
            },
            "engine": {
                "cgroup_manager": "cgroupfs",  # there may be no systemd
                "events_logger": "file",
                "infra_image": images.PAUSE,  # the usual one would have to be built, or fetched
                "lock_type": "file",  # the other kind is one shared memory for the whole machine
                "runtime_supports_json": [runtime if writes_json else "none"],
                "runtime_supports_nocgroup": [runtime],
                "tmp_dir": f"{self.directory}/tmp",
                "volume_path": f"{self.directory}/volumes",
                **(engine or {}),
            },
        }
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(
                f"[{table}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
                for table, values in tables.items()
            )
        return path

    def load_images(self) -> None:
        """Fill the storage."""
        self.succeed("load", "--input", self.session.archive)
        changes = ("--change", 'CMD ["/bin/pause"]', "--change", "ENV PATH=/bin")
        self.succeed("import", *changes, self.session.rootfs_tar, images.PAUSE)

    def with_subordinate_ids(self, *words: str) -> Result:
        """Call `podman` where root has subordinate ids to give out."""
        for name in ("subuid", "subgid"):
            copy_with_a_line(self.directory, name, f"{AUTO_USER}:{AUTO_FIRST}:{AUTO_COUNT}")
        enter = host.write_script(f"{self.directory}/with-ids", _WITH_IDS.format(directory=self.directory))
        return host.call([enter, *self.argv(*words)], env=self.environment(), directory=self.directory)

    def argv(self, *words: str, runtime: str | None = None) -> list[str]:
        """The words of a `podman` command."""
        return [
            *(
                host.program("podman"),
                "--root",
                f"{self.directory}/root",
                "--runroot",
                f"{self.directory}/run",
            ),
            *("--storage-driver", "overlay" if self.session.overlay else "vfs"),
            *("--runtime", runtime or self.wrapper),
            *words,
        ]

    def environment(self) -> Mapping[str, str]:
        """What podman finds its configuration by."""
        # Podman 5 warns on each call of version 1 of cgroups, and checks compare standard error.
        return {"CONTAINERS_CONF": self.config, "PODMAN_IGNORE_CGROUPSV1_WARNING": "1"}

    def run_words(self, *words: str) -> list[str]:
        """The words of `podman run`, with the cgroup all of ours are in."""
        return ["run", "--cgroup-parent", f"/{self.session.tag}", *words]

    def command_lines(self, container: str) -> list[str]:
        """The command lines of a container's processes."""
        return [line.strip() for line in self.succeed("top", container, "args").splitlines()[1:]]

    def ask_health(self, container: str) -> str:
        """What Podman thinks of a container's health, now."""
        self.call("healthcheck", "run", container)
        return super().ask_health(container)

    def remove_everything(self) -> None:
        """Kill and remove what a test has left, so that the next test starts from nothing."""
        self.call("pod", "rm", "--all", "--force", "--time", "0")
        self.call("rm", "--all", "--force", "--time", "0", "--volumes")
        self.call("volume", "rm", "--all", "--force")
        # Podman keeps an empty cgroup for conmon, and those of pods in the hierarchies it does not know.
        for path in host.cgroups_of(self.session.tag):
            if not os.path.basename(path).startswith("libpod-"):
                with contextlib.suppress(OSError):
                    os.rmdir(path)

    def leftovers(self) -> list[str]:
        """What is still there though no container is: state, mounts, cgroups, processes."""
        found = host.states(self.runtime_root)
        # The storage keeps a bind mount of itself, made private, from its first use on.
        storage = f"{self.directory}/root/overlay"
        found += [point for point in host.mounts_below(self.directory) if point != storage]
        found += [path for path in host.cgroups_of(self.session.tag) if "/libpod-" in path]
        found += [f"{pid} {line}" for pid, line in host.processes_of(self.session.tag).items()]
        found += [f"{pid} {line}" for pid, line in host.processes_with(self.runtime_root).items()]
        return found
