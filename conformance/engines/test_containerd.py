"""containerd (`ctr task`): the life of tasks and of the processes added to them."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from conformance.engines import host, shim
from conformance.engines.client import COUNTER, read_count
from conformance.engines.test_containerd_run import bind

if TYPE_CHECKING:
    from conformance.engines.containerd import Containerd


def test_out_of_memory_is_reported(containerd: Containerd, name: str) -> None:
    """A container that eats more than it may is killed, and containerd has seen why."""
    events = f"{containerd.directory}/events"
    listener = host.background(containerd.argv("events"), events)
    try:
        options = ["--memory-limit", "16777216"]
        result = containerd.run(
            name, "sh", "-c", "head -c 64m /dev/zero | tail | wc -c; exit 3", options=options
        )
        assert result.code in {3, 137}, result  # which process the kernel picks is its own choice
        host.wait_until("an event /tasks/oom", lambda: "/tasks/oom" in host.tail(events))
    finally:
        host.stop(listener)


def test_exec(containerd: Containerd, name: str) -> None:
    """A further process is in the container: same host name, same pid namespace, its own status."""
    containerd.start_task(name, "sleep", "1000", options=["--env", "GREETING=hello"])
    script = "echo $GREETING; cat /proc/1/cmdline | tr '\\0' ' '; exit 3"
    result = containerd.execute_shell(name, script)
    assert (result.code, result.out) == (3, "hello\nsleep 1000 "), result


def test_exec_options(containerd: Containerd, name: str) -> None:
    """User and working directory of an exec are its own."""
    containerd.start_task(name, "sleep", "1000")
    result = containerd.execute_shell(name, "id -u; pwd", ["--user", "1000", "--cwd", "/tmp"])
    assert (result.code, result.out) == (0, "1000\n/tmp\n"), result


def test_exec_on_a_terminal(containerd: Containerd, name: str) -> None:
    """`ctr task exec --tty` gets a terminal of the container's."""
    containerd.start_task(name, "sleep", "1000")
    argv = containerd.argv(*containerd.execute_words(name, ["sh"], ["--tty"]))
    result = host.on_terminal(argv, talk=[("# ", "test -t 0 && tty; exit 4\n")])
    assert result.code == 4, result
    assert "/dev/pts/" in result.out


def test_exec_detached_and_ps(containerd: Containerd, name: str) -> None:
    """Processes added in the background are listed by `ps`, as pids of the host."""
    containerd.start_task(name, "sleep", "1000")
    result = containerd.execute(name, "sleep", "2000", options=["--detach"])
    assert result.code == 0, result
    pids = containerd.pids(name)
    assert containerd.pid(name) in pids
    assert sorted(host.command_line(pid) for pid in pids) == ["sleep 1000", "sleep 2000"]


def test_exec_of_a_missing_program(containerd: Containerd, name: str) -> None:
    """The error comes through the runtime's log, and the container stays."""
    containerd.start_task(name, "sleep", "1000")
    result = containerd.execute(name, "no-such-program")
    assert result.code == 1, result
    assert "executable file not found in $PATH" in result.err
    assert containerd.status(name) == "RUNNING"
    assert containerd.execute(name, "true").code == 0


def test_kill(containerd: Containerd, name: str, shared: str) -> None:
    """A signal reaches the first process, which may handle it; the status of the task is its."""
    script = "trap 'exit 5' TERM; touch /mnt/ready; while :; do sleep 1000 & wait; done"
    containerd.start_task(name, "sh", "-c", script, options=["--mount", bind(shared, "rw")])
    host.wait_until("it is ready", lambda: os.path.exists(f"{shared}/ready"))
    assert containerd.ctr("task", "kill", "--signal", "SIGTERM", name).code == 0
    host.wait_until("STOPPED", lambda: containerd.status(name) == "STOPPED")
    assert "exit code 5" in containerd.ctr("task", "delete", name).err


def test_kill_all_in_the_hosts_pid_namespace(containerd: Containerd, name: str) -> None:
    """Without a pid namespace of its own, the end of the first process must take the others along."""
    config = containerd.default_config("/bin/sleep", "1000")
    config["linux"]["namespaces"] = [
        namespace for namespace in config["linux"]["namespaces"] if namespace["type"] != "pid"
    ]
    containerd.start_task_of(name, config)
    assert containerd.execute(name, "/bin/sleep", "2000", options=["--detach"]).code == 0
    pids = containerd.pids(name)
    assert len(pids) == 2
    killed = containerd.ctr("task", "kill", "--all", "--signal", "SIGKILL", name)
    assert killed.code == 0, killed
    host.wait_until("both are gone", lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))
    host.wait_until("STOPPED", lambda: containerd.status(name) == "STOPPED")


