"""Units of systemd by Quadlet: they start, say when they are ready, stop, and start again after a failure."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conformance.engines import host, images, quadlet
from conformance.engines.client import POLITE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.engines.host import Session
    from conformance.engines.quadlet import Quadlet

WHY_NOT = quadlet.missing()
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)

MiB = 1 << 20
# The machine's systemd-notify, and its libraries, in a container.
PROGRAMS = ("Volume=/usr:/usr:ro", "Volume=/usr/lib:/lib:ro", "Volume=/usr/lib64:/lib64:ro")


@pytest.fixture(scope="session")
def prepared(session: Session) -> Quadlet:
    """The machine's Podman, with its configuration and the images."""
    return quadlet.Quadlet(session)


@pytest.fixture
def units(prepared: Quadlet) -> Iterator[Quadlet]:
    """The same for one check, after which its units are gone."""
    with prepared.cleared():
        yield prepared


def test_life(units: Quadlet, name: str) -> None:
    """It starts by the configured runtime, in its unit's cgroup; it is stopped by its signal, and is gone."""
    units.container(name, POLITE.replace("TERM", "USR2"), "StopSignal=USR2")
    units.start(name)
    assert units.shows(name, "ActiveState") == "active"
    runtime, pid, container = units.inspect(name, "{{.OCIRuntime}} {{.State.Pid}} {{.Id}}").split()
    assert runtime == units.name
    state = f"/run/{units.name}/{container}"
    assert os.path.exists(state)
    group = f"/system.slice/{name}.service/libpod-payload-{container}"
    assert Path(f"/proc/{pid}/cgroup").read_text() == f"0::{group}\n"
    host.wait_until("it is ready", lambda: "ready\n" in units.podman("logs", name).out)
    units.stop(name)
    assert units.shows(name, "ActiveState") == "failed"  # it ends with 5
    assert units.shows(name, "ExecMainStatus") == "5"
    assert "ready\n" in units.journal(name)
    assert not os.path.exists(state)
    assert units.podman("container", "exists", name).code == 1


def test_notify(units: Quadlet, name: str) -> None:
    """`Notify=true`: the unit has started when the process says so, with the status that it tells."""
    tell = "echo before; /usr/bin/systemd-notify --ready --status=content; exec sleep 1000"
    units.container(name, tell, "Notify=true", *PROGRAMS)
    units.start(name)
    assert "before\n" in units.podman("logs", name).out
    assert units.shows(name, "StatusText") == "content"
    assert host.command_line(int(units.shows(name, "MainPID"))).startswith("/usr/bin/conmon ")


def test_notify_of_what_ends_before(units: Quadlet, name: str) -> None:
    """`Notify=true`: a process that ends without a word is a unit that has failed."""
    units.container(name, "exit 7", "Notify=true")
    units.load()
    assert units.systemctl("start", name).code != 0
    assert units.shows(name, "ActiveState") == "failed"


def test_notify_by_health(units: Quadlet, name: str) -> None:
    """`Notify=healthy`: the unit has started when the health check, an exec by a timer, passes."""
    health = ("HealthCmd=test -e /tmp/well", "HealthInterval=2s", "HealthRetries=100", "Notify=healthy")
    units.container(name, "sleep 2; touch /tmp/well; exec sleep 1000", *health)
    units.start(name)
    assert units.inspect(name, "{{.State.Health.Status}}") == "healthy"
    assert units.podman("exec", name, "test", "-e", "/tmp/well").code == 0


def test_restart(units: Quadlet, name: str) -> None:
    """`Restart=on-failure`: what fails is started again, until it does not."""
    script = "echo x >>/data/runs; n=$$(wc -l </data/runs); test $$n -gt 2 || exit 3"
    units.write(f"{name}.volume", f"[Volume]\nVolumeName={name}\n")
    units.container(
        name, f"{script}; exec sleep 1000", f"Volume={name}.volume:/data", service="Restart=on-failure"
    )
    units.start(name)
    host.wait_until("it has failed twice", lambda: units.shows(name, "NRestarts") == "2", seconds=60)
    host.wait_until("the third goes on", lambda: units.shows(name, "ActiveState") == "active", seconds=30)
    data = units.succeed("volume", "inspect", "--format", "{{.Mountpoint}}", name).strip()
    assert Path(f"{data}/runs").read_text() == "x\n" * 3
    units.stop(name)
    units.stop(f"{name}-volume")
    units.succeed("volume", "rm", name)


