"""`pyrunc spec`: the file, what stands in it, and that it is never written over another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pyrunc.spec import load
from pyrunc.verbs import spec
from pyrunc.verbs.version import SPEC_VERSION

if TYPE_CHECKING:
    from tests.conftest import Call


def test_the_file(pyrunc: Call, tmp_path: Path) -> None:
    done = pyrunc("spec")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    text = (tmp_path / "config.json").read_text()
    assert text.startswith('{\n\t"ociVersion": "')
    config = json.loads(text)
    assert config["ociVersion"] == SPEC_VERSION
    assert config["process"]["args"] == ["sh"]
    assert config["process"]["terminal"] is True
    assert config["root"] == {"path": "rootfs", "readonly": True}
    assert config["hostname"] == "pyrunc"


@pytest.mark.parametrize("options", [[], ["--rootless"]])
def test_it_is_valid(pyrunc: Call, tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "rootfs").mkdir()
    pyrunc("spec", *options)
    config, raw = load.load(str(tmp_path / "config.json"))
    assert config == json.loads(raw)


def test_a_file_that_is_there_stays(pyrunc: Call, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("mine")
    done = pyrunc("spec")
    assert (done.returncode, done.stderr) == (1, "File config.json exists. Remove it first\n")
    assert (tmp_path / "config.json").read_text() == "mine"


def test_where_it_is_written(pyrunc: Call, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    assert pyrunc("spec", "--bundle", "b", "-f", "other.json").returncode == 0
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["other.json"]
    done = pyrunc("spec", "-b", "nosuch")
    assert (done.returncode, done.stderr) == (1, "open nosuch/config.json: no such file or directory\n")


@pytest.mark.parametrize("unified", [True, False])
def test_namespaces(unified: bool) -> None:
    kinds = {entry["type"] for entry in spec.default(unified=unified)["linux"]["namespaces"]}
    assert kinds == {"pid", "network", "ipc", "uts", "mount"} | ({"cgroup"} if unified else set())


@pytest.mark.parametrize("unified", [True, False])
def test_rootless(unified: bool) -> None:
    config: dict[str, Any] = spec.rootless(spec.default(unified=unified), uid=1000, gid=100)
    kinds = {entry["type"] for entry in config["linux"]["namespaces"]}
    assert "user" in kinds
    assert "network" not in kinds
    assert config["linux"]["uidMappings"] == [{"containerID": 0, "hostID": 1000, "size": 1}]
    assert config["linux"]["gidMappings"] == [{"containerID": 0, "hostID": 100, "size": 1}]
    assert "resources" not in config["linux"]
    mounts = {mount["destination"]: mount for mount in config["mounts"]}
    # The host's cgroups, which the bind brings along, are closed twice.
    assert mounts["/sys"]["options"][0] == "rbind"
    assert "rro" in mounts["/sys"]["options"]
    assert mounts["/sys/fs/cgroup"]["type"] == "cgroup"
    assert "ro" in mounts["/sys/fs/cgroup"]["options"]
    order = list(mounts)
    assert order.index("/sys") < order.index("/sys/fs/cgroup")
    assert not [
        option for mount in config["mounts"] for option in mount.get("options", ()) if "id=" in option
    ]
