"""`import pyrunc` with real containers: what a program can do, and that its own process is not changed."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import pyrunc
from pyrunc.apply import facts
from tests.support.containers import TOP, wait_for
from tests.support.engine import FOREIGN, alive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.containers import Bundle
    from tests.support.engine import Engine

# The status of a container that another process made and killed: before Linux 6.15 it may be unknown.
TOLD = (-9,) if facts.kernel() >= (6, 15) else (-9, None)

if FOREIGN:
    pytest.skip("the interface is pyrunc's alone", allow_module_level=True)


@pytest.fixture
def make(bundle: Bundle, engine: Engine) -> Iterator[Callable[..., pyrunc.Container]]:
    """Make containers whose first process runs a shell script."""
    made: list[pyrunc.Container] = []

    def create(script: str = "sleep 1000", **options: object) -> pyrunc.Container:
        bundle.process["args"] = ["sh", "-c", script]
        bundle.write()
        options.setdefault("stdin", subprocess.DEVNULL)
        found = pyrunc.Container.create(bundle.path, engine.new_id(), root=engine.root, **options)  # type: ignore[arg-type]
        made.append(found)
        return found

    yield create
    for container in made:
        container.delete(force=True)


def run(bundle: Bundle, engine: Engine, script: str, **options: object) -> subprocess.CompletedProcess[str]:
    bundle.process["args"] = ["sh", "-c", script]
    bundle.write()
    settings: dict[str, object] = {"capture_output": True, "text": True, **options}
    return pyrunc.run(bundle.path, engine.new_id(), root=engine.root, **settings)  # type: ignore[arg-type]


def test_a_life(make: Callable[..., pyrunc.Container]) -> None:
    container = make("trap 'exit 7' TERM; while true; do sleep 0.05; done")
    assert container.status == "created"
    container.start()
    assert container.status == "running"
    assert container.state["pid"] == container.pid
    assert container.pid in container.processes()
    container.pause()
    assert container.status == "paused"
    container.resume()
    assert container.status == "running"
    with pytest.raises(subprocess.TimeoutExpired):
        container.wait(0.1)
    container.exec(["true"], check=True)  # by now the trap is set
    container.kill("TERM")
    assert container.wait(10) == 7
    assert container.status == "stopped"
    container.delete()
    with pytest.raises(pyrunc.Failure, match="container does not exist"):
        pyrunc.Container(container.id, root=container.root)


def test_run_is_like_subprocess_run(bundle: Bundle, engine: Engine) -> None:
    done = run(bundle, engine, "cat; echo no >&2; exit 3", input="yes\n")
    assert (done.returncode, done.stdout, done.stderr) == (3, "yes\n", "no\n")
    assert done.args[:2] == ["sh", "-c"]
    assert run(bundle, engine, "kill -9 $$; kill -9 1; sleep 1").returncode in (0, -9)
    assert pyrunc.containers(engine.root) == []
    with pytest.raises(subprocess.CalledProcessError):
        run(bundle, engine, "false", check=True)
    with pytest.raises(subprocess.TimeoutExpired):
        run(bundle, engine, "sleep 1000", timeout=0.3)
    assert pyrunc.containers(engine.root) == []


def test_much_goes_both_ways(bundle: Bundle, engine: Engine) -> None:
    text = "0123456789abcde\n" * 60_000  # more than a pipe holds
    assert run(bundle, engine, "cat", input=text).stdout == text


def test_a_process_that_reads_nothing_ends_nothing(bundle: Bundle, engine: Engine) -> None:
    assert run(bundle, engine, "exit 4", input="x" * 1_000_000).returncode == 4


def test_streams(make: Callable[..., pyrunc.Container], tmp_path: Path) -> None:
    with (tmp_path / "out").open("w+") as out:
        container = make("echo one; echo two >&2", stdout=out, stderr=subprocess.STDOUT)
        container.start()
        assert container.wait(10) == 0
        assert (tmp_path / "out").read_text() == "one\ntwo\n"
    talking = make("read line; echo got $line", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    talking.start()
    talking.stdin.write(b"this\n")
    assert talking.stdout.read() == b"got this\n"
    assert talking.wait(10) == 0


def test_descriptors_are_passed_from_three_on(bundle: Bundle, engine: Engine, tmp_path: Path) -> None:
    files = []
    for name in ("first", "second"):
        (tmp_path / name).write_text(name)
        files.append(os.open(tmp_path / name, os.O_RDONLY))
    try:
        done = run(
            bundle,
            engine,
            "cat <&4; cat <&3; ls /proc/self/fd | wc -l",
            pass_fds=files,
            stdin=subprocess.DEVNULL,
        )
    finally:
        for fd in files:
            os.close(fd)
    assert done.stdout.split()[0] == "secondfirst6"  # 0 to 4, and ls reads the directory


def test_exec(make: Callable[..., pyrunc.Container]) -> None:
    container = make()
    container.start()
    done = container.exec(
        ["sh", "-c", "echo $COLOR; pwd; id -u; cat >&2; exit 5"],
        input="said",
        capture_output=True,
        text=True,
        env={"COLOR": "green"},
        cwd="/tmp",
        user="12:34",
    )
    assert (done.returncode, done.stdout, done.stderr) == (5, "green\n/tmp\n12\n", "said")
    with pytest.raises(pyrunc.Failure) as caught:
        container.exec(["nosuch"])
    assert caught.value.step == "unable to start container process"
    assert 'exec: "nosuch": executable file not found in $PATH' in str(caught.value)
    with pytest.raises(subprocess.TimeoutExpired):
        container.exec(["sleep", "1000"], timeout=0.2)
    with container.spawn(["sleep", "1000"]) as process:
        assert process.poll() is None
        assert process.pid in container.processes()
        process.kill("INT")
        assert process.wait(10) == -signal.SIGINT
        with pytest.raises(pyrunc.Failure, match="process not running"):
            process.kill()


def test_limits_and_use(make: Callable[..., pyrunc.Container]) -> None:
    container = make()
    container.start()
    container.update({"pids": {"limit": 77}})
    assert container.config["linux"]["resources"]["pids"] == {"limit": 77}
    assert container.stats()["pids"]["limit"] == 77
    kind, values = next(container.events(0.05))
    assert kind == "stats"
    assert values is not None
    with pytest.raises(pyrunc.Failure, match="/pids/limit"):
        container.update({"pids": {"limit": "many"}})


def test_a_container_somebody_else_made(engine: Engine, bundle: Bundle) -> None:
    name = engine.start(bundle)
    (found,) = pyrunc.containers(engine.root)
    assert (found.id, found.status) == (name, "running")
    assert found.exec(["echo", "here"], capture_output=True, text=True).stdout == "here\n"
    assert found.inspect()["processes"] == [found.pid]
    found.kill(signal.SIGKILL)
    assert found.wait(10) in TOLD
    assert found.wait(10) in TOLD  # by now it is written down
    found.delete(force=True)


def test_stop(make: Callable[..., pyrunc.Container]) -> None:
    container = make("trap 'exit 9' INT; trap '' TERM; while true; do sleep 0.02; done")
    container.start()
    container.exec(["true"], check=True)  # by now the trap is set
    other = pyrunc.Container(container.id, root=container.root)
    other.stop(signal=signal.SIGINT)
    assert container.wait(10) == 9
    stubborn = make("trap '' TERM; while true; do sleep 0.02; done")
    stubborn.start()
    stubborn.exec(["true"], check=True)
    stubborn.stop(0.1)
    assert stubborn.wait(10) == -9
    with pytest.raises(pyrunc.Failure, match="unknown signal"):
        stubborn.stop(signal="NOSUCH")


def test_the_parent_writes_down_how_it_ended(engine: Engine, make: Callable[..., pyrunc.Container]) -> None:
    """Without a record of it, the status of a process that has ended is not known."""
    container = make("exit 6")
    container.start()
    assert container.wait(10) == 6
    done = engine.call("wait", container.id)
    assert (done.code, done.out) == (6, "6\n")
    assert pyrunc.Container(container.id, root=container.root).wait() == 6


def test_the_command_line_sees_it(engine: Engine, make: Callable[..., pyrunc.Container]) -> None:
    container = make()
    assert engine.status(container.id) == "created"
    engine.call("start", container.id).ok()
    assert container.status == "running"


def test_failures_carry_facts(bundle: Bundle, engine: Engine) -> None:
    bundle.mount("/data", "/no/such/source")
    with pytest.raises(pyrunc.Failure) as caught:
        run(bundle, engine, "true")
    failure = caught.value
    assert failure.pointer == f"/mounts/{len(bundle.config['mounts']) - 1}"
    assert failure.errno == 2
    assert failure.code == 1
    assert "no such file or directory" in str(failure)
    again = pickle.loads(pickle.dumps(failure))
    assert (again.pointer, again.errno, str(again)) == (failure.pointer, 2, str(failure))
    assert pyrunc.containers(engine.root) == []


def test_a_wrong_configuration_is_told_with_its_places(bundle: Bundle, engine: Engine) -> None:
    bundle.config["hostname"] = 3
    bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILES", "soft": 1, "hard": 1}]
    bundle.write()
    made = pyrunc.Bundle(bundle.path)
    problems = made.check()
    assert {problem.pointer for problem in problems} == {"/hostname", "/process/rlimits/0/type"}
    assert all(problem.line for problem in problems)
    with pytest.raises(pyrunc.Failure, match="/hostname"):
        pyrunc.run(made, root=engine.root)


def test_hooks_run_and_their_failures_arrive(bundle: Bundle, engine: Engine, tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\necho $0 >> {tmp_path}/ran\nexit ${{CODE:-0}}\n")
    hook.chmod(0o755)
    bundle.config["hooks"] = {
        kind: [{"path": str(hook)}] for kind in ("createRuntime", "poststart", "poststop")
    }
    assert run(bundle, engine, "true").returncode == 0
    assert len((tmp_path / "ran").read_text().splitlines()) == 3
    bundle.config["hooks"]["poststart"][0]["env"] = ["CODE=9"]
    with pytest.raises(pyrunc.Failure, match="poststart hook #0"):
        run(bundle, engine, "sleep 1000")
    assert pyrunc.containers(engine.root) == []


def test_a_program_that_ends_leaves_its_containers(engine: Engine, bundle: Bundle) -> None:
    bundle.process["args"] = ["sleep", "1000"]
    bundle.write()
    name = engine.new_id()
    program = (
        "import pyrunc, sys\n"
        f"c = pyrunc.Container.create({str(bundle.path)!r}, {name!r}, root={str(engine.root)!r}, "
        "stdin=-3, stdout=-3, stderr=-3)\n"
        "c.start(); print(c.pid)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60, cwd=TOP
    )
    assert done.stderr == ""
    container = pyrunc.Container(name, root=engine.root)
    assert container.pid == int(done.stdout)
    assert container.status == "running"
    container.delete(force=True)
    assert wait_for(lambda: not alive(int(done.stdout)))


# What a program looks like from outside and inside: compared before and after everything above.
CALLER = """
import gc, json, os, signal, subprocess, sys, threading
import pyrunc
from pyrunc.linux import _linux

