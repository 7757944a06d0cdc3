"""exec: one more process in a running container."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import wait_for
from tests.support.engine import FOREIGN, alive, appears

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from tests.support.containers import Bundle
    from tests.support.engine import Engine

ours = pytest.mark.skipif(FOREIGN, reason="what the specification says, where runc 1.1 differs or is older")


@pytest.fixture
def name(engine: Engine, bundle: Bundle) -> str:
    """A running container."""
    return engine.start(bundle)


def process(tmp_path: Path, bundle: Bundle, **changes: Any) -> str:
    """Write a process file like the ones engines write."""
    path = tmp_path / "process.json"
    path.write_text(json.dumps({**bundle.process, **changes}))
    return str(path)


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_the_exit_status(engine: Engine, name: str, code: int) -> None:
    assert engine.call("exec", name, "/bin/sh", "-c", f"exit {code}").code == code


def test_a_signal_as_exit_status(engine: Engine, name: str) -> None:
    assert engine.call("exec", name, "/bin/sh", "-c", "kill -TERM $$").code == 143


def test_words_after_the_id_are_the_program_s(engine: Engine, name: str) -> None:
    done = engine.call("exec", name, "echo", "--tty", "-d", "--", "x").ok()
    assert done.out == "--tty -d -- x\n"


def test_it_joins_every_namespace_and_the_cgroup_of_init(engine: Engine, name: str) -> None:
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
    script = f"for n in {' '.join(kinds)}; do readlink /proc/self/ns/$n; done; echo; cat /proc/self/cgroup"
    pid = engine.state(name)["pid"]
    spaces, groups = engine.call("exec", name, "/bin/sh", "-c", script).ok().out.split("\n\n")
    wanted = [os.readlink(f"/proc/{pid}/ns/{n}") for n in kinds]
    assert spaces.split() == wanted
    assert engine.call("exec", name, "/bin/cat", "/proc/1/cgroup").ok().out == groups


def test_it_is_like_the_container_s_process(engine: Engine, bundle: Bundle) -> None:
    bundle.process["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [5]}
    bundle.process["cwd"] = "/tmp"
    bundle.process["env"] = ["PATH=/bin", "A=1"]
    name = engine.start(bundle)
    script = "id -u; id -G; pwd; echo $A; grep -E 'NoNewPrivs|CapBnd|CapEff|Seccomp:' /proc/self/status"
    both = [
        engine.call("exec", name, "/bin/sh", "-c", f"{command}").ok().out
        for command in (script, script.replace("/proc/self", "/proc/1"))
    ]
    assert both[0] == both[1]
    assert both[0].splitlines()[:4] == ["1000", both[0].splitlines()[1], "/tmp", "1"]


def test_options_change_it(engine: Engine, name: str) -> None:
    script = "id -u; id -g; pwd; echo $A $B; grep -E 'Groups' /proc/self/status"
    done = engine.call(
        "exec", "--user", "1000:2000", "--cwd", "/tmp", "--env", "A=1", "--env", "B=2", "--env", "B=3",
        "-g", "3000", "-g", "4000", name, "/bin/sh", "-c", script,
    ).ok()  # fmt: skip
    lines = done.out.splitlines()
    assert lines[:4] == ["1000", "2000", "/tmp", "1 3"]
    assert {"3000", "4000"} <= set(lines[4].split())


def test_a_user_alone_keeps_the_group(engine: Engine, name: str) -> None:
    assert engine.call("exec", "-u", "1000", name, "/bin/sh", "-c", "id -u; id -g").ok().out == "1000\n0\n"


def test_capabilities_and_privileges(engine: Engine, bundle: Bundle) -> None:
    bundle.process["noNewPrivileges"] = False
    name = engine.start(bundle)
    read = ("/bin/grep", "-E", "CapEff|NoNewPrivs", "/proc/self/status")
    plain = engine.call("exec", name, *read).ok().out.split()
    more = engine.call("exec", "--cap", "CAP_SYS_PTRACE", "--no-new-privs", name, *read).ok().out.split()
    assert int(more[1], 16) == int(plain[1], 16) | 1 << 19  # capability.h: CAP_SYS_PTRACE
    assert (plain[3], more[3]) == ("0", "1")


@pytest.mark.parametrize("way", ["--cap", "--process"])
def test_an_unknown_capability_is_left_out(
    engine: Engine, bundle: Bundle, name: str, tmp_path: Path, way: str
) -> None:
    read = ["/bin/grep", "CapBnd", "/proc/self/status"]
    plain = engine.call("exec", name, *read).ok().out
    if way == "--cap":
        done = engine.call("exec", "--cap", "CAP_TO_FLY", name, *read)
    else:
        for names in bundle.process["capabilities"].values():
            names.append("CAP_TO_FLY")
        done = engine.call("exec", "--process", process(tmp_path, bundle, args=read), name)
    assert (done.code, done.out) == (0, plain), done
    assert "ignoring unknown or unavailable capabilities: CAP_TO_FLY" in done.err, done


def test_a_process_file(engine: Engine, bundle: Bundle, name: str, tmp_path: Path) -> None:
    path = process(
        tmp_path, bundle, args=["/bin/sh", "-c", "id -u; pwd; exit 5"], user={"uid": 7, "gid": 8}, cwd="/tmp"
    )
    done = engine.call("exec", "--process", path, name)
    assert (done.code, done.out) == (5, "7\n/tmp\n")


# What the container has, how to ask for it inside, and the answer.
BOUNDS: dict[str, tuple[Any, str, str]] = {
    "capabilities": (
        {kind: ["CAP_KILL"] for kind in ("bounding", "effective", "permitted")},
        "grep -E '^Cap(Bnd|Prm|Eff)' /proc/self/status",
        "CapPrm:\t0000000000000020\nCapEff:\t0000000000000020\nCapBnd:\t0000000000000020\n",
    ),
    "noNewPrivileges": (True, "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1\n"),
    "rlimits": (
        [{"type": "RLIMIT_NOFILE", "soft": 300, "hard": 400}],
        "ulimit -S -n; ulimit -H -n",
        "300\n400\n",
    ),
    "oomScoreAdj": (700, "cat /proc/self/oom_score_adj", "700\n"),
    "scheduler": (
        {"policy": "SCHED_BATCH", "nice": 7},
        "sed 's/.*) //' /proc/self/stat | cut -d ' ' -f 17,39",
        "7 3\n",
    ),
    "ioPriority": (
        {"class": "IOPRIO_CLASS_BE", "priority": 6},
        "/bin/busybox ionice -p $$",
        "best-effort: prio 6\n",
    ),
    "user": ({"uid": 0, "gid": 0, "umask": 0o77}, "umask", "0077\n"),
}


@ours
@pytest.mark.parametrize("given", ["absent", "null"])
@pytest.mark.parametrize("name", BOUNDS)
def test_a_process_file_gets_no_more_by_saying_less(
    engine: Engine, bundle: Bundle, tmp_path: Path, name: str, given: str
) -> None:
    value, script, seen = BOUNDS[name]
    bundle.process[name] = value
    running = engine.start(bundle)
    words: dict[str, Any] = {"args": ["/bin/sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"]}
    path = tmp_path / "process.json"
    path.write_text(json.dumps(words if given == "absent" else {**words, name: None}))
    assert engine.call("exec", "--process", str(path), running).ok().out == seen


@ours
def test_what_a_process_file_need_not_say(engine: Engine, bundle: Bundle, tmp_path: Path) -> None:
    """Missing variables, user and terminal are not taken from the container, as with runc."""
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    bundle.process["env"] = ["PATH=/bin", "A=1"]
    running = engine.start(bundle)
    path = tmp_path / "process.json"
    path.write_text(json.dumps({"args": ["/bin/sh", "-c", "echo $(/bin/id -u) ${A:-none}"], "cwd": "/tmp"}))
    assert engine.call("exec", "--process", str(path), running).ok().out == "0 none\n"


@ours
@pytest.mark.parametrize("way", ["--cwd", "--process"])
def test_a_directory_that_is_missing(
    engine: Engine, bundle: Bundle, name: str, tmp_path: Path, way: str
) -> None:
    """Engines expect that `exec -w /typo` fails, so no directory is made in a running container."""
    if way == "--cwd":
        failed = engine.call("exec", "--cwd", "/typo/deep", name, "pwd")
    else:
        path = process(tmp_path, bundle, args=["pwd"], cwd="/typo/deep")
        failed = engine.call("exec", "--process", path, name)
    failed.fails('chdir to cwd ("/typo/deep")', "no such file or directory", code=255)
    assert not (bundle.rootfs / "typo").exists()


def test_a_process_file_that_is_wrong(engine: Engine, bundle: Bundle, name: str, tmp_path: Path) -> None:
    engine.call("exec", "--process", "/nosuch.json", name).fails("/nosuch.json", code=255)
    path = tmp_path / "broken.json"
    path.write_text("{ no json")
    engine.call("exec", "--process", str(path), name).fails(code=255)
    if not FOREIGN:
        engine.call("exec", "--process", process(tmp_path, bundle, cwd=5), name).fails("/cwd", code=255)


@ours
def test_the_bundle_is_not_read_again(engine: Engine, bundle: Bundle, name: str) -> None:
    """runtime.md: any updates to config.json after create must not affect the container."""
    bundle.process["env"] = ["PATH=/nowhere", "CHANGED=1"]
    bundle.write()
    assert engine.call("exec", name, "/bin/sh", "-c", "echo $PATH $CHANGED").ok().out == "/bin\n"
    (bundle.path / "config.json").unlink()
    engine.call("exec", name, "/bin/true").ok()
    assert engine.status(name) == "running"


def test_detached_with_a_pid_file(engine: Engine, name: str, tmp_path: Path) -> None:
    pid_file = tmp_path / "exec.pid"
    engine.call("exec", "--detach", "--pid-file", str(pid_file), name, "/bin/sleep", "1006").ok()
    text = pid_file.read_text()
    assert text.isdigit()  # no newline: engines convert it as it is
    pid = int(text)
    assert alive(pid)
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        assert file.read() == b"/bin/sleep\x001006\x00"
    assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"]
    assert str(pid) in engine.call("ps", "-f", "json", name).ok().out


def test_a_failed_exec_writes_no_pid_file(engine: Engine, name: str, tmp_path: Path) -> None:
    pid_file = tmp_path / "exec.pid"
    for words in (["/nosuch"], ["nosuch"]):
        engine.call("exec", "--detach", "--pid-file", str(pid_file), name, *words).fails(code=255)
        assert not pid_file.exists()


@pytest.mark.parametrize(
    ("word", "texts"),
    [
        ("/nosuch", ["/nosuch", "no such file or directory"]),
        ("nosuch", ["nosuch", "executable file not found in $PATH"]),
        ("/etc/passwd", ["/etc/passwd", "permission denied"]),
        ("/etc", ["/etc", "is a directory", "permission denied"]),
        ("", ['exec: "": executable file not found in $PATH']),
    ],
)
def test_programs_that_cannot_start(engine: Engine, name: str, word: str, texts: list[str]) -> None:
    engine.call("exec", name, word).fails("exec failed", *texts, code=255)


def test_at_the_wrong_moment(engine: Engine, bundle: Bundle) -> None:
    engine.call("exec", engine.new_id(), "/bin/true").fails("container does not exist", code=255)
    name = engine.start(bundle, "exit 0")
    engine.until(name, "stopped")
    engine.call("exec", name, "/bin/true").fails("cannot exec in a stopped container", code=255)


def test_without_a_program(engine: Engine, name: str) -> None:
    failed = engine.call("exec", name)
    assert failed.code in {1, 255}
    assert "args" in failed.err or "argument" in failed.err, failed


def test_in_a_created_container(engine: Engine, bundle: Bundle) -> None:
    bundle.process["args"] = ["/bin/sleep", "1000"]
    name = engine.create(bundle)
    engine.call("exec", name, "/bin/true").ok()


def test_ignoring_a_pause(engine: Engine, name: str, tmp_path: Path) -> None:
    engine.call("pause", name).ok()
    waiting = engine.begin("exec", "--ignore-paused", name, "/bin/true")
    # It may begin, but runs only after the resume.
    engine.call("resume", name).ok()
    assert waiting.wait(60) == 0


def test_streams_are_passed_through(engine: Engine, name: str) -> None:
    done = subprocess.run(
        engine.argv("exec", name, "/bin/sh", "-c", "cat; echo error >&2"),
        input=b"text\n",
        capture_output=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == (b"text\n", b"error\n")


def test_signals_are_forwarded(engine: Engine, name: str, tmp_path: Path) -> None:
    script = "trap 'exit 9' USR1; echo up; while :; do sleep 0.02; done"
    out = tmp_path / "exec.out"
    with out.open("wb") as stdout:
        running = engine.begin("exec", name, "/bin/sh", "-c", script, stdout=stdout)
    assert wait_for(lambda: out.read_text() == "up\n")
    running.send_signal(10)
    assert running.wait(60) == 9


def test_no_descriptor_leaks_in(engine: Engine, name: str) -> None:
    with open("/etc/passwd", "rb") as file:
        fd = os.dup2(file.fileno(), 66)
        words = ("exec", name, "/bin/sh", "-c", "ls /proc/$$/fd; readlink /proc/$$/fd/66; true")
        out = engine.call(*words, pass_fds=[fd]).ok().out
        os.close(fd)
    assert out.split() == ["0", "1", "2"]


def test_preserved_descriptors(engine: Engine, name: str, tmp_path: Path) -> None:
    script = (
        "import os, sys; r, w = os.pipe(); os.write(w, b'passed'); os.dup2(r, 3); os.set_inheritable(3, 1);"
        "os.execvp(sys.argv[1], sys.argv[1:])"
    )
    words = engine.argv("exec", "--preserve-fds", "1", name, "/bin/sh", "-c", "head -c 6 <&3")
    done = subprocess.run(
        ["/usr/bin/python3", "-c", script, *words], check=True, capture_output=True, close_fds=True
    )
    assert done.stdout == b"passed"


def test_the_process_dies_with_the_container(engine: Engine, name: str, tmp_path: Path) -> None:
    pid_file = tmp_path / "exec.pid"
    engine.call("exec", "--detach", "--pid-file", str(pid_file), name, "/bin/sleep", "1007").ok()
    engine.call("kill", name, "KILL").ok()
    engine.until(name, "stopped")
    # Init counts as stopped once it begins to end; the kernel ends the others of its namespace then.
    assert wait_for(lambda: not alive(int(pid_file.read_text())))


def test_many_at_once(engine: Engine, name: str) -> None:
    running = [engine.begin("exec", name, "/bin/sh", "-c", f"exit {code}") for code in range(8)]
    assert [each.wait(60) for each in running] == list(range(8))


def test_inside_a_user_namespace(engine: Engine, bundle: Bundle) -> None:
    bundle.user_namespace(200000)
    name = engine.start(bundle)
    done = engine.call("exec", name, "/bin/sh", "-c", "id -u; cat /proc/self/uid_map").ok()
    assert done.out.split() == ["0", "0", "200000", "65536"]
    engine.call("exec", "--user", "65536", name, "/bin/true").fails(code=255)


def test_a_container_that_stops_meanwhile(engine: Engine, bundle: Bundle, tmp_path: Path) -> None:
    bundle.mount("/tmp", tmp_path, "bind")
    name = engine.start(bundle, "while ! test -e /tmp/stop; do sleep 0.02; done")
    running = engine.begin("exec", name, "/bin/sh", "-c", "touch /tmp/began; sleep 1008")
    assert appears([tmp_path / "began"])
    (tmp_path / "stop").touch()
    assert running.wait(60) == 137


def test_the_host_s_null_device_stays_root_s(engine: Engine, bundle: Bundle, name: str) -> None:
    """An engine gives it to a process of another user as stdin, stdout and stderr."""
    before = os.stat("/dev/null")
    for user in ("1000:1000", "1000"):
        with open(os.devnull, "r+b") as null:
            words = engine.argv("exec", "--user", user, name, "/bin/true")
            subprocess.run(words, stdin=null, stdout=null, stderr=null, check=True, timeout=60)
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    engine.start(bundle, "sleep 1000", stdin=subprocess.DEVNULL)
    after = os.stat("/dev/null")
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)


@ours
def test_landmarks_in_the_log(engine: Engine, bundle: Bundle) -> None:
    """The log of create, start and exec has runc's words, which people and tools search for."""
    bundle.process["execCPUAffinity"] = {"initial": "0"}
    bundle.process["args"] = ["/bin/sh", "-c", "sleep 1000"]
    name = engine.new_id()
    bundle.write()
    made = engine.call("--debug", "create", "--bundle", str(bundle.path), name)
    for words in ("nsexec container setup", "child process in init()", "init: closing the pipe"):
        assert words in made.err, made
    engine.call("start", name).ok()
    done = engine.call("--debug", "exec", name, "true")
    for words in ("nsexec container setup", "child process in init()", "setns_init: about to exec"):
        assert words in done.err, done
    assert "nsexec: affinity: 0x1" in done.err, done
