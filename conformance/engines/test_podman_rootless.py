"""Podman of an ordinary user: everything happens in a user namespace, and there may be no cgroup at all."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from conformance.engines import host, images
from conformance.engines.podman_rootless import COUNT, FIRST, UID, RootlessPodman

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.engines.host import Session

IMAGE = images.NAME
POLITE = "trap 'exit 5' TERM; echo ready; while :; do sleep 1000 & wait; done"


@pytest.fixture(scope="module")
def storage(session: Session) -> Iterator[RootlessPodman]:
    """One storage for all checks of this file, with the image in it."""
    podman = RootlessPodman(session)
    allowed = host.call([podman.enter, "unshare", "--user", "true"])
    if allowed.code != 0:
        pytest.skip(f"no user namespaces for ordinary users here: {allowed.err.strip()}")
    podman.succeed("load", "--input", session.archive)
    yield podman
    podman.remove_everything()
    podman.close()


@pytest.fixture
def podman(storage: RootlessPodman) -> Iterator[RootlessPodman]:
    """Podman for one check, after which nothing may be left."""
    yield storage
    storage.remove_everything()
    assert host.new_leftovers(storage.leftovers, storage.known_leftovers) == []


@pytest.fixture
def owned(podman: RootlessPodman) -> Iterator[str]:
    """A directory of the user's, with one file in it."""
    path = f"{podman.directory}/owned"
    os.mkdir(path)
    with open(f"{path}/file", "w", encoding="utf-8") as file:
        file.write("from the host\n")
    for name in (path, f"{path}/file"):
        os.chown(name, UID, UID)
    yield path
    shutil.rmtree(path)


def test_run_gives_output_and_exit_status(podman: RootlessPodman) -> None:
    """Root inside, and the streams and the status come out."""
    result = podman.run(IMAGE, "sh", "-c", "id -u; echo err >&2; exit 7")
    assert (result.code, result.out, result.err) == (7, "0\n", "err\n"), result


def test_ids_are_mapped(podman: RootlessPodman) -> None:
    """The user is root inside, its subordinate ids are everybody else (newuidmap)."""
    out = podman.shell("cat /proc/self/uid_map")
    assert [line.split() for line in out.splitlines()] == [
        ["0", str(UID), "1"],
        ["1", str(FIRST), str(COUNT)],
    ]


@pytest.mark.parametrize(
    ("command", "status"), [("no-such-program", 127), ("/no/such/program", 127), ("/bin/not-executable", 126)]
)
def test_run_of_what_cannot_run(podman: RootlessPodman, command: str, status: int) -> None:
    """Podman reads the runtime's words from its log."""
    result = podman.run(IMAGE, command)
    assert result.code == status, result


def test_run_on_a_terminal(podman: RootlessPodman) -> None:
    """A dialogue over the pty."""
    script = "until [ \"$(stty size)\" = '33 101' ]; do sleep 0.1; done; exit 9\n"
    argv = podman.argv(*podman.run_words("--rm", "-it", IMAGE, "sh"))
    result = host.on_terminal(argv, talk=[("# ", script)], env=podman.environment())
    assert result.code == 9, result


def test_user_and_groups(podman: RootlessPodman) -> None:
    """Another user with supplementary groups: newgidmap leaves setgroups allowed."""
    assert podman.shell("id -u; id -g; id -G", ["--user", "app"]) == "1000\n1000\n1000 2000\n"


def test_keep_id(podman: RootlessPodman) -> None:
    """`--userns=keep-id`: a user namespace inside Podman's, in which the user keeps its id."""
    out = podman.shell(
        "id -u; touch /tmp/new; stat -c %u /tmp/new; cat /proc/self/uid_map", ["--userns=keep-id"]
    )
    first, second, *maps = out.splitlines()
    assert (first, second) == (str(UID), str(UID))
    assert [str(UID), "0", "1"] in [line.split() for line in maps]


def test_joined_user_namespace(podman: RootlessPodman, name: str) -> None:
    """`--userns container:` and the pid namespace that belongs to it."""
    podman.start(name, "--userns=keep-id", IMAGE, "sleep", "1000")
    joined = ["--userns", f"container:{name}", "--pid", f"container:{name}"]
    own = podman.succeed("exec", name, "readlink", "/proc/self/ns/user")
    assert podman.shell("readlink /proc/self/ns/user", joined) == own
    assert podman.shell("tr '\\0' ' ' < /proc/1/cmdline", joined) == "sleep 1000 "


