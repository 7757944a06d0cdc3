"""What a runtime leaves for others to find: CVE-2020-15257, bubblewrap CVE-2019-12439, LXC CVE-2015-1331.

Abstract sockets that any process of the network namespace can reach, scratch directories with names that can
be guessed, state where other users can write, secrets that other users can read.
"""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import command

if TYPE_CHECKING:
    from tests.support.containers import Bundle, Runtime


def abstract_sockets() -> set[str]:
    """Return the names of the abstract sockets of this network namespace."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    return {line.split()[-1] for line in lines if line.split()[-1].startswith("@")}


def created(bundle: Bundle, runtime: Runtime, umask: int = -1) -> str:
    bundle.process["args"] = ["/bin/sleep", "1000"]
    bundle.write()
    name = runtime.new_id()
    words = [*command(), "--root", str(runtime.root), "create", "--bundle", str(bundle.path)]
    words += ["--pid-file", str(bundle.path / "pid"), name]
    with (bundle.path / "log").open("wb") as log:
        made = subprocess.run(
            words, check=False, stdin=subprocess.DEVNULL, stdout=log, stderr=log, umask=umask
        )
    assert made.returncode == 0, (bundle.path / "log").read_text()
    return name


def test_no_abstract_socket_listens(bundle: Bundle, runtime: Runtime) -> None:
    """A container with the host's network namespace could connect to such sockets."""
    bundle.linux["namespaces"] = [space for space in bundle.linux["namespaces"] if space["type"] != "network"]
    before = abstract_sockets()
    name = created(bundle, runtime)
    assert abstract_sockets() <= before
    assert runtime("start", name).returncode == 0
    assert runtime("exec", name, "/bin/true").returncode == 0
    assert abstract_sockets() <= before


def test_no_scratch_in_public_places(bundle: Bundle, runtime: Runtime) -> None:
    places = ["/tmp", "/var/tmp", "/dev/shm", "/run", str(bundle.path.parent)]
    before = {place: set(os.listdir(place)) for place in places}
    name = created(bundle, runtime)
    for place in places:
        added = {entry for entry in set(os.listdir(place)) - before[place] if "pytest" not in entry}
        assert added <= {runtime.root.name, "bundle"}, place
    assert runtime("start", name).returncode == 0


def test_mounts_of_a_container_are_not_seen_on_the_host(bundle: Bundle, runtime: Runtime) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    name = created(bundle, runtime)
    assert runtime("start", name).returncode == 0
    assert str(bundle.path) not in Path("/proc/self/mountinfo").read_text().replace(before, "")


@pytest.mark.parametrize("umask", [0, 0o077])
def test_state_is_the_runtimes_alone(bundle: Bundle, runtime: Runtime, umask: int) -> None:
    name = created(bundle, runtime, umask)
    for directory, _folders, files in os.walk(runtime.root / name):
        assert stat.S_IMODE(os.stat(directory).st_mode) & 0o077 == 0, directory
        for entry in files:
            mode = os.lstat(os.path.join(directory, entry)).st_mode
            assert stat.S_IMODE(mode) & 0o077 == 0, entry
    assert stat.S_IMODE(runtime.root.stat().st_mode) & 0o022 == 0
    assert stat.S_IMODE((bundle.path / "pid").stat().st_mode) & 0o022 == 0


def test_what_is_made_inside_does_not_depend_on_the_callers_umask(bundle: Bundle, runtime: Runtime) -> None:
    bundle.mount("/made/here", "tmpfs", "nosuid", kind="tmpfs")
    bundle.process["cwd"] = "/also/made"
    bundle.write()
    words = "stat -c %a /made /also /also/made /dev/null /dev/pts/ptmx; umask"
    shown = {runtime.run(bundle, words, umask=umask).stdout for umask in (0, 0o022, 0o077)}
    assert shown == {"755\n755\n755\n666\n666\n0022\n"}


def test_the_log_is_not_for_others_to_write(bundle: Bundle, runtime: Runtime) -> None:
    log = bundle.path / "log"
    bundle.process["args"] = ["/no/such/program"]
    bundle.write()
    runtime("--log", str(log), "run", "--bundle", str(bundle.path), runtime.new_id(), umask=0)
    assert stat.S_IMODE(log.stat().st_mode) & 0o022 == 0