bundle, root = sys.argv[1:]

def look():
    gc.collect()
    maps = [line.split()[:5] for line in open("/proc/self/maps") if "x" in line.split()[1]]
    return {
        "fds": sorted((fd, os.readlink(f"/proc/self/fd/{fd}")) for fd in os.listdir("/proc/self/fd")
                      if os.path.exists(f"/proc/self/fd/{fd}")),
        "cwd": os.getcwd(), "environment": dict(os.environ), "umask": os.umask(0o022) and os.umask(0o022),
        "handlers": [str(signal.getsignal(n)) for n in sorted(signal.valid_signals())],
        "mask": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))),
        "dumpable": _linux.prctl(3, 0, 0, 0, 0),
        "exe": os.statvfs("/proc/self/exe").f_flag, "maps": maps,
        "namespaces": [os.readlink(f"/proc/self/ns/{n}") for n in sorted(os.listdir("/proc/self/ns"))],
        "threads": threading.active_count(), "session": os.getsid(0),
        "keyring": open("/proc/self/status").read().split("Seccomp")[1],
    }

def everything(name):
    null = {"stdin": subprocess.DEVNULL}
    with pyrunc.Container.create(bundle, name, root=root, **null) as c:
        c.start(); c.exec(["true"], **null); c.pause(); c.resume(); c.update({"pids": {"limit": 50}})
        c.exec(["echo", "x"], capture_output=True, **null)
        c.spawn(["sleep", "1000"], **null).close()
        try:
            c.exec(["nosuch"], **null)
        except pyrunc.Failure:
            pass
        pyrunc.containers(root); c.stats(); c.state; c.kill("KILL", all=True); c.wait()
    pyrunc.Container.create(bundle, name, root=root, **null).start()
    pyrunc.Container(name, root=root).delete(force=True)

