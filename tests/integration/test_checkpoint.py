"""Checkpoint and restore: the runtime's part with a stand-in for CRIU, all of it with CRIU where that works.

CRIU must fit the kernel: before 4.1 it cannot work on Linux 6.13 and later. Then what needs it is
skipped, with CRIU's own words as the reason.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.consoles import Receiver, Screen, read_until
from tests.support.containers import wait_for
from tests.support.engine import Result, alive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.containers import Bundle
    from tests.support.engine import Engine

FAKE = Path(__file__).parents[1] / "support" / "fake_criu.py"
CRIU = shutil.which("criu")
DUMP, RESTORE, FEATURES, VERSION, PRE_DUMP = 1, 2, 9, 10, 4
COUNT = "i=0; while true; do i=$((i+1)); echo $i; sleep 0.05; done"


class Fake:
    """The stand-in's instructions and what it has kept."""

    def __init__(self, place: Path, work: Path) -> None:
        place.mkdir()
        self.place = place
        self.work = work
        self.answer()

    def answer(self, **answers: Any) -> None:
        (self.place / "answers.json").write_text(json.dumps(answers))

    def requests(self) -> list[dict[str, Any]]:
        files = sorted(self.place.glob("request-*.json"), key=lambda path: int(path.stem.partition("-")[2]))
        return [json.loads(path.read_text()) for path in files]

    def last(self, kind: int) -> dict[str, Any]:
        request = self.requests()[-1]
        assert request["type"] == kind
        return request


