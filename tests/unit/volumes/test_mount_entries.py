"""Requests as entries of `mounts`."""

from __future__ import annotations

from typing import Any

import pytest

from pyrunc.errors import Failure
from pyrunc.plan import mount_options
from pyrunc.volumes import mount_entries
from pyrunc.volumes.grammar import parse_tmpfs, parse_volume
from pyrunc.volumes.mount_words import parse_mount


def options(text: str) -> list[Any]:
    request = parse_mount(text[8:]) if text.startswith("--mount ") else parse_volume(text)
    made = mount_entries.entry(request, "/source", layer="/state/overlay/0")
    assert made["destination"] == "/x"
    words = made["options"]
    assert isinstance(words, list)
    if not request.overlay:
        assert (made["type"], made["source"]) == ("bind", "/source")
    return words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/srv:/x", ["rbind", "rprivate"]),
        ("vol:/x:rw", ["rbind", "rprivate", "rw"]),
        ("/srv:/x:ro", ["rbind", "rprivate", "rro"]),
        ("/srv:/x:rro", ["rbind", "rprivate", "rro"]),
        ("/srv:/x:ro,bind", ["bind", "rprivate", "ro"]),
        ("/srv:/x:rslave", ["rbind", "rslave"]),
        ("/srv:/x:noexec,dev,nosuid", ["rbind", "rprivate", "rnoexec", "rnosuid", "dev"]),
        ("/srv:/x:bind,noexec", ["bind", "rprivate", "noexec"]),
        ("--mount type=bind,src=/srv,dst=/x,ro,bind-recursive=writable", ["rbind", "rprivate", "ro"]),
        ("--mount type=bind,src=/srv,dst=/x,no-dereference", ["rbind", "rprivate", "copy-symlink"]),
        ("--mount src=vol,dst=/x,volume-subpath=a/b", ["rbind", "rprivate", "subpath=a/b"]),
        ("/srv:/x:idmap", ["rbind", "rprivate", "idmap"]),
    ],
)
def test_binds(text: str, words: list[str]) -> None:
    assert options(text) == words


def test_overlay() -> None:
    layers = ["lowerdir=/source", "upperdir=/state/overlay/0/upper", "workdir=/state/overlay/0/work"]
    assert options("/srv:/x:O") == layers
    assert options("/srv:/x:O,ro,nodev") == [*layers, "ro", "nodev"]
    assert options("/srv:/x:O,upperdir=/u,workdir=/w") == ["lowerdir=/source", "upperdir=/u", "workdir=/w"]


def test_overlay_of_a_path_with_a_colon() -> None:
    request = parse_mount("type=bind,src=/a:b,dst=/x,overlay")
    made = mount_entries.entry(request, r"/a:b\c", layer="/l:m")
    words = made["options"]
    assert isinstance(words, list)
    assert words[:2] == [r"lowerdir=/a\:b\\c", "upperdir=/l:m/upper"]


def test_overlay_of_paths_with_commas() -> None:
    request = parse_mount("type=bind,src=/a,dst=/x,overlay")
    made = mount_entries.entry(request, "/a,ro", layer="/l,volatile")
    words = mount_options.parse(made["options"])  # type: ignore[arg-type]
    assert words.data == (r"lowerdir=/a\,ro", "upperdir=/l,volatile/upper", "workdir=/l,volatile/work")


def test_tmpfs() -> None:
    made = mount_entries.entry(parse_tmpfs("/t:size=1m,exec"), "", layer="")
    assert made == {
        "destination": "/t",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "nodev", "noexec", "size=1m", "exec", "mode=1777"],
    }
    words = mount_entries.entry(parse_tmpfs("/t:mode=700"), "", layer="")["options"]
    assert isinstance(words, list)
    assert [word for word in words if word.startswith("mode")] == ["mode=700"]


def test_idmaps() -> None:
    request = parse_volume("/srv:/x:idmap=uids=0-1000-2#@5-7-1;gids=0-@0-1".replace("0-@0-1", "0-0-1"))
    made = mount_entries.entry(request, "/source", layer="", uids=((0, 100000, 65536),), gids=())
    assert made["uidMappings"] == [
        {"containerID": 0, "hostID": 1000, "size": 2},
        {"containerID": 5, "hostID": 100007, "size": 1},
    ]
    assert made["gidMappings"] == [{"containerID": 0, "hostID": 0, "size": 1}]
    with pytest.raises(Failure, match="@5-7-1 lies outside the container's user namespace"):
        mount_entries.entry(request, "/source", layer="", uids=((0, 100000, 7),))


@pytest.mark.parametrize(
    ("mode", "words"),
    [("", ["rbind", "ro"]), ("ro", ["rbind", "ro", "rro"]), ("rw", ["rbind", "ro", "rw", "rrw"])],
)
def test_binds_of_a_lenders_configuration(mode: str, words: list[str]) -> None:
    mount: dict[str, object] = {
        "destination": "/x",
        "source": "here",
        "options": ["rbind", "ro"],
        "uidMappings": [],
    }
    lent = mount_entries.lend(mount, "/bundle", mode)
    assert lent == {"destination": "/x", "source": "/bundle/here", "options": words, "uidMappings": []}


@pytest.mark.parametrize(
    "mount",
    [
        {"destination": "/x", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/x", "type": "proc", "source": "proc", "options": ["nosuid"]},
        {"destination": "/x", "options": ["bind"]},
    ],
)
def test_what_is_no_bind_is_not_lent(mount: dict[str, object]) -> None:
    assert mount_entries.lend(mount, "/bundle", "") is None
