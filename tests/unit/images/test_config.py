"""An image's configuration becomes config.json."""

from __future__ import annotations

from typing import Any

import pytest

from pyrunc.errors import Failure
from pyrunc.images import config
from pyrunc.spec import default


def convert(
    settings: dict[str, Any], *args: str, tty: bool = False, **more: Any
) -> tuple[dict[str, Any], list[str]]:
    base = default.default(unified=True)
    image = {"os": "linux", "architecture": "amd64", "config": settings, **more}
    return config.convert(image, base, {"uid": 1, "gid": 2}, args=args, tty=tty)


@pytest.mark.parametrize(
    ("settings", "args", "wanted"),
    [
        ({"Entrypoint": ["a"], "Cmd": ["b", "c"]}, (), ["a", "b", "c"]),
        ({"Entrypoint": ["a"], "Cmd": None}, (), ["a"]),
        ({"Cmd": ["b"]}, (), ["b"]),
        ({"Cmd": "one word"}, (), ["one word"]),
        ({"Entrypoint": ["a"], "Cmd": ["b"]}, ("x", "y"), ["x", "y"]),
        ({}, (), ["sh"]),
    ],
)
def test_the_command(settings: dict[str, Any], args: tuple[str, ...], wanted: list[str]) -> None:
    assert convert(settings, *args)[0]["process"]["args"] == wanted


@pytest.mark.parametrize(
    ("env", "tty", "wanted"),
    [
        (None, False, [config._PATH]),
        (None, True, [config._PATH, "TERM=xterm"]),
        (["A=b", "PATH=/x"], False, ["A=b", "PATH=/x"]),
        (["PATH=/x", "TERM=vt100"], True, ["PATH=/x", "TERM=vt100"]),
        (["PATHS=/x"], False, [config._PATH, "PATHS=/x"]),
    ],
)
def test_the_environment(env: list[str] | None, tty: bool, wanted: list[str]) -> None:
    process = convert({"Env": env}, tty=tty)[0]["process"]
    assert (process["env"], process["terminal"]) == (wanted, tty)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [(None, "/"), ("", "/"), ("/a/b", "/a/b"), ("a", "/a"), ("//a/../b/", "/b"), ("/..", "/")],
)
def test_the_working_directory(text: str | None, wanted: str) -> None:
    assert convert({"WorkingDir": text})[0]["process"]["cwd"] == wanted


def test_what_becomes_an_annotation() -> None:
    settings = {
        "StopSignal": "SIGINT",
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "Labels": {"a.b": "c", "org.opencontainers.image.author": "the label wins", "number": 7},
        "Volumes": {"/data": {}, "/b//c/": {}},
    }
    made, warnings = convert(settings, author="somebody", created="2026-01-01T00:00:00Z", variant="v1")
    assert warnings == []
    assert made["annotations"] == {
        "a.b": "c",
        "org.opencontainers.image.os": "linux",
        "org.opencontainers.image.architecture": "amd64",
        "org.opencontainers.image.variant": "v1",
        "org.opencontainers.image.author": "the label wins",
        "org.opencontainers.image.created": "2026-01-01T00:00:00Z",
        "org.opencontainers.image.stopSignal": "SIGINT",
        "org.opencontainers.image.exposedPorts": "53/udp,80/tcp",
        "org.pyrunc.volumes": "/b/c:/data",
    }


def test_the_rest_is_a_container_of_engines() -> None:
    made, _ = convert({})
    assert made["root"] == {"path": "rootfs"}
    assert made["process"]["user"] == {"uid": 1, "gid": 2}
    assert made["process"]["noNewPrivileges"] is True
    assert "CAP_SETUID" in made["process"]["capabilities"]["bounding"]
    assert not {"CAP_SYS_ADMIN", "CAP_NET_RAW", "CAP_MKNOD"} & {*made["process"]["capabilities"]["bounding"]}


@pytest.mark.parametrize("settings", [{"Cmd": {}}, {"Entrypoint": [1]}, {"Env": [None]}, {"Env": 7}])
def test_what_is_no_list_of_words(settings: dict[str, Any]) -> None:
    with pytest.raises(Failure, match="in the image's configuration is no list of words"):
        convert(settings)


@pytest.mark.parametrize("settings", [None, [], {"Labels": [], "Volumes": None, "ExposedPorts": "80"}])
def test_what_says_nothing(settings: Any) -> None:
    made, warnings = convert(settings)
    assert warnings == []
    assert set(made["annotations"]) == {
        "org.opencontainers.image.os",
        "org.opencontainers.image.architecture",
    }