@pytest.fixture
def fake(tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Put the stand-in into PATH."""
    made = Fake(tmp_path / "fake", place)
    (made.place / "bin").mkdir()
    (made.place / "bin" / "criu").symlink_to(FAKE)
    monkeypatch.setenv("FAKE_CRIU", str(made.place))
    monkeypatch.setenv("PATH", f"{made.place}/bin:{os.environ['PATH']}")
    return made


def pairs(entries: list[dict[str, list[str]]]) -> dict[str, str]:
    """Return the two fields of each entry as key and value."""
    return {entry["1"][0]: entry["2"][0] for entry in entries}


# -- what CRIU is asked for a dump -------------------------------------------------------------------------


def test_a_dump_and_then_the_container_is_gone(
    engine: Engine, bundle: Bundle, fake: Fake, place: Path
) -> None:
    name = engine.start(bundle)
    pid = engine.pid(name)
    images, work = place / "images", place / "work"
    words = ["--image-path", str(images), "--work-path", str(work)]
    engine.call("checkpoint", *words, name).ok()
    engine.call("state", name).fails("container does not exist")
    assert not alive(pid)
    assert [request["type"] for request in fake.requests()] == [VERSION, DUMP]
    request = fake.last(DUMP)
    assert request["directories"] == [str(images), str(work)]
    assert stat.S_IMODE(images.stat().st_mode) == 0o700
    options = request["options"]
    assert options["2"] == [pid]
    assert options["3"] == [0]
    assert options["9"] == [4]
    assert options["10"] == ["dump.log"]
    assert options["13"] == [str(bundle.rootfs)]
    assert options["34"] == [6]
    assert options["38"] == [0x40000000]
    freezer = options["44"][0]
    assert freezer.startswith("/sys/fs/cgroup/")
    assert freezer.endswith(name)
    for absent in ("11", "14", "15", "37", "51", "64"):
        assert absent not in options, absent
    names = json.loads((images / "descriptors.json").read_text())
    assert names[0] == "/dev/null"
    assert len(names) == 3


def test_every_option_of_a_dump(engine: Engine, bundle: Bundle, fake: Fake, place: Path) -> None:
    name = engine.start(bundle)
    (place / "parent").mkdir()
    reader, writer = os.pipe()
    fake.answer(events=["network-lock", "status-ready", "network-unlock"])
    engine.call(
        "checkpoint",
        *("--image-path", str(place / "images"), "--parent-path", "../parent", "--leave-running"),
        *("--leave-running", "--tcp-established", "--tcp-skip-in-flight", "--link-remap", "--ext-unix-sk"),
        *("--shell-job", "--file-locks", "--auto-dedup", "--lazy-pages", "--empty-ns", "network"),
        *("--manage-cgroups-mode", "strict", "--network-lock=nftables"),
        *("--page-server", "127.0.0.1:27277", "--status-fd", str(writer)),
        name,
        pass_fds=(writer,),
    ).ok()
    os.close(writer)
    assert os.read(reader, 8) == b"\0"
    assert os.read(reader, 8) == b""
    os.close(reader)
    assert [request["type"] for request in fake.requests()] == [VERSION, FEATURES, DUMP]
    options = fake.last(DUMP)["options"]
    assert all(
        options[number] == [1] for number in ["3", "4", "5", "7", "8", "15", "16", "18", "46", "48"]
    ), options
    assert options["14"] == ["../parent"]
    assert options["34"] == [5]
    assert options["64"] == [2]
    assert options["11"] == [{"1": ["127.0.0.1"], "2": [27277]}]
    assert engine.status(name) == "running"


def test_a_pre_dump_leaves_the_container_running(
    engine: Engine, bundle: Bundle, fake: Fake, place: Path
) -> None:
    name = engine.start(bundle)
    engine.call("checkpoint", "--pre-dump", "--image-path", str(place / "pre"), name).ok()
    assert [request["type"] for request in fake.requests()] == [VERSION, FEATURES, PRE_DUMP]
    assert engine.status(name) == "running"
    assert "23" not in fake.last(PRE_DUMP)["options"]
    assert not (place / "pre" / "descriptors.json").exists()


def test_mounts_of_the_host_are_named_where_the_kernel_has_them(
    engine: Engine, bundle: Bundle, fake: Fake, place: Path
) -> None:
    (place / "data").mkdir()
    (bundle.rootfs / "real").mkdir()
    (bundle.rootfs / "link").symlink_to("real")
    bundle.mount("/link", place / "data", "bind")
    bundle.mount("/dev/x", place / "data", "bind")
    name = engine.start(bundle)
    engine.call("checkpoint", "--leave-running", name, cwd=place).ok()
    found = pairs(fake.last(DUMP)["options"]["23"])
    assert found["/real"] == "/real"
    assert found["/dev/x"] == "/dev/x"
    assert found["/proc/keys"] == "/dev/null"
    assert not {"/proc", "/sys", "/dev", "/link", "/sys/firmware", "/proc/sys"} & set(found)
    assert (place / "checkpoint").is_dir()


def test_joined_namespaces_are_left_alone(engine: Engine, bundle: Bundle, fake: Fake, place: Path) -> None:
    holder = engine.start(bundle)
    inode = os.stat(f"/proc/{engine.pid(holder)}/ns/net").st_ino
    for entry in bundle.linux["namespaces"]:
        if entry["type"] == "network":
            entry["path"] = f"/proc/{engine.pid(holder)}/ns/net"
    name = engine.start(bundle)
    engine.call("checkpoint", "--leave-running", name, cwd=place).ok()
    assert fake.last(DUMP)["options"]["37"] == [f"net[{inode}]:extRootNetNS"]


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [({"org.criu.config": "/etc/criu/mine.conf"}, ["/etc/criu/mine.conf"]), ({"org.criu.config": ""}, None)],
)
def test_the_configuration_file_of_the_annotation(
    engine: Engine, bundle: Bundle, fake: Fake, annotations: dict[str, str], expected: object
) -> None:
    bundle.config["annotations"] = annotations
    name = engine.start(bundle)
    engine.call("checkpoint", "--leave-running", name, cwd=fake.work).ok()
    assert fake.last(DUMP)["options"].get("51") == expected


def test_a_paused_container_can_be_dumped(engine: Engine, bundle: Bundle, fake: Fake, place: Path) -> None:
    name = engine.start(bundle)
    engine.call("pause", name).ok()
    engine.call("checkpoint", "--leave-running", name, cwd=place).ok()
    assert fake.last(DUMP)
    engine.call("resume", name).ok()


# -- what cannot be dumped ---------------------------------------------------------------------------------


def test_only_what_runs_can_be_dumped(engine: Engine, bundle: Bundle, place: Path) -> None:
    name = engine.create(bundle)
    engine.call("checkpoint", name, cwd=place).fails("Container cannot be checkpointed in created state")
    engine.call("kill", name, "KILL").ok()
    engine.until(name, "stopped")
    engine.call("checkpoint", name, cwd=place).fails("Container cannot be checkpointed in stopped state")
    assert not (place / "checkpoint").exists()
    engine.call("checkpoint", "no-such").fails("container does not exist")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--parent-path", "/abs"], "--parent-path must be relative"),
        (["--parent-path", "none"], "invalid --parent-path: "),
        (["--lazy-pages", "--status-fd", "99"], "invalid --status-fd argument 99: bad file descriptor"),
        (["--page-server", "host"], "use --page-server ADDRESS:PORT to specify page server"),
        (["--empty-ns", "pid"], "namespace 'pid' is not supported"),
    ],
)
def test_what_cannot_be_asked(
    engine: Engine, bundle: Bundle, fake: Fake, words: list[str], said: str
) -> None:
    name = engine.start(bundle)
    engine.call("checkpoint", *words, name, cwd=fake.work).fails(said)
    with open(os.devnull, "rb") as read_only:
        words = ["--lazy-pages", "--status-fd", "0"]
        result = engine.call("checkpoint", *words, name, cwd=fake.work, stdin=read_only)
    result.fails("invalid --status-fd argument 0: not writable")
    assert engine.status(name) == "running"
    assert DUMP not in [request["type"] for request in fake.requests()]


def test_a_failed_dump_says_why_and_leaves_the_container(
    engine: Engine, bundle: Bundle, fake: Fake, place: Path
) -> None:
    fake.answer(
        lines=["(0.1) Error (criu/x.c:1): Can't dump that", "(0.2) Error (criu/y.c:2): Dumping FAILED."]
    )
    name = engine.start(bundle)
    words = ["--image-path", "images", "--work-path", "work"]
    engine.call("checkpoint", *words, name, cwd=place).fails(
        "criu failed: type DUMP errno 42: Error (criu/x.c:1): Can't dump that; see ", f"{place}/work/dump.log"
    )
    assert engine.status(name) == "running"


def test_criu_is_missing_old_or_unable(
    engine: Engine, bundle: Bundle, fake: Fake, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = engine.start(bundle)
    fake.answer(version=[3, 11, 0])
    engine.call("checkpoint", name, cwd=place).fails("CRIU version 31100 must be 31600 or higher")
    fake.answer(features=False)
    engine.call("checkpoint", "--pre-dump", name, cwd=place).fails("criu is missing features: [MemTrack]")
    engine.call("checkpoint", "--lazy-pages", name, cwd=place).fails("criu is missing features: [LazyPages]")
    fake.answer(die=True)
    engine.call("checkpoint", name, cwd=place).fails("criu failed: it was ended by signal 9")
    (place / "python3").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(place))  # where the stand-in can still find its interpreter
    engine.call("checkpoint", name, cwd=place).fails("criu: executable file not found in $PATH")
    engine.call("--criu", str(FAKE), "checkpoint", name, cwd=place).fails("ended by signal 9")
    assert engine.status(name) == "running"


# -- what CRIU is asked for a restore ----------------------------------------------------------------------


@pytest.fixture
def images(place: Path) -> Path:
    """A directory that looks like a checkpoint."""
    made = place / "images"
    made.mkdir()
    (made / "inventory.img").write_text("")
    (made / "descriptors.json").write_text('["/dev/null","pipe:[7]","pipe:[8]"]')
    return made


def restore(engine: Engine, bundle: Bundle, images: Path, *words: str, **how: Any) -> tuple[str, Result]:
    name = engine.new_id()
    bundle.write()
    options = ["--image-path", str(images), "--bundle", str(bundle.path), "--detach", *words]
    return name, engine.call("restore", *options, name, **how)


def test_a_restored_container_is_like_any_other(
    engine: Engine, bundle: Bundle, fake: Fake, images: Path, place: Path
) -> None:
    pid_file, work = place / "pid", place / "work"
    words = ["--pid-file", str(pid_file), "--work-path", str(work)]
    name, result = restore(engine, bundle, images, *words)
    result.ok()
    state = engine.state(name)
    assert state["status"] == "running"
    assert state["pid"] == int(pid_file.read_text())
    assert state["bundle"] == str(bundle.path)
    request = fake.last(RESTORE)
    assert request["directories"] == [str(images), str(work)]
    options = request["options"]
    assert options["10"] == ["restore.log"]
    assert options["6"] == options["26"] == options["50"] == [1]
    assert [entry["1"][0] for entry in options["27"]] == ["pipe:[7]", "pipe:[8]"]
    assert [entry["2"][0] for entry in options["27"]] == [1, 2]
    roots = {entry["1"][0]: entry["2"][0] for entry in options["25"]}
    assert roots
    assert all(path.endswith(name) for path in roots.values()), roots
    # CRIU works in the container's cgroups, with the root file system mounted where nobody else can see it.
    assert all(line.endswith(name) for line in request["cgroup"].splitlines())
    assert options["13"][0].endswith(f"/{name}/criu-root")
    assert f" {options['13'][0]} " in request["mounts"]
    assert not os.path.exists(options["13"][0])
    assert f" {options['13'][0]} " not in Path("/proc/self/mountinfo").read_text()
    assert str(state["pid"]) in engine.call("ps", "--format", "json", name).ok().out
    engine.call("kill", name, "KILL").ok()
    engine.until(name, "stopped")
    engine.call("delete", name).ok()


def test_every_option_of_a_restore(engine: Engine, bundle: Bundle, fake: Fake, images: Path) -> None:
    name, result = restore(
        engine,
        bundle,
        images,
        *(
            "--tcp-established",
            "--ext-unix-sk",
            "--shell-job",
            "--file-locks",
            "--auto-dedup",
            "--lazy-pages",
        ),
        *("--manage-cgroups-mode=soft", "--empty-ns", "network", "--tcp-close", "--network-lock", "skip"),
        *("--lsm-profile", "apparmor:x", "--lsm-mount-context", "ctx", "--no-pivot", "-no-subreaper"),
        *("--parent-path", "../x", "--leave-running", "--leave-running", "--no-new-keyring", "--pre-dump"),
        *("--tcp-skip-in-flight", "--link-remap", "--page-server", "a:1", "--status-fd", "3"),
    )
    result.ok()
    options = fake.last(RESTORE)["options"]
    assert all(options[number] == [1] for number in ["4", "5", "7", "8", "16", "48", "52"]), options
    assert options["34"] == options["64"] == [3]
    assert options["53"] == ["apparmor:x"]
    assert options["63"] == ["ctx"]
    assert not {"3", "11", "14", "18", "46", "49"} & set(options)
    engine.delete(name)


def test_mount_points_are_made_and_named(
    engine: Engine, bundle: Bundle, fake: Fake, images: Path, place: Path
) -> None:
    outer, inner, file = place / "outer", place / "inner", place / "file"
    outer.mkdir()
    inner.mkdir()
    file.write_text("")
    (bundle.rootfs / "real").mkdir()
    (bundle.rootfs / "link").symlink_to("/real")
    (bundle.rootfs / "proc").rmdir()
    bundle.mount("/link/new", outer, "bind")
    bundle.mount("/real/new/nested", inner, "rbind")
    bundle.mount("/etc/file", file, "bind", "ro")
    bundle.mount("/dev/shm/x", inner, "bind")
    name, result = restore(engine, bundle, images)
    result.ok()
    assert (bundle.rootfs / "proc").is_dir()
    assert (bundle.rootfs / "real" / "new").is_dir()
    assert (outer / "nested").is_dir()
    assert (bundle.rootfs / "etc" / "file").is_file()
    assert not (bundle.rootfs / "dev" / "shm").exists()
    request = fake.last(RESTORE)
    assert pairs(request["options"]["23"]) == {
        "/real/new": str(outer),
        "/real/new/nested": str(inner),
        "/etc/file": str(file),
        "/dev/shm/x": str(inner),
        "/dev/null": "/dev/null",
    }
    root = request["options"]["13"][0]
    assert not [line for line in request["mounts"].splitlines() if line.split()[4].startswith(root + "/")]
    engine.delete(name)


def test_image_files_are_shown_to_a_user_namespaces_root(
    engine: Engine, bundle: Bundle, fake: Fake, images: Path, place: Path
) -> None:
    (images / "timens-0.img").write_text("")
    (place / "pre").mkdir()
    (place / "pre" / "pages-1.img").write_text("")
    (images / "parent").symlink_to("../pre")
    bundle.user_namespace()
    name, result = restore(engine, bundle, images)
    result.ok()
    request = fake.last(RESTORE)
    shown, work = request["directories"]
    assert shown.endswith(f"/{name}/criu-images")
    assert work == str(images)
    rows = [line.split(" ") for line in request["mounts"].splitlines()]
    found = {row[4].removeprefix(shown): "idmapped" in row[5] for row in rows if row[4].startswith(shown)}
    assert found == {
        "": False,
        "/inventory.img": True,
        "/descriptors.json": True,
        "/timens-0.img": False,
        "/parent/pages-1.img": True,
    }
    assert not os.path.exists(shown)
    assert shown not in Path("/proc/self/mountinfo").read_text()
    engine.delete(name)


def test_namespaces_are_joined_again(
    engine: Engine, bundle: Bundle, bundles: Callable[[str], Bundle], fake: Fake, images: Path
) -> None:
    holder = engine.pid(engine.start(bundles("holder")))
    for entry in bundle.linux["namespaces"]:
        if entry["type"] in ("network", "ipc"):
            entry["path"] = f"/proc/{holder}/ns/{entry['type'][:3]}"
    name, result = restore(engine, bundle, images)
    result.ok()
    request = fake.last(RESTORE)
    options = request["options"]
    assert pairs(options["39"]) == {"ipc": f"/proc/{holder}/ns/ipc"}
    inherited = {entry["1"][0]: entry["2"][0] for entry in options["27"]}
    fd = inherited["extRootNetNS"]
    assert request["open"][str(fd)] == os.readlink(f"/proc/{holder}/ns/net")
    engine.delete(name)


def test_hooks_run_with_the_restored_init(
    engine: Engine, bundle: Bundle, fake: Fake, images: Path, place: Path
) -> None:
    script = "cat >> {}/{}"
    bundle.config["hooks"] = {
        kind: [{"path": "/bin/sh", "args": ["sh", "-c", script.format(place, kind)]}]
        for kind in ("prestart", "createRuntime", "startContainer", "poststop")
    }
    name, result = restore(engine, bundle, images)
    result.ok()
    assert fake.last(RESTORE)
    pid = engine.pid(name)
    for kind in ("prestart", "createRuntime"):
        state = json.loads((place / kind).read_text())
        assert (state["pid"], state["id"], state["status"]) == (pid, name, "creating")
    assert not (place / "startContainer").exists()
    engine.delete(name)
    assert json.loads((place / "poststop").read_text())["status"] == "stopped"


def test_the_terminal_goes_to_the_console_socket(
    engine: Engine, bundle: Bundle, fake: Fake, images: Path, place: Path
) -> None:
    fake.answer(terminal=True)
    bundle.process["terminal"] = True
    _, refused = restore(engine, bundle, images)
    refused.fails("cannot allocate tty if runc will detach without setting console socket")
    receiver = Receiver(place / "console.sock")
    taker = threading.Thread(target=receiver.take)
    taker.start()
    name, result = restore(engine, bundle, images, "--console-socket", str(receiver.path))
    taker.join(30)
    result.ok()
    assert os.read(receiver.fd, 5) == b"hello"
    assert receiver.payload == b"orphan-pts-master"
    receiver.close()
    assert fake.last(RESTORE)["open"]["0"] == "/dev/null"
    engine.delete(name)


def test_in_the_foreground_the_status_is_the_containers(
    engine: Engine, bundle: Bundle, fake: Fake, images: Path
) -> None:
    bundle.write()
    words = ["restore", "--image-path", str(images), "--bundle", str(bundle.path)]
    fake.answer(program="exit 7")
    assert engine.call(*words, engine.new_id()).code == 7
    fake.answer(program="kill -9 $$")
    assert engine.call(*words, engine.new_id()).code == 128 + signal.SIGKILL
    assert engine.call("list", "-q").ok().out == ""


def test_what_cannot_be_restored(
    engine: Engine, bundle: Bundle, fake: Fake, place: Path, images: Path
) -> None:
    _, result = restore(engine, bundle, place / "none")
    result.fails(f"there is no checkpoint in {place}/none: inventory.img: no such file or directory")
    (images / "descriptors.json").write_text("{")
    _, result = restore(engine, bundle, images)
    result.fails(f"read {images}/descriptors.json")
    (images / "descriptors.json").write_text("{}")
    _, result = restore(engine, bundle, images)
    result.fails(f"{images}/descriptors.json is not a list")
    bundle.linux["namespaces"].append({"type": "cgroup", "path": "/proc/self/ns/cgroup"})
    _, result = restore(engine, bundle, images)
    result.fails("criu cannot restore into a cgroup namespace by path")
    bundle.linux["namespaces"][-1] = {"type": "time", "path": "/proc/self/ns/none"}
    for entry in bundle.linux["namespaces"]:
        if entry["type"] == "network":
            entry["path"] = "/run/netns/no-such"
    _, result = restore(engine, bundle, images)
    result.fails(
        "/linux/namespaces: requested network namespace /run/netns/no-such: no such file or directory"
    )
    bundle.config["root"]["path"] = "no-such"
    _, result = restore(engine, bundle, images)
    result.fails("invalid rootfs")
    assert RESTORE not in [request["type"] for request in fake.requests()]
    assert engine.call("list", "-q").ok().out == ""


def test_an_id_that_is_taken(engine: Engine, bundle: Bundle, fake: Fake, images: Path) -> None:
    name = engine.start(bundle)
    engine.call("restore", "--image-path", str(images), "-b", str(bundle.path), "-d", name).fails(
        "container with given ID already exists"
    )
    assert engine.status(name) == "running"
    assert fake.last(VERSION)


def test_a_bind_source_that_is_gone(engine: Engine, bundle: Bundle, fake: Fake, images: Path) -> None:
    bundle.mount("/data", "/no/such", "bind")
    name, result = restore(engine, bundle, images)
    result.fails("/mounts/", "bind source /no/such does not exist")
    engine.call("state", name).fails("container does not exist")
    assert fake.last(VERSION)


@pytest.mark.parametrize("program", ["false", "pid file"])
def test_a_failed_restore_leaves_nothing(
    engine: Engine, bundle: Bundle, fake: Fake, images: Path, program: str
) -> None:
    words: list[str] = []
    if program == "false":
        bundle.config["hooks"] = {
            "createRuntime": [{"path": "/bin/false"}],
            "poststop": [{"path": "/bin/sh", "args": ["sh", "-c", f"cat > {fake.work}/poststop"]}],
        }
        said = "createRuntime"
    else:
        words, said = ["--pid-file", str(fake.work / "none" / "pid")], "write pid file"
    name, result = restore(engine, bundle, images, *words)
    result.fails(said)
    engine.call("state", name).fails("container does not exist")
    assert (fake.work / "poststop").exists() == (program == "false")
    assert fake.last(RESTORE)


def test_a_refused_restore_says_why(
    engine: Engine, bundle: Bundle, fake: Fake, images: Path, place: Path
) -> None:
    fake.answer(lines=["(0.1) Error (criu/x.c:1): Can't restore that"])
    name, result = restore(engine, bundle, images, "--work-path", str(place / "work"))
    result.fails(
        "criu failed: type RESTORE errno 42: Error (criu/x.c:1): Can't restore that; ",
        f"see {place}/work/restore.log",
    )
    engine.call("state", name).fails("container does not exist")


def test_delete_finds_a_restore_that_was_killed(
    engine: Engine, bundle: Bundle, fake: Fake, images: Path, place: Path
) -> None:
    """Killed while a hook runs: there are a process, cgroups and a state directory."""
    bundle.config["hooks"] = {
        "createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", f"touch {place}/there; exec sleep 2"]}]
    }
    bundle.write()
    name = engine.new_id()
    words = ["restore", "--image-path", str(images), "--bundle", str(bundle.path), "--detach", name]
    with engine.begin(*words) as called:
        assert wait_for((place / "there").exists)
        called.kill()
    assert fake.last(RESTORE)
    engine.delete(name)


def test_delete_finds_criu_itself(engine: Engine, bundle: Bundle, fake: Fake, images: Path) -> None:
    """Killed while CRIU works on: it is in the container's cgroups, but not in its pid namespace."""
    fake.answer(hang=True)
    bundle.write()
    name = engine.new_id()
    words = ["restore", "--image-path", str(images), "--bundle", str(bundle.path), "--detach", name]
    with engine.begin(*words) as called:
        assert wait_for((fake.place / "hangs").exists)
        called.kill()
    assert engine.status(name) == "running"
    engine.delete(name)


# -- with CRIU ---------------------------------------------------------------------------------------------


def _unable() -> str:
    """Return why CRIU cannot work here, "" if it can."""
    if CRIU is None:
        return "criu is not installed"
    if os.geteuid() != 0:
        return "criu needs root"
    done = subprocess.run([CRIU, "check"], check=False, capture_output=True, text=True)
    return "" if done.returncode == 0 else "criu check: " + done.stderr.strip().partition("\n")[0]


UNABLE = _unable()
real = pytest.mark.skipif(bool(UNABLE), reason=UNABLE or "criu works")


class Shuttle:
    """A container that counts into a pipe, through checkpoints and restores."""

    def __init__(self, engine: Engine, bundle: Bundle, place: Path) -> None:
        self.engine = engine
        self.bundle = bundle
        self.images = place / "images"
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        self.seen = b""

    def start(self, script: str = COUNT) -> str:
        # Everything of the container's stdio is ours to give: a log file of the test would be outside.
        self.bundle.process["args"] = ["/bin/sh", "-c", script]
        self.bundle.write()
        name = self.engine.new_id()
        words = ["run", "--detach", "--bundle", str(self.bundle.path), name]
        result = self.engine.call(*words, stdout=self.writer, stderr=self.writer)
        assert result.code == 0, self.read()
        return name

    def checkpoint(self, name: str, *words: str) -> None:
        self.engine.call("checkpoint", "--image-path", str(self.images), *words, name).ok()

    def restore(self, *words: str) -> str:
        name = self.engine.new_id()
        options = ["--detach", "--image-path", str(self.images), "--bundle", str(self.bundle.path), *words]
        result = self.engine.call("restore", *options, name, stdout=self.writer, stderr=self.writer)
        assert result.code == 0, self.read()
        return name

    def read(self) -> bytes:
        """Return all that came so far."""
        try:
            while data := os.read(self.reader, 65536):
                self.seen += data
        except BlockingIOError:
            pass
        return self.seen

    def count(self) -> int:
        """Return the last whole number that came."""
        return int((b"0\n" + self.read()).rpartition(b"\n")[0].rpartition(b"\n")[2])

    def passes(self, number: int) -> bool:
        return wait_for(lambda: self.count() > number)

    def close(self) -> None:
        os.close(self.reader)
        os.close(self.writer)


@pytest.fixture
def shuttle(engine: Engine, bundle: Bundle, place: Path) -> Iterator[Shuttle]:
    made = Shuttle(engine, bundle, place)
    yield made
    made.close()


@real
def test_it_goes_on_where_it_was(shuttle: Shuttle, engine: Engine) -> None:
    name = shuttle.start()
    for _ in range(2):
        assert shuttle.passes(shuttle.count() + 3)
        shuttle.checkpoint(name)
        engine.call("state", name).fails("container does not exist")
        stopped = shuttle.count()
        time.sleep(0.2)
        assert shuttle.count() == stopped
        name = shuttle.restore()
        assert shuttle.passes(stopped + 3)
        lines = [int(line) for line in shuttle.read().split()]
        assert lines == list(range(1, len(lines) + 1))
        assert engine.status(name) == "running"
        assert engine.call("exec", name, "echo", "ok").ok().out == "ok\n"
    engine.call("pause", name).ok()
    assert engine.status(name) == "paused"
    engine.call("resume", name).ok()
    engine.delete(name)


@real
def test_leave_running(shuttle: Shuttle, engine: Engine) -> None:
    name = shuttle.start()
    assert shuttle.passes(2)
    shuttle.checkpoint(name, "--leave-running")
    assert shuttle.passes(shuttle.count() + 3)
    assert engine.status(name) == "running"


@real
def test_mounts_come_back(shuttle: Shuttle, bundle: Bundle, place: Path, engine: Engine) -> None:
    outer, inner = place / "outer", place / "inner"
    for path in (outer, inner):
        path.mkdir()
        (path / "mark").write_text(path.name)
    (bundle.rootfs / "real").mkdir()
    (bundle.rootfs / "link").symlink_to("real")
    bundle.mount("/link", outer, "bind", "ro")
    bundle.mount("/outer", outer, "bind")
    bundle.mount("/outer/inner", inner, "rbind")
    bundle.mount("/tmp", "tmpfs", "mode=1777", "nosuid", kind="tmpfs")
    bundle.config["root"]["readonly"] = True
    name = shuttle.start("echo kept > /tmp/file; " + COUNT)
    assert shuttle.passes(2)
    shuttle.checkpoint(name)
    shutil.rmtree(outer / "inner")
    name = shuttle.restore()
    assert shuttle.passes(shuttle.count() + 2)
    look = "cat /link/mark /outer/mark /outer/inner/mark /tmp/file; cat /proc/keys; ls /sys/firmware"
    said = engine.call("exec", name, "sh", "-c", look).ok().out
    assert said == "outerouterinnerkept\n"
    for command in ("touch /link/x", "touch /x", "touch /proc/sys/kernel/hostname"):
        assert "Read-only file system" in engine.call("exec", name, "sh", "-c", command).err


@real
def test_a_mount_below_a_recursive_bind(
    shuttle: Shuttle, bundle: Bundle, place: Path, engine: Engine
) -> None:
    source = place / "source"
    (source / "below").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "below", source / "below"], check=True)
    try:
        (source / "below" / "mark").write_text("here")
        bundle.mount("/data", source, "rbind")
        name = shuttle.start()
        assert shuttle.passes(2)
        shuttle.checkpoint(name)
        name = shuttle.restore()
        assert engine.call("exec", name, "cat", "/data/below/mark").ok().out == "here"
        engine.delete(name)
    finally:
        subprocess.run(["umount", source / "below"], check=True)


