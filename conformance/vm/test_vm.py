"""Pure cgroup v2 and systemd, which the machine at hand may lack: integration tests in a virtual machine.

sudo PYRUNC_VM=1 make conformance ARGS='-k vm'
sudo PYRUNC_VM=1 PYRUNC_VM_TESTS='tests/integration tests/security' make conformance ARGS='-k vm_v2'

Emulated processors take their time, so the machines boot only when asked. What they need beside the other
engines: linux-image-amd64, qemu-system-x86 and systemd from Debian, virtme-ng from PyPI in .venv.
"""

from __future__ import annotations

import os
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conformance.vm import machine

if TYPE_CHECKING:
    from collections.abc import Iterator

# Emulated processors are some twenty times slower than real ones: by default only what depends on the
# flavour.
V2 = "tests/integration/test_resources.py tests/integration/test_cgroup_verbs.py"
SYSTEMD = "tests/integration/test_systemd.py"
SECONDS = 7200


@pytest.fixture(scope="module")
def guest() -> Iterator[machine.Machine]:
    """The archive is packed once for all boots."""
    if not os.environ.get("PYRUNC_VM"):
        pytest.skip("a virtual machine boots only when PYRUNC_VM is set: emulated, it takes half an hour")
    if why := machine.missing():
        pytest.skip(why)
    # Not below pytest's own directory: the guest gets /tmp with an overlay of its own, and looks for this in
    # the host's.
    # In /tmp, of which the guest gets an overlay; its /var/tmp is empty.
    with tempfile.TemporaryDirectory(prefix="pyrunc-vm-", dir="/tmp") as directory:
        yield machine.Machine(Path(directory))


def pytest_command(tests: str) -> str:
    """Return the job that runs these tests, or those the caller named."""
    words = [".venv/bin/python", "-m", "pytest", "-p", "no:cacheprovider", "--timeout", "600", "-q"]
    return shlex.join([*words, *os.environ.get("PYRUNC_VM_TESTS", tests).split()])


@pytest.mark.timeout(SECONDS + 120)
def test_vm_v2(guest: machine.Machine) -> None:
    """Every limit and verb on nothing but the unified hierarchy."""
    status, text = guest.run(pytest_command(V2), seconds=SECONDS)
    assert status == 0, text[-8000:]
    assert " passed" in text


@pytest.mark.timeout(SECONDS + 120)
def test_vm_systemd(guest: machine.Machine) -> None:
    """The systemd cgroup manager, with systemd as the first process."""
    if not Path("/lib/systemd/systemd").exists():
        pytest.skip("needs systemd (package systemd)")
    status, text = guest.run(pytest_command(SYSTEMD), systemd=True, seconds=SECONDS)
    assert status == 0, text[-8000:]
    assert " passed" in text
