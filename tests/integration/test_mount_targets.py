"""Every kind of source, and mount points that are missing, of the wrong type, or lead elsewhere."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import Canary
from tests.support.mounts import rows, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.containers import Bundle
    from tests.support.engine import Engine


@pytest.fixture
def canary(place: Path) -> Canary:
    return Canary(place / "host")


# -- sources


@pytest.fixture
def things(place: Path) -> Path:
    """One of every kind, in a directory that only root can enter."""
    top = place / "things"
    (top / "dir").mkdir(parents=True)
    (top / "dir/inner").write_text("")
    (top / "file").write_text("content\n")
    os.mkfifo(top / "fifo")
    os.mknod(top / "device", 0o20666, os.makedev(1, 5))
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(top / "socket"))
    (top / "link").symlink_to("dir")
    (top / "link-to-file").symlink_to(top / "file")
    top.chmod(0o700)
    return top


KINDS = {
    "dir": "directory",
    "file": "regular file",
    "fifo": "fifo",
    "device": "character special file",
    "socket": "socket",
    "link": "directory",
    "link-to-file": "regular file",
}


@pytest.mark.parametrize("user_namespace", [False, True])
@pytest.mark.parametrize("word", ["bind", "rbind"])
def test_every_kind_of_source(
    engine: Engine, bundle: Bundle, things: Path, word: str, *, user_namespace: bool
) -> None:
    """The parent opens them, so it does not matter what the container's user can reach."""
    if user_namespace:
        bundle.user_namespace()
    (bundle.rootfs / "there").mkdir()
    for name, kind in KINDS.items():
        bundle.mount(f"/made/{name}", things / name, word)
        (bundle.rootfs / "there" / name).mkdir() if kind == "directory" else (
            bundle.rootfs / "there" / name
        ).write_text("")
        bundle.mount(f"/there/{name}", things / name, word, "ro")
    script = f"cd /made; stat -c %F {' '.join(KINDS)}; cd /there; stat -c %F {' '.join(KINDS)}; cat file"
    script += "; head -c 3 device | od -An -tx1"
    out = engine.front(bundle, script).ok().out.splitlines()
    assert out == [*KINDS.values(), *KINDS.values(), "content", " 00 00 00"]


def test_a_socket_is_the_host_s(engine: Engine, bundle: Bundle, place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place / "socket"))
        server.listen()
        server.settimeout(20)
        bundle.mount("/run/socket", place / "socket", "bind")
        pid = engine.state(engine.start(bundle))["pid"]
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"/proc/{pid}/root/run/socket")
            with server.accept()[0] as accepted:
                client.sendall(b"hello")
                assert accepted.recv(5) == b"hello"


def test_a_relative_source_is_the_bundle_s(engine: Engine, bundle: Bundle) -> None:
    (bundle.path / "data").mkdir()
    (bundle.path / "data/file").write_text("of the bundle\n")
    for number, source in enumerate(("data", "./data", "rootfs/../data")):
        bundle.mount(f"/{number}", source, "bind")
    out = engine.front(bundle, "cat /0/file /1/file /2/file").ok().out
    assert out == "of the bundle\n" * 3


@pytest.mark.parametrize("source", ["nowhere", "/no/where", "things/dangling"])
def test_a_source_that_is_missing(engine: Engine, bundle: Bundle, source: str) -> None:
    (bundle.path / "things").mkdir()
    (bundle.path / "things/dangling").symlink_to("nowhere")
    before = sorted(os.walk(bundle.rootfs))
    bundle.mount("/new", source, "bind")
    full = source if source.startswith("/") else f"{bundle.path}/{source}"
    told = engine.front(bundle, "exit 0").fails("/mounts/5", f"bind source {full} does not exist")
    assert "no such file or directory" in told.err
    assert ("it is a symlink to nowhere" in told.err) is ("dangling" in source)
    assert sorted(os.walk(bundle.rootfs)) == before


