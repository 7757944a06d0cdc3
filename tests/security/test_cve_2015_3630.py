"""Dangerous files of /proc: CVE-2015-3630. What `spec` writes must hide or protect them, and it must work."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.support.mounts import parse_rows

if TYPE_CHECKING:
    from tests.support.containers import Bundle, Runtime

SECRETS = [
    "kcore",
    "keys",
    "latency_stats",
    "timer_list",
    "timer_stats",
    "sched_debug",
    "acpi",
    "asound",
    "scsi",
]
KERNEL = ["bus", "fs", "irq", "sys", "sysrq-trigger"]


@pytest.fixture
def example(bundle: Bundle, runtime: Runtime) -> Bundle:
    """The configuration that `spec` writes, with the test's image."""
    result = runtime("spec", "--bundle", str(bundle.path))
    assert result.returncode == 0, result.stdout
    config = json.loads((bundle.path / "config.json").read_text())
    config["process"]["terminal"] = False
    bundle.config = config
    return bundle


def test_secrets_are_hidden(example: Bundle, runtime: Runtime) -> None:
    present = [name for name in SECRETS if os.path.exists(f"/proc/{name}")]
    assert "kcore" in present or "keys" in present, "this host has nothing to hide"
    shown = runtime.output(
        example,
        "".join(f"echo {name} $(ls /proc/{name}/ 2>/dev/null; cat /proc/{name} 2>&1);" for name in present),
    )
    for line in shown.splitlines():
        name, _, content = line.partition(" ")
        assert content in ("", "cat: read error: Is a directory", f"cat: /proc/{name}: Is a directory"), line


def test_the_kernels_settings_are_read_only(example: Bundle, runtime: Runtime) -> None:
    present = [name for name in KERNEL if os.path.exists(f"/proc/{name}")]
    mounts = parse_rows(runtime.output(example, "cat /proc/self/mountinfo"))
    for name in present:
        (row,) = [row for row in mounts if row.place == f"/proc/{name}"]
        assert "ro" in row.words, name


def test_writing_to_them_fails(bundle: Bundle, runtime: Runtime) -> None:
    bundle.capabilities("CAP_SYS_ADMIN")
    shown = runtime.output(
        bundle,
        "cd /proc/sys; for i in vm/swappiness kernel/core_pattern; do (: >>$i) 2>&1 && echo opened; done; :",
    )
    assert "opened" not in shown
    assert shown.count("Read-only file system") == 2


def test_a_path_that_is_not_there_is_no_error(bundle: Bundle, runtime: Runtime) -> None:
    bundle.linux["maskedPaths"].append("/proc/nothing")
    bundle.linux["readonlyPaths"].append("/nothing/at/all")
    assert runtime.output(bundle, "echo fine") == "fine\n"
