"""The volume store: volumes are made and removed completely, never while in use, even after a kill."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyrunc import store as containers
from pyrunc.errors import Failure
from pyrunc.life import creation
from pyrunc.volumes.meta import FRESH
from pyrunc.volumes.volume_store import (
    MissingError,
    Store,
    default_path,
    new_name,
)
from tests.support.records import refuse, removed, reserved

if TYPE_CHECKING:
    from collections.abc import Iterator

TOP = Path(__file__).resolve().parents[3]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    before = len(os.listdir("/proc/self/fd"))
    yield Store(str(tmp_path / "volumes"))
    assert len(os.listdir("/proc/self/fd")) == before, "descriptors leak"


def container(tmp_path: Path, name: str, root: str = "state") -> tuple[str, str, str]:
    """Make a container's record, and return the container as a user of volumes."""
    made = reserved(str(tmp_path / root), name)
    made.created = creation.now()
    containers.save(made)
    return made.root, made.id, made.created


def test_a_store_that_is_not_there_is_empty(store: Store) -> None:
    assert store.names() == []
    assert not Path(store.path).exists()


def test_a_volume_is_made_once(store: Store) -> None:
    umask = os.umask(0o077)
    try:
        assert store.make("data", labels={"a": "b"}) is True
    finally:
        os.umask(umask)
    assert store.make("data", labels={"c": "d"}) is False
    volume = store.read("data")
    assert (volume.labels, volume.anonymous, volume.state, volume.holders) == ({"a": "b"}, False, FRESH, [])
    assert len(volume.created) == len("2026-01-01T00:00:00Z")
    place = Path(store.mountpoint("data"))
    assert place == Path(store.path, "data/_data")
    assert place.stat().st_mode & 0o7777 == 0o755
    assert Path(store.path).stat().st_mode & 0o077 == 0
    assert store.names() == ["data"]
    assert os.listdir(Path(store.path, ".tmp")) == []


@pytest.mark.parametrize("name", ["", "..", "../data", "a", "no/such", ".tmp"])
def test_a_path_is_no_name(store: Store, name: str) -> None:
    store.make("data")
    with pytest.raises(Failure):
        store.make(name)
    for action in (store.read, store.remove, store.lock):
        with pytest.raises(MissingError):
            action(name)


def test_a_volume_goes_with_its_content(store: Store) -> None:
    store.make("data")
    place = Path(store.mountpoint("data"))
    (place / "sub").mkdir()
    (place / "sub/file").write_bytes(b"x" * 1000)
    os.link(place / "sub/file", place / "again")
    (place / "more").write_bytes(b"y" * 36)
    assert store.remove("data") == 1036
    assert store.names() == []
    with pytest.raises(MissingError, match="get data: no such volume"):
        store.remove("data")


def test_users_are_named_and_kept(store: Store, tmp_path: Path) -> None:
    one = container(tmp_path, "one")
    other = container(tmp_path, "other", root="elsewhere")
    for holder in (one, other, one):
        store.use("data", holder, labels={}, anonymous=False).close()
    assert store.users(store.read("data")) == [other, one]
    with pytest.raises(Failure, match=r"^remove data: volume is in use - \[other, one\]; delete ") as caught:
        store.remove("data")
    assert f"pyrunc --root {tmp_path}/elsewhere delete other" in caught.value.hint
    removed(one[0], one[1])
    with pytest.raises(Failure, match=r"\[other\]"):
        store.remove("data")
    removed(other[0], other[1])
    assert store.remove("data") == 0


def test_another_container_of_the_same_id_is_another(store: Store, tmp_path: Path) -> None:
    first = container(tmp_path, "box")
    store.use("data", first, labels={}, anonymous=False).close()
    removed(first[0], first[1])
    container(tmp_path, "box")
    assert store.users(store.read("data")) == []
    store.remove("data")


def test_a_record_that_cannot_be_read_counts_as_a_user(store: Store, tmp_path: Path) -> None:
    holder = container(tmp_path, "box")
    store.use("data", holder, labels={}, anonymous=False).close()
    Path(tmp_path, "state/box/state.json").write_text("{broken")
    with pytest.raises(Failure, match="in use"):
        store.remove("data")


def test_leaving(store: Store, tmp_path: Path) -> None:
    one, other = container(tmp_path, "one"), container(tmp_path, "other")
    for name in ("mine", "shared"):
        store.use(name, one, labels={}, anonymous=True).close()
    store.use("shared", other, labels={}, anonymous=True).close()
    store.leave("mine", other, remove=True)  # not its maker
    store.leave("mine", one, remove=True)
    store.leave("shared", one, remove=True)  # somebody else uses it
    assert store.names() == ["shared"]
    assert store.read("shared").holders == [other]
    store.leave("shared", other, remove=False)
    store.leave("gone", other, remove=True)
    assert store.read("shared").holders == []