@real
def test_limits_are_those_of_the_configuration(shuttle: Shuttle, bundle: Bundle, engine: Engine) -> None:
    bundle.linux["resources"] = {"pids": {"limit": 77}}
    name = shuttle.start()
    assert shuttle.passes(2)
    shuttle.checkpoint(name)
    bundle.linux["resources"] = {"pids": {"limit": 78}}
    bundle.write()
    name = shuttle.restore("--manage-cgroups-mode", "ignore")
    stats = json.loads(engine.call("events", "--stats", name).ok().out)
    assert stats["data"]["pids"]["limit"] == 78


@real
def test_loopback_is_up(shuttle: Shuttle, engine: Engine) -> None:
    name = shuttle.start()
    assert shuttle.passes(2)
    shuttle.checkpoint(name)
    name = shuttle.restore()
    assert "UP,LOWER_UP" in engine.call("exec", name, "ip", "address", "show", "lo").ok().out


@real
def test_a_user_namespace(shuttle: Shuttle, bundle: Bundle, engine: Engine) -> None:
    bundle.user_namespace()
    name = shuttle.start()
    assert shuttle.passes(2)
    shuttle.checkpoint(name)
    name = shuttle.restore()
    assert shuttle.passes(shuttle.count() + 2)
    assert engine.call("exec", name, "cat", "/proc/self/uid_map").ok().out.split() == ["0", "100000", "65536"]


