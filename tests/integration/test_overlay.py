"""--overlay: a container that can write, and a root file system that never changes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import wait_for
from tests.support.engine import FOREIGN
from tests.support.ordinary import COUNT, FIRST, UID, Ordinary, give
from tests.support.trees import listing
from tests.support.volumes import Volumes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.containers import Bundle
    from tests.support.engine import Engine

pytestmark = pytest.mark.skipif(FOREIGN, reason="an option of our own")

KERNEL = tuple(int(part) for part in os.uname().release.split(".")[:2])
DETACHED = pytest.mark.skipif(KERNEL < (6, 15), reason="overlayfs takes no detached mount before Linux 6.15")


def states(engine: Engine) -> list[str]:
    """Return the containers that have a state directory."""
    return [name for name in os.listdir(engine.root) if name != "@cache"] if engine.root.exists() else []


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory on a tmpfs, as /run usually is."""
    made = Path(tempfile.mkdtemp(prefix="pyrunc-test-", dir="/dev/shm"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


CHANGES = """
echo new > /new && echo more >> /etc/passwd && rm -r /bin/vi-like /root && mkdir /root &&
mv /etc/group /moved && chmod 700 /tmp && ln -s / /link && mknod /fifo p &&
cat /new /moved && tail -n 1 /etc/passwd && test ! -e /etc/group && ls -A /root
"""


def test_everything_can_be_written_and_nothing_changes(engine: Engine, bundle: Bundle) -> None:
    (bundle.rootfs / "bin/vi-like").mkdir()
    (bundle.rootfs / "root/old").write_text("old\n")
    bundle.write()
    before = listing(bundle.rootfs)
    for _ in range(2):  # the second finds nothing of the first
        done = engine.front(bundle, CHANGES, "--overlay").ok()
        assert done.out == "new\nroot:x:0:\nmore\n"
        assert listing(bundle.rootfs) == before
    assert states(engine) == []


@pytest.mark.slow
def test_a_hundred_side_by_side(engine: Engine, bundle: Bundle, place: Path) -> None:
    """All of them run at the same time: each waits until the last one has started."""
    gate = place / "gate"
    gate.mkdir()
    bundle.mount("/gate", gate, "bind", "ro")
    bundle.mount("/made/by/a/mount", place, "bind", "ro")
    script = (
        "echo $$ >> /etc/passwd; hostname > /own; while ! test -e /gate/open; do sleep 0.2; done;"
        " test $(wc -l < /etc/passwd) = 2"
    )
    bundle.process["args"] = ["/bin/sh", "-c", script]
    bundle.write()
    before = listing(bundle.rootfs)
    calls = []

    def alive() -> int:
        return len(list(engine.root.glob("*/overlay/root/upper/own")))

    try:
        for _ in range(100):
            calls.append(engine.begin("run", "--overlay", "--bundle", str(bundle.path), engine.new_id()))
            if len(calls) % 10 == 0:  # so that not all of them are being made at the same time
                assert wait_for(lambda: alive() >= len(calls) - 5, 60)
        assert wait_for(lambda: alive() == 100, 60)
    finally:
        (gate / "open").touch()
    assert [call.wait(120) for call in calls] == [0] * 100
    assert listing(bundle.rootfs) == before
    assert states(engine) == []


def test_each_has_its_own(engine: Engine, bundle: Bundle) -> None:
    names = [engine.start(bundle, "hostname > /own; exec sleep 1000", "--overlay") for _ in range(3)]
    for number, name in enumerate(names):
        engine.call("exec", name, "/bin/sh", "-c", f"echo {number} > /own").ok()
    for number, name in enumerate(names):
        assert engine.call("exec", name, "/bin/cat", "/own").ok().out == f"{number}\n"
        assert (engine.root / name / "overlay/root/upper/own").read_text() == f"{number}\n"
    assert not (bundle.rootfs / "own").exists()
    engine.call("kill", names[0], "KILL").ok()
    engine.until(names[0], "stopped")
    assert (engine.root / names[0] / "overlay/root/upper/own").exists()  # until it is deleted
    engine.call("delete", names[0]).ok()
    assert not (engine.root / names[0]).exists()


def test_what_is_missing_is_made_in_the_layer(engine: Engine, bundle: Bundle, place: Path) -> None:
    (place / "file").write_text("of the host\n")
    shutil.rmtree(bundle.rootfs / "proc")
    bundle.mount("/a/b/c", place, "bind", "ro")
    bundle.mount("/x/y/file", place / "file", "bind", "ro")
    bundle.write()
    before = listing(bundle.rootfs)
    done = engine.front(bundle, "cat /a/b/c/file /x/y/file; ls /proc/self/comm", "--overlay").ok()
    assert done.out == "of the host\n" * 2 + "/proc/self/comm\n"
    assert listing(bundle.rootfs) == before


def test_a_volume_is_written_to_itself(engine: Engine, bundle: Bundle, place: Path) -> None:
    volumes = Volumes(engine)
    (place / "host").mkdir()
    (bundle.rootfs / "data").mkdir()
    (bundle.rootfs / "data/old").write_text("from the image\n")
    bundle.mount("/bound", place / "host", "bind")
    flags = ("--overlay", "-v", "vol:/data", "-v", f"{place}/host:/also")
    script = "echo 1 > /data/new; echo 2 > /bound/new; echo 3 > /also/newer; echo 4 > /layer; cat /data/old"
    before = listing(bundle.rootfs)
    assert volumes.run(bundle, script, *flags).ok().out == "from the image\n"
    assert listing(bundle.rootfs) == before
    assert (volumes.content("vol") / "new").read_text() == "1\n"
    assert {path.name for path in (place / "host").iterdir()} == {"new", "newer"}


def test_a_bind_from_inside_the_root_shows_the_layer(engine: Engine, bundle: Bundle) -> None:
    """Files of the root file system never change, whichever path leads to them."""
    (bundle.rootfs / "tmp/inner").mkdir()
    bundle.mount("/again", bundle.rootfs / "tmp/inner", "bind")
    before = listing(bundle.rootfs)
    done = engine.front(bundle, "echo x > /again/new; cat /tmp/inner/new", "--overlay").ok()
    assert done.out == "x\n"
    assert listing(bundle.rootfs) == before


# -- where the layer is


def test_in_another_directory(engine: Engine, bundle: Bundle, memory: Path) -> None:
    name = engine.start(bundle, "echo kept > /new; exec sleep 1000", "--overlay-dir", str(memory))
    (own,) = memory.iterdir()
    assert own.name.startswith(f"pyrunc-{name}-")
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    assert wait_for((own / "upper/new").exists)
    assert "tmpfs" in engine.call("exec", name, "/bin/stat", "-f", "-c", "%T", "/new").out + "tmpfs"
    engine.delete(name)
    assert list(memory.iterdir()) == []
    assert not (bundle.rootfs / "new").exists()


def test_the_directory_may_be_gone(engine: Engine, bundle: Bundle, memory: Path) -> None:
    (memory / "there").mkdir()
    name = engine.start(bundle, "exec sleep 1000", "--overlay-dir", str(memory / "there"))
    shutil.rmtree(memory / "there")
    engine.delete(name)
    assert not (engine.root / name).exists()


def test_a_directory_that_is_none(engine: Engine, bundle: Bundle, place: Path) -> None:
    for wrong in ("nosuch", "/nosuch", str(bundle.path / "config.json"), ""):
        done = engine.front(bundle, "true", "--overlay-dir", wrong, cwd=place)
        if wrong:
            done.fails(f"--overlay-dir {wrong} is not a directory", "make it first")
        else:
            assert list(place.glob("pyrunc-*")) == []


def test_on_an_overlay_it_says_what_helps(engine: Engine, bundle: Bundle, place: Path) -> None:
    """In a container, /run may be a directory of its image."""
    for name in ("lower", "upper", "work", "merged"):
        (place / "disk" / name).mkdir(parents=True)
    disk = place / "disk"
    words = f"lowerdir={disk}/lower,upperdir={disk}/upper,workdir={disk}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", words, disk / "merged"], check=True)
    try:
        done = engine.front(bundle, "true", "--overlay-dir", str(disk / "merged"))
        done.fails("upper", "--overlay-dir")
        assert list((disk / "merged").iterdir()) == []
    finally:
        subprocess.run(["umount", disk / "merged"], check=True)
    assert states(engine) == []