def test_what_a_killed_command_left_is_swept_away(store: Store) -> None:
    store.make("data")
    left = Path(store.path, ".tmp/0123456789abcdef")
    (left / "_data/deep").mkdir(parents=True)
    (left / "_data/deep/file").write_text("x")
    store.make("more")
    assert not left.exists()
    assert store.names() == ["data", "more"]


def test_what_another_command_is_at_work_on_is_not(store: Store) -> None:
    store.make("data")
    work = Path(store.path, ".tmp/0123456789abcdef")
    work.mkdir()
    busy = os.open(work.parent, os.O_RDONLY)
    try:
        fcntl.flock(busy, fcntl.LOCK_SH)
        store.make("more")
        assert work.exists()
    finally:
        os.close(busy)
    store.make("most")
    assert not work.exists()


def test_an_unfinished_write_is_no_write(store: Store) -> None:
    store.make("data", labels={"a": "b"})
    Path(store.path, "data/.volume.json").write_text('{"half')
    assert store.read("data").labels == {"a": "b"}


def test_after_a_power_failure_the_content_counts(store: Store) -> None:
    store.make("data", labels={"a": "b"})
    Path(store.mountpoint("data"), "file").write_text("x")
    Path(store.path, "data/volume.json").write_text("")
    assert store.read("data").state == "used"
    Path(store.path, "data/volume.json").unlink()
    assert store.read("data").labels == {}


@pytest.mark.parametrize("text", ["{", "[]", '{"labels": 3}', '{"holders": 7}', "\udcff"])
def test_a_broken_record_is_named(store: Store, text: str) -> None:
    store.make("data")
    path = Path(store.path, "data/volume.json")
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(Failure, match=f"{path} is not a volume's record"):
        store.read("data")


def test_what_is_in_the_way_is_named(store: Store, tmp_path: Path) -> None:
    store.make("data")
    Path(store.path, "other").mkdir()
    Path(store.path, "other/file").touch()
    holder = container(tmp_path, "box")
    with pytest.raises(Failure, match="is in the way: it is no volume"):
        store.use("other", holder, labels={}, anonymous=False)
    Path(store.path, "plain").touch()
    with pytest.raises(Failure, match="make volume plain in"):
        store.make("plain")


def test_a_store_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = Store(str(tmp_path / "file"))
    with pytest.raises(Failure, match="read volume store"):
        store.names()
    with pytest.raises(Failure, match="make volume data in"):
        store.make("data")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
def test_what_is_mounted_in_a_volume_stays(store: Store, tmp_path: Path) -> None:
    host = tmp_path / "host dir"
    host.mkdir()
    (host / "file").write_text("precious")
    store.make("data")
    place = Path(store.mountpoint("data"), "in here")
    place.mkdir()
    subprocess.run(["mount", "--bind", host, place], check=True)
    try:
        with pytest.raises(Failure, match=f"{place} is a mount point"):
            store.remove("data")
        assert (host / "file").read_text() == "precious"
    finally:
        subprocess.run(["umount", place], check=True)
    store.remove("data")
    assert (host / "file").read_text() == "precious"


def test_waiting_for_the_lock_of_a_volume_that_goes_away(store: Store) -> None:
    """Who waits for the lock must not use a directory that was renamed meanwhile."""
    store.make("data", labels={"which": "first"})
    locked = store.lock("data")
    waiter = run_python(store, "locked = store.lock('data'); print(locked.volume.labels['which'])")
    time.sleep(0.3)
    Path(store.path, "data").rename(Path(store.path, ".tmp/gone"))
    store.make("data", labels={"which": "second"})
    locked.close()
    out, _ = waiter.communicate(timeout=30)
    assert out == "second\n"


