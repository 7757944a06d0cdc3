"""Writes to procfs that go elsewhere: CVE-2025-52881, youki CVE-2025-62596, CVE-2022-0811 (sysctls).

What the runtime writes to /proc (labels, sysctls, id maps) must reach the kernel's file of that name and no
other, and only settings of namespaces that are the container's own may be written at all.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.containers import Bundle, Runtime


def test_a_sysctl_reaches_its_namespace_only(bundle: Bundle, runtime: Runtime) -> None:
    before = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "0" if before.strip() == "1" else "1"}
    shown = runtime.output(bundle, "cat /proc/sys/net/ipv4/ip_forward")
    assert shown != before
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == before


HOSTILE = [
    ("kernel.core_pattern", "|/bin/evil"),
    ("kernel/core_pattern", "|/bin/evil"),
    ("kernel.shm_rmid_forced", "1+kernel.core_pattern=|/bin/evil"),
    ("kernel.shm_rmid_forced/../core_pattern", "|/bin/evil"),
    ("net/../kernel/core_pattern", "|/bin/evil"),
    ("net.ipv4/../../kernel.core_pattern", "|/bin/evil"),
    ("fs.mqueue/../../kernel/core_pattern", "|/bin/evil"),
    ("vm.overcommit_ratio", "51"),
    ("", "x"),
    ("/etc/passwd", "x"),
]


@pytest.mark.parametrize(("name", "value"), HOSTILE)
def test_a_sysctl_of_the_host_is_refused(bundle: Bundle, runtime: Runtime, name: str, value: str) -> None:
    watched = [Path("/proc/sys/kernel/core_pattern"), Path("/proc/sys/vm/overcommit_ratio")]
    before = [path.read_text() for path in watched]
    bundle.linux["sysctl"] = {name: value}
    result = runtime.run(bundle, "echo started")
    assert [path.read_text() for path in watched] == before
    assert result.returncode != 0
    assert "started" not in result.stdout


@pytest.mark.parametrize(
    "name", ["net.ipv4.ip_forward", "kernel.shmmax", "kernel.msgmax", "fs.mqueue.msg_max"]
)
def test_a_sysctl_of_a_shared_namespace_is_refused(bundle: Bundle, runtime: Runtime, name: str) -> None:
    shared = "network" if name.startswith("net") else "ipc"
    bundle.linux["namespaces"] = [space for space in bundle.linux["namespaces"] if space["type"] != shared]
    path = Path("/proc/sys") / name.replace(".", "/")
    bundle.linux["sysctl"] = {name: path.read_text().strip()}
    result = runtime.run(bundle, "echo started")
    assert result.returncode != 0
    assert "started" not in result.stdout


def test_a_newline_in_a_sysctl_is_no_second_setting(bundle: Bundle, runtime: Runtime) -> None:
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1\nkernel.core_pattern=|/bin/evil"}
    runtime.run(bundle, "true")
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before


@pytest.mark.parametrize(("field", "lsm"), [("apparmorProfile", "apparmor"), ("selinuxLabel", "selinux")])
def test_a_label_that_would_confine_nobody_is_refused(
    bundle: Bundle, runtime: Runtime, field: str, lsm: str
) -> None:
    """Without the security module the file is missing, or takes anything.

    No error would look like success.
    """
    active = Path("/sys/kernel/security/lsm")
    if active.exists() and lsm in active.read_text().split(","):
        pytest.skip(f"this host has {lsm}")
    bundle.process[field] = "some-profile"
    result = runtime.run(bundle, "echo started")
    assert result.returncode != 0
    assert "started" not in result.stdout
    assert lsm in result.stdout.lower()
