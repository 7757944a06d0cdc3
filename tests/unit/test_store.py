"""The record on disk, and the status, which the kernel is asked for."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyrunc import listing, store
from pyrunc.errors import Failure
from pyrunc.life import creation
from pyrunc.plan import program
from tests.support.records import refuse, removed, reserved

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def container(tmp_path: Path) -> store.Container:
    return reserved(str(tmp_path / "root"), "c1")


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["/bin/sleep", "1000"]) as process:
        yield process
        process.kill()


def own(container: store.Container, pid: int) -> None:
    stat = store.process_stat(pid)
    assert stat is not None
    container.pid, container.start = pid, stat[2]


@pytest.mark.parametrize("name", ["a", "A-b_c.d+e", "..a", "0", "x" * 1024])
def test_good_ids(name: str) -> None:
    store.check_id(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "a\n", "ä", "a\0", "x" * 1025, "٣"])
def test_bad_ids(name: str) -> None:
    with pytest.raises(
        Failure, match="container id cannot be empty" if not name else "invalid container ID format"
    ):
        store.check_id(name)


def test_of_two_creators_one_wins(container: store.Container) -> None:
    with pytest.raises(Failure, match="already exists"):
        reserved(container.root, "c1")


def test_a_record_comes_back_as_it_was(container: store.Container) -> None:
    container.pid, container.start, container.bundle = 7, 8, "/b"
    container.annotations = {"a": "b"}
    container.cgroup = {"": "/sys/fs/cgroup/x"}
    container.extra = {"poststop": True}
    store.save(container)
    again = store.open_container(container.root, "c1")
    assert {name: getattr(again, name) for name in store.Container.__slots__} == {
        name: getattr(container, name) for name in store.Container.__slots__
    }
    assert os.stat(container.directory).st_mode & 0o777 == 0o700
    assert os.stat(container.directory + "/state.json").st_mode & 0o777 == 0o600


def test_what_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="container does not exist"):
        store.open_container(str(tmp_path), "nope")


def test_a_directory_without_a_record_is_no_container(container: store.Container) -> None:
    with pytest.raises(store.AbsentError):
        store.open_container(container.root, "c1")
    assert listing.ids(container.root) == []


def test_a_damaged_record_names_the_cure(container: store.Container) -> None:
    store.write(container.directory, "state.json", b"[]")
    with pytest.raises(Failure) as caught:
        store.open_container(container.root, "c1")
    assert "delete --force c1" in caught.value.text()


def test_status_while_it_is_being_created(container: store.Container) -> None:
    fd = store.hold(container.root, "c1")
    assert store.status(container) == "creating"
    os.close(fd)
    assert store.status(container) == "stopped"


def test_status_follows_the_process(container: store.Container, sleeper: subprocess.Popen[bytes]) -> None:
    own(container, sleeper.pid)
    assert store.status(container) == "running"
    container.start += 1
    assert store.status(container) == "stopped", "another process has the number"
    container.start -= 1
    sleeper.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while store.status(container) != "stopped" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert store.status(container) == "stopped", "a zombie runs no more"


def test_a_created_container_is_known_by_its_inits_name_and_the_fifo(container: store.Container) -> None:
    assert program.NAME.encode() == store.INIT_NAME
    ready, named = os.pipe()
    pid = os.fork()
    if pid == 0:
        Path("/proc/self/comm").write_bytes(store.INIT_NAME)
        os.write(named, b".")
        signal.pause()
        os._exit(0)
    try:
        assert os.read(ready, 1) == b"."
        own(container, pid)
        assert store.status(container) == "running", "a program that calls itself so is no created container"
        Path(container.directory, store.START).touch()
        assert store.status(container) == "created"
    finally:
        os.close(ready)
        os.close(named)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.parametrize(
    ("key", "file", "text", "answer"),
    [
        ("freezer", "freezer.state", "FROZEN\n", True),
        ("freezer", "freezer.state", "FREEZING\n", True),
        ("freezer", "freezer.state", "THAWED\n", False),
        ("", "cgroup.freeze", "1\n", True),
        ("", "cgroup.freeze", "0\n", False),
        ("", "other", "", False),
        ("cpu", "cpu.shares", "1", False),
    ],
)
def test_frozen(tmp_path: Path, key: str, file: str, text: str, *, answer: bool) -> None:
    container = store.Container(str(tmp_path), "c1")
    (tmp_path / file).write_text(text)
    container.cgroup = {key: str(tmp_path)}
    assert store.frozen(container) is answer


def test_the_lock_is_exclusive_and_says_so(container: store.Container) -> None:
    store.save(container)
    fd = store.lock(container)
    with pytest.raises(Failure, match="another command is at work"):
        store.lock(container, seconds=0.02)
    os.close(fd)
    os.close(store.lock(container))


def test_the_lock_of_nothing(container: store.Container) -> None:
    removed(container.root, "c1")
    with pytest.raises(store.AbsentError, match="does not exist"):
        store.lock(container)


def test_remove_takes_all_and_can_be_repeated(container: store.Container) -> None:
    os.mkdir(container.directory + "/notify")
    store.write(container.directory + "/notify", "x", b"")
    store.save(container)
    removed(container.root, "c1")
    removed(container.root, "c1")
    assert os.listdir(container.root) == []


def test_the_saved_configuration(container: store.Container) -> None:
    store.save_config(container, b'{"ociVersion": "1.0.0"}')
    assert store.load_config(container) == {"ociVersion": "1.0.0"}
    store.save_config(container, b"[]")
    with pytest.raises(Failure, match="is not a configuration"):
        store.load_config(container)
    store.save_config(container, b"{")
    with pytest.raises(store.GarbledError, match="is not a configuration"):
        store.load_config(container)


def test_default_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("USER", "root")
    assert store.default_root() == "/run/pyrunc"
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert store.default_root() == "/run/pyrunc"
    monkeypatch.delenv("USER")
    assert store.default_root() == "/run/pyrunc"
    monkeypatch.setattr(store, "in_user_namespace", lambda: True)  # as Podman calls us for an ordinary user
    assert store.default_root() == "/run/user/1000/pyrunc"
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    assert store.default_root() == "/run/pyrunc"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert store.default_root() == "/run/user/1000/pyrunc"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    with pytest.raises(Failure, match="no place for container state"):
        store.default_root()


UNASKED = [errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM, errno.EACCES]


@pytest.mark.parametrize("number", UNASKED)
def test_what_cannot_be_asked_is_not_taken_for_gone(
    container: store.Container, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    own(container, os.getpid())
    store.save(container)
    container.cgroup = {"": "/sys/fs/cgroup/x"}
    for part, ask in (
        ("/stat", lambda: store.status(container)),
        ("/stat", lambda: store.process_stat(container.pid)),
        ("cgroup.freeze", lambda: store.frozen(container)),
        ("state.json", lambda: store.open_container(container.root, "c1")),
        ("/c1", lambda: store.open_container(container.root, "c1")),
        ("/c1", lambda: store.hold(container.root, "c1")),
    ):
        with monkeypatch.context() as within:
            refuse(within, "open", part, number)
            with pytest.raises(Failure) as caught:
                ask()
        assert caught.value.errno == number
        assert not isinstance(caught.value, store.AbsentError | store.GarbledError)


@pytest.mark.parametrize(("number", "answer"), [(errno.ENOENT, "lives"), (errno.ESRCH, "lives")])
def test_a_process_that_proc_does_not_show(
    container: store.Container, monkeypatch: pytest.MonkeyPatch, number: int, answer: str
) -> None:
    """If /proc cannot be read, a process may still live: its state must not be "stopped"."""
    own(container, os.getpid())
    refuse(monkeypatch, "open", "/proc/", number)
    with pytest.raises(Failure, match=answer):
        store.status(container)
    assert store.process_stat(1 << 22) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pid", "7"), ("pid", None), ("pid", True), ("pid", -1), ("pid", 1 << 31), ("pid", 1.5),
        ("start", "8"), ("start", 1 << 63), ("bundle", 5), ("bundle", None), ("rootfs", []),
        ("created", 0), ("owner", {}),
        ("annotations", []), ("annotations", {"a": 1}), ("cgroup", "x"), ("cgroup", {"": None}),
        ("namespaces", {"pid": []}), ("restored", 1), ("extra", []), ("cgroup_manager", 1), ("id", "other"),
    ],
)  # fmt: skip
def test_a_field_of_the_wrong_type(container: store.Container, field: str, value: object) -> None:
    store.save(container)
    path = Path(container.directory, "state.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(store.GarbledError) as caught:
        store.open_container(container.root, "c1")
    assert "\n" not in caught.value.text()


@pytest.mark.parametrize("field", ["id", "pid", "start"])
def test_a_record_that_lacks_what_says_whether_it_runs(container: store.Container, field: str) -> None:
    store.save(container)
    path = Path(container.directory, "state.json")
    values = json.loads(path.read_text())
    del values[field]
    path.write_text(json.dumps(values))
    with pytest.raises(store.GarbledError):
        store.open_container(container.root, "c1")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x80\0" * 64, b"[" * 100_000, b"null", b'"c1"', b"{"])
def test_bytes_that_are_no_record(container: store.Container, content: bytes) -> None:
    store.write(container.directory, "state.json", content)
    with pytest.raises(store.GarbledError, match="is not a state record"):
        store.open_container(container.root, "c1")


def test_a_fifo_is_no_record(container: store.Container) -> None:
    os.mkfifo(container.directory + "/state.json")
    with pytest.raises(store.GarbledError):
        store.open_container(container.root, "c1")


def test_a_record_of_any_size_is_read_whole(container: store.Container) -> None:
    container.annotations = {"big": "x" * (5 << 20)}
    store.save(container)
    assert store.open_container(container.root, "c1").annotations == container.annotations


def test_the_lock_of_a_directory_that_goes_meanwhile(
    container: store.Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits gets the lock of a directory that was removed.

    A new one with its name belongs to another container.
    """
    before = len(os.listdir("/proc/self/fd"))
    store.save(container)
    flock = fcntl.flock

    def late(fd: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        removed(container.root, "c1")
        store.save(reserved(container.root, "c1"))
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(store.AbsentError):
        store.hold(container.root, "c1")
    assert os.listdir(container.directory) == ["state.json"]
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_lock_of_another_container_of_that_id(container: store.Container) -> None:
    container.created = creation.now()
    other = store.Container(container.root, "c1")
    other.created = creation.now()
    store.save(other)
    with pytest.raises(store.AbsentError):
        store.lock(container)
    os.close(store.lock(other))


def test_the_lock_brings_the_record_up_to_date(container: store.Container) -> None:
    store.save(container)
    seen = store.open_container(container.root, "c1")
    own(container, os.getpid())
    store.save(container)
    os.close(store.lock(seen))
    assert (seen.pid, seen.start) == (container.pid, container.start)


def test_a_symlink_is_no_state_directory(container: store.Container) -> None:
    store.save(container)
    os.symlink("c1", container.root + "/c2")
    for ask in (store.open_container, store.hold):
        with pytest.raises(Failure, match="c2: not a directory"):
            ask(container.root, "c2")
    with pytest.raises(Failure, match="not a directory"):
        store.write(container.root + "/c2", "x", b"")
    assert listing.ids(container.root) == ["c1"]


def test_process_stat_of_no_process() -> None:
    assert store.process_stat(1 << 22) is None
