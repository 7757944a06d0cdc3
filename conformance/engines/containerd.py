"""A containerd for the checks, and `ctr` to control it.

Its shim, containerd-shim-runc-v2, calls the runtime with `--root`, `--log` and `--log-format json` before
each verb, and reads the log when a call fails.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING

from conformance.engines import host, images

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from conformance.engines.host import Result, Session

# Plugins that need programs, modules or networks the checks do not use.
DISABLED = (
    "io.containerd.grpc.v1.cri",
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.tracing",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
)


class Containerd:
    """The daemon: its files are in the session's directory, its namespace is the session's tag."""

    def __init__(self, session: Session, part: str = "containerd") -> None:
        """Prepare the configuration; nothing runs yet."""
        self.session = session.part(part)
        self.namespace = self.session.tag
        self.directory = self.session.directory
        self.log = f"{self.directory}/log"
        self.socket = f"{self.directory}/socket"
        self.runtime_root = f"{self.directory}/runtime"
        self.daemon: subprocess.Popen[bytes] | None = None
        self.known_leftovers: set[str] = set()
        self.write_config()

    def write_config(self, disabled: Sequence[str] = DISABLED, plugins: str = "") -> None:
        """Write containerd's configuration, with tables of plugins' (TOML) at its end."""
        with open(f"{self.directory}/config.toml", "w", encoding="utf-8") as file:
            file.write(
                "version = 2\n"
                f"root = {json.dumps(f'{self.directory}/root')}\n"
                f"state = {json.dumps(f'{self.directory}/state')}\n"
                f"disabled_plugins = {json.dumps(disabled)}\n"
                f"[grpc]\naddress = {json.dumps(self.socket)}\n"
                f"[ttrpc]\naddress = {json.dumps(f'{self.socket}.ttrpc')}\n"
                f"{plugins}"
            )

    @property
    def snapshotter(self) -> str:
        """What makes the containers' roots."""
        return "overlayfs" if self.session.overlay else "native"

    def import_image(self, archive: str) -> None:
        """Take an image from an archive."""
        host.succeed(self.argv("image", "import", "--snapshotter", self.snapshotter, archive))

    def start_daemon(self) -> None:
        """Start the daemon and wait until it answers."""
        self.daemon = host.background(
            [host.program("containerd"), "--config", f"{self.directory}/config.toml"], self.log
        )
        host.wait_until("containerd answers", lambda: self.ctr("version").code == 0, seconds=30)

    def stop_daemon(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the daemon by a signal; shims and their containers go on, as wherever it is restarted."""
        if self.daemon is not None:
            self.daemon.send_signal(number)
            host.stop(self.daemon)
            self.daemon = None

    def argv(self, *words: str) -> list[str]:
        """The words of a `ctr` command in our namespace, with our runtime where one is chosen."""
        return [host.program("ctr"), "--address", self.socket, "--namespace", self.namespace, *words]

    def ctr(self, *words: str, stdin: str | None = None, timeout: float = 60) -> Result:
        """Call `ctr`."""
        return host.call(self.argv(*words), stdin=stdin, timeout=timeout)

    @property
    def record_words(self) -> tuple[str, str]:
        """The option that has the shim write a process's streams into a file.

        Through FIFOs, ctr drops what a short process has said if it ends before ctr's reader has
        run, whatever the runtime (2 of 250 on a busy machine with runc).
        """
        return "--log-uri", f"file://{self.directory}/said"

    def recorded(self, words: Sequence[str]) -> Result:
        """Call `ctr` with `record_words` among its words; what the process has said comes as `out`."""
        said = f"{self.directory}/said"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(said)
        result = self.ctr(*words)
        with contextlib.suppress(FileNotFoundError), open(said, encoding="utf-8", errors="replace") as file:
            result = result._replace(out=result.out + file.read())
        return result

    def run_words(self, container: str, command: Sequence[str], options: Sequence[str] = ()) -> list[str]:
        """The words of `ctr run`."""
        return [
            *("run", "--runc-binary", self.session.runtime, "--runc-root", self.runtime_root),
            *("--snapshotter", self.snapshotter),
            *("--fifo-dir", f"{self.directory}/fifo"),
            *options,
            *(images.NAME, container, *command),
        ]

    def run(self, container: str, *command: str, options: Sequence[str] = ()) -> Result:
        """Run a container in the foreground and remove it; both streams come as `out`."""
        return self.recorded(self.run_words(container, command, ["--rm", *self.record_words, *options]))

    def run_shell(self, container: str, script: str, *options: str) -> str:
        """Run a script of the shell in a container that is removed; its output, and it must succeed."""
        result = self.run(container, "sh", "-ec", script, options=options)
        assert result.code == 0, result
        return result.out

    def create_words(self, words: Sequence[str]) -> list[str]:
        """The words of `ctr container create`, from those of `ctr run`, without what is the task's."""
        kept = list(words[1:])
        for option in ("--runc-binary", "--runc-root", "--fifo-dir"):
            at = kept.index(option)
            del kept[at : at + 2]
        return kept

    def shim_address(self, container: str) -> str:
        """The socket of a task's shim."""
        place = f"{self.directory}/state/io.containerd.runtime.v2.task/{self.namespace}/{container}"
        with open(f"{place}/address", encoding="utf-8") as file:
            return file.read().removeprefix("unix://")

    def start_task(self, container: str, *command: str, options: Sequence[str] = ()) -> None:
        """Start a container that goes on in the background."""
        host.succeed(self.argv(*self.run_words(container, command, ["--detach", *options])))

    def start_task_of(self, container: str, config: Mapping[str, object]) -> None:
        """Start a container from a configuration, word for word as it is given to the runtime."""
        path = f"{self.directory}/{container}.json"
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        words = self.run_words(container, (), ["--detach", "--config", path])
        words.remove(images.NAME)  # the root file system comes from the configuration
        host.succeed(self.argv(*words))

    def default_config(self, *command: str) -> dict[str, Any]:
        """The configuration ctr itself starts from, with the image's root file system and a command."""
        config: dict[str, Any] = json.loads(host.succeed(self.argv("oci", "spec")))
        config["root"]["path"] = self.session.rootfs
        config["process"]["args"] = list(command)
        return config

    def execute(self, container: str, *command: str, options: Sequence[str] = ()) -> Result:
        """Run a further process in a container, in the foreground; both streams come as `out`."""
        return self.recorded(
            ["task", "exec", "--exec-id", "one", *self.record_words, *options, container, *command]
        )

    def execute_shell(self, container: str, script: str, options: Sequence[str] = ()) -> Result:
        """Run a script of the shell in a container, in the foreground."""
        return self.execute(container, "sh", "-c", script, options=options)

    def execute_words(self, container: str, command: Sequence[str], options: Sequence[str] = ()) -> list[str]:
        """The words of `ctr task exec` with FIFOs."""
        fifo = f"{self.directory}/fifo"
        return ["task", "exec", "--exec-id", "one", "--fifo-dir", fifo, *options, container, *command]

    def tasks(self) -> dict[str, tuple[int, str]]:
        """All tasks: pid and status by name."""
        listing = host.succeed(self.argv("task", "ls"))
        rows = [line.split() for line in listing.splitlines()[1:]]
        return {name: (int(pid), status) for name, pid, status in rows}

    def pids(self, container: str) -> list[int]:
        """The pids of all processes of a task, on the host, as the runtime's `ps` tells them."""
        listing = host.succeed(self.argv("task", "ps", container))
        return [int(line.split()[0]) for line in listing.splitlines()[1:]]

    def status(self, container: str) -> str:
        """RUNNING, PAUSED, STOPPED ..., or nothing if there is no such task."""
        return self.tasks().get(container, (0, ""))[1]

    def pid(self, container: str) -> int:
        """The pid of a task on the host."""
        return self.tasks()[container][0]

    def remove_everything(self) -> None:
        """Kill and remove what a test has left, so that the next test starts from nothing."""
        for name in self.tasks():
            self.ctr("task", "delete", "--force", name)
        for name in self.ctr("container", "ls", "--quiet").out.split():
            self.ctr("container", "delete", name)

    def leftovers(self) -> list[str]:
        """What is still there though no container is: state, mounts, cgroups, processes."""
        found = host.states(f"{self.runtime_root}/{self.namespace}")
        found += host.mounts_below(self.directory)
        found += [
            path for path in host.cgroups_of(self.session.tag) if os.path.basename(path) != self.session.tag
        ]
        found += [f"{pid} {line}" for pid, line in host.processes_of(self.session.tag).items()]
        found += [f"{pid} {line}" for pid, line in host.processes_with(self.socket).items() if "shim" in line]
        return found
