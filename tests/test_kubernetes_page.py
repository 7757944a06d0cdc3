"""docs/kubernetes.md has no contradictions; conformance/engines/cri.py runs containerd with its tables."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.support.containers import command

PAGE = (Path(__file__).resolve().parents[1] / "docs/kubernetes.md").read_text()
TABLES = [tomllib.loads(block) for block in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)]
INSTALLED = "/usr/local/bin/pyrunc"


@pytest.mark.parametrize(
    ("table", "plugin"), [(0, "io.containerd.grpc.v1.cri"), (1, "io.containerd.cri.v1.runtime")]
)
def test_tables_of_containerd(table: int, plugin: str) -> None:
    runtimes: dict[str, Any] = TABLES[table]["plugins"][plugin]["containerd"]["runtimes"]
    assert runtimes["pyrunc"] == {
        "runtime_type": "io.containerd.runc.v2",
        "options": {"BinaryName": INSTALLED, "SystemdCgroup": False},
    }


def test_table_of_crio() -> None:
    runtime = TABLES[2]["crio"]["runtime"]["runtimes"]["pyrunc"]
    assert (runtime["runtime_path"], runtime["runtime_type"]) == (INSTALLED, "oci")


def test_a_pod_finds_the_runtime() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (name,) = re.findall(r"^  name: (\S+)$", blocks[0], re.MULTILINE)
    assert re.findall(r"^handler: (\S+)$", blocks[0], re.MULTILINE) == ["pyrunc"]
    assert re.findall(r"^  runtimeClassName: (\S+)$", blocks[1], re.MULTILINE) == [name]


def test_what_engines_ask_for() -> None:
    done = subprocess.run([*command(), "features"], stdout=subprocess.PIPE, check=True)
    features = json.loads(done.stdout)
    assert features["linux"]["mountExtensions"]["idmap"]["enabled"] is True
    assert {"rro", "rbind"} <= set(features["mountOptions"])
