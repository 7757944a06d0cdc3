"""Devices that are allowed unless a rule forbids them: GHSA-g54h-m393-cpwq.

The device rules of a cgroup begin with "deny all", whether the configuration has rules, an empty list, or
none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from typing import Any

    from tests.support.containers import Bundle, Runtime

# /dev/mem-like, a disk and the kernel's log: none of them a device a container has by default.
FORBIDDEN = {
    "mem": "c 1 1",
    "port": "c 1 4",
    "kmsg": "c 1 11",
    "vda": "b 254 0",
    "loop": "b 7 0",
    "fuse": "c 10 229",
}
DEFAULT = {
    "null": "c 1 3",
    "zero": "c 1 5",
    "full": "c 1 7",
    "random": "c 1 8",
    "urandom": "c 1 9",
    "tty": "c 5 0",
}


@pytest.mark.parametrize(
    "resources", [None, {}, {"devices": []}, {"devices": None}, {"pids": {"limit": 100}}]
)
def test_unknown_devices_cannot_be_opened(
    bundle: Bundle, runtime: Runtime, resources: dict[str, Any] | None
) -> None:
    if resources is not None:
        bundle.linux["resources"] = resources
    tries = "".join(
        f"mknod /tmp/{name} {words} && (: < /tmp/{name}) && echo opened {name};"
        for name, words in FORBIDDEN.items()
    )
    shown = runtime.run(bundle, f"({tries}) 2>&1; echo end")
    assert shown.stdout.endswith("end\n"), shown.stdout
    assert "opened" not in shown.stdout
    assert shown.stdout.count("Operation not permitted") + shown.stdout.count("can't open") >= len(FORBIDDEN)


def test_default_devices_can(bundle: Bundle, runtime: Runtime) -> None:
    tries = "".join(f"(: < /dev/{name}) && echo {name};" for name in DEFAULT if name != "tty")
    assert runtime.output(bundle, tries).split() == [name for name in DEFAULT if name != "tty"]


def test_an_allowed_device_is_the_only_one_more(bundle: Bundle, runtime: Runtime) -> None:
    bundle.capabilities("CAP_SYSLOG")
    rule = {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"}
    bundle.linux["resources"] = {"devices": [rule]}
    tries = "".join(
        f"mknod /tmp/{name} {words} && (: < /tmp/{name}) && echo opened {name};"
        for name, words in FORBIDDEN.items()
    )
    shown = runtime.run(bundle, f"({tries}) 2>/dev/null; echo end")
    assert shown.stdout == "opened kmsg\nend\n"
