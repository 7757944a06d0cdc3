"""Podman's pods: containers that share namespaces, init containers, and what Kubernetes' YAML says."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from conformance.engines import host, images

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.engines.podman import Podman

IMAGE = images.NAME

KUBE = """\
apiVersion: v1
kind: Pod
metadata:
  name: POD
spec:
  containers:
  - name: member
    image: IMAGE
    command: [sh, -c, "cat /config/word; exec sleep 1000"]
    securityContext:
      runAsUser: 1000
      readOnlyRootFilesystem: true
      allowPrivilegeEscalation: false
      capabilities: {drop: [ALL]}
    resources: {limits: {memory: 64Mi}}
    volumeMounts:
    - {name: shared, mountPath: /shared, readOnly: true}
    - {name: config, mountPath: /config}
  volumes:
  - name: shared
    emptyDir: {}
  - name: config
    hostPath: {path: DIRECTORY, type: Directory}
"""


def make_pod(podman: Podman, pod: str, *options: str) -> None:
    """A pod in the session's cgroup."""
    parent = ("--cgroup-parent", f"/{podman.session.tag}")
    podman.succeed("pod", "create", "--name", pod, *parent, *options)


def add(podman: Podman, pod: str, member: str, *options: str) -> None:
    """A further container of a pod, which sleeps."""
    podman.succeed("run", "--detach", "--pod", pod, "--name", member, *options, IMAGE, "sleep", "1000")


def namespaces(podman: Podman, member: str, *kinds: str) -> list[str]:
    """The namespaces of a member."""
    return podman.execute(member, f"for k in {' '.join(kinds)}; do readlink /proc/self/ns/$k; done").split()


def test_shared_namespaces(podman: Podman, name: str) -> None:
    """Two containers of a pod share network, IPC and UTS namespaces; mounts and processes are their own."""
    make_pod(podman, name, "--network", "none", "--hostname", name)
    for member in ("a", "b"):
        add(podman, name, f"{name}-{member}")
    shared = [namespaces(podman, f"{name}-{member}", "net", "ipc", "uts") for member in "ab"]
    own = [namespaces(podman, f"{name}-{member}", "mnt", "pid") for member in "ab"]
    assert shared[0] == shared[1]
    assert not set(own[0]) & set(own[1])
    assert {podman.execute(f"{name}-{member}", "hostname") for member in "ab"} == {f"{name}\n"}


def test_shared_processes(podman: Podman, name: str) -> None:
    """`--share pid`: the second container sees the first process of the pod."""
    make_pod(podman, name, "--network", "none", "--share", "pid,ipc,uts")
    command = ["sh", "-c", "tr '\\0' ' ' < /proc/1/cmdline"]
    assert podman.succeed("run", "--rm", "--pod", name, IMAGE, *command) == "sleep 1000 "


def test_nothing_shared(podman: Podman, name: str) -> None:
    """`--share none`: a pod that is only a name and a cgroup."""
    make_pod(podman, name, "--share", "none")
    for member in ("a", "b"):
        add(podman, name, f"{name}-{member}")
    kinds = ("net", "ipc", "uts", "pid")
    first, second = (namespaces(podman, f"{name}-{member}", *kinds) for member in "ab")
    assert not set(first) & set(second)


def test_user_namespace_of_a_pod(podman: Podman, name: str) -> None:
    """`--userns` of the pod: all members are in the one user namespace."""
    mapping = ("--uidmap", "0:200000:65536", "--gidmap", "0:200000:65536")
    make_pod(podman, name, "--network", "none", *mapping)
    for member in ("a", "b"):
        add(podman, name, f"{name}-{member}")
    first, second = (namespaces(podman, f"{name}-{member}", "user") for member in "ab")
    assert first == second != [os.readlink("/proc/self/ns/user")]
    assert podman.execute(f"{name}-a", "cat /proc/self/uid_map").split() == ["0", "200000", "65536"]


def test_limit_of_a_pod(podman: Podman, name: str) -> None:
    """The cgroups of the members are below the pod's."""
    make_pod(podman, name, "--network", "none")
    add(podman, name, f"{name}-member")
    pod = podman.succeed("pod", "inspect", "--format", "{{.ID}}", name).strip()
    with open(f"/proc/{podman.pid(f'{name}-member')}/cgroup", encoding="utf-8") as file:
        assert f"/{podman.session.tag}/{pod}/" in file.read()