def test_kill_of_what_has_ended(containerd: Containerd, name: str) -> None:
    """The runtime's words are recognised: the answer is `not found`, not an unknown error."""
    containerd.start_task(name, "true")
    host.wait_until("STOPPED", lambda: containerd.status(name) == "STOPPED")
    killed = containerd.ctr("task", "kill", name)
    assert killed.code == 1, killed
    assert "not found" in killed.err
    assert "unknown error after kill" not in killed.err


def test_pause_and_resume(containerd: Containerd, name: str, shared: str) -> None:
    """Paused, nothing runs; resumed, it goes on where it was."""
    containerd.start_task(name, "sh", "-c", COUNTER, options=["--mount", bind(shared, "rw")])
    host.wait_until("the counter counts", lambda: read_count(shared) > 0)
    assert containerd.ctr("task", "pause", name).code == 0
    assert containerd.status(name) == "PAUSED"
    before = read_count(shared)
    time.sleep(0.5)  # ten numbers, if it ran
    assert read_count(shared) == before
    assert containerd.ctr("task", "resume", name).code == 0
    assert containerd.status(name) == "RUNNING"
    host.wait_until("the counter goes on", lambda: read_count(shared) > before)


def test_delete_of_a_paused_task(containerd: Containerd, name: str) -> None:
    """`--force` ends even what is frozen."""
    containerd.start_task(name, "sleep", "1000")
    assert containerd.ctr("task", "pause", name).code == 0
    pid = containerd.pid(name)
    containerd.ctr("task", "delete", "--force", name)
    host.wait_until("it is gone", lambda: not os.path.exists(f"/proc/{pid}"))


def test_exec_in_what_is_paused(containerd: Containerd, name: str) -> None:
    """The runtime refuses, in its own words, and the task can be resumed."""
    containerd.start_task(name, "sleep", "1000")
    assert containerd.ctr("task", "pause", name).code == 0
    result = containerd.execute(name, "true")
    assert (result.code, "paused" in result.err) == (1, True), result
    assert containerd.ctr("task", "resume", name).code == 0
    assert containerd.execute(name, "true").code == 0


def test_kill_of_an_exec(containerd: Containerd, name: str) -> None:
    """`--exec-id`: the signal goes to that process alone."""
    containerd.start_task(name, "sleep", "1000")
    assert containerd.execute(name, "sleep", "2000", options=["--detach"]).code == 0
    killed = containerd.ctr("task", "kill", "--exec-id", "one", "--signal", "SIGKILL", name)
    assert killed.code == 0, killed
    host.wait_until("it is gone", lambda: len(containerd.pids(name)) == 1)
    assert containerd.status(name) == "RUNNING"


def test_status_of_what_a_signal_ended(containerd: Containerd, name: str) -> None:
    """128 and the number of the signal, of a task and of an exec."""
    containerd.start_task(name, "sleep", "1000")
    assert containerd.execute(name, "sh", "-c", "kill -9 $$").code == 137
    assert containerd.ctr("task", "kill", "--signal", "SIGKILL", name).code == 0
    host.wait_until("STOPPED", lambda: containerd.status(name) == "STOPPED")
    assert "exit code 137" in containerd.ctr("task", "delete", name).err


def test_container_that_is_started_twice(containerd: Containerd, name: str) -> None:
    """A container stays when its task has ended, with its root, and can be started again."""
    words = containerd.run_words(name, ["/bin/count-runs"])
    assert containerd.ctr("container", "create", *containerd.create_words(words)).code == 0
    for number in ("1", "2"):
        started = containerd.ctr("task", "start", "--fifo-dir", f"{containerd.directory}/fifo", name)
        assert (started.code, started.out.strip()) == (3, number), started


