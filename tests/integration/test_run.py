"""run: create, start, wait and delete in one call."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import wait_for
from tests.support.engine import FOREIGN, alive

if TYPE_CHECKING:
    from tests.support.containers import Bundle
    from tests.support.engine import Engine


def test_nothing_is_left_of_a_finished_container(engine: Engine, bundle: Bundle) -> None:
    assert engine.front(bundle, "echo hello; exit 3").code == 3
    assert engine.call("list", "-q").ok().out == ""


def test_the_bundle_is_the_current_directory_by_default(engine: Engine, bundle: Bundle) -> None:
    bundle.process["args"] = ["/bin/echo", "here"]
    bundle.write()
    done = engine.call("run", engine.new_id(), cwd=bundle.path).ok()
    assert done.out == "here\n"


def test_keep(engine: Engine, bundle: Bundle) -> None:
    assert engine.front(bundle, "exit 4", "--keep").code == 4
    name = engine.ids[-1]
    assert engine.status(name) == "stopped"
    engine.call("delete", name).ok()


def test_detached(engine: Engine, bundle: Bundle, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    done = engine.front(bundle, "echo started; sleep 1000", "--detach", "--pid-file", str(pid_file)).ok()
    name = engine.ids[-1]
    assert engine.status(name) == "running"
    assert pid_file.read_text() == str(engine.state(name)["pid"])
    assert wait_for(lambda: (engine.directory / "out.1").read_text() == "started\n"), done
    stat = Path(f"/proc/{engine.state(name)['pid']}/stat").read_text()
    parent = int(stat.rsplit(")", 1)[1].split()[1])
    assert parent == os.getpid()  # the subreaper, no process of the runtime stays


def test_a_detached_container_stays_when_it_has_ended(engine: Engine, bundle: Bundle) -> None:
    engine.front(bundle, "exit 0", "--detach").ok()
    engine.until(engine.ids[-1], "stopped")


SCRIPT = """
trap 'echo {name}; exit 21' {name}
echo up
while :; do sleep 0.02; done
"""


SIGNALS = ["HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "ALRM", "TSTP", "CONT"]
if not FOREIGN:
    SIGNALS.append("WINCH")  # runc keeps it for itself even without a terminal


@pytest.mark.parametrize("name", SIGNALS)
def test_signals_go_to_the_container(engine: Engine, bundle: Bundle, tmp_path: Path, name: str) -> None:
    bundle.process["args"] = ["/bin/sh", "-c", SCRIPT.format(name=name)]
    bundle.write()
    out = tmp_path / "front"
    with out.open("wb") as stdout:
        running = engine.begin("run", "--bundle", str(bundle.path), engine.new_id(), stdout=stdout)
    assert wait_for(lambda: out.read_text() == "up\n")
    running.send_signal(getattr(signal, f"SIG{name}"))
    assert running.wait(60) == 21
    assert out.read_text() == f"up\n{name}\n"


def test_a_signal_before_the_program_runs_is_not_lost(engine: Engine, bundle: Bundle, tmp_path: Path) -> None:
    """It comes while a hook delays the start; the container must get it, or be removed."""
    bundle.process["args"] = ["/bin/sh", "-c", "trap 'exit 22' TERM; while :; do sleep 0.02; done"]
    marker = tmp_path / "hook"
    bundle.config["hooks"] = {
        "poststart": [{"path": "/bin/sh", "args": ["sh", "-c", f"touch {marker}; sleep 0.5"]}]
    }
    bundle.write()
    running = engine.begin("run", "--bundle", str(bundle.path), engine.new_id())
    assert wait_for(marker.exists)
    running.send_signal(signal.SIGTERM)
    assert running.wait(60) == 22


def test_the_container_outlives_a_killed_runtime(engine: Engine, bundle: Bundle) -> None:
    """An engine may lose its foreground runtime; the container must still be found, and be removable."""
    bundle.process["args"] = ["/bin/sleep", "1009"]
    bundle.write()
    name = engine.new_id()
    running = engine.begin("run", "--bundle", str(bundle.path), name)
    engine.until_running(name)
    pid = engine.state(name)["pid"]
    running.kill()
    running.wait(60)
    assert alive(pid)
    assert engine.status(name) == "running"
    engine.call("delete", "--force", name).ok()
    assert not alive(pid)


@pytest.mark.skipif(FOREIGN, reason="in runc init is no child of what waits for it")
def test_orphans_are_collected_meanwhile(engine: Engine, bundle: Bundle) -> None:
    """Without a pid namespace the container's orphans become the runtime's, which must wait for them."""
    bundle.linux["namespaces"] = [n for n in bundle.linux["namespaces"] if n["type"] != "pid"]
    bundle.without_mount("/proc")
    bundle.mount("/proc", "/proc", "rbind", "ro")
    bundle.linux["maskedPaths"] = bundle.linux["readonlyPaths"] = []
    script = "(sleep 0.1 &); sleep 0.5; cat /proc/$PPID/task/$PPID/children"
    done = engine.front(bundle, script)
    assert done.code == 0, done
    assert len(done.out.split()) == 1, done  # the shell; no zombie of the sleep


def test_it_is_paused_and_still_waited_for(engine: Engine, bundle: Bundle) -> None:
    bundle.process["args"] = ["/bin/sleep", "1010"]
    bundle.write()
    name = engine.new_id()
    running = engine.begin("run", "--bundle", str(bundle.path), name)
    engine.until_running(name)
    engine.call("pause", name).ok()
    engine.call("kill", name, "KILL").ok()
    assert running.wait(60) == 137


def test_a_failure_is_one_line_and_one_log_record(engine: Engine, bundle: Bundle, tmp_path: Path) -> None:
    bundle.process["args"] = ["/nosuch"]
    bundle.write()
    log = tmp_path / "log.json"
    name = engine.new_id()
    failed = engine.call("--log", str(log), "--log-format", "json", "run", "--bundle", str(bundle.path), name)
    failed.fails("/nosuch", "no such file or directory")
    assert len(failed.err.strip().splitlines()) == 1
    record = json.loads(log.read_text())  # exactly one object, or this fails
    assert record["level"] == "error"
    assert "/nosuch" in record["msg"]
    assert set(record) == {"level", "msg", "time"}


@pytest.mark.skipif(FOREIGN, reason="runc names a temporary file in it")
def test_a_pid_file_that_cannot_be_written_undoes_everything(engine: Engine, bundle: Bundle) -> None:
    bundle.process["args"] = ["/bin/sleep", "1011"]
    bundle.write()
    failed = engine.call(
        "run", "-d", "--bundle", str(bundle.path), "--pid-file", "/nosuch/pid", engine.new_id()
    )
    failed.fails("/nosuch/pid", "no such file or directory")
    assert engine.call("list", "-q").ok().out == ""
