"""wait, stop, inspect and doctor: how containers end, what is known about one, what users are told."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from pyrunc.apply import exit_status, facts
from tests.support.containers import DEADLINE, wait_for
from tests.support.engine import FOREIGN, appears
from tests.support.leaks import collect
from tests.support.ordinary import COUNT, NAME, give

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from tests.support.containers import Bundle
    from tests.support.engine import Engine
    from tests.support.ordinary import Ordinary

if FOREIGN:
    pytest.skip("these verbs are pyrunc's alone", allow_module_level=True)

# Who is not the parent: see docs/kernels.md.
KEPT = facts.kernel() >= (6, 15)
if not KEPT and not exit_status.listens():
    pytest.skip("before Linux 6.15, and without the process connector", allow_module_level=True)
kept = pytest.mark.skipif(not KEPT, reason="before Linux 6.15 an ordinary user is not told")

STOP_SIGNAL = "org.opencontainers.image.stopSignal"
UNTIL_TOLD = "while [ ! -e /told ]; do sleep 0.02; done; exit 7"


def holds(pid: int, path: str) -> bool:
    """Tell whether a process has a file open."""
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            if os.readlink(f"/proc/{pid}/fd/{name}") == path:
                return True
        except FileNotFoundError:
            continue  # it is being closed
    return False


def trapping(engine: Engine, bundle: Bundle, signal: str) -> str:
    """Start a container that ends with 9 on this signal, and ignores others; its trap is already set."""
    others = " ".join({"TERM", "INT", "USR1"} - {signal})
    script = f"trap '' {others}; trap 'exit 9' {signal}; touch /ready; while :; do sleep 0.02; done"
    name = engine.start(bundle, script)
    assert appears([bundle.rootfs / "ready"])
    return name


def status(engine: Engine, name: str) -> int:
    """Return the exit status of `wait`, which it prints as well."""
    done = engine.call("wait", name)
    assert done.out == f"{done.code}\n", done
    return done.code


@pytest.mark.parametrize(
    ("script", "expected"), [(UNTIL_TOLD, 7), ("exec sleep 1000", 137)], ids=["exit", "signal"]
)
def test_wait_in_time(engine: Engine, bundle: Bundle, tmp_path: Path, script: str, expected: int) -> None:
    name = engine.start(bundle, script)
    with (tmp_path / "said").open("w") as said:
        waiting = engine.begin("wait", name, stdout=said)
        init = engine.pid(name)
        assert wait_for(lambda: holds(waiting.pid, f"/proc/{init}"))
        assert waiting.poll() is None
        (bundle.rootfs / "told").touch()
        if expected == 137:
            engine.call("kill", name, "KILL").ok()
        engine._wait(waiting, DEADLINE)
    assert waiting.returncode == expected
    assert (tmp_path / "said").read_text() == f"{expected}\n"
    # It is written down, for all who come later.
    assert status(engine, name) == expected
    assert json.loads(engine.call("inspect", name).ok().out)["exitStatus"] == (7 if expected == 7 else -9)


def test_wait_too_late(engine: Engine, bundle: Bundle) -> None:
    name = engine.start(bundle, "exit 4")
    engine.until(name, "stopped")
    collect(set())
    engine.call("wait", name).fails(f"{name}: it has ended, and how is not known any more; ", code=255)


def test_wait_for_nothing(engine: Engine) -> None:
    engine.call("wait", "nosuch").fails("container does not exist", code=255)


def test_run_keep_writes_it_down(engine: Engine, bundle: Bundle) -> None:
    assert engine.front(bundle, "exit 5", "--keep").code == 5
    assert status(engine, engine.ids[-1]) == 5


@pytest.mark.parametrize(
    ("annotation", "options", "trapped"),
    [
        ("", (), "TERM"),
        ("SIGINT", (), "INT"),
        ("SIGINT", ("--signal", "USR1"), "USR1"),
        ("", ("--time", "-1"), "TERM"),
    ],
)
def test_stop_asks_first(
    engine: Engine, bundle: Bundle, annotation: str, options: tuple[str, ...], trapped: str
) -> None:
    if annotation:
        bundle.config["annotations"] = {STOP_SIGNAL: annotation}
    name = trapping(engine, bundle, trapped)
    done = engine.call("stop", *options, name).ok()
    assert done.out == ""
    assert engine.status(name) == "stopped"
    assert status(engine, name) == 9
    engine.call("stop", name).ok()  # it has stopped already


@pytest.mark.parametrize("seconds", ["0", "1"])
def test_stop_kills_what_does_not_listen(engine: Engine, bundle: Bundle, seconds: str) -> None:
    name = trapping(engine, bundle, "INT")
    engine.call("stop", "--time", seconds, name).ok()
    assert engine.status(name) == "stopped"
    assert status(engine, name) == 137


def test_stop_lets_what_is_paused_go_on(engine: Engine, bundle: Bundle) -> None:
    name = trapping(engine, bundle, "TERM")
    engine.call("pause", name).ok()
    engine.call("stop", name).ok()
    assert status(engine, name) == 9


def test_stop_of_one_that_was_never_started(engine: Engine, bundle: Bundle) -> None:
    name = engine.create(bundle)
    engine.call("stop", "--time", "-1", name).ok()
    assert engine.status(name) == "stopped"
    assert status(engine, name) == 137


def test_stop_takes_those_along_who_outlive_init(engine: Engine, bundle: Bundle) -> None:
    """Without a pid namespace of its own, the container's other processes do not end with init."""
    bundle.linux["namespaces"] = [each for each in bundle.linux["namespaces"] if each["type"] != "pid"]
    name = engine.start(bundle, "sleep 1000 & touch /ready; exec sleep 1000")
    assert appears([bundle.rootfs / "ready"])
    assert len(json.loads(engine.call("ps", "--format", "json", name).ok().out)) == 2
    engine.call("stop", name).ok()
    assert wait_for(lambda: json.loads(engine.call("ps", "--format", "json", name).ok().out) == [])
    assert status(engine, name) == 143


