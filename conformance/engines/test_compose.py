"""docker-compose on dockerd: services that wait for one another, are watched and started again."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from conformance.engines import host, images

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.engines.docker import Docker
    from conformance.engines.host import Result

# What has to hold of every service here: no bridge, no registry.
SERVICE = {"image": images.NAME, "network_mode": "none"}


class Project:
    """A project: its file is in the daemon's directory, its containers are the daemon's."""

    def __init__(self, docker: Docker, name: str) -> None:
        """Name it."""
        self.docker = docker
        self.name = name
        self.file = f"{docker.directory}/{name}.json"

    def write(self, services: dict[str, dict[str, Any]], **more: object) -> None:
        """Write its file; JSON is YAML."""
        whole = {name: {**SERVICE, **service} for name, service in services.items()}
        with open(self.file, "w", encoding="utf-8") as file:
            json.dump({"version": "2.4", "services": whole, **more}, file)

    def call(self, *words: str) -> Result:
        """Call `docker-compose`."""
        argv = [host.program("docker-compose"), "--file", self.file, "--project-name", self.name, *words]
        # The message that a newer compose is there would otherwise be on standard error of each call.
        where = {"DOCKER_HOST": f"unix://{self.docker.socket}", "COMPOSE_IGNORE_ORPHANS": "1"}
        return host.call(argv, env={**self.docker.environment(), **where}, directory=self.docker.directory)

    def succeed(self, *words: str) -> str:
        """Call `docker-compose`, which has to succeed; its standard output."""
        result = self.call(*words)
        assert result.code == 0, result
        return result.out

    def container(self, service: str) -> str:
        """The id of a service's container."""
        return self.succeed("ps", "--quiet", service).strip()


@pytest.fixture
def project(docker: Docker, name: str) -> Iterator[Project]:
    """A project for one check."""
    made = Project(docker, name)
    yield made
    if os.path.exists(made.file):
        made.call("down", "--volumes", "--timeout", "0")
        os.unlink(made.file)


def test_up_and_down(project: Project) -> None:
    """Several containers of a service run as its file says, with its limits; `down` leaves nothing."""
    service = {
        "command": ["sh", "-c", "echo $$GREETING; exec sleep 1000"],  # compose itself would replace one $
        "environment": {"GREETING": "hello"},
        "mem_limit": "64m",
        "cap_drop": ["ALL"],
        "read_only": True,
        "tmpfs": ["/tmp"],
    }
    project.write({"one": service})
    project.succeed("up", "--detach", "--scale", "one=3")
    containers = project.container("one").split()
    assert len(containers) == 3
    for container in containers:
        project.docker.wait_for_log(container, "hello")
        assert project.docker.setting(container, "memory.limit_in_bytes", "memory.max") == str(64 << 20)
    script = "grep CapBnd /proc/self/status | cut -f2; touch /tmp/x; touch /x || echo read-only"
    assert project.succeed("exec", "-T", "one", "sh", "-c", script) == "0000000000000000\nread-only\n"
    project.succeed("down", "--timeout", "0")
    assert project.docker.succeed("ps", "--all", "--quiet") == ""


def test_depends_on_health(project: Project) -> None:
    """A service is started when the one it depends on is healthy, which a command in it has found out."""
    project.write(
        {
            "first": {
                "command": ["sh", "-c", "sleep 1; touch /ready; exec sleep 1000"],
                "healthcheck": {"test": ["CMD", "test", "-e", "/ready"], "interval": "1s", "retries": 30},
            },
            "second": {
                "command": ["sleep", "1000"],
                "depends_on": {"first": {"condition": "service_healthy"}},
            },
        }
    )
    project.succeed("up", "--detach")
    first, second = project.docker.record(project.container("first")), project.container("second")
    assert first["State"]["Health"]["Status"] == "healthy"
    (check,) = [item for item in first["State"]["Health"]["Log"] if item["ExitCode"] == 0][:1]
    assert project.docker.record(second)["State"]["StartedAt"] > as_utc(check["Start"])


def as_utc(time: str) -> str:
    """A time of the health's log, which is written in the daemon's zone: that of the checks is UTC."""
    return time.replace("+00:00", "Z")


def test_restart(project: Project) -> None:
    """`restart: on-failure`: what fails is started again until it succeeds; what was written stays."""
    script = "echo x >> /mnt/runs; test $$(wc -l < /mnt/runs) -ge 3"
    project.write(
        {"one": {"command": ["sh", "-c", script], "restart": "on-failure", "volumes": ["data:/mnt"]}},
        volumes={"data": {}},
    )
    project.succeed("up", "--detach")
    container = project.container("one")
    project.docker.wait_for_status(container, "exited 0", seconds=3 * host.SETTLE)
    assert project.docker.inspect(container, "{{.RestartCount}}") == "2"


def test_volumes(project: Project, shared: str) -> None:
    """A named volume is shared by two services and outlives `down`; a bind mount can be read-only."""
    volumes = ["data:/data", f"{shared}:/mnt:ro"]
    project.write(
        {
            "writer": {
                "command": ["sh", "-c", "cat /mnt/file > /data/copy; touch /mnt/x"],
                "volumes": volumes,
            },
            "reader": {"command": ["cat", "/data/copy"], "volumes": volumes},
        },
        volumes={"data": {}},
    )
    assert project.call("run", "--rm", "writer").code == 1  # of touch
    project.succeed("down")
    assert project.succeed("run", "--rm", "-T", "reader") == "from the host\n"
