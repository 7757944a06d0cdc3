"""Descriptors and directories of the host that stay open: CVE-2024-21626, youki#2663, LXC CVE-2016-8649.

A working directory or a program named through /proc/self/fd/N reaches any file that the runtime left open,
and from there the host's tree. Closing on execve is too late: the kernel resolves the name before.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import command

if TYPE_CHECKING:
    from tests.support.containers import Bundle, Canary, Runtime

FDS = [*range(3, 13), 15, 20]
# ls itself has one more open, the directory it lists.
LIST = (
    "for fd in $(ls /proc/self/fd); do [ ! -e /proc/$$/fd/$fd ] || echo $fd $(readlink /proc/$$/fd/$fd); done"
)


def climb(fd: int, path: object) -> str:
    return f"/proc/self/fd/{fd}/" + "../" * 12 + str(path).lstrip("/")


@pytest.mark.parametrize("fd", FDS)
def test_a_working_directory_through_a_descriptor(bundle: Bundle, runtime: Runtime, fd: int) -> None:
    bundle.process["cwd"] = f"/proc/self/fd/{fd}"
    result = runtime.run(bundle, "pwd; ls ../../../../..; cat ../../../../etc/shadow")
    assert result.returncode != 0
    assert "root:" not in result.stdout
    assert "usr" not in result.stdout.split()


@pytest.mark.parametrize("fd", FDS)
def test_a_program_through_a_descriptor(bundle: Bundle, runtime: Runtime, canary: Canary, fd: int) -> None:
    program = canary.path.parent / "program"
    program.write_text("#!/bin/sh\necho ran a file of the host\n")
    program.chmod(0o755)
    bundle.process["args"] = [climb(fd, program)]
    result = runtime.run(bundle)
    assert result.returncode != 0
    assert "ran a file" not in result.stdout


def test_exec_has_none_either(bundle: Bundle, runtime: Runtime, canary: Canary) -> None:
    name = runtime.started(bundle)
    program = canary.path.parent / "program"
    program.write_text("#!/bin/sh\necho ran a file of the host\n")
    program.chmod(0o755)
    for fd in FDS:
        result = runtime("exec", "--cwd", f"/proc/self/fd/{fd}", name, "/bin/sh", "-c", "ls ../../../../..")
        assert "usr" not in result.stdout.split(), fd
        result = runtime("exec", name, climb(fd, program))
        assert "ran a file" not in result.stdout, fd


def test_a_link_of_the_image_to_a_descriptor(bundle: Bundle, runtime: Runtime) -> None:
    (bundle.rootfs / "way").symlink_to("/proc/self/fd/7")
    bundle.process["cwd"] = "/way"
    result = runtime.run(bundle, "cat ../../../../etc/shadow")
    assert result.returncode != 0
    assert "root:" not in result.stdout


def test_only_standard_descriptors_are_open(bundle: Bundle, runtime: Runtime) -> None:
    assert [line.split()[0] for line in runtime.output(bundle, LIST).splitlines()] == ["0", "1", "2"]
    found = runtime("exec", runtime.started(bundle), "/bin/sh", "-c", LIST)
    assert [line.split()[0] for line in found.stdout.splitlines()] == ["0", "1", "2"]


def test_what_the_caller_left_open_does_not_come_along(
    bundle: Bundle, runtime: Runtime, canary: Canary
) -> None:
    name = runtime.started(bundle)
    fd = os.open(canary.path, os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(fd, True)
    # A high number too: some callers have thousands.
    high = os.dup2(fd, 900)
    try:
        bundle.process["args"] = ["/bin/sh", "-c", LIST]
        inside = runtime.run(bundle, pass_fds=(fd, high)).stdout
        inside += runtime("exec", name, "/bin/sh", "-c", LIST, pass_fds=(fd, high)).stdout
        bundle.process["cwd"] = f"/proc/self/fd/{high}"
        moved = runtime.run(bundle, "cat secret", pass_fds=(fd, high))
    finally:
        os.close(fd)
        os.close(high)
    assert [line.split()[0] for line in inside.splitlines()] == ["0", "1", "2"] * 2
    assert "secret of the host" not in moved.stdout


def test_preserved_descriptors_are_the_callers_wish(bundle: Bundle, runtime: Runtime, canary: Canary) -> None:
    bundle.process["args"] = ["/bin/sh", "-c", "cat <&3"]
    bundle.write()
    words = ["--root", str(runtime.root), "run", "--preserve-fds", "1", "--bundle", str(bundle.path)]
    # A shell puts the file on 3: here that number may be taken.
    shell = ["sh", "-c", 'exec 3<"$0"; exec "$@"', str(canary.path / "secret"), *command(), *words]
    result = subprocess.run([*shell, runtime.new_id()], capture_output=True, text=True, check=False)
    assert result.stdout == "secret of the host\n", result.stderr


def test_a_working_directory_outside_the_root_is_refused(bundle: Bundle, runtime: Runtime) -> None:
    """A directory that was moved out of the root; the kernel shows it as "(unreachable)"."""
    bundle.process["cwd"] = "/proc/1/cwd/../../../.."
    result = runtime.run(bundle, "ls -a")
    assert "usr" not in result.stdout.split()
