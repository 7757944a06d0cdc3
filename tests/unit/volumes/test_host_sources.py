"""The host's side of a mount: sources, their owners and labels."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pyrunc.apply import directory_trees
from pyrunc.errors import Failure
from pyrunc.volumes import host_sources
from pyrunc.volumes.grammar import Request
from pyrunc.volumes.mount_words import parse_mount

if TYPE_CHECKING:
    from pyrunc.spec.types import Config

root = pytest.mark.skipif(os.geteuid() != 0, reason="owners and mounts take root")


def bind(source: Path | str, **fields: Any) -> Request:
    return Request(kind="bind", source=str(source), destination="/x", **fields)


def config(**fields: Any) -> Config:
    made: Any = {"ociVersion": "1.0.2", **fields}
    return made  # type: ignore[no-any-return]


def test_a_missing_source(tmp_path: Path) -> None:
    with pytest.raises(Failure) as caught:
        host_sources.check(bind(tmp_path / "no"), "--mount ...")
    said = f'invalid mount config for type "bind": bind source path does not exist: {tmp_path}/no'
    assert caught.value.text().startswith(said)
    host_sources.check(bind(tmp_path / "no", create=True), "-v ...")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(Failure):
        host_sources.check(bind(tmp_path / "dangling"), "--mount ...")
    host_sources.check(bind(tmp_path / "dangling", nofollow=True), "--mount ...")
    host_sources.check(parse_mount("dst=/x"), "--mount dst=/x")


@pytest.mark.parametrize("source", ["/", "/usr", "/etc/", "/var/../home", "/tmp"])
@pytest.mark.parametrize("fields", [{"chown": True}, {"relabel": "z"}])
def test_the_systems_own_directories_are_left_alone(source: str, fields: dict[str, Any]) -> None:
    with pytest.raises(Failure, match="is not allowed: the host needs it as it is"):
        host_sources.check(bind(source, **fields), "-v ...")
    host_sources.check(bind(source), "-v ...")


@root
@pytest.mark.parametrize("way", ["link", "mount", "//etc", "swapped"])
@pytest.mark.parametrize("fields", [{"chown": True}, {"relabel": "Z"}])
def test_the_systems_own_by_another_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, fields: dict[str, Any]
) -> None:
    """The directory that is really opened counts: a path may lead through another container's volume."""
    monkeypatch.setattr(host_sources, "_SELINUX", str(tmp_path))
    changed: list[object] = []
    monkeypatch.setattr(directory_trees, "chown", lambda *words: changed.append(words))
    monkeypatch.setattr(directory_trees, "label", lambda *words: changed.append(words))
    source = tmp_path / "source"
    if way in ("mount", "swapped"):
        source.mkdir()
    if way == "mount":
        subprocess.run(["mount", "--bind", "/etc", source], check=True)
    if way == "link":
        source.symlink_to("/etc")
    request = bind("//etc" if way == "//etc" else source, **fields)
    made = config(linux={"mountLabel": LABEL})
    try:
        if way == "swapped":
            host_sources.check(request, "-v ...")
            source.rmdir()
            source.symlink_to("/etc")
        else:
            with pytest.raises(Failure, match=r"\(/etc\) is not allowed: the host needs it as it is"):
                host_sources.check(request, "-v ...")
        with pytest.raises(Failure, match=r"\(/etc\) is not allowed: the host needs it as it is"):
            host_sources.settle(request.source, request, made, "-v ...")
    finally:
        if way == "mount":
            subprocess.run(["umount", source], check=True)
    assert changed == []


def test_missing_parents(tmp_path: Path) -> None:
    assert host_sources.missing(str(tmp_path)) == []
    assert host_sources.missing(f"{tmp_path}/a/b") == [f"{tmp_path}/a", f"{tmp_path}/a/b"]


def test_ready_makes_directories_once(tmp_path: Path) -> None:
    made: list[tuple[str, int, int]] = []
    host_sources.ready(bind(tmp_path / "a/b", create=True), "-v ...", made)
    assert [each[0] for each in made] == [f"{tmp_path}/a", f"{tmp_path}/a/b"]
    assert made[1][2] == (tmp_path / "a/b").stat().st_ino
    (tmp_path / "file").touch()
    host_sources.ready(bind(tmp_path / "file", create=True), "-v ...", made)
    host_sources.ready(bind(tmp_path / "other"), "--mount ...", made)
    assert not (tmp_path / "other").exists()
    with pytest.raises(Failure, match=rf"-v \.\.\.: make host directory {tmp_path}/file/x"):
        host_sources.ready(bind(tmp_path / "file/x", create=True), "-v ...", made)


