"""A dockerd for the checks, and the `docker` client to control it.

Dockerd starts a containerd of its own and calls the runtime through the same shim as containerd does. In
addition it reads error texts, and makes the exit statuses 125, 126 and 127 of them.
"""

from __future__ import annotations

import glob
import os
import subprocess
from typing import TYPE_CHECKING

from conformance.engines import host
from conformance.engines.client import Client

if TYPE_CHECKING:
    from collections.abc import Mapping

    from conformance.engines.host import Session


class Docker(Client):
    """The daemon: its files are in the session's directory, its cgroups below the session's tag."""

    exec_not_found = 126  # by docker 20.10 and 26; 127 by later ones
    health_options = ("--health-interval", "1s")

    def __init__(self, session: Session) -> None:
        """Prepare the directory; nothing runs yet."""
        super().__init__(session.part("docker"))
        self.log = f"{self.directory}/log"
        self.socket = f"{self.directory}/socket"
        self.daemon: subprocess.Popen[bytes] | None = None
        self.own_mounts: set[str] = set()
        said = host.succeed([host.program("dockerd"), "--help"])
        # Docker 25 and later have no such option, and another status for a directory that is to be executed.
        self.old = "--oom-score-adjust" in said
        with open(f"{self.directory}/daemon.json", "w", encoding="utf-8") as file:
            file.write("{}\n")  # and not the machine's /etc/docker/daemon.json
        # The BuildKit inside dockerd takes the first `runc` of its PATH, and gives it no --root.
        self.runc_calls = f"{self.directory}/runc-calls"
        os.mkdir(f"{self.directory}/bin")
        host.write_script(
            f"{self.directory}/bin/runc",
            f'#!/bin/sh\necho "$@" >>{self.runc_calls}\n'
            f'exec {self.session.runtime} --root {self.directory}/buildkit "$@"\n',
        )

    def start_daemon(self) -> None:
        """Start the daemon, in a network namespace of its own, and wait until it answers."""
        directory = self.directory
        daemon = [
            *(host.program("dockerd"), "--config-file", f"{directory}/daemon.json"),
            *("--data-root", f"{directory}/data", "--exec-root", f"{directory}/exec"),
            *("--pidfile", f"{directory}/pid", "--host", f"unix://{self.socket}"),
            *("--storage-driver", "overlay2" if self.session.overlay else "vfs"),
            *("--cgroup-parent", f"/{self.session.tag}", "--exec-opt", "native.cgroupdriver=cgroupfs"),
            *("--add-runtime", f"judged={self.session.runtime}", "--default-runtime", "judged"),
            *("--live-restore", "--experimental"),  # experimental: `docker checkpoint`
            # No bridge, hence no firewall rules.
            *("--bridge=none", "--iptables=false", "--ip6tables=false"),
            # Lowering its own OOM score, as old ones do, takes CAP_SYS_RESOURCE (proc(5)).
            *(("--oom-score-adjust=0",) if self.old else ()),
        ]
        # --bridge=none deletes an interface docker0 that it finds, and the bridge driver turns forwarding on:
        # neither may happen to the machine's own network.
        path = {"PATH": f"{directory}/bin:{host.PATH}"}
        self.daemon = host.background([host.program("unshare"), "--net", *daemon], self.log, env=path)
        host.wait_until("dockerd answers", lambda: self.call("version").code == 0, seconds=30)
        self.own_mounts = set(host.mounts_below(directory))

    def stop_daemon(self) -> None:
        """Stop the daemon and its containerd; with --live-restore the containers go on."""
        if self.daemon is not None:
            host.stop(self.daemon)
            self.daemon = None

    def argv(self, *words: str) -> list[str]:
        """The words of a `docker` command."""
        return [host.program("docker"), "--host", f"unix://{self.socket}", *words]

    def environment(self) -> Mapping[str, str]:
        """A configuration directory of its own, and the builder that goes through the runtime."""
        return {"DOCKER_CONFIG": f"{self.directory}/client", "DOCKER_BUILDKIT": "0"}

    def command_lines(self, container: str) -> list[str]:
        """The command lines of a container's processes; docker's `top` needs their pids beside them."""
        listing = self.succeed("top", container, "-o", "pid,args").splitlines()[1:]
        return [line.split(None, 1)[1] for line in listing]

    def remove_everything(self) -> None:
        """Kill and remove what a test has left, so that the next test starts from nothing."""
        for container in self.call("ps", "--all", "--quiet").out.split():
            self.call("rm", "--force", "--volumes", container)
        for volume in self.call("volume", "ls", "--quiet").out.split():
            self.call("volume", "rm", volume)

    def leftovers(self) -> list[str]:
        """What is still there though no container is: state, mounts, cgroups, processes."""
        found = [
            f"{root}/{name}"
            for root in (*glob.glob(f"{self.directory}/exec/runtime-*/moby"), f"{self.directory}/buildkit")
            for name in host.states(root)
        ]
        found += [point for point in host.mounts_below(self.directory) if point not in self.own_mounts]
        # Parent cgroups of containers stay: the daemon's, and BuildKit's below it.
        parents = {self.session.tag, "buildkit"}
        found += [path for path in host.cgroups_of(self.session.tag) if os.path.basename(path) not in parents]
        found += [f"{pid} {line}" for pid, line in host.processes_of(self.session.tag).items()]
        found += [
            f"{pid} {line}" for pid, line in host.processes_with(self.directory).items() if "shim" in line
        ]
        return found
