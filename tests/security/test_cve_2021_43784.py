"""Lengths that do not fit: CVE-2021-43784.

The message that told runc's init which namespaces to make had lengths of 16 bits; a long string could push
out the request for namespaces. With any lengths, a container has everything that it was asked to have, or it
is not made.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.containers import Bundle, Runtime

LONG = 70_000
KINDS = {"mount": "mnt", "pid": "pid", "network": "net", "ipc": "ipc", "uts": "uts"}


def long_environment(config: dict[str, Any]) -> None:
    config["process"]["env"] += [f"LONG{index}=" + "x" * LONG for index in range(10)]


def long_annotations(config: dict[str, Any]) -> None:
    config["annotations"] = {f"{index}": "x" * LONG for index in range(30)}


def many_groups(config: dict[str, Any]) -> None:
    config["process"]["user"]["additionalGids"] = list(range(1, 60_000))


def many_mappings(config: dict[str, Any]) -> None:
    config["linux"]["namespaces"].append({"type": "user"})
    for kind in ("uidMappings", "gidMappings"):
        config["linux"][kind] = [
            {"containerID": index, "hostID": 100_000 + index, "size": 1} for index in range(4_000)
        ]


def long_masks(config: dict[str, Any]) -> None:
    config["linux"]["maskedPaths"] += ["/" + "x" * LONG]


def long_hostname(config: dict[str, Any]) -> None:
    config["hostname"] = "x" * LONG


def long_program(config: dict[str, Any]) -> None:
    config["process"]["args"] = ["/" + "x" * LONG]


def long_arguments(config: dict[str, Any]) -> None:
    config["process"]["args"] += ["x" * LONG]


def long_directory(config: dict[str, Any]) -> None:
    config["process"]["cwd"] = "/" + "x/" * (LONG // 2)


def long_namespace_path(config: dict[str, Any]) -> None:
    config["linux"]["namespaces"][2]["path"] = "/proc/self/" + "./" * (LONG // 2) + "ns/net"


@pytest.mark.parametrize(
    "lengthen",
    [
        long_environment,
        long_annotations,
        many_groups,
        many_mappings,
        long_masks,
        long_hostname,
        long_program,
        long_arguments,
        long_directory,
        long_namespace_path,
    ],
)
def test_long_strings_push_nothing_out(
    bundle: Bundle, runtime: Runtime, lengthen: Callable[[dict[str, Any]], None]
) -> None:
    script = "".join(f"readlink /proc/self/ns/{name};" for name in KINDS.values())
    bundle.process["args"] = ["/bin/sh", "-c", script + "grep ^NoNewPrivs /proc/self/status"]
    lengthen(bundle.config)
    result = runtime.run(bundle)
    if result.returncode:
        assert "failed" in result.stdout or "exec" in result.stdout
        assert "internal error" not in result.stdout
        assert len(result.stdout) < 4 * LONG
        return
    *spaces, privileges = result.stdout.splitlines()
    for name, link in zip(KINDS.values(), spaces, strict=True):
        assert link != os.readlink(f"/proc/self/ns/{name}")
    assert privileges == "NoNewPrivs:\t1"