@pytest.mark.parametrize("kind", ["file", "dir"])
def test_a_source_that_has_been_deleted(engine: Engine, bundle: Bundle, place: Path, kind: str) -> None:
    """A mount on a path stays when the path is deleted, and cannot be attached anywhere else."""
    shown, gone = place / "shown", place / "gone"
    for each in (shown, gone):
        each.mkdir() if kind == "dir" else each.touch()
    subprocess.run(["mount", "--bind", gone, shown], check=True)
    try:
        gone.rmdir() if kind == "dir" else gone.unlink()
        bundle.mount("/new", shown, "rbind", "ro")
        told = engine.front(bundle, "exit 0").fails(
            "/mounts/5", f"bind source {shown} shows a file or directory"
        )
        assert "has been deleted" in told.err
        assert "mount point" not in told.err
    finally:
        subprocess.run(["umount", shown], check=True)


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ("dir", "/etc/group", "the source is a directory, the target a file"),
        ("file", "/etc", "the source is a file, the target a directory"),
        ("socket", "/etc", "the source is a socket, the target a directory"),
    ],
)
def test_ends_that_do_not_fit(
    engine: Engine, bundle: Bundle, things: Path, *, source: str, target: str, said: str
) -> None:
    bundle.mount(target, things / source, "bind")
    engine.front(bundle, "exit 0").fails("/mounts/5", said, "not a directory")


# -- targets that are missing


@pytest.mark.parametrize("umask", [0, 0o077])
def test_what_is_made_is_no_wider_than_needed(
    engine: Engine, bundle: Bundle, things: Path, umask: int
) -> None:
    """Whatever the caller's umask is, the container's users can pass through the directories."""
    bundle.mount("/new/deep/file", things / "file", "bind")
    bundle.mount("/new/deep/socket", things / "socket", "bind")
    bundle.mount("/new/dir", things / "dir", "bind")
    bundle.mount("/new/tmpfs", "tmpfs", "rw", kind="tmpfs")
    engine.start(bundle, umask=umask)
    found = {
        path: (bundle.rootfs / path).stat()
        for path in ("new", "new/deep", "new/deep/file", "new/deep/socket", "new/dir", "new/tmpfs")
    }
    for path, is_now in found.items():
        wanted = 0o644 if path.endswith(("file", "socket")) else 0o755
        assert stat.S_IMODE(is_now.st_mode) == wanted, path
        assert (is_now.st_uid, is_now.st_gid) == (0, 0)
        assert stat.S_ISDIR(is_now.st_mode) or stat.S_ISREG(is_now.st_mode)


def test_in_a_user_namespace_they_belong_to_its_root(engine: Engine, bundle: Bundle, things: Path) -> None:
    bundle.user_namespace(100000)
    bundle.mount("/new/file", things / "file", "bind")
    name = engine.start(bundle)
    assert {(bundle.rootfs / path).stat().st_uid for path in ("new", "new/file")} == {100000}
    engine.delete(name)
    assert not (bundle.rootfs / "new").exists()


def test_in_a_read_only_root(engine: Engine, bundle: Bundle, things: Path) -> None:
    """The root is made read-only last, so mount points can be made."""
    bundle.config["root"]["readonly"] = True
    bundle.mount("/new/file", things / "file", "bind")
    out = engine.front(bundle, "cat /new/file; touch /other 2>&1 | grep -o 'Read-only.*'").ok().out
    assert out == "content\nRead-only file system\n"


# -- targets that lead elsewhere

# what the image has (link -> target), the destination, where it must come out inside
WAYS = {
    "absolute": ({"way": "/etc"}, "/way/new", "/etc/new"),
    "climbing": ({"way": "../../../../../../../../etc"}, "/way/new", "/etc/new"),
    "dangling": ({"way": "/not/there"}, "/way/new", "/not/there/new"),
    "dangling at the end": ({"way": "not/there"}, "/way", "/not/there"),
    "dangling, climbing": ({"way": "../../../../not"}, "/way", "/not"),
    "a chain": ({"one": "two", "two": "/three", "three": "etc"}, "/one/new", "/etc/new"),
    "in the middle": ({"root/way": "../tmp"}, "/root/way/new", "/tmp/new"),
    "dots": ({}, "/tmp/../../../../new", "/new"),
    "dots after a link": ({"way": "/usr/lib/deep"}, "/way/../new", "/new"),  # cleaned first, as by runc
    "the host's own path": ({"way": "{canary}"}, "/way/new", "{canary}/new"),
    "slashes": ({}, "//etc///new/", "/etc/new"),
}