@real
def test_a_joined_network_namespace(
    shuttle: Shuttle, bundle: Bundle, bundles: Callable[[str], Bundle], engine: Engine
) -> None:
    path = f"/proc/{engine.pid(engine.start(bundles('holder')))}/ns/net"
    for entry in bundle.linux["namespaces"]:
        if entry["type"] == "network":
            entry["path"] = path
    name = shuttle.start()
    assert shuttle.passes(2)
    shuttle.checkpoint(name)
    name = shuttle.restore()
    assert os.readlink(f"/proc/{engine.pid(name)}/ns/net") == os.readlink(path)


@real
def test_namespaces_of_another_container(
    shuttle: Shuttle, bundle: Bundle, bundles: Callable[[str], Bundle], engine: Engine
) -> None:
    """As in a pod. One process only, for its number must be free in that pid namespace when it comes back."""
    holder = engine.pid(engine.start(bundles("holder"), "exec sleep 1000"))
    kinds = ("pid", "ipc", "uts", "network")
    for entry in bundle.linux["namespaces"]:
        if entry["type"] in kinds:
            entry["path"] = f"/proc/{holder}/ns/{entry['type'][:3]}"
    del bundle.config["hostname"]
    name = shuttle.start("exec sleep 1000")
    shuttle.checkpoint(name)
    name = shuttle.restore()
    pid = engine.pid(name)
    for kind in kinds:
        file = f"ns/{kind[:3]}"
        assert os.readlink(f"/proc/{pid}/{file}") == os.readlink(f"/proc/{holder}/{file}")


