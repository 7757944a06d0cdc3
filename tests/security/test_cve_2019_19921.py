"""False /proc and /sys: CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, youki CVE-2025-54867.

An image whose /proc is a symlink would have the real procfs mounted elsewhere, and what the runtime then
writes to /proc/self/attr (labels) or /proc/sys (sysctls) would go to files of the image.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.mounts import parse_rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.containers import Bundle, Canary, Runtime


@pytest.mark.parametrize("name", ["proc", "sys"])
@pytest.mark.parametrize("target", ["/fake", "fake", "/tmp/../fake", "HOST"])
def test_a_symlink_in_its_place_is_refused(
    bundle: Bundle, runtime: Runtime, canary: Canary, name: str, target: str
) -> None:
    (bundle.rootfs / name).rmdir()
    (bundle.rootfs / "fake").mkdir()
    (bundle.rootfs / name).symlink_to(canary.path if target == "HOST" else target)
    result = runtime.run(bundle, "echo started")
    assert result.returncode != 0
    assert "started" not in result.stdout
    assert f"/{name}" in result.stdout
    assert canary.untouched()


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_a_file_in_its_place_is_refused(bundle: Bundle, runtime: Runtime, name: str) -> None:
    (bundle.rootfs / name).rmdir()
    (bundle.rootfs / name).write_text("")
    result = runtime.run(bundle, "echo started")
    assert result.returncode != 0
    assert "started" not in result.stdout


def test_a_link_on_the_way_to_it_is_refused(bundle: Bundle, runtime: Runtime) -> None:
    (bundle.rootfs / "fake").mkdir()
    (bundle.rootfs / "way").symlink_to("fake")
    bundle.mount("/way/proc", "proc", "nosuid", kind="proc")
    result = runtime.run(bundle, "echo started")
    assert result.returncode != 0
    assert "started" not in result.stdout


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_one_that_is_missing_is_made(bundle: Bundle, runtime: Runtime, name: str) -> None:
    (bundle.rootfs / name).rmdir()
    assert runtime.output(bundle, "test -d /proc/self && test -d /sys/kernel && echo both") == "both\n"


# Of a container that shares a volume with ours: the directory at one moment, a link out of it at the next.
RACE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int main(int count, char **arguments)
{
    if (count != 3)
        return 2;
    for (;;)
        renameat2(AT_FDCWD, arguments[1], AT_FDCWD, arguments[2], RENAME_EXCHANGE);
}
"""
TRIES, MOST = 25, 400  # as many as it takes for both sides to win at least once, which 25 have always been


@pytest.fixture
def race(compiled: Callable[..., Path]) -> Path:
    return compiled("race", RACE)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("name", "kind"), [("proc", "proc"), ("sys", "sysfs")])
def test_a_symlink_that_comes_and_goes(
    bundle: Bundle, runtime: Runtime, race: Path, name: str, kind: str
) -> None:
    """In each case the mount is on the directory, or the container is refused."""
    decoy = bundle.rootfs / "decoy"
    decoy.mkdir()
    (bundle.rootfs / "other").symlink_to("/decoy")
    bundle.process["args"] = ["/bin/sh", "-c", "until cat /proc/self/mountinfo 2>/dev/null; do :; done"]
    outcomes: set[int] = set()
    racer = subprocess.Popen([race, bundle.rootfs / name, bundle.rootfs / "other"])
    try:
        for number in range(MOST):
            if number >= TRIES and len(outcomes) > 1:
                break
            result = runtime.run(bundle)
            outcomes.add(result.returncode)
            assert "Traceback" not in result.stdout
            if result.returncode == 0:
                # The directory was mounted on, by whichever name the container knows it now.
                points = [row.place for row in parse_rows(result.stdout) if row.kind == kind]
                assert points[0] in (f"/{name}", "/other")
            assert not any(decoy.iterdir())
    finally:
        racer.kill()
        racer.wait()
    assert len(outcomes) > 1, "the race was always won by the same side"