signal.signal(signal.SIGUSR1, lambda *_: None)
everything("warm")  # imports
before = look()
everything("again")
thread = threading.Thread(target=everything, args=("thread",))
thread.start(); thread.join()
after = look()
try:
    os.waitpid(-1, os.WNOHANG)
    children = True
except ChildProcessError:
    children = False
print(json.dumps({"before": before, "after": after, "children": children}))
"""


def test_the_caller_stays_as_it_was(engine: Engine, bundle: Bundle, tmp_path: Path) -> None:
    bundle.process["args"] = ["sleep", "1000"]
    bundle.write()
    engine.ids += ["warm", "again", "thread"]
    with (tmp_path / "out").open("w") as out:
        done = subprocess.run(
            [sys.executable, "-c", CALLER, str(bundle.path), str(engine.root)],
            stdout=out,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=100,
            cwd=TOP,
        )
    text = (tmp_path / "out").read_text()
    assert done.returncode == 0, text
    found = json.loads(text)  # not one line but this: nothing was printed
    # With threads about, more is imported; what was mapped stays mapped where it was.
    maps = [found[when].pop("maps") for when in ("before", "after")]
    assert [line for line in maps[0] if line not in maps[1]] == []
    assert found["after"] == found["before"]
    assert found["children"] is False


def test_from_many_threads_at_once(bundle: Bundle, engine: Engine) -> None:
    bundle.process["args"] = ["sh", "-c", "cat"]
    bundle.write()
    names = [engine.new_id() for _ in range(4)]
    said: dict[str, object] = {}

    def one(name: str) -> None:
        done = pyrunc.run(bundle.path, name, root=engine.root, input=name, capture_output=True, text=True)
        said[name] = done.stdout

    threads = [threading.Thread(target=one, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == {name: name for name in names}


def test_an_interrupted_call_leaves_nothing(bundle: Bundle, engine: Engine, tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/waits\nexec sleep 1000\n")
    hook.chmod(0o755)
    bundle.config["hooks"] = {"createRuntime": [{"path": str(hook)}]}

    def interrupt() -> None:
        if wait_for((tmp_path / "waits").exists):
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run(bundle, engine, "true")
    thread.join()
    assert pyrunc.containers(engine.root) == []


def test_a_watcher_that_was_killed_is_no_exit_status(make: Callable[..., pyrunc.Container]) -> None:
    container = make()
    container.start()
    stat = Path(f"/proc/{container.pid}/stat").read_text()
    os.kill(int(stat.rpartition(")")[2].split()[1]), signal.SIGKILL)
    with pytest.raises(pyrunc.Failure, match="exit status is lost"):
        container.wait(10)


def test_warnings_are_logged(
    bundle: Bundle, engine: Engine, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    bundle.process["capabilities"]["bounding"].append("CAP_NO_SUCH")
    run(bundle, engine, "true")
    assert any("CAP_NO_SUCH" in record.getMessage() and record.name == "pyrunc" for record in caplog.records)
    assert capfd.readouterr().err == ""


def test_time_is_not_lost(make: Callable[..., pyrunc.Container]) -> None:
    container = make("sleep 0.2")
    container.start()
    other = pyrunc.Container(container.id, root=container.root)
    began = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        other.wait(0.01)
    assert other.wait() in (0, *TOLD[1:])
    assert time.monotonic() - began < 60
    assert container.wait() == 0
    assert container.wait() == 0


def test_volumes(bundle: Bundle, engine: Engine, tmp_path: Path) -> None:
    store = tmp_path / "volumes"
    volume = pyrunc.Volume.create("data", labels={"a": "b"}, root=store)
    bundle.process["args"] = ["sh", "-c", "echo kept > /data/file"]
    bundle.write()
    binding = f"{volume.path}:/data"
    pyrunc.run(bundle.path, engine.new_id(), root=engine.root, stdin=subprocess.DEVNULL, volume=[binding])
    assert (Path(volume.path) / "file").read_text() == "kept\n"
    assert volume.labels == {"a": "b"}
    assert [found.name for found in pyrunc.Volume.all(store)] == ["data"]
    assert volume.users == []
    volume.delete()
    with pytest.raises(pyrunc.Failure, match="no such volume"):
        pyrunc.Volume("data", root=store)