def test_without_attributes_it_says_what_helps(engine: Engine, bundle: Bundle, place: Path) -> None:
    """A ramfs has no extended attributes; deleted files could come back."""
    (place / "ram").mkdir()
    subprocess.run(["mount", "-t", "ramfs", "ramfs", place / "ram"], check=True)
    try:
        done = engine.front(bundle, "true", "--overlay-dir", str(place / "ram"))
        done.fails("ramfs has no trusted.* attributes", "--overlay-dir")
        assert list((place / "ram").iterdir()) == []
    finally:
        subprocess.run(["umount", place / "ram"], check=True)


def test_a_state_root_in_memory(engine: Engine, bundle: Bundle, memory: Path) -> None:
    engine.root = memory / "state"
    before = listing(bundle.rootfs)
    assert engine.front(bundle, CHANGES.replace("/bin/vi-like", ""), "--overlay").code == 0
    assert {*listing(bundle.rootfs)} - {*before} == set()
    assert states(engine) == []


# -- the root file system


def test_a_readonly_root_stays_readonly(engine: Engine, bundle: Bundle, place: Path) -> None:
    """Mount points can still be made: they are made in the layer."""
    bundle.config["root"]["readonly"] = True
    bundle.mount("/made", place, "bind", "ro")
    bundle.write()
    before = listing(bundle.rootfs)
    done = engine.front(bundle, "touch /new 2>&1; ls -d /made", "--overlay").ok()
    assert "Read-only file system" in done.out
    assert done.out.endswith("/made\n")
    assert listing(bundle.rootfs) == before


