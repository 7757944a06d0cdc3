"""Checkpoint, with a stand-in for CRIU: the requests to it, and the messages when it cannot be done."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.criu import (
    DUMP,
    FAKE,
    FEATURES,
    PRE_DUMP,
    VERSION,
    Fake,
    pairs,
)
from tests.support.engine import alive

if TYPE_CHECKING:
    from tests.support.containers import Bundle
    from tests.support.engine import Engine


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