def run_python(store: Store, code: str) -> subprocess.Popen[str]:
    begin = "import sys; sys.path.insert(0, sys.argv[1])\n"
    begin += "from pyrunc.volumes.volume_store import MissingError, Store\nstore = Store(sys.argv[2])\n"
    return subprocess.Popen(
        [sys.executable, "-c", begin + code, str(TOP), store.path],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_many_make_and_remove_the_same(store: Store) -> None:
    code = """
for number in range(40):
    name = f"vol{number % 3}"
    made = store.make(name)
    try:
        store.remove(name)
    except MissingError:
        pass
print("done")
"""
    workers = [run_python(store, code) for _ in range(6)]
    assert [worker.communicate(timeout=60)[0] for worker in workers] == ["done\n"] * 6
    assert store.names() == []
    assert os.listdir(Path(store.path, ".tmp")) == []


@pytest.mark.timeout(120)
def test_a_store_survives_a_kill_at_any_instruction(store: Store) -> None:
    """Processes that make and remove volumes are killed at about twenty moments.

    Each time all volumes that exist are complete.
    """
    code = """
import os
while True:
    for name in ("one", "two"):
        store.make(name, labels={"k": "v"})
        with store.lock(name) as locked:
            os.makedirs(store.mountpoint(name) + "/a/b", exist_ok=True)
            locked.save()
        store.remove(name)
"""
    for number in range(20):
        worker = run_python(store, code)
        time.sleep(0.15 + number * 0.004)
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
        for name in store.names():
            assert store.read(name).labels == {"k": "v"}, "half a volume has a name"
            assert Path(store.mountpoint(name)).is_dir()
        for name in store.names():
            store.remove(name)
        store.make("probe")
        store.remove("probe")
        assert os.listdir(store.path) == [".tmp"]
        assert os.listdir(Path(store.path, ".tmp")) == []


def test_where_volumes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_path() == "/var/lib/pyrunc/volumes"
    assert default_path("layers") == "/var/lib/pyrunc/layers"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_path() == "/data/pyrunc/volumes"
    monkeypatch.setenv("XDG_DATA_HOME", "")
    monkeypatch.setenv("HOME", "/home/me")
    assert default_path() == "/home/me/.local/share/pyrunc/volumes"
    monkeypatch.delenv("HOME")
    with pytest.raises(Failure, match="no place for volumes"):
        default_path()
    with pytest.raises(Failure, match="no place for layers") as caught:
        default_path("layers", "--layer-root")
    assert caught.value.hint == "set XDG_DATA_HOME or HOME, or give --layer-root DIR"


def test_anonymous_names() -> None:
    names = {new_name() for _ in range(10)}
    assert len(names) == 10
    assert all(len(name) == 64 and not name.strip("0123456789abcdef") for name in names)


def test_the_record_is_json(store: Store, tmp_path: Path) -> None:
    """Other tools may read it: it is one file with a few plain members."""
    holder = container(tmp_path, "box")
    store.use("data", holder, labels={"a": "b"}, anonymous=True).close()
    record = json.loads(Path(store.path, "data/volume.json").read_text())
    assert record == {
        "created": record["created"],
        "labels": {"a": "b"},
        "anonymous": True,
        "state": "fresh",
        "maker": list(holder),
        "holders": [list(holder)],
    }


def test_a_volume_whose_record_cannot_be_written_is_let_go_of(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The undo needs the same lock, so it must be released."""
    holder = container(tmp_path, "box")
    store.make("data")
    with monkeypatch.context() as within:
        refuse(within, "open", ".volume.json", errno.ENOSPC)
        with pytest.raises(Failure, match="no space left"):
            store.use("data", holder, labels={}, anonymous=False)
    store.lock("data", seconds=0).close()


def test_a_lock_that_stays_taken(store: Store) -> None:
    store.make("data")
    with store.lock("data"), pytest.raises(Failure, match="volume data: another command is at work on it"):
        store.lock("data", seconds=0.01)


def test_symlinks_in_a_store_are_no_volumes(store: Store, tmp_path: Path) -> None:
    store.make("data")
    victim = tmp_path / "victim"
    (victim / "_data").mkdir(parents=True)
    (victim / "volume.json").write_text("{}")
    os.symlink(victim, f"{store.path}/link")
    assert store.names() == ["data"]
    for action in (store.read, store.remove, store.lock):
        with pytest.raises(MissingError):
            action("link")
    with pytest.raises(Failure, match=r"make volume link in .*: not a directory"):
        store.use("link", ("", "", ""), labels={}, anonymous=False)
    assert sorted(os.listdir(victim)) == ["_data", "volume.json"]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.EACCES])
def test_a_container_that_cannot_be_asked_for_uses_its_volume(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    holder = container(tmp_path, "box")
    store.use("data", holder, labels={}, anonymous=False).close()
    refuse(monkeypatch, "open", "state/box", number)
    assert store.users(store.read("data")) == [holder]


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_a_new_store_is_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        Store(f"{tmp_path}/a/volumes").make("data")
    finally:
        os.umask(before)
    places = ("a", "a/volumes", "a/volumes/.tmp", "a/volumes/data")
    assert [os.stat(tmp_path / place).st_mode & 0o777 for place in places] == [0o700] * 4