@root
@pytest.mark.parametrize(
    ("made", "wanted", "said"),
    [
        ("private", "rshared", "but it is not a shared mount"),
        ("private", "slave", "but it is not a shared or slave mount"),
        ("shared", "shared", ""),
        ("shared", "rslave", ""),
        ("private", "rprivate", ""),
    ],
)
def test_propagation_needs_a_mount_that_has_it(tmp_path: Path, made: str, wanted: str, said: str) -> None:
    place = tmp_path / "mo unt"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "x", place], check=True)
    try:
        subprocess.run(["mount", f"--make-{made}", place], check=True)
        (place / "sub").mkdir()
        for source, fields in ((place / "sub", {}), (place / "missing/deep", {"create": True})):
            request = bind(source, propagation=wanted, **fields)
            if not said:
                host_sources.check(request, "-v ...")
                continue
            with pytest.raises(Failure) as caught:
                host_sources.check(request, "-v ...")
            assert caught.value.message == f"path {source} is mounted on {place} {said}"
    finally:
        subprocess.run(["umount", place], check=True)


def test_the_containers_user_on_the_host() -> None:
    assert host_sources.owner(config()) == (0, 0)
    assert host_sources.owner(config(process={"user": {"uid": 7, "gid": 8}})) == (7, 8)
    maps: dict[str, object] = {"uidMappings": [{"containerID": 0, "hostID": 100000, "size": 1000}]}
    maps["gidMappings"] = [
        {"containerID": 0, "hostID": 5, "size": 1},
        {"containerID": 1, "hostID": 200000, "size": 10},
    ]
    assert host_sources.owner(config(process={"user": {"uid": 7, "gid": 8}}, linux=maps)) == (7, 8)
    maps["namespaces"] = [{"type": "user"}]
    assert host_sources.owner(config(process={"user": {"uid": 7, "gid": 8}}, linux=maps)) == (100007, 200007)
    with pytest.raises(Failure, match="gid 11 is not mapped"):
        host_sources.owner(config(process={"user": {"uid": 7, "gid": 11}}, linux=maps))


@root
def test_settle_gives_the_source_away(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").touch()
    made = config(process={"user": {"uid": 1234, "gid": 4321}})
    host_sources.settle(str(tmp_path / "source"), bind(tmp_path / "source"), made, "-v ...")
    assert (tmp_path / "source").stat().st_uid == 0
    host_sources.settle(str(tmp_path / "source"), bind(tmp_path / "source", chown=True), made, "-v ...")
    assert (tmp_path / "source/file").stat().st_uid == 1234
    (tmp_path / "link").symlink_to("source")
    link = bind(tmp_path / "link", chown=True, nofollow=True)
    host_sources.settle(str(tmp_path / "link"), link, config(process={"user": {"uid": 77}}), "-v ...")
    owners = [(tmp_path / name).lstat().st_uid for name in ("link", "source", "source/file")]
    assert owners == [77, 1234, 1234], "a link that is meant itself is given away, not what it leads to"
    with pytest.raises(Failure, match=r"-v \.\.\.: open"):
        host_sources.settle(str(tmp_path / "no"), bind(tmp_path / "no", chown=True), made, "-v ...")


LABEL = "system_u:object_r:container_file_t:s0:c12,c345"


@pytest.mark.parametrize(
    ("word", "own", "expected"),
    [
        ("Z", LABEL, LABEL),
        ("z", LABEL, "system_u:object_r:container_file_t:s0"),
        ("z", "odd", "system_u:object_r:container_file_t:s0"),
        ("z", "", ""),
        ("Z", "", ""),
    ],
)
def test_labels(word: str, own: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are used on a host with SELinux, for a container that has a mount label."""
    made = config(linux={"mountLabel": own} if own else {})
    monkeypatch.setattr(host_sources, "_SELINUX", str(tmp_path / "no"))
    assert host_sources.label(word, made) == ""
    (tmp_path / "enforce").touch()
    monkeypatch.setattr(host_sources, "_SELINUX", str(tmp_path / "enforce"))
    assert host_sources.label(word, made) == expected


def test_settle_labels_where_labels_are_in_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").touch()
    (tmp_path / "enforce").touch()
    monkeypatch.setattr(host_sources, "_SELINUX", str(tmp_path / "enforce"))
    marked = []
    monkeypatch.setattr(os, "setxattr", lambda _path, name, value, **_how: marked.append((name, value)))
    made = config(linux={"mountLabel": LABEL})
    host_sources.settle(str(tmp_path / "source"), bind(tmp_path / "source", relabel="Z"), made, "-v ...")
    assert marked == [("security.selinux", LABEL.encode() + b"\0")] * 2