def test_end_of_the_process(units: Quadlet, name: str) -> None:
    """A process that is killed on the host takes its unit with it, and the status is told."""
    units.container(name, "exec sleep 1000")
    units.start(name)
    os.kill(int(units.inspect(name, "{{.State.Pid}}")), 9)
    host.wait_until("the unit has failed", lambda: units.shows(name, "ActiveState") == "failed", seconds=30)
    assert units.shows(name, "ExecMainStatus") == "137"


def test_limits(units: Quadlet, name: str) -> None:
    """Limits of the container are in its cgroup, those of the unit in the one above."""
    limits = ("PidsLimit=17", "PodmanArgs=--memory=64m --cpu-shares=512", "Ulimit=nofile=100:200")
    units.container(name, "ulimit -n; exec sleep 1000", *limits, service="TasksMax=50\nMemoryMax=256M")
    units.start(name)
    (payload,) = Path(quadlet.SLICE, f"{name}.service").glob("libpod-payload-*")
    files = [(payload / file).read_text().strip() for file in ("pids.max", "memory.max", "cpu.weight")]
    assert files[:2] == ["17", str(64 * MiB)]
    assert 10 < int(files[2]) < 100
    above = [(payload.parent / file).read_text().strip() for file in ("pids.max", "memory.max")]
    assert above == ["50", str(256 * MiB)]
    assert "100\n" in units.podman("logs", name).out


KEYS = (
    "User=1000",
    "Group=1000",
    "WorkingDir=/tmp",
    "HostName=a-host",
    "Environment=GREETING=hello",
    "ReadOnly=true",
    "ReadOnlyTmpfs=false",
    "Tmpfs=/scratch:rw,size=1m",
    "Volume=/etc/containers:/config:ro",
    "DropCapability=all",
    "AddCapability=NET_BIND_SERVICE",
    "NoNewPrivileges=true",
    "Sysctl=net.ipv4.ip_unprivileged_port_start=80",
    "AddDevice=/dev/zero:/dev/nothing",
    "ShmSize=2m",
    "Mask=/proc/uptime",
    "RunInit=false",
    "PodmanArgs=--cpus 1",
)
SHOWN = """
id -u; id -g; pwd; hostname; echo $$GREETING; touch /here || echo read-only; df -k /scratch | tail -n 1
test -f /config/containers.conf && echo config; grep -E 'CapBnd|NoNewPrivs' /proc/self/status
cat /proc/sys/net/ipv4/ip_unprivileged_port_start; test -c /dev/nothing && echo device
df -k /dev/shm | tail -n 1; wc -c </proc/uptime; exec sleep 1000
"""


def test_keys(units: Quadlet, name: str) -> None:
    """What a unit's file says is what its container has."""
    units.container(name, SHOWN.strip().replace("\n", "; "), *KEYS)
    units.start(name)
    host.wait_until("all is said", lambda: units.podman("logs", name).out.endswith("\n0\n"))
    lines = [re.sub(r"\s+", " ", line) for line in units.podman("logs", name).out.splitlines()]
    assert lines[:5] == ["1000", "1000", "/tmp", "a-host", "hello"]
    assert [line for line in lines if line in {"read-only", "config", "device", "80"}] == [
        *("read-only", "config", "80", "device"),
    ]
    assert [int(line.split()[1]) for line in lines if "tmpfs " in line or line.startswith("shm ")] == [
        1024,
        2048,
    ]
    assert [line for line in lines if line.startswith(("Cap", "NoNew"))] == [
        "CapBnd: 0000000000000400",
        "NoNewPrivs: 1",
    ]


def test_user_namespace(units: Quadlet, name: str) -> None:
    """`UIDMap=`, `GIDMap=`: the container's root is another user of the machine's."""
    units.container(
        name, "cat /proc/self/uid_map; exec sleep 1000", "UIDMap=0:70000:1000", "GIDMap=0:70000:1000"
    )
    units.start(name)
    assert os.stat(f"/proc/{units.inspect(name, '{{.State.Pid}}')}").st_uid == 70000
    assert "0 70000 1000" in re.sub(r" +", " ", units.podman("logs", name).out)


