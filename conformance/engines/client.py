"""Engines with Docker's command line: Docker itself, Podman, Podman of an ordinary user.

What they share is here. Checks that are the same for each are written once, for a `Client`.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from conformance.engines import host, images

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from conformance.engines.host import Result, Session

# Ends on SIGTERM with 5; `sleep &` and `wait`, because a shell handles a signal only between commands.
POLITE = "trap 'exit 5' TERM; trap 'echo got USR1' USR1; echo ready; while :; do sleep 1000 & wait; done"
# Counts in /mnt/count about twenty times a second; a rename, so that no reader finds an empty file.
COUNTER = "n=0; while :; do n=$((n+1)); echo $n > /mnt/new; mv /mnt/new /mnt/count; sleep 0.05; done"


def read_count(shared: str) -> int:
    """What the counter has come to in a directory that is its /mnt; 0 before its first number."""
    try:
        with open(f"{shared}/count", encoding="ascii") as file:
            return int(file.read())
    except FileNotFoundError:
        return 0


class Client(ABC):
    """One engine of our own: its files are in a directory, its cgroups below a tag, both the session's."""

    session: Session
    directory: str
    log = ""  # the daemon's, if there is one
    exec_not_found = 127  # the status of an `exec` of a program that is not there
    ulimits: Sequence[str] = ()  # words that a `run` with a --ulimit of its own needs besides
    build_words: Sequence[str] = ("build",)
    health_options: Sequence[str] = ()  # how often health is checked

    def __init__(self, session: Session) -> None:
        """Remember the session; nothing has been left over yet."""
        self.session = session
        self.directory = session.directory
        self.known_leftovers: set[str] = set()

    @abstractmethod
    def argv(self, *words: str) -> list[str]:
        """The words of a command."""

    @abstractmethod
    def environment(self) -> Mapping[str, str]:
        """What the command finds its configuration by."""

    @abstractmethod
    def leftovers(self) -> list[str]:
        """What is still there though no container is: state, mounts, cgroups, processes."""

    @abstractmethod
    def command_lines(self, container: str) -> list[str]:
        """The command lines of a container's processes, by `top`."""

    def ask_health(self, container: str) -> str:
        """What the engine thinks of a container's health: "starting", "healthy", "unhealthy"."""
        return self.inspect(container, "{{.State.Health.Status}}")

    @abstractmethod
    def remove_everything(self) -> None:
        """Kill and remove what a test has left, so that the next test starts from nothing."""

    def call(
        self,
        *words: str,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> Result:
        """Call the engine's command."""
        environment = {**self.environment(), **(env or {})}
        return host.call(
            self.argv(*words), stdin=stdin, env=environment, directory=self.directory, timeout=timeout
        )

    def succeed(self, *words: str, stdin: str | None = None) -> str:
        """Call the engine's command, which has to succeed; its standard output."""
        result = self.call(*words, stdin=stdin)
        assert result.code == 0, str(result)
        return result.out

    def terminal(self, *words: str, script: str) -> Result:
        """Call the engine's command on a terminal, and type a script when the shell's prompt is there."""
        return host.on_terminal(self.argv(*words), talk=[("# ", script)], env=self.environment())

    def run_words(self, *words: str) -> list[str]:
        """The words of `run`, with the cgroup all of ours are in."""
        return ["run", *words]

    def run(self, *words: str, stdin: str | None = None) -> Result:
        """`run --rm` with options, image and command as given."""
        return self.call(*self.run_words("--rm", *words), stdin=stdin)

    def start(self, name: str, *words: str) -> None:
        """`run --detach` with a name."""
        self.succeed(*self.run_words("--detach", "--name", name, *words))

    def sleeper(self, name: str, *options: str) -> None:
        """Start a container that sleeps."""
        self.start(name, *options, images.NAME, "sleep", "1000")

    def scripted(self, name: str, script: str, *options: str) -> None:
        """Start a container that runs a script of the shell."""
        self.start(name, *options, images.NAME, "sh", "-c", script)

    def create(self, name: str, *words: str) -> None:
        """`create` with a name."""
        self.succeed("create", *self.run_words("--name", name, *words)[1:])

    def shell(self, script: str, options: Sequence[str] = ()) -> str:
        """Run a script of the shell in a container that is removed; its output, and it must succeed."""
        return self.succeed(*self.run_words("--rm", *options, images.NAME, "sh", "-ec", script))

    def execute(self, container: str, script: str) -> str:
        """Run a script of the shell in a container that runs; its output, and it must succeed."""
        return self.succeed("exec", container, "sh", "-ec", script)

    def inspect(self, container: str, template: str) -> str:
        """One value of `container inspect`, by a Go template."""
        return self.succeed("container", "inspect", "--format", template, container).strip()

    def record(self, container: str) -> dict[str, Any]:
        """All that `container inspect` tells."""
        (record,) = json.loads(self.succeed("container", "inspect", container))
        assert isinstance(record, dict)
        return record

    def status(self, container: str) -> str:
        """What the engine says of a container, and its exit status: "running 0", "exited 137"."""
        return self.inspect(container, "{{.State.Status}} {{.State.ExitCode}}")

    def pid(self, container: str) -> int:
        """The pid of the first process on the host."""
        return int(self.inspect(container, "{{.State.Pid}}"))

    def setting(self, container: str, *names: str) -> str:
        """The first word of a file in a container's cgroup, by its names in cgroup v1 and v2."""
        return host.setting(self.session.tag, self.inspect(container, "{{.Id}}"), *names)

    def wait_for_log(self, container: str, line: str) -> None:
        """Wait until the container has printed a line."""
        host.wait_until(f"{container} prints {line}", lambda: line in self.call("logs", container).out)

    def wait_for_status(self, container: str, status: str, *, seconds: float = host.SETTLE) -> None:
        """Wait until the engine says so of a container; the message has what it said last."""
        host.wait_until(f"{container} is {status}", lambda: self.status(container) == status, seconds=seconds)