@pytest.mark.parametrize("kind", ["file", "dir", "tmpfs"])
@pytest.mark.parametrize("name", WAYS)
def test_no_way_leads_out(
    engine: Engine, bundle: Bundle, things: Path, canary: Canary, *, kind: str, name: str
) -> None:
    links, destination, arrives = WAYS[name]
    arrives = arrives.format(canary=canary.path)
    for link, text in links.items():
        (bundle.rootfs / link).symlink_to(text.format(canary=canary.path))
    if kind == "tmpfs":
        bundle.mount(destination, "tmpfs", "rw", kind="tmpfs")
    else:
        bundle.mount(destination, things / kind, "bind")
    pid = engine.state(engine.start(bundle))["pid"]
    assert arrives in table(pid)
    assert canary.untouched()


def test_a_relative_target_begins_at_the_root(engine: Engine, bundle: Bundle, things: Path) -> None:
    bundle.mount("etc/new", things / "dir", "bind")
    done = engine.front(bundle, "cat /proc/self/mountinfo")
    said = 'warning: /mounts/5/destination: "etc/new" is not absolute, which is deprecated;'
    assert (done.code, done.err) == (0, f"{said} it is taken for /etc/new\n")
    assert " /etc/new " in done.out


@pytest.mark.parametrize("link", ["loop", "/loop/loop"])
def test_a_loop(engine: Engine, bundle: Bundle, things: Path, link: str) -> None:
    (bundle.rootfs / "loop").symlink_to(link)
    bundle.mount("/loop/new", things / "dir", "bind")
    engine.front(bundle, "exit 0").fails("/mounts/5", "too many")


@pytest.mark.parametrize(
    "way",
    [
        "/proc/self/root",
        "/proc/1/root",
        "/proc/self/cwd",
        "/proc/self/fd/0",
        "/proc/1/exe",
        "/link",
        "/thread",
    ],
)
@pytest.mark.parametrize(("kind", "last"), [("dir", True), ("file", True), ("tmpfs", True), ("dir", False)])
def test_magic_links(  # noqa: PLR0917 - a way, and what is mounted there
    engine: Engine,
    bundle: Bundle,
    things: Path,
    canary: Canary,
    way: str,
    kind: str,
    last: bool,
) -> None:
    """Of a procfs that shows the host's processes they would lead to the host's tree.

    What they say is no path to be followed inside the root either: they are refused.
    """
    bundle.linux["namespaces"] = [space for space in bundle.linux["namespaces"] if space["type"] != "pid"]
    bundle.without_mount("/proc")
    bundle.mount("/proc", "/proc", "rbind")
    (bundle.rootfs / "link").symlink_to("/proc/self/root")
    (bundle.rootfs / "thread").symlink_to("proc/thread-self/cwd")
    destination = way if last else f"{way}{canary.path}/new"
    if kind == "tmpfs":
        bundle.mount(destination, "tmpfs", "rw", kind="tmpfs")
    else:
        bundle.mount(destination, things / kind, "bind")
    done = engine.front(bundle, "exit 0")
    assert canary.untouched()
    assert "secret" in os.listdir(canary.path)
    # Of the host's init the kernel does not even say where they lead.
    done.fails(f"make mount point {destination} in the root file system")
    assert "too many levels of symbolic links" in done.err or "permission denied" in done.err


