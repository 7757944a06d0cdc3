"""Podman with a storage and a configuration of its own. It has no daemon: conmon watches each container.

Conmon calls the runtime's `create`, and needs the container's first process to become its child; Podman calls
`start`, `kill`, `delete` and the rest. It gives the runtime no --root, so a script of one line does: the
runtime's own default directory belongs to the machine.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING

from conformance.engines import host, images

if TYPE_CHECKING:
    from collections.abc import Sequence

    from conformance.engines.host import Result, Session

# Podman asks for 1048576 by default, and raising a hard limit takes CAP_SYS_RESOURCE (setrlimit(2)).
ULIMITS = ["nofile=1024:1024", "nproc=1024:1024"]


class Podman:
    """`podman` with its files in the session's directory and its cgroups below the session's tag."""

    def __init__(self, session: Session) -> None:
        """Write the configuration, and the script that stands for the runtime."""
        self.session = session
        self.directory = f"{session.directory}/podman"
        self.runtime_root = f"{self.directory}/runtime"
        self.wrapper = f"{self.directory}/judged"
        self.known_leftovers: set[str] = set()
        os.mkdir(self.directory, 0o711)
        with open(self.wrapper, "w", encoding="utf-8") as file:
            file.write(f'#!/bin/sh\nexec {session.runtime} --root {self.runtime_root} "$@"\n')
        os.chmod(self.wrapper, 0o755)
        self.config = self.configure("containers.conf", runtime_supports_json=["judged"])
        self.config_without_json = self.configure("no-json.conf", runtime_supports_json=["none"])

    def configure(self, name: str, *, runtime_supports_json: Sequence[str]) -> str:
        """Write a containers.conf(5), and return its path."""
        path = f"{self.directory}/{name}"
        tables = {
            "containers": {
                "cgroupns": "private",
                "default_ulimits": ULIMITS,
                "log_driver": "k8s-file",
                "netns": "none",
            },
            "engine": {
                "cgroup_manager": "cgroupfs",  # there may be no systemd
                "events_logger": "file",
                "lock_type": "file",  # the other kind is one shared memory for the whole machine
                "runtime_supports_json": list(runtime_supports_json),
                "tmp_dir": f"{self.directory}/tmp",
                "volume_path": f"{self.directory}/volumes",
            },
        }
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(
                f"[{table}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
                for table, values in tables.items()
            )
        return path

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

    def environment(self, *, json_errors: bool = True) -> dict[str, str]:
        """What podman finds its configuration by."""
        return {"CONTAINERS_CONF": self.config if json_errors else self.config_without_json}

    def podman(self, *words: str, stdin: str | None = None, json_errors: bool = True) -> Result:
        """Call `podman`."""
        env = self.environment(json_errors=json_errors)
        return host.call(self.argv(*words), stdin=stdin, env=env, directory=self.directory)

    def succeed(self, *words: str, stdin: str | None = None) -> str:
        """Call `podman`, which has to succeed; its standard output."""
        result = self.podman(*words, stdin=stdin)
        assert result.code == 0, str(result)
        return result.out

    def run_words(self, *words: str) -> list[str]:
        """The words of `podman run`, with the cgroup all of ours are in."""
        return ["run", "--cgroup-parent", f"/{self.session.tag}", *words]

    def run(self, *words: str, stdin: str | None = None) -> Result:
        """`podman run --rm` with options, image and command as given."""
        return self.podman(*self.run_words("--rm", *words), stdin=stdin)

    def start(self, name: str, *words: str) -> None:
        """`podman run --detach` with a name."""
        self.succeed(*self.run_words("--detach", "--name", name, *words))

    def shell(self, script: str, options: Sequence[str] = ()) -> str:
        """Run a script of the shell in a container that is removed; its output, and it must succeed."""
        return self.succeed(*self.run_words("--rm", *options, images.NAME, "sh", "-ec", script))

    def inspect(self, container: str, template: str) -> str:
        """One value of `podman container inspect`, by a Go template."""
        return self.succeed("container", "inspect", "--format", template, container).strip()

    def status(self, container: str) -> str:
        """What podman says of a container, and its exit status: "running 0", "exited 137"."""
        return self.inspect(container, "{{.State.Status}} {{.State.ExitCode}}")

    def pid(self, container: str) -> int:
        """The pid of the first process on the host."""
        return int(self.inspect(container, "{{.State.Pid}}"))

    def remove_everything(self) -> None:
        """Kill and remove what a test has left, so that the next test starts from nothing."""
        self.podman("pod", "rm", "--all", "--force", "--time", "0")
        self.podman("rm", "--all", "--force", "--time", "0", "--volumes")
        self.podman("volume", "rm", "--all", "--force")
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
