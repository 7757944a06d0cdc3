"""Symlinks below the state root and the volume store: a removal that follows one removes its target (CWE-59).

A user who can write there, now or earlier, chooses names; the runtime uses them with the host's rights. So
nothing there is opened through a symlink, and everything is removed by descriptor.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.containers import Bundle, Canary, Runtime


@pytest.mark.parametrize("words", [("delete",), ("delete", "--force"), ("kill",), ("start",), ("state",)])
@pytest.mark.parametrize("record", [None, "good", "{"])
def test_a_symlink_for_a_state_directory(
    bundle: Bundle, runtime: Runtime, canary: Canary, words: tuple[str, ...], record: str | None
) -> None:
    secret = canary.path / "secret"
    name = runtime.started(bundle)
    runtime(*("delete", "--force", name))
    if record is not None:
        text = f'{{"id": "{name}", "pid": 0, "start": 0}}' if record == "good" else record
        (canary.path / "state.json").write_text(text)
    os.symlink(canary.path, runtime.root / name)
    done = runtime(*words, name)
    assert done.returncode == 1
    assert "not a directory" in done.stdout
    assert secret.read_text() == "secret of the host\n"
    assert (canary.path / "state.json").exists() is (record is not None)
    (runtime.root / name).unlink()


@pytest.mark.parametrize("inside", ["overlay", "report", "notify", "made", "config.json", "x"])
def test_a_symlink_in_a_state_directory(
    bundle: Bundle, runtime: Runtime, canary: Canary, inside: str
) -> None:
    name = runtime.started(bundle)
    place = runtime.root / name / inside
    if place.is_dir():
        place.rmdir()
    place.unlink(missing_ok=True)
    place.symlink_to(canary.path)
    runtime("delete", "--force", name)
    assert canary.untouched()
    if place.is_symlink():
        place.unlink()
        assert runtime("delete", "--force", name).returncode == 0
    assert not (runtime.root / name).exists()


def test_a_layer_that_is_kept_elsewhere_has_its_name(
    bundle: Bundle, runtime: Runtime, canary: Canary, tmp_path: Path
) -> None:
    """This link is followed on purpose, but only if the target has a name that pyrunc could have given."""
    bundle.process["args"] = ["sleep", "1000"]
    bundle.write()
    (tmp_path / "layers").mkdir()
    name = runtime.new_id()
    words = ("run", "--detach", "--overlay-dir", str(tmp_path / "layers"), "--bundle", str(bundle.path), name)
    log = tmp_path / "log"
    with log.open("wb") as out:
        assert os.waitstatus_to_exitcode(os.waitpid(_spawn(runtime, words, out.fileno()), 0)[1]) == 0
    (made,) = os.listdir(tmp_path / "layers")
    assert made.startswith(f"pyrunc-{name}-")
    (runtime.root / name / "overlay/other").symlink_to(canary.path)
    assert runtime("delete", "--force", name).returncode == 0
    assert os.listdir(tmp_path / "layers") == []
    assert canary.untouched()


def _spawn(runtime: Runtime, words: tuple[str, ...], out: int) -> int:
    """Call the command with its output in a file, which the container may keep open."""
    from tests.support.containers import command

    call = [*command(), "--root", str(runtime.root), *words]
    actions = [(os.POSIX_SPAWN_DUP2, out, 1), (os.POSIX_SPAWN_DUP2, out, 2)]
    return os.posix_spawn(call[0], call, os.environ, file_actions=actions)


def test_a_symlink_for_a_volume(bundle: Bundle, runtime: Runtime, canary: Canary, tmp_path: Path) -> None:
    store = tmp_path / "volumes"
    store.mkdir()
    (canary.path / "_data").mkdir()
    (store / "evil").symlink_to(canary.path)
    bundle.process["args"] = ["/bin/true"]
    bundle.write()
    for words in (
        ("volume", "rm", "evil", "--volume-root", str(store)),
        ("volume", "prune", "--all", "--force", "--volume-root", str(store)),
        ("--volume-root", str(store), "run", "-v", "evil:/v", "--bundle", str(bundle.path), runtime.new_id()),
    ):
        done = runtime(*words)
        assert done.returncode == 1 or words[1] == "prune", done.stdout
        assert (canary.path / "secret").exists()
        assert os.listdir(canary.path / "_data") == []