def test_update(containerd: Containerd, name: str) -> None:
    """Limits are changed by the shim's Update, which gives the runtime new resources on standard input."""
    containerd.start_task(name, "sleep", "1000", options=["--memory-limit", "67108864", "--cpus", "0.5"])
    resources = {
        "memory": {"limit": 134217728},
        "cpu": {"quota": 25000, "period": 100000},
        "pids": {"limit": 9},
    }
    assert shim.update(containerd.shim_address(name), name, resources) == ""
    tag = containerd.session.tag
    assert host.setting(tag, name, "memory.limit_in_bytes", "memory.max") == "134217728"
    assert host.setting(tag, name, "cpu.cfs_quota_us", "cpu.max") == "25000"
    assert host.setting(tag, name, "pids.max") == "9"


def test_update_that_cannot_be(containerd: Containerd, name: str) -> None:
    """What the kernel refuses is an error that comes through, and names what was asked for."""
    containerd.start_task(name, "sleep", "1000")
    error = shim.update(containerd.shim_address(name), name, {"cpu": {"cpus": "4000"}})
    assert "cpuset.cpus" in error
    assert containerd.status(name) == "RUNNING"


def test_checkpoint_that_cannot_be(containerd: Containerd, name: str) -> None:
    """CRIU's failure is passed on, and the task goes on; where CRIU works, so does the checkpoint."""
    containerd.start_task(name, "sh", "-c", "while :; do sleep 1; done")  # CRIU interrupts a sleep: it ends
    images = f"{containerd.directory}/{name}"
    result = containerd.ctr("task", "checkpoint", "--image-path", images, name)
    if result.code:
        assert "criu" in result.err.lower(), result
    else:
        assert "inventory.img" in os.listdir(images)
    assert containerd.status(name) == "RUNNING"
    assert containerd.execute(name, "true").code == 0


def test_metrics(containerd: Containerd, name: str) -> None:
    """The shim finds the cgroup of the pid it was told and reads it."""
    containerd.start_task(name, "sleep", "1000", options=["--memory-limit", "67108864"])
    result = containerd.ctr("task", "metrics", "--format", "json", name)
    assert result.code == 0, result
    metrics = json.loads(result.out)
    assert metrics["pids"]["current"] == 1
    memory = metrics["memory"]
    # cgroup v1 nests limit and usage, v2 has them side by side (containerd/cgroups stats).
    limit = memory["usage"]["limit"] if isinstance(memory["usage"], dict) else memory["usage_limit"]
    assert limit == 67108864


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_tasks_outlive_the_daemon(containerd: Containerd, name: str, number: signal.Signals) -> None:
    """A containerd that is started again finds running and paused tasks, and what ended without it."""
    pids = {}
    for member in ("running", "paused", "ended"):
        containerd.start_task(f"{name}-{member}", "sleep", "1000")
        pids[member] = containerd.pid(f"{name}-{member}")
    assert containerd.ctr("task", "pause", f"{name}-paused").code == 0
    containerd.stop_daemon(number)
    os.kill(pids["ended"], signal.SIGKILL)
    assert host.command_line(pids["running"]) == "sleep 1000"
    containerd.start_daemon()
    assert containerd.tasks()[f"{name}-running"] == (pids["running"], "RUNNING")
    assert containerd.tasks()[f"{name}-paused"] == (pids["paused"], "PAUSED")
    host.wait_until("its end is seen", lambda: containerd.status(f"{name}-ended") == "STOPPED")
    assert containerd.execute(f"{name}-running", "true").code == 0
    assert containerd.ctr("task", "resume", f"{name}-paused").code == 0


def test_death_of_the_shim(containerd: Containerd, name: str) -> None:
    """When the shim is killed, containerd has the runtime take everything away (`delete --force`)."""
    containerd.start_task(name, "sleep", "1000")
    pid = containerd.pid(name)
    (shim,) = [
        number for number, line in host.processes_with(containerd.socket).items() if f"-id {name} " in line
    ]
    os.kill(shim, signal.SIGKILL)
    host.wait_until("the container is gone", lambda: not os.path.exists(f"/proc/{pid}"), seconds=20)


def test_many_at_once(containerd: Containerd, name: str) -> None:
    """Ten tasks are started without waiting for one another, and all of them run."""
    starts = [
        host.background(
            containerd.argv(*containerd.run_words(f"{name}-{number}", ["sleep", "1000"], ["--detach"])),
            f"{containerd.directory}/many-{number}",
        )
        for number in range(10)
    ]
    assert [process.wait(60) for process in starts] == [0] * 10
    assert [status for _, status in containerd.tasks().values()] == ["RUNNING"] * 10
