"""After any failure nothing is left behind, and `delete --force` removes everything (law 4)."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.containers import wait_for
from tests.support.engine import FOREIGN, alive

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.containers import Bundle
    from tests.support.engine import Engine

ours = pytest.mark.skipif(FOREIGN, reason="what we promise; runc 1.1 does not")
# From before anything exists to after everything does: a create takes some 50 ms, on a busy machine more.
INSTANTS = [0.002 * step for step in range(0, 40, 3)]


def names(engine: Engine) -> list[str]:
    """Return the containers that have a state directory."""
    return [name for name in os.listdir(engine.root) if name != "@cache"] if engine.root.exists() else []


# -- concurrency


@ours
def test_of_many_creates_of_one_id_one_wins(engine: Engine, bundle: Bundle) -> None:
    bundle.process["args"] = ["/bin/sleep", "1013"]
    bundle.write()
    name = engine.new_id()
    calls = []
    for number in range(8):
        err = (engine.directory / f"race.{number}").open("wb")
        with err:
            calls.append(engine.begin("create", "--bundle", str(bundle.path), name, stderr=err))
    codes = [call.wait(60) for call in calls]
    texts = [(engine.directory / f"race.{number}").read_text() for number in range(8)]
    assert sorted(codes) == [0] + [1] * 7, texts
    for code, text in zip(codes, texts, strict=True):
        assert code == 0 or "container with given ID already exists" in text
    assert engine.status(name) == "created"
    engine.call("start", name).ok()
    assert engine.status(name) == "running"


def test_of_many_starts_one_wins(engine: Engine, bundle: Bundle, place: Path) -> None:
    (place / "count").mkdir()
    bundle.mount("/count", place / "count", "bind")
    bundle.process["args"] = ["/bin/sh", "-c", "echo run >> /count/runs; sleep 1014"]
    name = engine.create(bundle)
    calls = [engine.begin("start", name, stderr=-3) for _ in range(6)]
    codes = [call.wait(60) for call in calls]
    assert codes.count(0) == 1, codes
    assert wait_for((place / "count/runs").exists)
    assert (place / "count/runs").read_text() == "run\n"


def test_many_deletes_at_once(engine: Engine, bundle: Bundle) -> None:
    name = engine.start(bundle)
    calls = [engine.begin("delete", "--force", name, stderr=-3) for _ in range(6)]
    assert [call.wait(60) for call in calls] == [0] * 6
    engine.call("state", name).fails("container does not exist")


def test_many_containers_at_once(engine: Engine, bundle: Bundle) -> None:
    bundle.process["args"] = ["/bin/sleep", "1015"]
    bundle.write()
    made = [engine.new_id() for _ in range(10)]
    calls = [engine.begin("run", "--detach", "--bundle", str(bundle.path), name) for name in made]
    assert [call.wait(60) for call in calls] == [0] * 10
    assert sorted(engine.call("list", "-q").ok().out.split()) == sorted(made)
    calls = [engine.begin("delete", "--force", name) for name in made]
    assert [call.wait(60) for call in calls] == [0] * 10


# -- a create that fails


def break_mount(bundle: Bundle) -> None:
    bundle.mount("/data", "/nosuch/source", "bind")


def break_last_mount(bundle: Bundle) -> None:
    bundle.mount("/data", "/tmp", "bind")
    bundle.mount("/data2", "none", "nonsense=1", kind="tmpfs")


def break_program(bundle: Bundle) -> None:
    bundle.process["args"] = ["/nosuch"]


def break_sysctl(bundle: Bundle) -> None:
    bundle.linux["sysctl"] = {"net.ipv4.nosuch": "1"}


def break_namespace(bundle: Bundle) -> None:
    bundle.linux["namespaces"][2]["path"] = "/nosuch/ns"


def break_hook(bundle: Bundle) -> None:
    bundle.config["hooks"] = {"createContainer": [{"path": "/bin/false"}]}


def break_rlimit(bundle: Bundle) -> None:
    bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 1 << 40, "hard": 1 << 40}]


def break_root(bundle: Bundle) -> None:
    bundle.config["root"]["path"] = "nosuch"


def break_resources(bundle: Bundle) -> None:
    bundle.linux["resources"] = {"cpu": {"cpus": "4000-4001"}}


@pytest.mark.parametrize(
    "spoil",
    [
        break_mount, break_last_mount, break_program, break_sysctl, break_namespace, break_hook, break_rlimit,
        break_root, break_resources,
    ],
)  # fmt: skip
def test_a_failed_create_is_undone(engine: Engine, bundle: Bundle, spoil: Callable[[Bundle], None]) -> None:
    spoil(bundle)
    bundle.write()
    failed = engine.call("create", "--bundle", str(bundle.path), engine.new_id())
    assert failed.code == 1, failed
    assert "Traceback" not in failed.err, failed
    assert names(engine) == []
    # Another try with the same id works.
    fresh = type(bundle)(bundle.path.parent / "fresh")
    fresh.process["args"] = ["/bin/true"]
    engine.create(fresh, name=engine.ids[-1])


def test_a_full_state_root(engine: Engine, bundle: Bundle, tmp_path: Path) -> None:
    """If the state cannot be written, there is no container."""
    engine.root.write_text("not a directory")
    bundle.write()
    failed = engine.call("create", "--bundle", str(bundle.path), engine.new_id())
    assert failed.code == 1, failed
    assert "Traceback" not in failed.err, failed
    engine.root.unlink()


# -- a runtime that is killed


def killed(engine: Engine, instant: float, *words: str, **how: Any) -> None:
    """Begin a call, and kill it after this time."""
    call = engine.begin(*words, stderr=-3, **how)
    time.sleep(instant)
    call.send_signal(signal.SIGKILL)
    call.wait(60)


@ours
@pytest.mark.parametrize("instant", INSTANTS)
def test_killed_in_create(engine: Engine, bundle: Bundle, instant: float) -> None:
    bundle.linux["resources"] = {"pids": {"limit": 50}, "memory": {"limit": 64 << 20}}
    bundle.process["args"] = ["/bin/sleep", "1016"]
    bundle.write()
    name = engine.new_id()
    killed(engine, instant, "create", "--bundle", str(bundle.path), name)
    for verb in ("state", "list"):
        seen = engine.call(verb, *([name] if verb == "state" else []))
        assert "Traceback" not in seen.err, seen
    engine.delete(name)
    assert names(engine) == []
    engine.create(bundle, name=name)  # the id is free again


@ours
@pytest.mark.parametrize("instant", INSTANTS[::2])
@pytest.mark.parametrize("detach", [True, False])
def test_killed_in_run(engine: Engine, bundle: Bundle, instant: float, *, detach: bool) -> None:
    bundle.process["args"] = ["/bin/sleep", "1017"]
    bundle.write()
    name = engine.new_id()
    killed(engine, instant, "run", *(["--detach"] if detach else []), "--bundle", str(bundle.path), name)
    engine.delete(name)
    assert names(engine) == []


@ours
@pytest.mark.parametrize("instant", INSTANTS[::3])
def test_killed_in_start(engine: Engine, bundle: Bundle, instant: float) -> None:
    bundle.process["args"] = ["/bin/sleep", "1018"]
    name = engine.create(bundle)
    killed(engine, instant, "start", name)
    status = engine.status(name)
    if status == "created":  # it can be started still
        engine.call("start", name).ok()
        status = engine.status(name)
    assert status == "running"
    engine.delete(name)


@ours
@pytest.mark.parametrize("instant", INSTANTS[::3])
def test_killed_in_delete(engine: Engine, bundle: Bundle, instant: float) -> None:
    name = engine.start(bundle)
    killed(engine, instant, "delete", "--force", name)
    engine.delete(name)
    assert names(engine) == []


@ours
@pytest.mark.parametrize("instant", INSTANTS[::3])
def test_killed_in_exec(engine: Engine, bundle: Bundle, instant: float) -> None:
    name = engine.start(bundle)
    killed(engine, instant, "exec", name, "/bin/sleep", "1019")
    engine.call("exec", name, "/bin/true").ok()
    engine.delete(name)


@ours
@pytest.mark.parametrize("instant", INSTANTS[::3])
def test_killed_while_pausing(engine: Engine, bundle: Bundle, instant: float) -> None:
    name = engine.start(bundle)
    killed(engine, instant, "pause", name)
    engine.delete(name)


@ours
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_interrupted_in_create(engine: Engine, bundle: Bundle, number: signal.Signals, place: Path) -> None:
    """Somebody presses Ctrl-C while a hook is slow: `delete --force` must remove everything."""
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"touch {place}/in-hook; exec sleep 2"]}
    bundle.config["hooks"] = {"createRuntime": [hook]}
    bundle.process["args"] = ["/bin/sleep", "1020"]
    bundle.write()
    name = engine.new_id()
    call = engine.begin("create", "--bundle", str(bundle.path), name, stderr=-3)
    assert wait_for((place / "in-hook").exists)
    call.send_signal(number)
    assert call.wait(60) != 0
    engine.delete(name)


# -- a state that is broken


@ours
@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"id": 5}', "\0" * 100])
def test_a_broken_state_file(engine: Engine, bundle: Bundle, content: str) -> None:
    bundle.process["args"] = ["/bin/sleep", "1021"]
    other = engine.create(bundle)
    name = engine.create(bundle)
    pid = engine.state(name)["pid"]
    path = engine.root / name / "state.json"
    whole = path.read_text()
    path.write_text(content)
    engine.call("state", name).fails(name)
    listed = engine.call("list", "-q")
    assert (listed.code, other in listed.out.split()) == (0, True), listed
    engine.call("start", other).ok()
    path.write_text(whole)
    assert alive(pid)


@ours
def test_a_directory_without_a_record_is_no_container(engine: Engine, bundle: Bundle) -> None:
    """Such a directory is left if create is killed very early; it may also be anything else."""
    name = engine.new_id()
    (engine.root / name).mkdir(parents=True)
    for verb in ("state", "start", "kill", "delete"):
        engine.call(verb, name).fails("container does not exist")
    listed = engine.call("list", "-q").ok()
    assert (listed.out, listed.err) == ("", "")
    engine.delete(name)
    assert names(engine) == []


@ours
def test_the_record_is_whole_at_every_moment(engine: Engine, bundle: Bundle) -> None:
    """Readers never see half a file: it is written beside and renamed."""
    bundle.process["args"] = ["/bin/sleep", "1022"]
    bundle.write()
    name = engine.new_id()
    call = engine.begin("create", "--bundle", str(bundle.path), name)
    path = engine.root / name / "state.json"
    while call.poll() is None:
        try:
            text = path.read_text()
        except OSError:
            continue
        assert json.loads(text)["id"] == name
    assert call.returncode == 0
    assert json.loads(path.read_text())["id"] == name
    assert not [entry for entry in os.listdir(path.parent) if "tmp" in entry]


@ours
def test_a_cgroup_that_somebody_else_has_removed(engine: Engine, bundle: Bundle) -> None:
    name = engine.start(bundle)
    pid = engine.state(name)["pid"]
    os.kill(pid, signal.SIGKILL)
    engine.until(name, "stopped")
    for path, _, _ in os.walk("/sys/fs/cgroup", topdown=False):
        if os.path.basename(path) == name:
            os.rmdir(path)
    engine.delete(name)


@ours
def test_a_state_root_in_the_current_directory(engine: Engine, bundle: Bundle, place: Path) -> None:
    """A relative --root means the caller's directory, whatever happens to it in the child."""
    bundle.process["args"] = ["/bin/sleep", "1023"]
    bundle.write()
    name = engine.new_id()
    engine.call("--root", "relative", "create", "-b", str(bundle.path), name, cwd=place).ok()
    assert (place / "relative" / name / "state.json").exists()
    engine.call("--root", "relative", "start", name, cwd=place).ok()
    engine.call("--root", "relative", "delete", "--force", name, cwd=place).ok()
    assert not (place / "relative" / name).exists()