@real
def test_a_terminal(engine: Engine, bundle: Bundle, place: Path) -> None:
    bundle.process["terminal"] = True
    bundle.process["args"] = ["/bin/sh", "-c", "while read x; do echo got-$x; done"]
    bundle.write()
    first = Receiver(place / "first.sock")
    taker = threading.Thread(target=first.take)
    taker.start()
    name = engine.new_id()
    words = ["--detach", "--bundle", str(bundle.path), "--console-socket"]
    engine.call("run", *words, str(first.path), name).ok()
    taker.join(30)
    os.write(first.fd, b"one\n")
    read_until(first.fd, b"got-one")
    engine.call("checkpoint", name, cwd=place).ok()
    first.close()
    second = Receiver(place / "second.sock")
    taker = threading.Thread(target=second.take)
    taker.start()
    name = engine.new_id()
    engine.call("restore", *words, str(second.path), name, cwd=place).ok()
    taker.join(30)
    os.write(second.fd, b"two\n")
    read_until(second.fd, b"got-two")
    engine.delete(name)
    second.close()


@real
def test_a_terminal_in_the_foreground(engine: Engine, bundle: Bundle, place: Path) -> None:
    bundle.process["terminal"] = True
    bundle.process["args"] = ["/bin/sh", "-c", "echo ready; while read x; do echo got-$x; exit 5; done"]
    bundle.write()
    receiver = Receiver(place / "first.sock")
    taker = threading.Thread(target=receiver.take)
    taker.start()
    name = engine.new_id()
    words = ["--bundle", str(bundle.path)]
    engine.call("run", *words, "--detach", "--console-socket", str(receiver.path), name).ok()
    taker.join(30)
    read_until(receiver.fd, b"ready")
    engine.call("checkpoint", name, cwd=place).ok()
    receiver.close()
    screen = Screen()
    name = engine.new_id()
    slave = screen.slave
    with engine.begin("restore", *words, name, cwd=place, stdin=slave, stdout=slave, stderr=slave) as called:
        engine.until_running(name)
        assert wait_for(screen.is_raw)
        os.write(screen.master, b"x\n")
        read_until(screen.master, b"got-x")
        assert called.wait(30) == 5
    assert screen.restored()
    screen.close()


@real
def test_a_connection_to_the_outside(shuttle: Shuttle, bundle: Bundle, engine: Engine) -> None:
    """Refused unless it is allowed, with CRIU's reason."""
    bundle.linux["namespaces"] = [entry for entry in bundle.linux["namespaces"] if entry["type"] != "network"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        name = shuttle.start(f"nc 127.0.0.1 {port} & " + COUNT)
        connection, _ = server.accept()
        assert shuttle.passes(2)
        words = ["checkpoint", "--image-path", str(shuttle.images), "--leave-running", name]
        said = engine.call(*words).fails("criu failed: type DUMP", "dump.log").err
        assert "established" in said or "Connected TCP socket" in said, said
        assert engine.status(name) == "running"
        connection.close()
