"""delete, without the kernel: which errors --force may ignore, and which not."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from pyrunc import jsonio, store
from pyrunc.apply.cgroups import cgroup
from pyrunc.errors import Failure
from pyrunc.verbs import delete
from tests.support.records import refuse, reserved


@pytest.fixture
def container(tmp_path: Path) -> store.Container:
    made = reserved(str(tmp_path / "root"), "c1")
    store.save(made)
    return made


@pytest.mark.parametrize("force", [False, True])
def test_a_container_that_somebody_is_at_work_on(container: store.Container, *, force: bool) -> None:
    """Even --force must not remove it meanwhile, or claim that it is gone."""
    held = store.lock(container)
    with pytest.raises(Failure, match="another command is at work"):
        delete.delete(container.root, "c1", force=force, seconds=0.02)
    assert Path(container.directory, "state.json").exists()
    os.close(held)
    delete.delete(container.root, "c1", force=True)
    assert not os.path.exists(container.directory)


UNASKED = [errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM]


@pytest.mark.parametrize("number", UNASKED)
@pytest.mark.parametrize("part", ["/c1", "state.json", "made"])
def test_force_drops_nothing_that_it_could_not_read(
    container: store.Container, monkeypatch: pytest.MonkeyPatch, part: str, number: int
) -> None:
    Path(container.directory, "made").touch()
    with monkeypatch.context() as within:
        refuse(within, "open", part, number)
        with pytest.raises(Failure) as caught:
            delete.delete(container.root, "c1", force=True)
    assert caught.value.errno == number
    assert store.open_container(container.root, "c1").id == "c1"
    delete.delete(container.root, "c1", force=True)
    assert [name for name in os.listdir(container.root) if name != "@cache"] == []


def test_the_record_goes_last(container: store.Container, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as anything is left, the container exists, and can be deleted again."""
    store.save_config(container, b"{}")
    os.mkfifo(container.directory + "/a-fifo")
    gone = []
    unlink = os.unlink

    def note(name: str, **named: Any) -> None:
        gone.append(name)
        unlink(name, **named)

    monkeypatch.setattr(os, "unlink", note)
    delete.delete(container.root, "c1")
    assert gone == ["a-fifo", "config.json", "state.json"]


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\0", b'{"id": "c1", "pid": "1", "start": 0}'])
def test_a_garbled_record_goes_by_force_alone(
    container: store.Container, capfd: pytest.CaptureFixture[str], content: bytes
) -> None:
    store.write(container.directory, "state.json", content)
    with pytest.raises(store.GarbledError):
        delete.delete(container.root, "c1")
    assert Path(container.directory, "state.json").exists()
    delete.delete(container.root, "c1", force=True)
    assert [name for name in os.listdir(container.root) if name != "@cache"] == []
    assert "may be left" in capfd.readouterr().err


def test_a_garbled_record_of_a_container_that_runs(
    container: store.Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The configuration says in which cgroup its processes are. While some are there, the container stays."""
    config = {"ociVersion": "1.0.2", "root": {"path": "/r"}, "linux": {"cgroupsPath": "/some/where"}}
    store.save_config(container, jsonio.dumps(config).encode())
    store.write(container.directory, "state.json", b"{")
    monkeypatch.setattr(cgroup, "pids", lambda paths: [7, 8] if paths[""].endswith("/some/where") else [])
    with pytest.raises(Failure, match=r"/some/where: 7 8; nothing was removed; if they are"):
        delete.delete(container.root, "c1", force=True)
    assert Path(container.directory, "state.json").exists()


def test_a_symlink_in_the_state_root(container: store.Container, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").touch()
    (victim / "state.json").write_text(Path(container.directory, "state.json").read_text())
    os.symlink(victim, container.root + "/c2")
    for force in (False, True):
        with pytest.raises(Failure, match="not a directory"):
            delete.delete(container.root, "c2", force=force)
    assert sorted(os.listdir(victim)) == ["file", "state.json"]


@pytest.mark.parametrize("inside", ["overlay", "report", "notify", "anything"])
def test_symlinks_in_a_state_directory(container: store.Container, tmp_path: Path, inside: str) -> None:
    """A symlink in it is never followed, even if it looks like the link to a layer in another directory."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").touch()
    (tmp_path / "links").mkdir()
    os.symlink(victim, tmp_path / "links/root")
    os.symlink(tmp_path / "links", f"{container.directory}/{inside}")
    with contextlib.suppress(Failure):
        delete.delete(container.root, "c1", force=True)
    assert os.listdir(victim) == ["file"]
    assert os.listdir(tmp_path / "links") == ["root"]


def test_a_link_to_what_is_no_layer(container: store.Container, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    os.mkdir(container.directory + "/overlay")
    os.symlink(victim, container.directory + "/overlay/root")
    delete.delete(container.root, "c1")
    assert victim.is_dir()
    assert [name for name in os.listdir(container.root) if name != "@cache"] == []


@pytest.mark.parametrize("config", [None, b"{", b"[]"])
def test_poststop_hooks_whose_configuration_is_lost(
    container: store.Container, capfd: pytest.CaptureFixture[str], config: bytes | None
) -> None:
    container.extra = {"poststop": True}
    store.save(container)
    if config is not None:
        store.save_config(container, config)
    delete.delete(container.root, "c1")
    assert [name for name in os.listdir(container.root) if name != "@cache"] == []
    assert "poststop hooks are not run" in capfd.readouterr().err


@pytest.mark.parametrize(
    "extra",
    [
        {"root_mount": "x"}, {"root_mount": [1, 2, 3]}, {"volumes": 5}, {"volumes": {"mounts": [1]}},
        {"volumes": {"mounts": [{}]}}, {"volumes": {"made": [[1]]}}, {"volumes": {"directories": 5}},
    ],
)  # fmt: skip
def test_extras_of_the_wrong_type(container: store.Container, extra: dict[str, object]) -> None:
    container.extra = extra
    store.save(container)
    with pytest.raises(store.GarbledError, match="is not a state record") as caught:
        delete.delete(container.root, "c1")
    assert "\n" not in caught.value.text()
    delete.delete(container.root, "c1", force=True)
    assert [name for name in os.listdir(container.root) if name != "@cache"] == []