def test_a_root_file_system_on_a_readonly_mount(engine: Engine, bundle: Bundle, place: Path) -> None:
    """All restrictions of the mount below stay.

    Only read-only does not, because the container writes to the layer.
    """
    bundle.mount("/made", place, "bind", "ro")
    subprocess.run(["mount", "--bind", bundle.rootfs, bundle.rootfs], check=True)
    try:
        options = "remount,bind,ro,nosuid,nodev"
        subprocess.run(["mount", "-o", options, bundle.rootfs], check=True)
        done = engine.front(bundle, "echo x > /new; cat /new; grep ' / ' /proc/mounts", "--overlay").ok()
    finally:
        subprocess.run(["umount", bundle.rootfs], check=True)
    assert done.out.startswith("x\noverlay / overlay rw,nosuid,nodev,")


def test_what_is_mounted_below_is_warned_of(engine: Engine, bundle: Bundle) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", bundle.rootfs / "root"], check=True)
    try:
        (bundle.rootfs / "root/seen").touch()
        done = engine.front(bundle, "ls /root", "--overlay")
        assert (done.code, done.out) == (0, "")
        assert f"{bundle.rootfs}/root is mounted below the root file system" in done.err
        assert engine.front(bundle, "ls /root").ok().out == "seen\n"
    finally:
        subprocess.run(["umount", bundle.rootfs / "root"], check=True)


@pytest.mark.parametrize("word", ["shared", "rshared", "slave", "rslave", "private", "rprivate"])
def test_propagation(engine: Engine, bundle: Bundle, word: str) -> None:
    bundle.linux["rootfsPropagation"] = word
    done = engine.front(bundle, "grep ' / / ' /proc/self/mountinfo; touch /new", "--overlay").ok()
    assert (" shared:" in done.out) is word.endswith("shared")
    assert not (bundle.rootfs / "new").exists()


def test_without_pivot_root(engine: Engine, bundle: Bundle) -> None:
    assert engine.front(bundle, "touch /new && ls /new", "--overlay", "--no-pivot").ok().out == "/new\n"
    assert not (bundle.rootfs / "new").exists()


def test_without_a_mount_namespace(engine: Engine, bundle: Bundle) -> None:
    bundle.linux["namespaces"] = [each for each in bundle.linux["namespaces"] if each["type"] != "mount"]
    bundle.linux["maskedPaths"] = bundle.linux["readonlyPaths"] = bundle.config["mounts"] = []
    engine.front(bundle, "true", "--overlay").fails("/linux/namespaces", "--overlay needs a mount namespace")


# -- user namespaces


