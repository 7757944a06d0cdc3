"""Buildah: `buildah run` and RUN in a Containerfile."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from conformance.engines import host

if TYPE_CHECKING:
    from conformance.engines.buildah import Buildah
    from conformance.engines.host import Result


@pytest.fixture
def container(buildah: Buildah) -> str:
    """A working container from the image."""
    return buildah.succeed("from", *buildah.from_options, buildah.image).strip()


def run(buildah: Buildah, container: str, *command: str, options: tuple[str, ...] = ()) -> Result:
    """`buildah run` in a working container."""
    return buildah.buildah("run", *buildah.run_options, *options, container, "--", *command)


def test_run_gives_output_and_exit_status(buildah: Buildah, container: str) -> None:
    """Output and exit status are the process's."""
    result = run(buildah, container, "sh", "-c", "echo out; exit 7")
    assert (result.code, result.out) == (7, "out\n"), result


def test_run_changes_the_working_container(buildah: Buildah, container: str) -> None:
    """One run sees what the one before has written."""
    assert run(buildah, container, "sh", "-c", "echo kept > /file").code == 0
    assert run(buildah, container, "cat", "/file").out == "kept\n"


def test_run_options(buildah: Buildah, container: str, shared: str) -> None:
    """User, working directory, capabilities and a volume."""
    options = (
        "--user",
        "app",
        "--workingdir",
        "/tmp",
        "--volume",
        f"{shared}:/mnt:ro",
        "--cap-drop",
        "CAP_CHOWN",
    )
    result = run(buildah, container, "sh", "-c", "id -u; pwd; cat /mnt/file; touch /mnt/new", options=options)
    assert result.code == 1, result
    assert result.out == "1000\n/tmp\nfrom the host\n"
    assert "Read-only file system" in result.err
    field = run(buildah, container, "grep", "CapBnd", "/proc/self/status", options=options).out.split()[1]
    assert not int(field, 16) & 1


def test_run_on_a_terminal(buildah: Buildah, container: str) -> None:
    """A dialogue over the pty that the runtime sends through the console socket."""
    argv = buildah.argv("run", "--tty", *buildah.run_options, container, "--", "sh")
    result = host.on_terminal(argv, talk=[("# ", "tty; exit 9\n")], env=buildah.environment())
    assert result.code == 9, result
    assert "/dev/pts/0" in result.out or "/dev/console" in result.out


def test_run_of_what_cannot_run(buildah: Buildah, container: str) -> None:
    """The runtime's words are passed on."""
    result = run(buildah, container, "no-such-program")
    assert result.code == 1, result
    assert "executable file not found in $PATH" in result.err


def test_ten_runs_that_end_at_once(buildah: Buildah, container: str) -> None:
    """Deleting without --force right after the end needs a runtime that notices the end promptly."""
    statuses = [run(buildah, container, "sh", "-c", f"exit {status}").code for status in range(1, 11)]
    assert statuses == list(range(1, 11))


def test_build(buildah: Buildah, name: str) -> None:
    """RUN goes through the runtime, as the user and in the directory the lines before it say."""
    built = buildah.build(
        name, "RUN echo first > /file", "USER app", "WORKDIR /home/app", "RUN id -un; pwd; cat /file"
    )
    assert built.code == 0, built
    assert "app\n/home/app\nfirst\n" in built.out
    buildah.succeed("rmi", name)


def test_build_that_fails(buildah: Buildah, name: str) -> None:
    """The status of the failing step is the status of the build."""
    built = buildah.build(name, "RUN exit 3")
    assert built.code == 3, built
    assert "exit status 3" in built.err


@pytest.mark.parametrize(
    ("command", "phrase"),
    [
        ("/no/such/program", "no such file or directory"),
        ("/bin/not-executable", "permission denied"),
        ("/home", "is a directory"),
    ],
    ids=["no-file", "not-executable", "directory"],
)
def test_run_of_what_else_cannot_run(buildah: Buildah, container: str, command: str, phrase: str) -> None:
    """The runtime's words are passed on, and the working container is as before."""
    result = run(buildah, container, command)
    assert (result.code, phrase in result.err) == (1, True), result
    assert run(buildah, container, "echo", "alive").out == "alive\n"


def test_run_reads_standard_input(buildah: Buildah, container: str) -> None:
    """What is written to `buildah run` reaches the process, and so does its end."""
    argv = buildah.argv("run", *buildah.run_options, container, "--", "cat")
    result = host.call(argv, env=buildah.environment(), stdin="one\ntwo\n")
    assert (result.code, result.out) == (0, "one\ntwo\n"), result