def test_a_link_of_proc_that_is_a_path(engine: Engine, bundle: Bundle, things: Path) -> None:
    """/proc/self and /proc/mounts are ordinary symlinks: the message says that the target is in /proc."""
    (bundle.rootfs / "way").symlink_to("/proc/mounts")
    bundle.mount("/way", things / "file", "bind")
    engine.front(bundle, "exit 0").fails("is inside /proc and cannot be mounted on")


@pytest.mark.parametrize("destination", ["/", "//", "/.", "/tmp/..", "/self", "/up"])
def test_the_root_itself_is_not_covered(
    engine: Engine, bundle: Bundle, things: Path, destination: str
) -> None:
    (bundle.rootfs / "self").symlink_to(".")
    (bundle.rootfs / "up").symlink_to("../../..")
    bundle.mount(destination, things / "dir", "bind")
    engine.front(bundle, "exit 0").fails("/mounts/5", "root")


@pytest.mark.parametrize("path", ["/self", "/up"])
@pytest.mark.parametrize("key", ["maskedPaths", "readonlyPaths"])
def test_a_path_that_leads_to_the_root_would_cover_nothing(
    engine: Engine, bundle: Bundle, key: str, path: str
) -> None:
    (bundle.rootfs / "self").symlink_to(".")
    (bundle.rootfs / "up").symlink_to("../../..")
    bundle.linux[key] = ["/proc/keys", path]
    engine.front(bundle, "exit 0").fails(f"/linux/{key}/1: {path} leads to the root of the file system")


@pytest.mark.parametrize("path", ["/", ".", "/proc/.."])
def test_the_root_as_a_read_only_path(engine: Engine, bundle: Bundle, path: str) -> None:
    bundle.linux["readonlyPaths"] = [path]
    engine.front(bundle, "touch /new").fails("Read-only file system")
    assert not (bundle.rootfs / "new").exists()


def test_a_destination_as_the_host_names_it(engine: Engine, bundle: Bundle, things: Path) -> None:
    """Some callers give the path of the mount point on the host."""
    bundle.mount(f"{bundle.rootfs}/data", things / "dir", "bind")
    assert engine.front(bundle, "ls /data").ok().out == "inner\n"


@pytest.fixture
def mover(bundle: Bundle, canary: Canary) -> Iterator[subprocess.Popen[bytes]]:
    """A process that keeps moving a directory of the image out to the host and back."""
    (bundle.rootfs / "way/deep").mkdir(parents=True)
    program = (
        "import os, sys\n"
        "inside, outside = sys.argv[1:]\n"
        "while True:\n"
        "    for way in ((inside, outside), (outside, inside)):\n"
        "        try:\n"
        "            os.rename(*way)\n"
        "        except OSError:\n"
        "            pass\n"
    )
    moving = bundle.rootfs / "way/deep", canary.path.parent / "moved"
    running = subprocess.Popen([sys.executable, "-c", program, *moving])
    yield running
    running.send_signal(signal.SIGKILL)
    running.wait()


@pytest.mark.parametrize("destination", ["/way/deep/../../made", "/way/deep/made"])
def test_a_directory_that_is_moved_away_meanwhile(
    engine: Engine,
    bundle: Bundle,
    things: Path,
    canary: Canary,
    mover: subprocess.Popen[bytes],
    *,
    destination: str,
) -> None:
    """From a directory outside the root, ".." is the host's: nothing may be made or mounted there."""
    bundle.mount(destination, things / "dir", "bind")
    worked = 0
    before = set(os.listdir(canary.path.parent)) - {"moved"}
    for _ in range(12):
        done = engine.front(bundle, "cat /proc/self/mountinfo")
        if done.code == 0:
            worked += 1
            place = [at for at in rows(done.out) if at.endswith("/made")]
            # If it is not visible, it was moved out with the directory in which it was mounted.
            assert place in (["/made"], ["/way/deep/made"], []), place
        assert set(os.listdir(canary.path.parent)) - {"moved"} == before
        assert canary.untouched()
    assert mover.poll() is None
    assert worked, "not one container could be started, so nothing was tried"