def test_in_a_user_namespace(engine: Engine, bundle: Bundle, place: Path) -> None:
    bundle.user_namespace()
    bundle.mount("/made", place, "bind", "ro")
    bundle.write()
    before = listing(bundle.rootfs)
    script = (
        "echo x > /new && rm /etc/group && mkdir /etc/group && stat -c %u /new / /etc/passwd && ls -d /made"
    )
    assert engine.front(bundle, script, "--overlay").ok().out == "0\n0\n0\n/made\n"
    assert listing(bundle.rootfs) == before


@DETACHED
def test_an_image_of_the_hosts_root_in_a_user_namespace(engine: Engine, bundle: Bundle, place: Path) -> None:
    """No file there belongs to the container, so it is mounted with the container's ids."""
    bundle.user_namespace()
    for directory, folders, files in os.walk(bundle.rootfs):
        for name in ("", *folders, *files):
            os.lchown(os.path.join(directory, name), 0, 0)
    os.chown(bundle.rootfs / "etc/passwd", 7, 8)
    bundle.mount("/made", place, "bind", "ro")
    bundle.write()
    before = listing(bundle.rootfs)
    script = (
        "echo x > /new && echo y >> /etc/passwd && rm /etc/group && stat -c %u:%g / /new /bin/sh /etc/passwd"
    )
    name = engine.start(bundle, f"({script}) > /said 2>&1; exec sleep 1000", "--overlay")
    upper = engine.root / name / "overlay/root/upper"
    assert wait_for(lambda: (upper / "said").exists() and len((upper / "said").read_text().split()) == 4)
    assert (upper / "said").read_text().split() == ["0:0", "0:0", "0:0", "7:8"]
    assert ((upper / "new").stat().st_uid, (upper / "etc/passwd").stat().st_gid) == (100000, 100008)
    engine.delete(name)
    assert listing(bundle.rootfs) == before
    words = engine.call("plan", "--overlay", "--bundle", str(bundle.path)).ok().out
    assert "seen through ids 0:100000:65536, under a writable layer" in words


@pytest.fixture
def user(user: Ordinary) -> Ordinary:
    """An ordinary user with subordinate ids."""
    user.exist()
    return user


def test_rootless(user: Ordinary, bundle: Bundle) -> None:
    give(bundle)
    bundle.write()
    before = listing(bundle.rootfs)
    script = (
        "echo x > /new && rm -r /etc && mkdir /etc && ls -A /etc && cat /new && grep -o userx /proc/mounts"
    )
    for _ in range(2):
        assert user.front(bundle, script, "--overlay").ok().out == "x\nuserx\n"
    assert listing(bundle.rootfs) == before


def test_rootless_with_files_of_other_ids(user: Ordinary, bundle: Bundle) -> None:
    """Only root of a user namespace with the same mappings can remove those files."""
    give(bundle)
    for kind in ("uidMappings", "gidMappings"):
        bundle.linux[kind] = [
            {"containerID": 0, "hostID": UID, "size": 1},
            {"containerID": 1, "hostID": FIRST, "size": COUNT},
        ]
    bundle.write()
    before = listing(bundle.rootfs)
    script = (
        "mkdir -p /a/b && touch /a/b/c && chmod 700 /a /a/b && chown -R 5:5 /a && ls -n / | grep -c ' 5  *5 '"
    )
    assert user.front(bundle, script, "--overlay").ok().out == "1\n"
    name = user.start(bundle, script + "; exec sleep 1000", "--overlay")
    made = user.root / name / "overlay/root/upper/a"
    assert wait_for(lambda: made.exists() and made.stat().st_uid == FIRST + 4)
    user.delete(name)
    assert listing(bundle.rootfs) == before


# -- the end


def deep(top: Path, depth: int) -> None:
    """Make a tree of directories, deeper than a path or a recursive function can reach."""
    here = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def test_whatever_it_has_left_is_removed(engine: Engine, bundle: Bundle, place: Path) -> None:
    (place / "host").mkdir()
    (place / "host/kept").touch()
    name = engine.start(bundle, f"ln -s {place}/host /out; ln -s / /root/up; exec sleep 1000", "--overlay")
    upper = engine.root / name / "overlay/root/upper"
    assert wait_for((upper / "root/up").is_symlink)
    deep(upper, 3000)
    engine.delete(name)
    assert not (engine.root / name).exists()
    assert (place / "host/kept").exists()