def test_life(podman: Podman, name: str) -> None:
    """Pause, unpause, stop, start, restart, kill and remove reach all members."""
    make_pod(podman, name, "--network", "none")
    member = f"{name}-member"
    add(podman, name, member)
    podman.succeed("pod", "pause", name)
    assert podman.status(member) == "paused 0"
    podman.succeed("pod", "unpause", name)
    assert podman.status(member) == "running 0"
    podman.succeed("pod", "stop", "--time", "0", name)
    assert podman.status(member) == "exited 137"
    podman.succeed("pod", "start", name)
    assert podman.status(member) == "running 0"
    assert podman.succeed("pod", "top", name, "args").count("sleep 1000") == 2
    podman.succeed("pod", "kill", name)
    # Its exit status says nothing: it may stumble over its own false cgroups.
    podman.call("pod", "rm", "--force", "--time", "0", name)
    assert podman.call("container", "exists", member).code == 1


def test_statistics(podman: Podman, name: str) -> None:
    """`podman pod stats` and `podman pod ps` see the members."""
    make_pod(podman, name, "--network", "none")
    add(podman, name, f"{name}-member")
    assert f"{name}-member" in podman.succeed("pod", "stats", "--no-stream", name)
    assert podman.succeed("pod", "ps", "--format", "{{.Status}} {{.NumberOfContainers}}") == "Running 2\n"


@pytest.mark.parametrize(("kind", "runs"), [("always", 2), ("once", 1)])
def test_init_container(podman: Podman, name: str, kind: str, runs: int) -> None:
    """What must run first has run, to its end, before the others start: each time, or once."""
    make_pod(podman, name, "--network", "none")
    volume = ["--pod", name, "--volume", f"{name}:/mnt"]
    podman.succeed("create", "--init-ctr", kind, *volume, IMAGE, "sh", "-c", "echo first >> /mnt/file")
    podman.succeed(
        "create", "--name", f"{name}-member", *volume, IMAGE, "sh", "-c", "wc -l < /mnt/file; sleep 1000"
    )
    podman.succeed("pod", "start", name)
    podman.wait_for_log(f"{name}-member", "1")
    podman.succeed("pod", "stop", "--time", "0", name)
    podman.succeed("pod", "start", name)
    host.wait_until(
        "it ran again", lambda: podman.succeed("logs", f"{name}-member").split() == ["1", str(runs)]
    )


@pytest.fixture
def played(podman: Podman, name: str, shared: str) -> Iterator[str]:
    """A pod from Kubernetes' YAML, with volumes and a security context; its name."""
    with open(f"{shared}/word", "w", encoding="utf-8") as file:
        file.write("configured\n")
    path = f"{podman.directory}/{name}.yaml"
    with open(path, "w", encoding="utf-8") as file:
        text = KUBE.replace("POD", "played").replace("DIRECTORY", shared)
        file.write(text.replace("IMAGE", IMAGE))
    podman.succeed("play", "kube", "--network", "none", path)
    yield "played"
    podman.call("play", "kube", "--down", path)


def test_play_kube(podman: Podman, played: str) -> None:
    """What the YAML says is what the process has."""
    member = f"{played}-member"
    podman.wait_for_log(member, "configured\n")
    script = "id -u; grep -E 'CapBnd|NoNewPrivs' /proc/self/status | cut -f2; touch /shared/x 2>&1 || true"
    user, no_new_privs, bounding, refused = podman.execute(member, script).splitlines()
    assert (user, {no_new_privs, bounding}) == ("1000", {"1", "0000000000000000"})
    assert "Read-only file system" in refused


def test_generate_kube(podman: Podman, name: str, shared: str) -> None:
    """A pod described as YAML, and made again from it."""
    make_pod(podman, name, "--network", "none")
    add(podman, name, f"{name}-member", "--env", "GREETING=hello")
    path = f"{shared}/pod.yaml"
    podman.succeed("generate", "kube", "--filename", path, name)
    podman.call("pod", "rm", "--force", "--time", "0", name)
    podman.succeed("play", "kube", "--network", "none", path)
    assert podman.execute(f"{name}-{name}-member", "echo $GREETING") == "hello\n"