def test_bind_mounts(podman: RootlessPodman, owned: str) -> None:
    """`-v` writable and not; what root of the container makes is the user's."""
    podman.shell("cat /mnt/file; echo new > /mnt/new", ["--volume", f"{owned}:/mnt"])
    assert os.stat(f"{owned}/new").st_uid == UID
    refused = podman.run("--volume", f"{owned}:/mnt:ro", IMAGE, "touch", "/mnt/more")
    assert "Read-only file system" in refused.err


def test_devices(podman: RootlessPodman) -> None:
    """Nodes cannot be made; the host's are bound."""
    script = "head -c 4 /dev/zero | wc -c; head -c 2 /dev/nothing | wc -c; echo x > /dev/null"
    assert podman.shell(script, ["--device", "/dev/zero:/dev/nothing"]) == "4\n2\n"


def test_namespaces_of_the_host(podman: RootlessPodman) -> None:
    """Without a network namespace of its own there can be no new sysfs."""
    out = podman.shell("readlink /proc/self/ns/net; ls -d /sys/class", ["--network=host"])
    assert out == f"{os.readlink('/proc/self/ns/net')}\n/sys/class\n"


def test_read_only_root_tmpfs_and_capabilities(podman: RootlessPodman) -> None:
    """Rights over what the user namespace owns."""
    options = ["--read-only", "--tmpfs", "/tmp", "--cap-add", "SYS_ADMIN", "--hostname", "inside"]
    out = podman.shell("touch /file 2>&1 || true; mount -t tmpfs x /tmp; touch /tmp/file; hostname", options)
    assert out == "touch: /file: Read-only file system\ninside\n"


def test_exec(podman: RootlessPodman, name: str) -> None:
    """A further process: environment, user, status; Podman asks for it as root of a namespace."""
    podman.start(name, "--env", "GREETING=hello", IMAGE, "sleep", "1000")
    script = "echo $GREETING; id -u; tr '\\0' ' ' < /proc/1/cmdline; exit 3"
    result = podman.podman("exec", "--user", "app", name, "sh", "-c", script)
    assert (result.code, result.out) == (3, "hello\n1000\nsleep 1000 "), result


def test_exec_on_a_terminal(podman: RootlessPodman, name: str) -> None:
    """`podman exec -it`."""
    podman.start(name, IMAGE, "sleep", "1000")
    argv = podman.argv("exec", "-it", name, "sh")
    result = host.on_terminal(argv, talk=[("# ", "tty; exit 4\n")], env=podman.environment())
    assert result.code == 4, result
    assert "/dev/pts/" in result.out


def test_stop_start_and_remove(podman: RootlessPodman, name: str) -> None:
    """A life: the status of a process that obeys, a second start, a forced end."""
    podman.start(name, IMAGE, "sh", "-c", POLITE)
    host.wait_until("it is ready", lambda: "ready" in podman.podman("logs", name).out)
    podman.succeed("stop", "--time", "30", name)
    assert podman.status(name) == "exited 5"
    podman.succeed("start", name)
    assert podman.status(name) == "running 0"
    podman.succeed("rm", "--force", "--time", "0", name)


def test_kill_and_wait(podman: RootlessPodman, name: str) -> None:
    """SIGKILL by the user, who is not the host's root."""
    podman.start(name, IMAGE, "sleep", "1000")
    podman.succeed("kill", name)
    assert podman.succeed("wait", name) == "137\n"


def test_pod(podman: RootlessPodman, name: str) -> None:
    """Containers of a pod share namespaces, which nobody but the host's root could leave again."""
    podman.succeed("pod", "create", "--name", name, "--infra-image", IMAGE, "--infra-command", "sleep 1000")
    script = "for k in net ipc uts; do readlink /proc/self/ns/$k; done"
    first, second = (podman.shell(script, ["--pod", name]) for _ in range(2))
    assert first == second
    assert not {os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "ipc", "uts")} & set(first.split())
