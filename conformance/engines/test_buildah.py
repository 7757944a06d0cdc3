"""Buildah: `buildah run` and RUN in a Containerfile.

Buildah has no monitor: it waits for the container's first process itself, which has to become its child, asks
`state` every 100 ms, and deletes at once, without `--force`, when the process has ended.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from conformance.engines import host

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.engines.host import Result, Session

# Buildah asks for 1048576 by default, and raising a hard limit takes CAP_SYS_RESOURCE (setrlimit(2)).
ULIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")


class Buildah:
    """`buildah` with its files in the session's directory and its cgroups below the session's tag."""

    def __init__(self, session: Session) -> None:
        """Make the directories."""
        self.session = session
        self.directory = f"{session.directory}/buildah"
        self.runtime_root = f"{self.directory}/runtime"
        self.image = "localhost/built-from-tar"
        self.from_options = ("--cgroup-parent", f"/{session.tag}", "--network", "none", *ULIMITS)
        self.run_options = ("--runtime", session.runtime, "--runtime-flag", f"root={self.runtime_root}")
        self.known_leftovers: set[str] = set()
        os.makedirs(f"{self.directory}/tmp")

    def argv(self, *words: str) -> list[str]:
        """The words of a `buildah` command."""
        return [
            host.program("buildah"),
            *("--root", f"{self.directory}/root", "--runroot", f"{self.directory}/run"),
            *("--storage-driver", "overlay" if self.session.overlay else "vfs"),
            *words,
        ]

    def environment(self) -> dict[str, str]:
        """Bundles are made in TMPDIR."""
        return {"TMPDIR": f"{self.directory}/tmp"}

    def buildah(self, *words: str) -> Result:
        """Call `buildah`."""
        return host.call(self.argv(*words), env=self.environment())

    def succeed(self, *words: str) -> str:
        """Call `buildah`, which has to succeed; its standard output."""
        result = self.buildah(*words)
        assert result.code == 0, str(result)
        return result.out

    def make_image(self) -> None:
        """An image from the tar of a root file system."""
        container = self.succeed("from", "scratch").strip()
        self.succeed("add", container, self.session.rootfs_tar, "/")
        self.succeed("config", "--env", "PATH=/bin", "--cmd", "sh", container)
        self.succeed("commit", "--rm", container, self.image)

    def build(self, name: str, *lines: str) -> Result:
        """Build an image from the lines of a Containerfile."""
        context = f"{self.directory}/{name}"
        os.mkdir(context)
        with open(f"{context}/Containerfile", "w", encoding="utf-8") as file:
            file.write("\n".join((f"FROM {self.image}", *lines, "")))
        return self.buildah("build", *self.run_options, *self.from_options, "--tag", name, context)

    def leftovers(self) -> list[str]:
        """What is still there though nothing runs: state, cgroups, processes, bundles."""
        found = os.listdir(f"{self.directory}/tmp") + host.states(self.runtime_root)
        tag = self.session.tag
        found += [path for path in host.cgroups_of(tag) if os.path.basename(path) != tag]
        found += [f"{pid} {line}" for pid, line in host.processes_of(tag).items()]
        return found


@pytest.fixture(scope="module")
def storage(session: Session) -> Buildah:
    """One storage for all checks of this file, with the image in it."""
    buildah = Buildah(session)
    buildah.make_image()
    return buildah


@pytest.fixture
def buildah(storage: Buildah) -> Iterator[Buildah]:
    """Buildah for one check, after which nothing may be left."""
    yield storage
    storage.buildah("rm", "--all")
    assert host.new_leftovers(storage.leftovers, storage.known_leftovers) == []
    assert host.mounts_below(storage.directory) in ([], [f"{storage.directory}/root/overlay"])


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
