"""BuildKit, the one inside dockerd: its worker's runtime is the judged one, found under the name `runc`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from conformance.engines import host, images

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.engines.docker import Docker
    from conformance.engines.host import Result


class Builder:
    """A context, and `docker build` with BuildKit in it."""

    def __init__(self, docker: Docker, name: str) -> None:
        """Make the directory."""
        self.docker = docker
        self.image = f"localhost/{name}"
        self.context = f"{docker.directory}/{name}"
        os.mkdir(self.context)

    def write(self, name: str, text: str) -> None:
        """Write a file of the context."""
        with open(f"{self.context}/{name}", "w", encoding="utf-8") as file:
            file.write(text)

    def build(self, *lines: str, options: tuple[str, ...] = ()) -> Result:
        """Build an image from the checks' own, by lines of a Dockerfile."""
        self.write("Dockerfile", "\n".join((f"FROM {images.NAME}", *lines, "")))
        words = ("build", "--network", "none", "--progress", "plain", "--tag", self.image, *options)
        return self.docker.call(*words, self.context, env={"DOCKER_BUILDKIT": "1"})

    def calls(self) -> list[str]:
        """How the runtime was called, so far."""
        with open(self.docker.runc_calls, encoding="utf-8") as file:
            return file.read().splitlines()


@pytest.fixture
def builder(docker: Docker, name: str) -> Iterator[Builder]:
    """A builder for one check."""
    made = Builder(docker, name)
    yield made
    docker.call("image", "rm", "--force", made.image)
    docker.call("builder", "prune", "--all", "--force", env={"DOCKER_BUILDKIT": "1"})


def test_build(builder: Builder) -> None:
    """RUN goes through the runtime, as the user and in the directory the lines before it say."""
    built = builder.build("RUN echo built > /built", "USER app", "WORKDIR /tmp", "RUN id -un; pwd; hostname")
    assert built.code == 0, built
    assert "app\n" in built.text.replace(" ", "\n")
    assert len([call for call in builder.calls() if " run --bundle " in f" {call}"]) == 2, builder.calls()
    assert builder.docker.run(builder.image, "cat", "/built").out == "built\n"


def test_failing_step(builder: Builder) -> None:
    """The exit status of a RUN is told."""
    built = builder.build("RUN exit 7")
    assert built.code == 1
    assert "exit code: 7" in built.text


def test_stages_at_once(builder: Builder) -> None:
    """Stages that do not depend on one another run side by side."""
    stages = [f"FROM {images.NAME} AS stage{number}\nRUN sleep 1; echo {number} > /n" for number in range(5)]
    copies = [f"COPY --from=stage{number} /n /n{number}" for number in range(5)]
    built = builder.build(*stages, f"FROM {images.NAME}", *copies, "RUN cat /n?")
    assert built.code == 0, built
    result = builder.docker.run(builder.image, "sh", "-c", "cat /n?")
    assert result.out.split() == ["0", "1", "2", "3", "4"]


def test_confinement(builder: Builder) -> None:
    """A RUN has BuildKit's capabilities and its filter, and a process namespace of its own."""
    built = builder.build("RUN grep -E '^(CapEff|Seccomp):' /proc/self/status; echo first $$")
    assert built.code == 0, built
    assert "00000000a80425fb" in built.text
    assert "Seccomp:\t2" in built.text
    assert "first 1\n" in built.text


def test_cancelled_build(builder: Builder) -> None:
    """A client that goes away ends its RUN."""
    builder.write("Dockerfile", f"FROM {images.NAME}\nRUN sleep 3333\n")
    docker = builder.docker
    environment = {**docker.environment(), "DOCKER_BUILDKIT": "1"}
    argv = docker.argv("build", "--network", "none", builder.context)
    client = host.background(argv, f"{docker.directory}/cancelled", env=environment)
    host.wait_until("it runs", lambda: sleeping(docker), seconds=30)
    host.stop(client)
    host.wait_until("it is gone", lambda: not sleeping(docker), seconds=30)


def sleeping(docker: Docker) -> list[str]:
    """The processes of the build, in its cgroup."""
    return [line for line in host.processes_of(docker.session.tag).values() if "sleep 3333" in line]
