"""Restore, with a stand-in for CRIU: the requests to it, and that a failed restore leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.consoles import Receiver
from tests.support.containers import wait_for
from tests.support.criu import (
    RESTORE,
    VERSION,
    Fake,
    pairs,
)
from tests.support.engine import Result
from tests.support.mounts import parse_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.containers import Bundle
    from tests.support.engine import Engine


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
    # CRIU works in the container's cgroups, with the root file system mounted where no other process sees it.
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
    assert not [row for row in parse_rows(request["mounts"]) if row.place.startswith(root + "/")]
    engine.delete(name)
    # What was made for it is removed with it.
    assert not (bundle.rootfs / "proc").exists()
    assert os.listdir(bundle.rootfs / "real") == []
    assert os.listdir(outer) == []
    assert not (bundle.rootfs / "etc" / "file").exists()


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
    (images / "descriptors.json").write_text("[" * 900 + "]" * 900)
    _, result = restore(engine, bundle, images)
    result.fails(f"read {images}/descriptors.json")
    (images / "descriptors.json").unlink()
    os.mkfifo(images / "descriptors.json")
    _, result = restore(engine, bundle, images)
    result.fails(f"{images}/descriptors.json is not a regular file")
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
    """It is killed while a hook runs: a process, cgroups and a state directory exist."""
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
    """The restore is killed while CRIU works.

    CRIU is in the container's cgroups, but not in its pid namespace.
    """
    fake.answer(hang=True)
    bundle.write()
    name = engine.new_id()
    words = ["restore", "--image-path", str(images), "--bundle", str(bundle.path), "--detach", name]
    with engine.begin(*words) as called:
        assert wait_for((fake.place / "hangs").exists)
        called.kill()
    assert engine.status(name) == "running"
    engine.delete(name)
