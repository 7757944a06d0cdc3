"""Mount points replaced while they are used: CVE-2021-30465, and CVE-2024-45310 (files made on the host).

A volume is shared with a container of the attacker's. That container replaces a directory in it by a symlink
and back as fast as it can, while the next container is started with a mount point below. Neither the mount
nor the directories and files made for it may ever be outside.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.containers import Bundle, Canary, Runtime

ROUNDS = 25
EXCHANGE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
int main(int argc, char **argv)
{
    for (;;)
        renameat2(AT_FDCWD, argv[1], AT_FDCWD, argv[2], RENAME_EXCHANGE);
}
"""


@pytest.fixture
def volume(tmp_path: Path, canary: Canary, compiled: Callable[..., Path]) -> Iterator[Path]:
    """A volume in which "way" is by turns a directory and a symlink that leads out."""
    directory = tmp_path / "volume"
    (directory / "way").mkdir(parents=True)
    (directory / "out").symlink_to("../" * 40 + str(canary.path).lstrip("/"))
    program = compiled("exchange", EXCHANGE)
    attacker = subprocess.Popen([program, directory / "way", directory / "out"])
    yield directory
    attacker.kill()
    attacker.wait()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["directory", "file", "tmpfs"])
def test_the_way_to_a_mount_point_changes_all_the_time(
    bundle: Bundle, runtime: Runtime, canary: Canary, volume: Path, kind: str
) -> None:
    source = bundle.path / "source"
    source.mkdir()
    (source / "mark").touch()
    bundle.mount("/volume", volume)
    if kind == "tmpfs":
        bundle.mount("/volume/way/made/mount", "tmpfs", "nosuid", kind="tmpfs")
    else:
        bundle.mount("/volume/way/made/mount", source / "mark" if kind == "file" else source)
    succeeded = 0
    for _ in range(ROUNDS):
        succeeded += runtime.run(bundle, "true").returncode == 0
        assert canary.untouched()
    assert succeeded, "not one container could be started, so nothing was tried"


@pytest.mark.slow
def test_the_working_directory_changes_all_the_time(
    bundle: Bundle, runtime: Runtime, canary: Canary, volume: Path
) -> None:
    bundle.mount("/volume", volume)
    bundle.process["cwd"] = "/volume/way/made/here"
    for _ in range(ROUNDS):
        result = runtime.run(bundle, "/bin/ls -a .. 2>&1")
        assert "secret" not in result.stdout
        assert canary.untouched()


@pytest.mark.parametrize("way", [f"/proc/{os.getpid()}/root", "/way"], ids=["door", "link"])
def test_a_working_directory_through_the_hosts_processes(
    bundle: Bundle, runtime: Runtime, canary: Canary, way: str
) -> None:
    """A container that shares the host's pid namespace can see /proc/1/root, the host's tree."""
    bundle.linux["namespaces"] = [space for space in bundle.linux["namespaces"] if space["type"] != "pid"]
    bundle.linux["maskedPaths"] = bundle.linux["readonlyPaths"] = []
    bundle.without_mount("/proc")
    bundle.mount("/proc", "/proc", "rbind")
    (bundle.rootfs / "way").symlink_to(f"/proc/{os.getpid()}/root")
    bundle.process["cwd"] = f"{way}{canary.path}/made/here"
    result = runtime.run(bundle, "pwd")
    assert canary.untouched()
    bundle.process["cwd"] = f"{way}{canary.path}"
    result = runtime.run(bundle, "ls")
    assert "secret" not in result.stdout