def test_run_in_other_namespaces(buildah: Buildah, container: str) -> None:
    """By default all are new; `--isolation oci` and the host's can be asked for."""
    script = "for k in pid ipc uts mnt; do readlink /proc/self/ns/$k; done"
    new = run(buildah, container, "sh", "-c", script, options=("--isolation", "oci")).out.split()
    assert not set(new) & {os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "ipc", "uts", "mnt")}
    # Newer ones forget `--network none` of the working container when other namespaces are chosen.
    options = ("--pid", "host", "--ipc", "host", "--uts", "host", "--network", "none")
    hosts = run(buildah, container, "sh", "-c", script, options=options).out.split()
    assert hosts[:3] == [os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "ipc", "uts")]


def test_run_with_mounts(buildah: Buildah, container: str, shared: str) -> None:
    """`--mount` of a bind and of a tmpfs."""
    options = (
        "--mount",
        f"type=bind,source={shared},target=/mnt,ro",
        "--mount",
        "type=tmpfs,destination=/seed",
    )
    result = run(buildah, container, "sh", "-c", "cat /mnt/file; ls /seed; touch /mnt/new", options=options)
    assert result.out == "from the host\n", result
    assert "Read-only file system" in result.err


def test_run_with_an_environment(buildah: Buildah, container: str) -> None:
    """Variables, and a host name."""
    options = ("--env", "GREETING=hello", "--hostname", "inside")
    result = run(buildah, container, "sh", "-c", "echo $GREETING; hostname", options=options)
    assert (result.code, result.out) == (0, "hello\ninside\n"), result


def test_run_in_a_user_namespace(buildah: Buildah) -> None:
    """Ids are mapped, and root of the container owns its files."""
    mapping = ("--userns-uid-map", "0:200000:65536", "--userns-gid-map", "0:200000:65536")
    container = buildah.succeed("from", *buildah.from_options, *mapping, buildah.image).strip()
    result = run(
        buildah, container, "sh", "-ec", "cat /proc/self/uid_map; stat -c %u /bin/busybox; touch /tmp/new"
    )
    assert (result.code, result.out.split()) == (0, ["0", "200000", "65536", "0"]), result


def test_build_with_mounts(buildah: Buildah, name: str) -> None:
    """`RUN --mount` of a cache, a tmpfs, the context and a stage before."""
    built = buildah.build(
        name,
        "RUN --mount=type=tmpfs,target=/mnt touch /mnt/file && grep ' /mnt tmpfs ' /proc/mounts",
        "RUN --mount=type=bind,target=/mnt cat /mnt/Containerfile > /copied",
        "RUN --mount=type=cache,target=/var/cache/kept echo kept > /var/cache/kept/file",
        "RUN --mount=type=cache,target=/var/cache/kept cat /var/cache/kept/file",
        "RUN test ! -e /mnt/file && test ! -e /var/cache/kept/file && grep -c FROM /copied",
    )
    assert built.code == 0, str(built)
    assert "kept\n" in built.out
    buildah.succeed("rmi", name)


def test_build_of_stages(buildah: Buildah, name: str) -> None:
    """Two stages, with another shell and arguments; the second sees what it copies and nothing else."""
    built = buildah.build(
        name,
        "ARG WORD=hello",
        "RUN echo $WORD > /made",
        f"FROM {buildah.image}",
        'SHELL ["/bin/sh", "-ec"]',
        "COPY --from=0 /made /kept",
        "RUN cat /kept; test ! -e /made",
        'RUN ["/bin/script", "words"]',
    )
    assert built.code == 0, str(built)
    assert "hello\n" in built.out
    assert "script words\n" in built.out
    buildah.succeed("rmi", name)


def test_build_with_limits(buildah: Buildah, name: str) -> None:
    """Limits, capabilities and devices of all RUN lines."""
    options = ("--memory", "64m", "--cap-drop", "CAP_CHOWN", "--device", "/dev/full")
    built = buildah.build(
        name,
        "RUN cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null || true",
        "RUN grep CapBnd /proc/self/status; ls /dev/full",
        options=options,
    )
    assert built.code == 0, str(built)
    assert "67108864\n" in built.out
    value = next(line for line in built.out.splitlines() if line.startswith("CapBnd")).split()[1]
    assert not int(value, 16) & 1
    assert "/dev/full" in built.out.splitlines()
    buildah.succeed("rmi", name)
