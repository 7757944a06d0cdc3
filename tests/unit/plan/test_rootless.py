"""What an ordinary user is refused before anything is done."""

from __future__ import annotations

from typing import Any

import pytest

from pyrunc.errors import Failure
from pyrunc.plan import rootless
from tests.support.specs import small, with_linux

MAPS = [{"containerID": 0, "hostID": 1000, "size": 1}, {"containerID": 1, "hostID": 100000, "size": 9}]


def mapped(**linux: Any) -> dict[str, Any]:
    return with_linux(also=("user",), uidMappings=MAPS, gidMappings=MAPS, **linux)


def check(config: dict[str, Any]) -> None:
    rootless.check(config)  # type: ignore[arg-type]


def refusal(config: dict[str, Any]) -> Failure:
    with pytest.raises(Failure) as caught:
        check(config)
    return caught.value


def test_a_user_namespace_is_enough() -> None:
    check(mapped())


def test_without_a_user_namespace() -> None:
    found = refusal(small())
    assert found.pointer == "/linux/namespaces"
    assert "rootless container requires user namespaces" in found.text()
    assert "pyrunc spec --rootless" in found.text()


def test_network_devices() -> None:
    found = refusal(mapped(netDevices={"eth0": {}}))
    assert (found.pointer, "not supported" in found.text()) == ("/linux/netDevices", True)


@pytest.mark.parametrize(
    ("option", "refused"),
    [
        ("gid=5", False),
        ("uid=0", False),
        ("uid=9", False),
        ("gid=10", True),
        ("uid=4000", True),
        ("gid=tty", False),
    ],
)
def test_ids_of_file_systems(option: str, refused: bool) -> None:
    config = mapped()
    config["mounts"] = [{"destination": "/p", "type": "devpts", "source": "x", "options": ["nosuid", option]}]
    if not refused:
        check(config)
        return
    found = refusal(config)
    assert found.pointer == "/mounts/0/options/1"
    kind = option.partition("=")[0]
    assert f"cannot specify {kind}= mount options for unmapped {kind} in rootless containers" in found.text()
    assert f"{option} has no mapping in /linux/{kind}Mappings (mapped: 0..0, 1..9)" in found.text()


def test_the_ids_of_a_joined_namespace_are_not_known() -> None:
    config = with_linux(also=({"type": "user", "path": "/proc/1/ns/user"},))
    config["mounts"] = [{"destination": "/p", "type": "tmpfs", "source": "x", "options": ["uid=4000"]}]
    check(config)
