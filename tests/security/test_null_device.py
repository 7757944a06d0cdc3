"""The host's null device as a container's stdin, stdout or stderr: all processes of the host share it.

fchmod(2) and fchown(2) on a descriptor change its inode, wherever the process is. crun 1.8 made the
container's user its owner; root inside needs no such help if it is root of the host's user namespace.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import DEADLINE, command

if TYPE_CHECKING:
    from tests.support.containers import Bundle, Runtime

# Through a descriptor of /proc: the same inode, without a program of our own in the image.
CHANGE = "for fd in 0 1 2; do chmod 600 /proc/self/fd/$fd; chown 1:1 /proc/self/fd/$fd; done"


def call(runtime: Runtime, *words: str) -> int:
    """Call the command with the host's null device as stdin, stdout and stderr."""
    with open(os.devnull, "r+b") as null:
        done = subprocess.run(
            [*command(), "--root", str(runtime.root), *words],
            check=False,
            stdin=null,
            stdout=null,
            stderr=null,
            timeout=DEADLINE,
        )
    return done.returncode


@pytest.fixture
def seen() -> tuple[int, int, int]:
    """The attributes of the host's null device; they are restored if a test has changed them."""
    found = os.stat(os.devnull)
    return found.st_mode, found.st_uid, found.st_gid


def check(seen: tuple[int, int, int]) -> None:
    """Check that the null device has not changed."""
    found = os.stat(os.devnull)
    mode, uid, gid = seen
    os.chmod(os.devnull, mode & 0o7777)
    os.chown(os.devnull, uid, gid)
    assert (found.st_mode, found.st_uid, found.st_gid) == seen


def test_run(bundle: Bundle, runtime: Runtime, seen: tuple[int, int, int]) -> None:
    bundle.process["args"] = ["/bin/sh", "-c", CHANGE]
    bundle.write()
    assert call(runtime, "run", "--bundle", str(bundle.path), runtime.new_id()) == 0
    check(seen)


@pytest.mark.parametrize("how", [(), ("--detach",)])
def test_exec(bundle: Bundle, runtime: Runtime, seen: tuple[int, int, int], how: tuple[str, ...]) -> None:
    (bundle.rootfs / "bin/mkfifo").symlink_to("busybox")
    name = runtime.started(bundle, "mkfifo /done; cat /done; touch /changed; sleep 1000")
    script = f"{CHANGE}; echo > /done"
    assert call(runtime, "exec", *how, name, "/bin/sh", "-c", script) == 0
    look = "until test -e /changed; do sleep 0.02; done; stat -c %a:%u /dev/null"
    assert runtime("exec", name, "/bin/sh", "-c", look).stdout == "600:1\n", "the container's own was meant"
    check(seen)


@pytest.mark.parametrize(
    "instead",
    [
        "ln -s zero /dev/null",
        "mknod /dev/null c 1 5",
        "mkfifo /dev/null",
        "echo text > /dev/null",
        "ln -s /proc/1/root/dev/zero /dev/null",
        "true",
    ],
)
def test_exec_takes_nothing_else_for_it(bundle: Bundle, runtime: Runtime, instead: str) -> None:
    """The container decides what is at /dev/null."""
    (bundle.rootfs / "bin/mkfifo").symlink_to("busybox")
    name = runtime.started(bundle, f"rm /dev/null; {instead}; touch /ready; sleep 1000")
    script = "until test -e /ready; do sleep 0.02; done; test $(stat -L -c %t:%T /proc/self/fd/0) = 1:3"
    assert call(runtime, "exec", name, "/bin/sh", "-c", script) == 0


@pytest.mark.parametrize("kind", ["createContainer", "startContainer"])
def test_hooks_in_the_container(
    bundle: Bundle, runtime: Runtime, seen: tuple[int, int, int], kind: str
) -> None:
    bundle.config["hooks"] = {
        kind: [{"path": "/bin/sh", "args": ["sh", "-c", CHANGE], "env": ["PATH=/bin:/usr/bin"]}]
    }
    bundle.write()
    assert call(runtime, "run", "--bundle", str(bundle.path), runtime.new_id()) == 0
    check(seen)