INSTANTS = [0.002 * step for step in range(0, 40, 2)]


@pytest.mark.parametrize("where", ["state", "elsewhere"])
def test_killed_at_any_instant(engine: Engine, bundle: Bundle, memory: Path, where: str) -> None:
    flags = ["--overlay"] if where == "state" else ["--overlay-dir", str(memory)]
    bundle.process["args"] = ["/bin/sh", "-c", "mkdir -p /a/b/c; touch /a/b/c/d; exec sleep 1000"]
    bundle.write()
    before = listing(bundle.rootfs)
    for instant in INSTANTS:
        name = engine.new_id()
        call = engine.begin("run", "--detach", *flags, "--bundle", str(bundle.path), name, stderr=-3)
        time.sleep(instant)
        call.send_signal(signal.SIGKILL)
        call.wait(60)
        engine.delete(name)
        assert states(engine) == [], instant
        assert list(memory.iterdir()) == [], instant
    assert listing(bundle.rootfs) == before


def test_killed_in_delete(engine: Engine, bundle: Bundle, memory: Path) -> None:
    for instant in INSTANTS[::3]:
        name = engine.start(bundle, "exec sleep 1000", "--overlay-dir", str(memory))
        (own,) = memory.iterdir()
        for number in range(500):
            (own / "upper" / str(number)).touch()
        call = engine.begin("delete", "--force", name, stderr=-3)
        time.sleep(instant)
        call.send_signal(signal.SIGKILL)
        call.wait(60)
        engine.delete(name)
        assert list(memory.iterdir()) == [], instant


def spoil_mount(bundle: Bundle) -> None:
    bundle.mount("/data", "none", "nonsense=1", kind="tmpfs")


def spoil_program(bundle: Bundle) -> None:
    bundle.process["args"] = ["/nosuch"]


@pytest.mark.parametrize("spoil", [spoil_mount, spoil_program])
def test_a_creation_that_fails(
    engine: Engine, bundle: Bundle, memory: Path, spoil: Callable[[Bundle], None]
) -> None:
    spoil(bundle)
    bundle.write()
    before = listing(bundle.rootfs)
    done = engine.front(bundle, None, "--overlay-dir", str(memory))
    assert done.code == 1, done
    assert list(memory.iterdir()) == []
    assert states(engine) == []
    assert listing(bundle.rootfs) == before


def test_kept_after_its_end(engine: Engine, bundle: Bundle) -> None:
    engine.front(bundle, "echo x > /new", "--overlay", "--keep").ok()
    name = engine.ids[-1]
    assert (engine.root / name / "overlay/root/upper/new").read_text() == "x\n"
    engine.call("delete", name).ok()
    assert not (engine.root / name).exists()


def test_a_checkpoint_is_refused(engine: Engine, bundle: Bundle, place: Path) -> None:
    name = engine.start(bundle, "exec sleep 1000", "--overlay")
    done = engine.call("checkpoint", "--image-path", str(place / "images"), name)
    done.fails("Container cannot be checkpointed", "--overlay")
    assert engine.status(name) == "running"
    assert not (place / "images").exists()


# -- the plan


def test_plan_shows_it(engine: Engine, bundle: Bundle, place: Path) -> None:
    bundle.linux["mountLabel"] = "system_u:object_r:container_file_t:s0:c1,c2"
    bundle.write()
    said = engine.call("plan", "--overlay", "--bundle", str(bundle.path)).ok().out
    (line,) = [line for line in said.splitlines() if "root file system" in line and "layer" in line]
    assert f"under a writable layer in {engine.root}/ID/overlay/root" in line
    assert "context=system_u:object_r:container_file_t:s0:c1,c2" in line
    said = engine.call("plan", "--json", "--overlay-dir", str(place), "--bundle", str(bundle.path)).ok().out
    (step,) = [step for step in json.loads(said)["steps"] if step["kind"] == "AttachRoot"]
    assert step["fields"]["layer"].startswith(f"{place}/pyrunc-ID-")
    assert [layer[0] for layer in step["fields"]["overlay"]["layers"]] == ["lowerdir+", "upperdir", "workdir"]
    assert os.listdir(place) == ["bundle"]
