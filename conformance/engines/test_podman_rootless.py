"""Podman of an ordinary user: everything happens in a user namespace, and there may be no cgroup at all."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from conformance.engines import images
from conformance.engines.podman_rootless import COUNT, FIRST, UID

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.engines.podman_rootless import RootlessPodman

IMAGE = images.NAME


@pytest.fixture
def owned(rootless: RootlessPodman) -> Iterator[str]:
    """A directory of the user's, with one file in it."""
    path = f"{rootless.directory}/owned"
    os.mkdir(path)
    with open(f"{path}/file", "w", encoding="utf-8") as file:
        file.write("from the host\n")
    for name in (path, f"{path}/file"):
        os.chown(name, UID, UID)
    yield path
    shutil.rmtree(path)


def test_ids_are_mapped(rootless: RootlessPodman) -> None:
    """The user is root inside, its subordinate ids are everybody else (newuidmap)."""
    out = rootless.shell("cat /proc/self/uid_map")
    assert [line.split() for line in out.splitlines()] == [
        ["0", str(UID), "1"],
        ["1", str(FIRST), str(COUNT)],
    ]


def test_keep_id(rootless: RootlessPodman) -> None:
    """`--userns=keep-id`: a user namespace inside Podman's, in which the user keeps its id."""
    out = rootless.shell(
        "id -u; touch /tmp/new; stat -c %u /tmp/new; cat /proc/self/uid_map", ["--userns=keep-id"]
    )
    first, second, *maps = out.splitlines()
    assert (first, second) == (str(UID), str(UID))
    assert [str(UID), "0", "1"] in [line.split() for line in maps]


def test_joined_user_namespace(rootless: RootlessPodman, name: str) -> None:
    """`--userns container:` and the pid namespace that belongs to it."""
    rootless.start(name, "--userns=keep-id", IMAGE, "sleep", "1000")
    joined = ["--userns", f"container:{name}", "--pid", f"container:{name}"]
    own = rootless.succeed("exec", name, "readlink", "/proc/self/ns/user")
    assert rootless.shell("readlink /proc/self/ns/user", joined) == own
    assert rootless.shell("tr '\\0' ' ' < /proc/1/cmdline", joined) == "sleep 1000 "


def test_bind_mounts(rootless: RootlessPodman, owned: str) -> None:
    """`-v` writable and not; what root of the container makes is the user's."""
    rootless.shell("cat /mnt/file; echo new > /mnt/new", ["--volume", f"{owned}:/mnt"])
    assert os.stat(f"{owned}/new").st_uid == UID
    refused = rootless.run("--volume", f"{owned}:/mnt:ro", IMAGE, "touch", "/mnt/more")
    assert "Read-only file system" in refused.err


def test_devices(rootless: RootlessPodman) -> None:
    """Nodes cannot be made; the host's are bound."""
    script = "head -c 4 /dev/zero | wc -c; head -c 2 /dev/nothing | wc -c; echo x > /dev/null"
    assert rootless.shell(script, ["--device", "/dev/zero:/dev/nothing"]) == "4\n2\n"


def test_namespaces_of_the_host(rootless: RootlessPodman) -> None:
    """Without a network namespace of its own there can be no new sysfs."""
    out = rootless.shell("readlink /proc/self/ns/net; ls -d /sys/class", ["--network=host"])
    assert out == f"{os.readlink('/proc/self/ns/net')}\n/sys/class\n"


def test_read_only_root_tmpfs_and_capabilities(rootless: RootlessPodman) -> None:
    """Rights over what the user namespace owns."""
    options = ["--read-only", "--tmpfs", "/tmp", "--cap-add", "SYS_ADMIN", "--hostname", "inside"]
    out = rootless.shell(
        "touch /file 2>&1 || true; mount -t tmpfs x /tmp; touch /tmp/file; hostname", options
    )
    assert out == "touch: /file: Read-only file system\ninside\n"


def test_exec(rootless: RootlessPodman, name: str) -> None:
    """A further process: environment, user, status; Podman asks for it as root of a namespace."""
    rootless.start(name, "--env", "GREETING=hello", IMAGE, "sleep", "1000")
    script = "echo $GREETING; id -u; tr '\\0' ' ' < /proc/1/cmdline; exit 3"
    result = rootless.call("exec", "--user", "app", name, "sh", "-c", script)
    assert (result.code, result.out) == (3, "hello\n1000\nsleep 1000 "), result


def test_pod(rootless: RootlessPodman, name: str) -> None:
    """Containers of a pod share namespaces, which nobody but the host's root could leave again."""
    rootless.succeed("pod", "create", "--name", name, "--infra-image", IMAGE, "--infra-command", "sleep 1000")
    script = "for k in net ipc uts; do readlink /proc/self/ns/$k; done"
    first, second = (rootless.shell(script, ["--pod", name]) for _ in range(2))
    assert first == second
    assert not {os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "ipc", "uts")} & set(first.split())


def test_kept_groups(rootless: RootlessPodman) -> None:
    """`--group-add keep-groups`: the caller's groups, which only an annotation tells the runtime."""
    result = rootless.run("--group-add", "keep-groups", IMAGE, "id", "-G")
    assert result.code == 0, str(result)
    assert result.out.split()[0] == "0"


def test_no_id_of_the_users(rootless: RootlessPodman) -> None:
    """`--userns=nomap`: the user itself is not mapped, only its subordinate ids."""
    out = rootless.shell("cat /proc/self/uid_map; id -u", ["--userns=nomap"])
    assert out.split()[:3] == ["0", "1", str(COUNT)]


def test_own_mapping(rootless: RootlessPodman) -> None:
    """`--uidmap`: ids of Podman's user namespace."""
    options = ["--uidmap", "0:1:1000", "--gidmap", "0:1:1000"]
    assert rootless.shell("cat /proc/self/uid_map; touch /new", options).split() == ["0", "1", "1000"]


def test_privileged(rootless: RootlessPodman) -> None:
    """`--privileged`: all capabilities over its user namespace, and the devices the user may see."""
    result = rootless.run(
        "--privileged", *rootless.ulimits, IMAGE, "sh", "-c", "grep CapEff /proc/self/status"
    )
    assert result.code == 0, str(result)
    assert int(result.out.split()[1], 16) & 1 << 21


def test_no_cgroup(rootless: RootlessPodman) -> None:
    """`--cgroups=disabled`: told to the runtime as a manager of cgroups."""
    words = rootless.run_words(
        "--rm", "--cgroups=disabled", "--cgroupns=host", IMAGE, "cat", "/proc/self/cgroup"
    )
    assert "libpod-" not in rootless.succeed(*words)


def test_play_kube(rootless: RootlessPodman, owned: str) -> None:
    """A pod from Kubernetes' YAML."""
    path = f"{owned}/pod.yaml"
    container = (
        f"{{name: member, image: {IMAGE}, command: [sleep, '1000'], securityContext: {{runAsUser: 1000}}}}"
    )
    with open(path, "w", encoding="utf-8") as file:
        file.write(
            f"apiVersion: v1\nkind: Pod\nmetadata: {{name: played}}\nspec: {{containers: [{container}]}}\n"
        )
    rootless.succeed("play", "kube", "--network", "none", path)
    assert rootless.execute("played-member", "id -u") == "1000\n"
