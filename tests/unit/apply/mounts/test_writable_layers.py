"""A container's own layer: it has the attributes of the directory below it, and its removal finds it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pyrunc.apply.mounts import writable_layers
from pyrunc.errors import Failure
from pyrunc.plan.mount_steps import AttachRoot
from pyrunc.store import Container
from tests.support.mount_kinds import mount
from tests.support.mounts import read_rows

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files away, which takes root")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    made.mkdir()
    made.chmod(0o1771)
    return made


@pytest.fixture
def container(tmp_path: Path) -> Container:
    (tmp_path / "state/c1").mkdir(parents=True)
    return Container(str(tmp_path / "state"), "c1")


def remove(container: Container) -> None:
    directory = os.open(container.directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        writable_layers.remove(container, directory)
    finally:
        os.close(directory)


def attach(source: Path, directory: Path, *words: str) -> AttachRoot:
    overlay = mount("new", index=-1, destination="/", source="overlay", fstype="overlay", data=words)
    return AttachRoot(path=str(source), propagation=0, overlay=overlay, layer=str(directory))


@as_root
def test_the_upper_directory_looks_like_the_source(tmp_path: Path, source: Path) -> None:
    os.chown(source, 5, 6)
    writable_layers.make(str(tmp_path / "a/b"), str(source))
    upper = (tmp_path / "a/b/upper").stat()
    assert (upper.st_mode & 0o7777, upper.st_uid, upper.st_gid) == (0o1771, 5, 6)
    assert (tmp_path / "a/b/work").is_dir()


def test_its_parents_are_nobody_elses_whatever_the_umask(tmp_path: Path, source: Path) -> None:
    before = os.umask(0)
    try:
        writable_layers.make(str(tmp_path / "a/b/c"), str(source))
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "a/b", "a/b/c")] == [0o700] * 3


@as_root
def test_the_upper_directory_belongs_to_whom_the_source_is_seen_to(tmp_path: Path, source: Path) -> None:
    os.chown(source, 5, 6)
    writable_layers.make(str(tmp_path / "a"), str(source), (((0, 1000, 10),), ((0, 2000, 6),)))
    upper = (tmp_path / "a/upper").stat()
    assert (upper.st_uid, upper.st_gid) == (1005, 6)


def test_what_cannot_be_made(tmp_path: Path, source: Path) -> None:
    with pytest.raises(Failure, match="make the layer"):
        writable_layers.make(str(tmp_path / "a"), str(tmp_path / "no"))
    writable_layers.make(str(tmp_path / "b"), str(source))
    with pytest.raises(Failure, match="make the layer"):
        writable_layers.make(str(tmp_path / "b"), str(source))


@as_root
def test_in_the_state_directory(container: Container, source: Path) -> None:
    assert not writable_layers.has(container)
    place = Path(container.directory, "overlay/root")
    writable_layers.over_root(container, attach(source, place))
    assert writable_layers.has(container)
    assert not place.is_symlink()
    assert sorted(os.listdir(place)) == ["upper", "work"]
    assert os.listxattr(place / "upper") == []
    remove(container)
    assert os.listdir(container.directory) == []
    remove(container)  # there is none any more


@as_root
def test_elsewhere_it_is_found_by_a_link(container: Container, source: Path, tmp_path: Path) -> None:
    writable_layers.over_root(container, attach(source, tmp_path / "pyrunc-c1-0"))
    link = Path(container.directory, "overlay/root")
    assert os.readlink(link) == str(tmp_path / "pyrunc-c1-0")
    (tmp_path / "pyrunc-c1-0/upper/file").touch()
    remove(container)
    assert not (tmp_path / "pyrunc-c1-0").exists()
    assert os.listdir(container.directory) == []


def test_killed_between_the_link_and_the_directory(container: Container, tmp_path: Path) -> None:
    folder = Path(container.directory, "overlay")
    folder.mkdir()
    (folder / "root").symlink_to(tmp_path / "pyrunc-c1-1")
    remove(container)
    assert os.listdir(container.directory) == []


def test_links_in_it_are_not_followed(container: Container, tmp_path: Path) -> None:
    upper = Path(container.directory, "overlay/root/upper")
    upper.mkdir(parents=True)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").touch()
    (upper / "link").symlink_to(tmp_path / "kept")
    remove(container)
    assert (tmp_path / "kept/file").exists()


def test_without_attributes(
    container: Container, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refuse(_path: str, name: str, _value: bytes) -> None:
        asked.append(name)
        raise OSError(95, "not supported")

    monkeypatch.setattr(os, "setxattr", refuse)
    for number, (words, kind) in enumerate(((("volatile",), "trusted"), (("userxattr",), "user"))):
        own = Container(container.root, f"own{number}")
        os.mkdir(own.directory)
        with pytest.raises(Failure, match=rf"has no {kind}\.\* attributes") as caught:
            writable_layers.over_root(own, attach(source, tmp_path / f"layer{number}", *words))
        assert "--overlay-dir" in caught.value.hint
    assert asked == ["trusted.pyrunc", "user.pyrunc"]


def test_mounts_below() -> None:
    below = [row.place for row in read_rows() if row.place.startswith(("/proc/", "/sys/"))]
    assert set(writable_layers.submounts("/sys")) | set(writable_layers.submounts("/proc/")) == set(below)