def test_stop_with_a_signal_there_is_not(engine: Engine, bundle: Bundle) -> None:
    bundle.config["annotations"] = {STOP_SIGNAL: "SIGNOSUCH"}
    name = engine.start(bundle)
    engine.call("stop", name).fails(
        f"annotation {STOP_SIGNAL} of {name}: unknown signal 'SIGNOSUCH'; name another"
    )
    engine.call("stop", "--signal", "WRONG", name).fails("unknown signal 'WRONG'")
    assert engine.status(name) == "running"


def inspected(engine: Engine, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(engine.call("inspect", name).ok().out)
    return found


def test_inspect(engine: Engine, bundle: Bundle) -> None:
    bundle.config["annotations"] = {"note": "this one"}
    name = engine.start(bundle)
    found = inspected(engine, name)
    state = engine.state(name)
    assert {key: found[key] for key in state} == state
    assert found["record"]["pid"] == state["pid"]
    assert found["directory"] == f"{engine.root}/{name}"
    assert found["config"] == bundle.config
    assert [step["step"] for step in found["plan"]["steps"]][:1] != []
    assert found["processes"] == [state["pid"]]
    assert found["cgroup"]["manager"] == "cgroupfs"
    assert all(name in path for path in found["cgroup"]["paths"].values())
    assert found["cgroup"]["stats"]["pids"]["current"] == 1
    assert found["mounts"] == json.loads(engine.call("mounts", "--json", name).ok().out)
    engine.call("stop", "--time", "0", name).ok()
    ended = inspected(engine, name)
    assert (ended["status"], ended["exitStatus"]) == ("stopped", -9)
    assert (ended["processes"], ended["mounts"], ended["cgroup"]["stats"]) == ([], None, None)
    assert ended["plan"]["steps"]


def test_a_part_that_cannot_be_had_hides_no_other(engine: Engine, bundle: Bundle) -> None:
    name = engine.start(bundle)
    (engine.root / name / "config.json").unlink()
    done = engine.call("inspect", name)
    assert done.code == 0
    found = json.loads(done.out)
    assert (found["config"], found["plan"], found["mounts"]) == (None, None, None)
    assert found["processes"] == [found["pid"]]
    assert f"config of {name}: read {engine.root}/{name}/config.json: no such file or directory" in done.err
    engine.call("inspect", "nosuch").fails("container does not exist")


@pytest.fixture
def theirs(bundle: Bundle) -> Bundle:
    give(bundle)
    return bundle


@kept
def test_an_ordinary_user_stops_and_waits(user: Ordinary, theirs: Bundle) -> None:
    name = trapping(user, theirs, "TERM")
    user.call("stop", name).ok()
    assert status(user, name) == 9
    found = inspected(user, name)
    assert (found["status"], found["exitStatus"]) == ("stopped", 9)


def test_an_ordinary_user_inspects(user: Ordinary, theirs: Bundle) -> None:
    name = user.start(theirs)
    found = inspected(user, name)
    assert found["config"] == theirs.config
    assert {mount["target"] for mount in found["mounts"]} >= {"/", "/proc", "/dev"}
    user.call("stop", "--time", "0", name).ok()


def test_an_ordinary_user_asks_the_doctor(user: Ordinary) -> None:
    """It reports the user's own cgroup and ids, and agrees with what the user can really do."""
    user.exist()
    rows = {row["subject"]: row for row in json.loads(user.call("doctor", "--json").ok().out)}
    assert rows["user namespaces"]["state"] == "ok"
    assert f"{COUNT} users and {COUNT} groups for {NAME}" in rows["subordinate ids"]["found"]
    assert rows["own cgroup"]["state"] == "warning"
    assert "missing" not in {row["state"] for row in rows.values()}
