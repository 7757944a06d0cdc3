"""A dockerd of our own, and the `docker` client to talk to it.

Dockerd starts a containerd of its own and calls the runtime through the same shim as containerd does; what it
adds is the reading of error texts, which it turns into the exit statuses 125, 126 and 127.
"""

from __future__ import annotations

import glob
import os
import subprocess
from typing import TYPE_CHECKING

from conformance.engines import host, images

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from conformance.engines.host import Result, Session


class Docker:
    """The daemon: its files are in the session's directory, its cgroups below the session's tag."""

    def __init__(self, session: Session) -> None:
        """Prepare the directory; nothing runs yet."""
        self.session = session
        self.directory = f"{session.directory}/docker"
        self.log = f"{self.directory}/log"
        self.socket = f"{self.directory}/socket"
        self.daemon: subprocess.Popen[bytes] | None = None
        self.own_mounts: set[str] = set()
        self.known_leftovers: set[str] = set()
        os.mkdir(self.directory, 0o711)
        with open(f"{self.directory}/daemon.json", "w", encoding="utf-8") as file:
            file.write("{}\n")  # and not the machine's /etc/docker/daemon.json

    def start(self) -> None:
        """Start the daemon, in a network namespace of its own, and wait until it answers."""
        directory = self.directory
        daemon = [
            *(host.program("dockerd"), "--config-file", f"{directory}/daemon.json"),
            *("--data-root", f"{directory}/data", "--exec-root", f"{directory}/exec"),
            *("--pidfile", f"{directory}/pid", "--host", f"unix://{self.socket}"),
            *("--storage-driver", "overlay2" if self.session.overlay else "vfs"),
            *("--cgroup-parent", f"/{self.session.tag}", "--exec-opt", "native.cgroupdriver=cgroupfs"),
            *("--add-runtime", f"judged={self.session.runtime}", "--default-runtime", "judged"),
            "--live-restore",
            # No bridge, hence no firewall rules. Lowering its own OOM score takes CAP_SYS_RESOURCE (proc(5)).
            *("--bridge=none", "--iptables=false", "--ip6tables=false", "--oom-score-adjust=0"),
        ]
        # --bridge=none deletes an interface docker0 that it finds, and the bridge driver turns forwarding on:
        # neither may happen to the machine's own network.
        self.daemon = host.background([host.program("unshare"), "--net", *daemon], self.log)
        host.wait_until("dockerd answers", lambda: self.docker("version").code == 0, seconds=30)
        self.own_mounts = set(host.mounts_below(directory))

    def stop(self) -> None:
        """Stop the daemon and its containerd; with --live-restore the containers go on."""
        if self.daemon is not None:
            host.stop(self.daemon)
            self.daemon = None

    def argv(self, *words: str) -> list[str]:
        """The words of a `docker` command."""
        return [host.program("docker"), "--host", f"unix://{self.socket}", *words]

    def docker(
        self,
        *words: str,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> Result:
        """Call `docker`, with a configuration directory of its own."""
        own = {"DOCKER_CONFIG": f"{self.directory}/client", **(env or {})}
        return host.call(self.argv(*words), stdin=stdin, env=own, timeout=timeout)

    def succeed(self, *words: str, stdin: str | None = None) -> str:
        """Call `docker`, which has to succeed; its standard output."""
        result = self.docker(*words, stdin=stdin)
        assert result.code == 0, str(result)
        return result.out

    def run(self, *words: str) -> Result:
        """`docker run --rm` with options, image and command as given."""
        return self.docker("run", "--rm", *words)

    def shell(self, script: str, options: Sequence[str] = ()) -> str:
        """Run a script of the shell in a container that is removed; its output, and it must succeed."""
        return self.succeed("run", "--rm", *options, images.NAME, "sh", "-ec", script)

    def inspect(self, container: str, template: str) -> str:
        """One value of `docker inspect`, by a Go template."""
        return self.succeed("inspect", "--format", template, container).strip()

    def status(self, container: str) -> str:
        """What docker says of a container, and its exit status: "running 0", "exited 137"."""
        return self.inspect(container, "{{.State.Status}} {{.State.ExitCode}}")

    def pid(self, container: str) -> int:
        """The pid of the first process on the host."""
        return int(self.inspect(container, "{{.State.Pid}}"))

    def remove_everything(self) -> None:
        """Kill and remove what a test has left, so that the next test starts from nothing."""
        for container in self.docker("ps", "--all", "--quiet").out.split():
            self.docker("rm", "--force", "--volumes", container)
        for volume in self.docker("volume", "ls", "--quiet").out.split():
            self.docker("volume", "rm", volume)

    def leftovers(self) -> list[str]:
        """What is still there though no container is: state, mounts, cgroups, processes."""
        found = [
            f"{root}/{name}"
            for root in glob.glob(f"{self.directory}/exec/runtime-*/moby")
            for name in host.states(root)
        ]
        found += [point for point in host.mounts_below(self.directory) if point not in self.own_mounts]
        found += [
            path for path in host.cgroups_of(self.session.tag) if os.path.basename(path) != self.session.tag
        ]
        found += [f"{pid} {line}" for pid, line in host.processes_of(self.session.tag).items()]
        found += [
            f"{pid} {line}" for pid, line in host.processes_with(self.directory).items() if "shim" in line
        ]
        return found
