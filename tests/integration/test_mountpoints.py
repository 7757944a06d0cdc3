"""The mount points that were made for a container are removed with it, and nothing else."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import wait_for
from tests.support.engine import FOREIGN
from tests.support.ordinary import Ordinary, give
from tests.support.trees import listing
from tests.support.volumes import Volumes

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.containers import Bundle
    from tests.support.engine import Engine

pytestmark = pytest.mark.skipif(FOREIGN, reason="what we promise; others leave them")


def entries(top: Path) -> list[tuple[object, ...]]:
    """Return a tree without the times of its directories, which change when an entry is made or removed."""
    return [(*found[:4], *found[5:]) for found in listing(top)]


def spent(engine: Engine, bundle: Bundle, script: str) -> str:
    """Run a container and delete it; return its output."""
    said = engine.front(bundle, script, "--keep").ok().out
    engine.call("delete", engine.ids[-1]).ok()
    return said


# -- what is removed


def test_directories_and_files(engine: Engine, bundle: Bundle, source: Path) -> None:
    shutil.rmtree(bundle.rootfs / "proc")
    bundle.mount("/a/b/c", source, "bind")
    bundle.mount("/x/y/file", source / "file", "bind")
    bundle.mount("/etc/one", source / "file", "bind", "ro")
    bundle.mount("/m/n", "tmpfs", "size=1m", kind="tmpfs")
    bundle.mount("/odd \\\n\té", source, "bind")
    bundle.write()
    before = entries(bundle.rootfs)
    script = "cat /a/b/c/file /x/y/file /etc/one; touch /m/n/new; ls -d /proc/self"
    assert spent(engine, bundle, script) == "of the host\n" * 3 + "/proc/self\n"
    assert entries(bundle.rootfs) == before
    name = engine.start(bundle)
    assert (bundle.rootfs / "a/b/c").is_dir()
    assert (bundle.rootfs / "x/y/file").is_file()
    engine.call("kill", name, "KILL").ok()
    engine.until(name, "stopped")
    assert (bundle.rootfs / "a/b/c").is_dir()  # until it is deleted
    engine.call("delete", name).ok()
    assert entries(bundle.rootfs) == before


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_nested_destinations_in_any_order(
    engine: Engine, bundle: Bundle, source: Path, order: tuple[int, ...]
) -> None:
    """One may make mount points in what another has mounted there, or be covered by it."""
    (source / "shown").mkdir()
    wanted = [("/a", source), ("/a/b", source), ("/a/b/c", source)]
    for index in order:
        bundle.mount(wanted[index][0], wanted[index][1], "bind")
    bundle.write()
    before = entries(bundle.rootfs), entries(source)
    assert spent(engine, bundle, "cat /a/file") == "of the host\n"
    assert (entries(bundle.rootfs), entries(source)) == before


def test_through_symlinks(engine: Engine, bundle: Bundle, source: Path) -> None:
    """The target of the link is made, inside the root, and removed later; the link stays."""
    (bundle.rootfs / "to-directory").symlink_to("/made/here")
    (bundle.rootfs / "root/up").symlink_to("../../../../also/made")
    (bundle.rootfs / "to-file").symlink_to("/etc/../not/yet/file")
    os.symlink(b"/odd-\xff\xfe", bytes(bundle.rootfs) + b"/odd")
    bundle.mount("/to-directory", source, "bind")
    bundle.mount("/root/up/below", source, "bind")
    bundle.mount("/to-file", source / "file", "bind")
    bundle.mount("/odd", source, "bind")
    bundle.write()
    before = entries(bundle.rootfs)
    script = "cat /made/here/file /also/made/below/file /not/yet/file /odd/file"
    assert spent(engine, bundle, script) == "of the host\n" * 4
    assert entries(bundle.rootfs) == before


def test_a_readonly_root(engine: Engine, bundle: Bundle, source: Path) -> None:
    bundle.config["root"]["readonly"] = True
    bundle.mount("/a/b", source, "bind")
    bundle.mount("/f", source / "file", "bind")
    bundle.write()
    before = entries(bundle.rootfs)
    assert spent(engine, bundle, "cat /a/b/file /f") == "of the host\n" * 2
    assert entries(bundle.rootfs) == before


def test_in_a_volume(engine: Engine, bundle: Bundle, source: Path, place: Path) -> None:
    """What is mounted inside a volume, or a directory of the host, has its mount point there."""
    volumes = Volumes(engine)
    (place / "host").mkdir()
    bundle.mount("/h", place / "host", "bind")
    bundle.mount("/h/in/ner", source, "bind")
    flags = ("-v", "vol:/v", "-v", f"{source}:/v/deep/er:ro")
    done = volumes.run(bundle, "cat /v/deep/er/file /h/in/ner/file; echo x > /v/own; ls /v", *flags).ok()
    assert done.out == "of the host\n" * 2 + "deep\nown\n"
    assert os.listdir(volumes.content("vol")) == ["own"]
    assert os.listdir(place / "host") == []


def test_in_a_user_namespace(engine: Engine, bundle: Bundle, source: Path) -> None:
    bundle.user_namespace()
    bundle.mount("/a/b", source, "bind")
    bundle.write()
    before = entries(bundle.rootfs)
    assert spent(engine, bundle, "cat /a/b/file") == "of the host\n"
    assert entries(bundle.rootfs) == before


def test_of_an_ordinary_user(user: Ordinary, bundle: Bundle, source: Path) -> None:
    give(bundle)
    bundle.mount("/a/b", source, "bind")
    bundle.write()
    before = entries(bundle.rootfs)
    assert spent(user, bundle, "cat /a/b/file") == "of the host\n"
    assert entries(bundle.rootfs) == before


# -- what stays


def test_what_run_has_made_in_its_root_file_system(engine: Engine, bundle: Bundle, source: Path) -> None:
    """It stays, because callers look at it, and the next container needs it again.

    On a volume it would be a leftover.
    """
    volumes = Volumes(engine)
    bundle.mount("/a/b", source, "bind")
    volumes.run(bundle, "true", "-v", "vol:/v", "-v", f"{source}:/v/inner").ok()
    assert (bundle.rootfs / "a/b").is_dir()
    assert (bundle.rootfs / "v").is_dir()
    assert os.listdir(volumes.content("vol")) == []


def test_what_was_there_before(engine: Engine, bundle: Bundle, source: Path) -> None:
    (bundle.rootfs / "empty").mkdir()
    (bundle.rootfs / "empty-file").touch()
    bundle.mount("/empty/sub", source, "bind")
    bundle.mount("/empty-file", source / "file", "bind")
    bundle.write()
    before = entries(bundle.rootfs)
    spent(engine, bundle, "cat /empty-file")
    assert entries(bundle.rootfs) == before


def test_what_something_was_put_into(engine: Engine, bundle: Bundle, source: Path) -> None:
    bundle.mount("/a/b", source, "bind")
    bundle.mount("/c", source, "bind")
    bundle.mount("/f", source / "file", "bind")
    name = engine.start(bundle, "echo kept > /a/new; exec sleep 1000")
    assert wait_for((bundle.rootfs / "a/new").exists)
    (bundle.rootfs / "c/of-the-host").touch()
    (bundle.rootfs / "f").write_text("x")
    engine.delete(name)
    assert (bundle.rootfs / "a/new").read_text() == "kept\n"
    assert not (bundle.rootfs / "a/b").exists()
    assert (bundle.rootfs / "c/of-the-host").exists()
    assert (bundle.rootfs / "f").read_text() == "x"


def test_what_has_taken_its_place(engine: Engine, bundle: Bundle, source: Path, place: Path) -> None:
    """No symlink leads the deletion out, and a new directory with that name is not removed."""
    outside = place / "outside"
    (outside / "b/c").mkdir(parents=True)
    bundle.mount("/a/b/c", source, "bind")
    bundle.mount("/d", source, "bind")
    bundle.mount("/f", source / "file", "bind")
    name = engine.start(bundle)
    engine.call("kill", name, "KILL").ok()
    engine.until(name, "stopped")
    (bundle.rootfs / "a").rename(place / "moved")
    (bundle.rootfs / "a").symlink_to(outside)
    (bundle.rootfs / "d").rename(place / "moved-d")
    (bundle.rootfs / "d").mkdir()
    (bundle.rootfs / "f").unlink()
    (bundle.rootfs / "f").symlink_to("/etc/group")
    engine.call("delete", name).ok()
    assert (outside / "b/c").is_dir()
    assert (place / "moved/b/c").is_dir()
    assert (bundle.rootfs / "d").is_dir()
    assert (bundle.rootfs / "f").is_symlink()


def test_another_root_file_system_of_that_name(engine: Engine, bundle: Bundle, source: Path) -> None:
    bundle.mount("/a/b", source, "bind")
    name = engine.start(bundle)
    engine.call("kill", name, "KILL").ok()
    engine.until(name, "stopped")
    bundle.rootfs.rename(bundle.path / "old")
    (bundle.rootfs / "a/b").mkdir(parents=True)
    engine.call("delete", name).ok()
    assert (bundle.rootfs / "a/b").is_dir()
    assert (bundle.path / "old/a/b").is_dir()


def test_a_root_file_system_that_has_gone(engine: Engine, bundle: Bundle, source: Path) -> None:
    bundle.mount("/a/b", source, "bind")
    name = engine.start(bundle)
    engine.call("kill", name, "KILL").ok()
    engine.until(name, "stopped")
    shutil.rmtree(bundle.rootfs)
    engine.call("delete", name).ok()


# -- what another container or process uses


def mounted(engine: Engine, name: str, path: str) -> bool:
    return engine.call("exec", name, "/bin/cat", f"{path}/file").out == "of the host\n"


@pytest.mark.parametrize("order", ["first goes first", "first goes last"])
def test_two_containers_of_one_root_file_system(
    engine: Engine, bundle: Bundle, source: Path, order: str
) -> None:
    """The second one uses the mount point of the first: it stays until both are deleted."""
    bundle.mount("/a/b", source, "bind")
    bundle.write()
    before = entries(bundle.rootfs)
    names = [engine.start(bundle) for _ in range(2)]
    if order == "first goes last":
        names.reverse()
    engine.delete(names[0])
    assert (bundle.rootfs / "a/b").is_dir()
    assert mounted(engine, names[1], "/a/b")
    engine.delete(names[1])
    assert entries(bundle.rootfs) == before


def test_a_chain_of_containers(engine: Engine, bundle: Bundle, source: Path) -> None:
    """Each container is made before the previous one is deleted; some have mount points of their own."""
    bundle.mount("/a/b", source, "bind")
    bundle.write()
    before = entries(bundle.rootfs)
    last = engine.start(bundle)
    for number in range(5):
        bundle.mount(f"/a/b{number}/c", source, "bind")
        name = engine.start(bundle)
        engine.delete(last)
        assert mounted(engine, name, "/a/b")
        last = name
    engine.delete(last)
    assert entries(bundle.rootfs) == before


def test_a_volume_that_two_containers_have(engine: Engine, bundle: Bundle, source: Path) -> None:
    volumes = Volumes(engine)
    flags = ("-v", "vol:/v", "-v", f"{source}:/v/inner:ro")
    names = [volumes.start(bundle, *flags) for _ in range(2)]
    engine.delete(names[0])
    assert mounted(engine, names[1], "/v/inner")
    engine.delete(names[1])
    assert os.listdir(volumes.content("vol")) == []
    assert not (bundle.rootfs / "v").exists()


def test_somebody_else_s_mount(engine: Engine, bundle: Bundle, source: Path) -> None:
    """Another program may have mounted something there in its own namespace.

    Rmdir(2) would remove that mount.
    """
    bundle.mount("/a/b", source, "bind")
    bundle.mount("/c", source, "bind")
    name = engine.start(bundle)
    inside = (
        f"mount --bind {source} {bundle.rootfs}/a/b && echo ready && read x && cat {bundle.rootfs}/a/b/file"
    )
    with subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", inside],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        engine.delete(name)
        assert (bundle.rootfs / "a/b").is_dir()
        assert not (bundle.rootfs / "c").exists()
        assert other.communicate("\n")[0] == "of the host\n"


def test_our_own_mount(engine: Engine, bundle: Bundle, source: Path) -> None:
    bundle.mount("/a", source, "bind")
    name = engine.start(bundle)
    subprocess.run(["mount", "--bind", source, bundle.rootfs / "a"], check=True)
    try:
        engine.delete(name)
        assert (bundle.rootfs / "a/file").exists()
    finally:
        subprocess.run(["umount", bundle.rootfs / "a"], check=True)


@pytest.mark.slow
def test_many_at_once(engine: Engine, bundle: Bundle, source: Path) -> None:
    """Containers make and remove the same mount points all the time.

    Each has the mount points it needs, and none is left.
    """
    bundle.mount("/a/b", source, "bind")
    bundle.mount("/a/f", source / "file", "bind")
    bundle.process["args"] = ["/bin/sh", "-c", "exec cat /a/b/file /a/f > /dev/null"]
    bundle.write()
    before = entries(bundle.rootfs)
    running: list[tuple[str, subprocess.Popen[bytes]]] = []
    going = []

    def finish() -> None:
        name, call = running.pop(0)
        assert call.wait(60) == 0
        going.append(engine.begin("delete", name))

    for _ in range(60):
        if len(running) == 6:
            finish()
        name = engine.new_id()
        running.append((name, engine.begin("run", "--keep", "--bundle", str(bundle.path), name)))
    while running:
        finish()
    assert [call.wait(60) for call in going] == [0] * len(going)
    assert entries(bundle.rootfs) == before


def test_a_slow_hook_holds_nobody_up(engine: Engine, bundle: Bundle, source: Path, place: Path) -> None:
    """While a hook of a container that is being created runs, others can be deleted."""
    bundle.mount("/a/b", source, "bind")
    before = entries(bundle.rootfs)
    first = engine.start(bundle)
    script = f"touch {place}/in-hook; while ! test -e {place}/go; do sleep 0.05; done"
    for kind in ("createRuntime", "createContainer"):
        bundle.config["hooks"] = {kind: [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
        bundle.write()
        second = engine.new_id()
        call = engine.begin("create", "--bundle", str(bundle.path), second)
        assert wait_for((place / "in-hook").exists)
        engine.delete(first)
        assert (bundle.rootfs / "a/b").is_dir()
        (place / "go").touch()
        assert call.wait(60) == 0
        engine.call("start", second).ok()
        (place / "go").unlink()
        (place / "in-hook").unlink()
        first = second
    engine.delete(first)
    assert entries(bundle.rootfs) == before


# -- what goes wrong


def spoil_mount(bundle: Bundle) -> None:
    bundle.mount("/data", "none", "nonsense=1", kind="tmpfs")


def spoil_program(bundle: Bundle) -> None:
    bundle.process["args"] = ["/nosuch"]


def spoil_hook(bundle: Bundle) -> None:
    bundle.config["hooks"] = {"createContainer": [{"path": "/bin/false"}]}


@pytest.mark.parametrize("spoil", [spoil_mount, spoil_program, spoil_hook])
def test_a_creation_that_fails(
    engine: Engine, bundle: Bundle, source: Path, spoil: Callable[[Bundle], None]
) -> None:
    bundle.mount("/a/b", source, "bind")
    bundle.mount("/f", source / "file", "bind")
    spoil(bundle)
    bundle.write()
    before = entries(bundle.rootfs)
    failed = engine.call("create", "--bundle", str(bundle.path), engine.new_id())
    assert failed.code == 1, failed
    assert entries(bundle.rootfs) == before


# From before anything exists to after everything does; the mounts are in the middle.
INSTANTS = [0.0015 * step for step in range(10, 60)]


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["create", "run"])
def test_killed_at_any_instant(engine: Engine, bundle: Bundle, source: Path, verb: str) -> None:
    for number in range(20):
        bundle.mount(f"/a{number}/b/c", source, "bind")
        bundle.mount(f"/f{number}/g", source / "file", "bind")
    bundle.process["args"] = ["/bin/sleep", "1000"]
    bundle.write()
    before = entries(bundle.rootfs)
    for instant in INSTANTS:
        name = engine.new_id()
        call = engine.begin(verb, "--bundle", str(bundle.path), name, stderr=-3)
        time.sleep(instant)
        call.send_signal(signal.SIGKILL)
        call.wait(60)
        engine.delete(name)
        assert entries(bundle.rootfs) == before, instant


def test_killed_in_delete(engine: Engine, bundle: Bundle, source: Path) -> None:
    for number in range(20):
        bundle.mount(f"/a{number}/b/c", source, "bind")
    bundle.write()
    before = entries(bundle.rootfs)
    for instant in INSTANTS[::5]:
        name = engine.start(bundle)
        call = engine.begin("delete", "--force", name, stderr=-3)
        time.sleep(instant)
        call.send_signal(signal.SIGKILL)
        call.wait(60)
        engine.delete(name)
        assert entries(bundle.rootfs) == before, instant


@pytest.mark.parametrize("text", ["", "[", "null\n", "[1]\n[2, 3, 4]\n{}\n", '[1, "/", "etc", 1, 1]\n'])
def test_a_list_that_is_damaged(engine: Engine, bundle: Bundle, source: Path, text: str) -> None:
    bundle.mount("/a", source, "bind")
    name = engine.start(bundle)
    (engine.root / name / "made").write_text(text)
    engine.delete(name)
    assert Path("/etc").is_dir()
    (bundle.rootfs / "a").rmdir()
