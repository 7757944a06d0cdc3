"""Id-mapped mounts: owners on both sides, in every spelling, and what is refused."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.mounts import HostMounts, statmounts, table

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from tests.support.containers import Bundle
    from tests.support.engine import Engine

HOST = 100000


@pytest.fixture
def source(place: Path, host: HostMounts) -> Path:
    """A directory with files of several users, and one more file system below it."""
    top = place / "source"
    top.mkdir()
    host.tmpfs(top / "below")
    for directory in (top, top / "below"):
        for owner in (0, 1, 5, 1000):
            path = directory / f"of-{owner}"
            path.write_text("")
            os.chown(path, owner, owner)
        directory.chmod(0o777)
    return top


def mapping(*ranges: tuple[int, int, int]) -> list[dict[str, int]]:
    return [{"containerID": inside, "hostID": outside, "size": size} for inside, outside, size in ranges]


def add(bundle: Bundle, target: str, source: Path, *words: str, **maps: Any) -> None:
    bundle.mount(target, source, *words)
    bundle.config["mounts"][-1].update(maps)


def owners(*places: str) -> str:
    return "; ".join(f"for f in 0 1 5 1000; do stat -c '%u:%g' {place}/of-$f; done" for place in places)


NOBODY = "65534:65534"


def test_idmap_and_ridmap(engine: Engine, bundle: Bundle, source: Path) -> None:
    """Without mappings both take the container's: root of the file system is root inside.

    ridmap reaches what is mounted below, idmap does not.
    """
    bundle.user_namespace(HOST)
    bundle.mount("/one", source, "rbind", "idmap")
    bundle.mount("/all", source, "rbind", "ridmap")
    bundle.mount("/not", source, "rbind")
    places = ["/one", "/one/below", "/all", "/all/below", "/not", "/not/below"]
    name = engine.start(bundle, owners(*places) + "; touch /all/new /all/below/new; sleep 1000")
    pid = engine.state(name)["pid"]
    found = table(pid)
    mapped = {place for place in places if "idmapped" in found[place].options.split(",")}
    assert mapped == {"/one", "/all", "/all/below"}
    asked = statmounts(pid, places)
    assert {place for place in places if "idmapped" in asked[place][0].split(",")} == mapped
    out = engine.call("exec", name, "/bin/sh", "-c", owners(*places)).ok().out.split()
    each = [out[start : start + 4] for start in range(0, len(out), 4)]
    true, lost = ["0:0", "1:1", "5:5", "1000:1000"], [NOBODY] * 4
    assert each == [true, lost, true, true, lost, lost]
    for path in (source / "new", source / "below/new"):
        assert (path.stat().st_uid, path.stat().st_gid) == (0, 0)


def test_mappings_of_a_mount(engine: Engine, bundle: Bundle, source: Path) -> None:
    """Without any user namespace: containerID is the id in the file system, hostID what it becomes."""
    maps = {
        "uidMappings": mapping((0, 5000, 2), (5, 7, 1)),
        "gidMappings": mapping((0, 6000, 2), (1000, 8, 1)),
    }
    add(bundle, "/one", source, "bind", **maps)
    out = engine.front(bundle, owners("/one")).ok().out.split()
    assert out == ["5000:6000", "5001:6001", "7:65534", "65534:8"]


def test_mappings_imply_idmap_and_make_a_user(engine: Engine, bundle: Bundle, source: Path) -> None:
    """What a user inside makes belongs on the host to the user of the mapping."""
    maps = mapping((0, 1000, 1))
    add(bundle, "/one", source, "bind", "idmap", uidMappings=maps, gidMappings=maps)
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    engine.front(bundle, "echo mine > /one/new && stat -c %u /one/new").ok()
    made = source / "new"
    assert (made.stat().st_uid, made.stat().st_gid, made.read_text()) == (0, 0, "mine\n")


@pytest.mark.parametrize("word", ["idmap", "ridmap"])
def test_crun_strings(engine: Engine, bundle: Bundle, source: Path, word: str) -> None:
    bundle.mount("/one", source, "rbind", f"{word}=uids=0-5000-2#5-7-1;gids=0-6000-2#1000-8-1")
    out = engine.front(bundle, owners("/one", "/one/below")).ok().out.split()
    expected = ["5000:6000", "5001:6001", "7:65534", "65534:8"]
    own = ["0:0", "1:1", "5:5", "1000:1000"]
    assert out == [*expected, *(expected if word == "ridmap" else own)]


def test_crun_strings_relative_to_the_container(engine: Engine, bundle: Bundle, source: Path) -> None:
    """An @ makes the second number an id of the container."""
    bundle.user_namespace(HOST)
    bundle.mount("/one", source, "bind", "idmap=uids=@0-0-1#@1-1000-1;gids=@0-0-2#5-100007-1")
    out = engine.front(bundle, owners("/one")).ok().out.split()
    assert out == ["0:0", "1000:1", "65534:7", NOBODY]


def test_the_mapping_of_a_namespace_that_is_joined(engine: Engine, bundle: Bundle, source: Path) -> None:
    bundle.user_namespace(HOST)
    other = engine.start(bundle)
    path = f"/proc/{engine.state(other)['pid']}/ns/user"
    bundle.linux["namespaces"] = [
        {"type": "user", "path": path} if space["type"] == "user" else space
        for space in bundle.linux["namespaces"]
    ]
    del bundle.linux["uidMappings"], bundle.linux["gidMappings"]
    bundle.mount("/one", source, "bind", "idmap")
    assert engine.front(bundle, owners("/one")).ok().out.split() == ["0:0", "1:1", "5:5", "1000:1000"]


def test_with_other_options(engine: Engine, bundle: Bundle, source: Path) -> None:
    maps = mapping((0, 1000, 1))
    add(bundle, "/one", source, "rbind", "ro", "nosuid", "rnodev", uidMappings=maps, gidMappings=maps)
    name = engine.start(bundle)
    assert table(engine.state(name)["pid"])["/one"].options == "ro,nosuid,nodev,relatime,idmapped"


def test_files_can_be_mapped(engine: Engine, bundle: Bundle, source: Path) -> None:
    maps = mapping((5, 77, 1))
    add(bundle, "/file", source / "of-5", "bind", uidMappings=maps, gidMappings=maps)
    assert engine.front(bundle, "stat -c %u:%g /file").ok().out == "77:77\n"


def test_a_source_inside_the_root(engine: Engine, bundle: Bundle) -> None:
    """Only the parent has the rights, and only the child has the mount: it asks the parent."""
    inside = bundle.rootfs / "data"
    inside.mkdir()
    maps = mapping((0, 4000, 1))
    add(bundle, "/there", inside, "bind", uidMappings=maps, gidMappings=maps)
    assert engine.front(bundle, "stat -c %u:%g /there /data").ok().out.split() == ["4000:4000", "0:0"]


def test_a_new_file_system(engine: Engine, bundle: Bundle) -> None:
    maps = mapping((0, 4000, 1))
    bundle.mount("/data", "tmpfs", "rw", kind="tmpfs")
    bundle.config["mounts"][-1].update(uidMappings=maps, gidMappings=maps)
    assert engine.front(bundle, "stat -c %u:%g /data").ok().out == "4000:4000\n"


@pytest.mark.parametrize(
    ("words", "maps", "said"),
    [
        (["idmap"], {}, "takes those of the container's user namespace, and it has none"),
        ([], {"uidMappings": mapping((0, 1, 1))}, "needs both mappings, and gidMappings is missing"),
        ([], {"gidMappings": mapping((0, 1, 1))}, "needs both mappings, and uidMappings is missing"),
        (["idmap=uids=0-1-1"], {}, "is no mapping"),
        (["idmap=uids=0-1;gids=0-1-1"], {}, "is no mapping"),
        (["ridmap=uids=0-1-0;gids=0-1-1"], {}, "is no mapping"),
        (["idmap=uids=@0-0-1;gids=@0-0-1"], {}, "id 0 is none of the container's user namespace"),
        (
            ["idmap=uids=0-1-1;gids=0-1-1"],
            {"uidMappings": mapping((0, 1, 1)), "gidMappings": mapping((0, 1, 1))},
            "are two mappings for one mount",
        ),
    ],
)
def test_refused(
    engine: Engine, bundle: Bundle, source: Path, *, words: list[str], maps: dict[str, Any], said: str
) -> None:
    add(bundle, "/one", source, "rbind", *words, **maps)
    engine.front(bundle, "exit 0").fails("/mounts/5", said)


def test_a_file_system_that_cannot_be_mapped(engine: Engine, bundle: Bundle) -> None:
    maps = mapping((0, 1, 1))
    bundle.mount("/one", "/proc/sys", "bind")
    bundle.config["mounts"][-1].update(uidMappings=maps, gidMappings=maps)
    engine.front(bundle, "exit 0").fails("/mounts/5", "map its ids", "invalid argument", "procfs on Linux")


def test_many_mounts_of_one_mapping(engine: Engine, bundle: Bundle, source: Path) -> None:
    """They share one user namespace, and the process that made it has ended: the fixture checks that."""
    maps = mapping((0, 1000, 1))
    for number in range(20):
        add(bundle, f"/{number}", source, "bind", uidMappings=maps, gidMappings=maps)
    found = table(engine.state(engine.start(bundle))["pid"])
    assert all("idmapped" in found[f"/{number}"].options for number in range(20))