# -- what the kernel does not say


@ours
@pytest.mark.parametrize("number", [6, 8, 10, 12, 14, 16, 18, 20, 24, 28])
def test_few_descriptors(engine: Engine, bundle: Bundle, number: int) -> None:
    """The container is created, or everything is undone and one line gives the reason."""
    bundle.write()
    name = engine.new_id()

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))

    made = engine.call("create", "--bundle", str(bundle.path), name, preexec_fn=limit)
    if made.code:
        made.fails("too many open files")
        assert made.err.count("\n") == 1
        assert "internal error" not in made.err
        assert names(engine) == []
        engine.call("state", name).fails("container does not exist")
    else:
        engine.delete(name)


@ours
def test_without_proc(engine: Engine, bundle: Bundle) -> None:
    """If nothing can be read about a running container, it does not count as stopped, and is not deleted."""
    name = engine.start(bundle)
    pid = engine.state(name)["pid"]
    hide = ["unshare", "--mount", "sh", "-c", 'umount -l /proc; exec "$@"', "sh"]
    for words in (("state",), ("kill",), ("delete",), ("delete", "--force")):
        done = subprocess.run(
            [*hide, *engine.argv(*words, name)], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 1, done
        assert f"process {pid} lives" in done.stderr
        assert "stopped" not in done.stdout
    assert engine.status(name) == "running"
    create = engine.argv("create", "--bundle", str(bundle.path), engine.new_id())
    done = subprocess.run([*hide, *create], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1, done
    assert "no procfs is mounted on /proc; mount -t proc proc /proc" in done.stderr
    assert names(engine) == [name]


@ours
@pytest.mark.parametrize("verb", ["create", "run"])
def test_proc_of_another_pid_namespace(engine: Engine, bundle: Bundle, verb: str) -> None:
    """A number means another process there: with its start time in the record, delete would kill that one."""
    bundle.process["args"] = ["/bin/true"]
    bundle.write()
    name = engine.new_id()
    words = [verb, "--bundle", str(bundle.path), name]
    nested = ["unshare", "--pid", "--fork", "--kill-child", "--"]
    done = subprocess.run(
        [*nested, *engine.argv(*words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1, done
    assert "/proc shows the processes of another pid namespace; mount a procfs of this one" in done.stderr
    assert names(engine) == []


@ours
@pytest.mark.parametrize("verb", ["state", "kill", "delete"])
def test_a_container_seen_through_such_a_proc(engine: Engine, bundle: Bundle, verb: str) -> None:
    name = engine.start(bundle)
    nested = ["unshare", "--pid", "--fork", "--kill-child", "--"]
    done = subprocess.run(
        [*nested, *engine.argv(verb, name)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1, done
    assert "/proc shows the processes of another pid namespace" in done.stderr
    assert engine.status(name) == "running"


@ours
def test_a_full_state_directory_is_to_blame(engine: Engine, bundle: Bundle) -> None:
    """At whatever point it becomes full, the message names it, and not the container's root file system."""
    engine.root.mkdir()
    bundle.write()
    for size in ("8k", "12k", "16k", "20k"):
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "small", engine.root], check=True)
        try:
            name = engine.new_id()
            made = engine.call("create", "--bundle", str(bundle.path), name)
            if made.code:
                made.fails("no space left on device", str(engine.root))
                assert "in the root file system" not in made.err
                assert names(engine) == []
            engine.delete(name)
        finally:
            subprocess.run(["umount", engine.root], check=True)


@ours
def test_a_record_of_five_megabytes(engine: Engine, bundle: Bundle) -> None:
    bundle.config["annotations"] = {"big": "x" * (5 << 20)}
    name = engine.start(bundle)
    assert engine.status(name) == "running"
    engine.delete(name)


@ours
def test_list_while_others_come_and_go(engine: Engine, bundle: Bundle) -> None:
    bundle.process["args"] = ["/bin/true"]
    bundle.write()
    engine.root.mkdir()
    calls = [engine.begin("run", "--bundle", str(bundle.path), engine.new_id()) for _ in range(6)]
    while any(call.poll() is None for call in calls):
        engine.call("list", "-q").ok()
    assert [call.wait(60) for call in calls] == [0] * 6


@ours
def test_a_record_with_odd_words_hides_no_other(engine: Engine, bundle: Bundle) -> None:
    bundle.process["args"] = ["/bin/sleep", "1024"]
    good, odd = engine.create(bundle), engine.create(bundle)
    path = engine.root / odd / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "bundle": "/\ud800\x1b[2J"}))
    listed = engine.call("list").ok().out
    assert good in listed
    assert "/\\ud800\\x1b[2J" in listed


@ours
def test_a_full_volume_store(engine: Engine, bundle: Bundle, place: Path) -> None:
    """Even if nothing can be written any more, the lock of the volume is released."""
    small = place / "small"
    small.mkdir()
    (bundle.rootfs / "vol").mkdir()
    (bundle.rootfs / "vol/file").write_text("x")
    bundle.process["args"] = ["/bin/true"]
    bundle.write()
    for pages in range(1, 9):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "small", small], check=True)
        try:
            (small / "fill").write_bytes(b"x" * ((16 - pages) << 12))
            words = ("--volume-root", str(small / "v"), "run", "-v", "nv:/vol", "--bundle", str(bundle.path))
            done = engine.call(*words, engine.new_id())
            if done.code:
                done.fails("no space left on device", str(small))
            assert names(engine) == []
        finally:
            subprocess.run(["umount", small], check=True)