def test_host_network(units: Quadlet, name: str) -> None:
    """`Network=host`: the network is the machine's."""
    units.container(name, "readlink /proc/self/ns/net; exec sleep 1000", "Network=host")
    units.start(name)
    mine = os.readlink("/proc/self/ns/net")
    host.wait_until("it is said", lambda: f"{mine}\n" == units.podman("logs", name).out)


def test_network(units: Quadlet, name: str) -> None:
    """A `.network` of its own, by netavark, which joins what the runtime made; a port is published."""
    units.write(f"{name}.network", f"[Network]\nNetworkName={name}\nSubnet=10.89.77.0/24\nDisableDNS=true\n")
    serve = "mkdir /tmp/w; echo served >/tmp/w/index.html; exec httpd -f -p 80 -h /tmp/w"
    units.container(name, serve, f"Network={name}.network", "IP=10.89.77.5", "PublishPort=127.0.0.1:8077:80")
    units.start(name)
    assert "inet 10.89.77.5/24" in units.succeed("exec", name, "ip", "-4", "addr")
    ask = ["busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8077/"]
    host.wait_until("the port answers", lambda: host.call(ask).out == "served\n")
    units.stop(name)
    units.stop(f"{name}-network")
    units.succeed("network", "rm", name)


def test_pod(units: Quadlet, name: str) -> None:
    """A `.pod` with two members: they share its network and its IPC, and it takes them with it."""
    units.write(f"{name}.pod", f"[Pod]\nPodName={name}\nNetwork=none\n")
    for member in ("one", "two"):
        said = "readlink /proc/self/ns/net; readlink /proc/self/ns/ipc; exec sleep 1000"
        units.container(f"{name}-{member}", said, f"Pod={name}.pod")
    units.start(f"{name}-pod")
    for member in ("one", "two"):
        host.wait_until(
            f"{member} runs",
            lambda member=member: units.shows(f"{name}-{member}", "ActiveState") == "active",  # type: ignore[misc]
            seconds=30,
        )
    said_by = [units.podman("logs", f"{name}-{member}").out for member in ("one", "two")]
    assert said_by[0] == said_by[1]
    assert len(said_by[0].splitlines()) == 2
    assert host.succeed(["readlink", "/proc/self/ns/net"]) not in said_by[0]
    units.stop(f"{name}-pod")
    assert units.podman("pod", "exists", name).code == 1
    assert [units.shows(f"{name}-{member}", "ActiveState") for member in ("one", "two")] != [
        "active",
        "active",
    ]


KUBE = {
    "apiVersion": "v1",
    "kind": "Pod",
    "spec": {
        "containers": [
            {
                "name": "member",
                "image": images.NAME,
                "imagePullPolicy": "Never",
                "command": ["sh", "-c", "echo said; exec sleep 1000"],
                "resources": {"limits": {"memory": "64Mi"}},
            }
        ]
    },
}


def test_kube(units: Quadlet, name: str, shared: str) -> None:
    """A `.kube` unit plays a pod of Kubernetes'."""
    Path(f"{shared}/pod.yaml").write_text(json.dumps({**KUBE, "metadata": {"name": name}}))  # JSON is YAML
    units.write(f"{name}.kube", f"[Kube]\nYaml={shared}/pod.yaml\nNetwork=none\n")
    units.start(name)
    assert units.shows(name, "ActiveState") == "active"
    assert units.inspect(f"{name}-member", "{{.OCIRuntime}} {{.State.Status}}") == f"{units.name} running"
    host.wait_until("it runs", lambda: units.podman("logs", f"{name}-member").out == "said\n")
    units.stop(name)
    assert units.podman("pod", "exists", name).code == 1


def test_build(units: Quadlet, name: str, shared: str) -> None:
    """A `.build` unit: its RUN lines go through the runtime; a container of the image runs."""
    Path(f"{shared}/Containerfile").write_text(f"FROM {images.NAME}\nRUN echo built >/built\n")
    lines = (
        f"ImageTag=localhost/{name}:latest",
        f"SetWorkingDirectory={shared}",
        "Network=none",
        "Pull=never",
    )
    units.write(f"{name}.build", "\n".join(("[Build]", *lines, "")))
    units.container(name, "cat /built; exec sleep 1000", f"Image={name}.build")
    units.start(name)
    host.wait_until("it runs", lambda: units.podman("logs", name).out == "built\n")
    units.stop(name)
    units.succeed("image", "rm", f"localhost/{name}:latest")
