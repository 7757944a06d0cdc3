"""The first configuration, as `pyrunc spec` writes it."""

from __future__ import annotations

from typing import Any

import pytest

from pyrunc.spec import default


@pytest.mark.parametrize("unified", [True, False])
def test_namespaces(unified: bool) -> None:
    kinds = {entry["type"] for entry in default.default(unified=unified)["linux"]["namespaces"]}
    assert kinds == {"pid", "network", "ipc", "uts", "mount"} | ({"cgroup"} if unified else set())


@pytest.mark.parametrize("unified", [True, False])
def test_rootless(unified: bool) -> None:
    config: dict[str, Any] = default.rootless(default.default(unified=unified), uid=1000, gid=100)
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
