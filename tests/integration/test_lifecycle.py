"""The life of a container, and the message of each verb at the wrong time (runtime.md)."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import wait_for
from tests.support.engine import alive

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.containers import Bundle
    from tests.support.engine import Engine


def test_create_start_kill_delete(engine: Engine, bundle: Bundle) -> None:
    bundle.process["args"] = ["/bin/sleep", "1000"]
    name = engine.create(bundle)
    state = engine.state(name)
    assert state["status"] == "created"
    assert state["id"] == name
    assert state["bundle"] == str(bundle.path)
    assert state["ociVersion"].startswith("1.")
    assert dt.datetime.fromisoformat(state["created"]).tzinfo is not None
    pid = state["pid"]
    # created: the program has not been executed
    assert b"1000" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    engine.call("start", name).ok()
    assert engine.state(name) == {**state, "status": "running"}
    engine.call("kill", name, "KILL").ok()
    engine.until(name, "stopped")
    assert engine.state(name)["pid"] == 0
    engine.call("delete", name).ok()
    engine.call("state", name).fails("container does not exist")
    assert not alive(pid)


def test_the_state_ends_without_a_newline_and_keeps_annotations(engine: Engine, bundle: Bundle) -> None:
    bundle.config["annotations"] = {"org.example.key": "wert ✓"}
    name = engine.create(bundle)
    out = engine.call("state", name).ok().out
    assert out.endswith("}")
    assert "\n  " in out
    assert json.loads(out)["annotations"] == {"org.example.key": "wert ✓"}


def test_start_twice(engine: Engine, bundle: Bundle) -> None:
    name = engine.start(bundle)
    engine.call("start", name).fails("cannot start an already running container")
    engine.call("kill", name, "9").ok()
    engine.until(name, "stopped")
    engine.call("start", name).fails("cannot start a container that has stopped")


def test_an_id_in_use(engine: Engine, bundle: Bundle) -> None:
    name = engine.create(bundle)
    pid = engine.state(name)["pid"]
    engine.call("create", "--bundle", str(bundle.path), name).fails("container with given ID already exists")
    engine.call("run", "--bundle", str(bundle.path), name).fails("container with given ID already exists")
    assert engine.state(name)["pid"] == pid


@pytest.mark.parametrize("name", ["../x", "a/b", "a b", "ä", "", ".", "..", "a\nb"])
def test_an_id_with_bad_characters(engine: Engine, bundle: Bundle, name: str) -> None:
    bundle.write()
    failed = engine.call("create", "--bundle", str(bundle.path), "--", name)
    assert failed.code == 1, failed
    assert "container" in failed.err.lower(), failed
    assert not engine.root.exists() or not [entry for entry in os.listdir(engine.root) if entry != "@cache"]


@pytest.mark.parametrize("name", ["plus+minus-dot.under_9", "A" * 200, ".hidden"])
def test_an_id_with_good_characters(engine: Engine, bundle: Bundle, name: str) -> None:
    unique = f"{name}{os.getpid()}" if len(name) < 100 else name
    engine.ids.append(unique)
    engine.create(bundle, name=unique)
    assert engine.call("list", "-q").ok().out == unique + "\n"


@pytest.mark.parametrize(
    "words",
    [
        ("state", "ID"), ("start", "ID"), ("kill", "ID"), ("kill", "ID", "9"), ("kill", "--all", "ID", "9"),
        ("delete", "ID"), ("pause", "ID"), ("resume", "ID"), ("ps", "ID"),
    ],
)  # fmt: skip
def test_an_unknown_container(engine: Engine, words: tuple[str, ...]) -> None:
    name = engine.new_id()
    engine.call(*(name if word == "ID" else word for word in words)).fails("container does not exist")


def test_deleting_an_unknown_container_by_force_is_silent(engine: Engine) -> None:
    done = engine.call("delete", "--force", engine.new_id()).ok()
    assert done.out == ""


def test_delete_while_running(engine: Engine, bundle: Bundle) -> None:
    name = engine.start(bundle)
    engine.call("delete", name).fails(f"cannot delete container {name} that is not stopped: running")
    assert engine.status(name) == "running"
    engine.call("delete", "--force", name).ok()
    engine.call("state", name).fails("container does not exist")


def test_delete_a_created_container(engine: Engine, bundle: Bundle) -> None:
    """Its program has not started. runc and crun delete it, too, although runtime.md forbids that."""
    name = engine.create(bundle)
    pid = engine.state(name)["pid"]
    engine.call("delete", name).ok()
    assert not alive(pid)
    engine.call("state", name).fails("container does not exist")


def test_a_container_whose_init_ended_by_itself(engine: Engine, bundle: Bundle) -> None:
    name = engine.start(bundle, "exit 3")
    engine.until(name, "stopped")
    engine.call("kill", name, "9").fails("container not running")
    engine.call("kill", name, "0").fails("container not running")
    engine.call("pause", name).fails("container not running")
    engine.call("delete", name).ok()


def test_a_created_container_whose_init_was_killed(engine: Engine, bundle: Bundle) -> None:
    name = engine.create(bundle)
    os.kill(engine.state(name)["pid"], signal.SIGKILL)
    engine.until(name, "stopped")
    engine.call("start", name).fails("cannot start a container that has stopped")
    engine.call("delete", name).ok()


def test_kill_a_created_container(engine: Engine, bundle: Bundle) -> None:
    name = engine.create(bundle)
    engine.call("kill", name, "KILL").ok()
    engine.until(name, "stopped")


@pytest.mark.parametrize("word", ["TERM", "SIGTERM", "term", "sigterm", "15", None])
def test_signals_by_name_and_number(engine: Engine, bundle: Bundle, word: str | None) -> None:
    name = engine.start(bundle, "trap 'echo got it; exit 0' TERM; echo up; while :; do sleep 0.02; done")
    assert wait_for(lambda: "up" in (engine.directory / "out.1").read_text())
    engine.call("kill", name, *([word] if word else [])).ok()
    engine.until(name, "stopped")
    assert "got it" in (engine.directory / "out.1").read_text()


@pytest.mark.parametrize("word", ["NOSUCH", "-1", "999", "SIGSIGTERM"])
def test_a_signal_that_is_none(engine: Engine, bundle: Bundle, word: str) -> None:
    name = engine.start(bundle)
    failed = engine.call("kill", name, word)
    assert failed.code == 1, failed
    assert engine.status(name) == "running"


def test_kill_all_reaches_every_process(engine: Engine, bundle: Bundle) -> None:
    bundle.linux["namespaces"] = [n for n in bundle.linux["namespaces"] if n["type"] != "pid"]
    bundle.without_mount("/proc")
    bundle.mount("/proc", "/proc", "rbind", "ro")
    bundle.linux["maskedPaths"] = bundle.linux["readonlyPaths"] = []
    name = engine.start(bundle, "sleep 1001 & sleep 1002 & wait")
    assert wait_for(lambda: len(json.loads(engine.call("ps", "-f", "json", name).out)) == 3)
    pids = json.loads(engine.call("ps", "-f", "json", name).ok().out)
    engine.call("kill", "--all", name, "KILL").ok()
    assert wait_for(lambda: not any(alive(pid) for pid in pids))
    engine.until(name, "stopped")
    engine.call("kill", "--all", name, "KILL").ok()  # already stopped: engines do this without looking


def test_deleting_takes_along_what_outlived_init(engine: Engine, bundle: Bundle) -> None:
    bundle.linux["namespaces"] = [n for n in bundle.linux["namespaces"] if n["type"] != "pid"]
    bundle.without_mount("/proc")
    bundle.linux["maskedPaths"] = bundle.linux["readonlyPaths"] = []
    name = engine.start(bundle, "setsid sleep 1003 & sleep 0.3")
    engine.until(name, "stopped")
    engine.call("delete", name).ok()


def test_list(engine: Engine, bundle: Bundle) -> None:
    assert engine.root.exists() is False
    first = engine.create(bundle)
    second = engine.start(bundle)
    lines = engine.call("list").ok().out.splitlines()
    assert lines[0].split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    rows = {line.split()[0]: line.split() for line in lines[1:]}
    assert rows[first][2:4] == ["created", str(bundle.path)]
    assert rows[second][2] == "running"
    assert rows[second][5] == "root"
    assert int(rows[second][1]) == engine.state(second)["pid"]
    assert sorted(engine.call("list", "-q").ok().out.split()) == sorted([first, second])
    found = json.loads(engine.call("list", "--format", "json").ok().out)
    assert {entry["id"]: entry["status"] for entry in found} == {first: "created", second: "running"}
    for name in (first, second):
        engine.delete(name)
    assert engine.call("list", "--format", "json").ok().out.strip() == "null"
    assert engine.call("list", "-q").ok().out == ""


def test_pause_and_resume(engine: Engine, bundle: Bundle) -> None:
    name = engine.start(bundle, "while :; do date +%s%N; sleep 0.01; done")
    engine.call("resume", name).fails("container not paused")
    engine.call("pause", name).ok()
    assert engine.status(name) == "paused"
    size = (engine.directory / "out.1").stat().st_size
    engine.call("exec", name, "/bin/true").fails("cannot exec in a paused container", code=255)
    engine.call("delete", name).fails("that is not stopped: paused")
    assert (engine.directory / "out.1").stat().st_size == size
    engine.call("resume", name).ok()
    assert engine.status(name) == "running"
    assert wait_for(lambda: (engine.directory / "out.1").stat().st_size > size)


def test_pause_a_created_container(engine: Engine, bundle: Bundle) -> None:
    name = engine.create(bundle)
    engine.call("pause", name).ok()
    assert engine.status(name) == "paused"
    engine.call("resume", name).ok()
    assert engine.status(name) == "created"


@pytest.mark.parametrize("how", ["kill", "delete"])
def test_a_paused_container_can_be_ended(engine: Engine, bundle: Bundle, how: str) -> None:
    name = engine.start(bundle)
    engine.call("pause", name).ok()
    if how == "kill":
        engine.call("kill", name, "KILL").ok()
        engine.until(name, "stopped")
        engine.call("delete", name).ok()
    else:
        engine.call("delete", "--force", name).ok()


def test_ps(engine: Engine, bundle: Bundle) -> None:
    name = engine.start(bundle, "sleep 1004 & wait")
    assert wait_for(lambda: len(json.loads(engine.call("ps", "--format", "json", name).out)) == 2)
    pids = json.loads(engine.call("ps", "--format", "json", name).ok().out)
    assert engine.state(name)["pid"] in pids
    table = engine.call("ps", name).ok().out.splitlines()
    assert "PID" in table[0]
    assert len(table) == 3
    assert "sleep 1004" in table[2]
    short = engine.call("ps", name, "-o", "pid,comm").ok().out.splitlines()
    assert short[0].split()[0] == "PID"


def test_a_pid_that_was_given_to_another_process_is_not_the_container(engine: Engine, bundle: Bundle) -> None:
    """After a reboot, or 2^22 forks later, the stored pid is another process's; its start time shows that."""
    name = engine.start(bundle)
    path = engine.root / name / "state.json"
    state = json.loads(path.read_text())
    keys = {"pid", "init_process_pid"} & state.keys()
    pid = engine.state(name)["pid"]
    sleeper = os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "1005")
    path.write_text(json.dumps({**state, **dict.fromkeys(keys, sleeper)}))
    assert engine.status(name) == "stopped"
    engine.call("kill", name, "KILL").fails("container not running")
    path.write_text(json.dumps(state))
    assert alive(sleeper)
    assert engine.state(name)["pid"] == pid
    os.kill(sleeper, signal.SIGKILL)
    os.waitpid(sleeper, 0)


def test_two_containers_share_nothing(
    engine: Engine, bundle: Bundle, bundles: Callable[[str], Bundle]
) -> None:
    other = bundles("second")
    first = engine.start(bundle)
    second = engine.start(other)
    spaces = ["pid", "mnt", "ipc", "uts", "net"]
    one, two = (engine.state(name)["pid"] for name in (first, second))
    for space in spaces:
        inodes = {os.stat(f"/proc/{pid}/ns/{space}").st_ino for pid in (one, two, os.getpid())}
        assert len(inodes) == 3, space
    engine.delete(first)
    assert engine.status(second) == "running"
