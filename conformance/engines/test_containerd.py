"""containerd (`ctr run --runc-binary`): the life of tasks and of the processes added to them."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from conformance.engines import host
from conformance.engines.containerd import Containerd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.engines.host import Session

# Counts in /mnt/count about twenty times a second, and ends on SIGTERM with 5.
COUNTER = "trap 'exit 5' TERM; n=0; while :; do n=$((n+1)); echo $n > /mnt/count; sleep 0.05; done"


@pytest.fixture(scope="module")
def daemon(session: Session) -> Iterator[Containerd]:
    """One containerd for all checks of this file, with the image in it."""
    containerd = Containerd(session)
    containerd.start()
    try:
        imported = containerd.ctr(
            "image", "import", "--snapshotter", "overlayfs" if session.overlay else "native", session.archive
        )
        assert imported.code == 0, imported
        yield containerd
        containerd.remove_everything()
    finally:
        containerd.stop()


@pytest.fixture
def containerd(daemon: Containerd) -> Iterator[Containerd]:
    """The daemon for one check, after which nothing may be left."""
    yield daemon
    daemon.remove_everything()
    assert host.new_leftovers(daemon.leftovers, daemon.known_leftovers) == []


def read_count(shared: str) -> int:
    """What the counter has come to; 0 before its first number, and while it truncates the file."""
    try:
        with open(f"{shared}/count", encoding="ascii") as file:
            return int(file.read() or 0)
    except FileNotFoundError:
        return 0


def bind(source: str, *options: str) -> str:
    """A --mount of a directory of the host on /mnt."""
    return f"type=bind,src={source},dst=/mnt,options={':'.join(('rbind', *options))}"


def test_run_gives_output_and_exit_status(containerd: Containerd, name: str) -> None:
    """Both streams come apart, and the status of the process is the status of `ctr`."""
    result = containerd.run(name, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (result.code, result.out) == (7, "out\n"), result
    assert "err\n" in result.err


def test_run_reads_standard_input(containerd: Containerd, name: str) -> None:
    """What is written to `ctr` reaches the process.

    Its end does not always: ctr 1.6 forgets it when it comes before the task runs, whatever the runtime.
    """
    words = containerd.run_words(name, ["head", "-n", "2"], ["--rm"])
    result = containerd.ctr(*words, stdin="one\ntwo\n")
    assert (result.code, result.out) == (0, "one\ntwo\n"), result


def test_run_on_a_terminal(containerd: Containerd, name: str) -> None:
    """The pty made in the container reaches the caller, and carries a dialogue."""
    argv = containerd.argv(*containerd.run_words(name, ["sh"], ["--rm", "--tty"]))
    result = host.on_terminal(argv, talk=[("# ", "tty; exit 9\n")])
    assert result.code == 9, result
    assert "/dev/pts/0" in result.out or "/dev/console" in result.out


def test_process_settings_reach_the_process(containerd: Containerd, name: str) -> None:
    """Working directory and environment."""
    options = ("--cwd", "/home/app", "--env", "GREETING=hello there")
    assert containerd.run_shell(name, "pwd; echo $GREETING", *options) == "/home/app\nhello there\n"


def test_namespaces_are_new(containerd: Containerd, name: str) -> None:
    """Of the kinds that ctr asks for, none is the host's."""
    kinds = ("pid", "net", "ipc", "uts", "mnt")
    inside = containerd.run_shell(
        name, f"for k in {' '.join(kinds)}; do readlink /proc/self/ns/$k; done"
    ).split()
    assert [place.split(":")[0] for place in inside] == list(kinds)
    assert not set(inside) & {os.readlink(f"/proc/self/ns/{kind}") for kind in kinds}


def test_host_network(containerd: Containerd, name: str) -> None:
    """--net-host leaves the network namespace out of the configuration: the container is in the shim's."""
    inside = containerd.run_shell(name, "readlink /proc/self/ns/net", "--net-host")
    assert inside.strip() == os.readlink("/proc/self/ns/net")


def test_read_only_root(containerd: Containerd, name: str) -> None:
    """The root cannot be written, a tmpfs over it can."""
    out = containerd.run_shell(
        name,
        "touch /file 2>&1 || touch /mnt/file && echo only on the tmpfs",
        *("--read-only", "--mount", "type=tmpfs,src=tmpfs,dst=/mnt,options=size=65536"),
    )
    assert out == "touch: /file: Read-only file system\nonly on the tmpfs\n"


def test_bind_mounts(containerd: Containerd, name: str, shared: str) -> None:
    """A directory of the host, writable and not."""
    containerd.run_shell(name, "cat /mnt/file; echo changed > /mnt/file", "--mount", bind(shared, "rw"))
    with open(f"{shared}/file", encoding="utf-8") as file:
        assert file.read() == "changed\n"
    refused = containerd.run(
        name, "sh", "-c", "echo again > /mnt/file", options=["--mount", bind(shared, "ro")]
    )
    assert refused.code == 1, refused
    assert "Read-only file system" in refused.text


def test_capabilities(containerd: Containerd, name: str) -> None:
    """One taken away, one added: CAP_CHOWN is bit 0, CAP_SYS_ADMIN bit 21 (capability.h)."""
    options = ("--cap-drop", "CAP_CHOWN", "--cap-add", "CAP_SYS_ADMIN")
    out = containerd.run_shell(name, "grep CapEff /proc/self/status", *options)
    effective = int(out.split()[1], 16)
    assert not effective & 1 << 0
    assert effective & 1 << 21


def test_default_seccomp_profile(containerd: Containerd, name: str) -> None:
    """Under the profile of containerd the process is filtered (mode 2) and may not make user namespaces."""
    out = containerd.run_shell(
        name, "grep Seccomp: /proc/self/status; unshare -U true 2>&1 || echo refused", "--seccomp"
    )
    assert out.split()[:2] == ["Seccomp:", "2"]
    assert out.endswith("refused\n")


def test_user_namespace(containerd: Containerd, name: str) -> None:
    """Ids are mapped, and root of the container owns its files."""
    options = ("--uidmap", "0:200000:65536", "--gidmap", "0:200000:65536")
    out = containerd.run_shell(
        name, "cat /proc/self/uid_map; stat -c %u /bin/busybox; touch /tmp/new", *options
    )
    assert out.split() == ["0", "200000", "65536", "0"]


def test_devices(containerd: Containerd, name: str) -> None:
    """The default devices are there and work; one of the host's can be added."""
    out = containerd.run_shell(
        name,
        "for d in null zero full random urandom tty; do test -c /dev/$d && echo $d; done;"
        " head -c 3 /dev/zero | wc -c; test -c /dev/kmsg && echo kmsg",
        *("--device", "/dev/kmsg"),
    )
    assert out.split() == ["null", "zero", "full", "random", "urandom", "tty", "3", "kmsg"]


def test_limits_are_in_the_cgroup(containerd: Containerd, name: str, session: Session) -> None:
    """--memory-limit and --cpus arrive in the files of the cgroup, v1 or v2."""
    containerd.start_task(name, "sleep", "1000", options=["--memory-limit", "67108864", "--cpus", "0.5"])
    assert host.setting(session.tag, name, "memory.limit_in_bytes", "memory.max") == "67108864"
    assert host.setting(session.tag, name, "cpu.cfs_quota_us", "cpu.max") == "50000"


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
    result = containerd.execute(
        name, "sh", "-c", "echo $GREETING; cat /proc/1/cmdline | tr '\\0' ' '; exit 3"
    )
    assert (result.code, result.out) == (3, "hello\nsleep 1000 "), result


def test_exec_options(containerd: Containerd, name: str) -> None:
    """User and working directory of an exec are its own."""
    containerd.start_task(name, "sleep", "1000")
    result = containerd.execute(name, "sh", "-c", "id -u; pwd", options=["--user", "1000", "--cwd", "/tmp"])
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


@pytest.mark.parametrize(
    ("command", "phrase"),
    [
        ("no-such-program", "executable file not found in $PATH"),
        ("/no/such/program", "no such file or directory"),
        ("/bin/not-executable", "permission denied"),
        ("/bin/busybox/sh", "not a directory"),
    ],
)
def test_run_of_what_cannot_run(containerd: Containerd, name: str, command: str, phrase: str) -> None:
    """`create` itself fails, with the words engines look for, and leaves nothing."""
    result = containerd.run(name, command)
    assert result.code == 1, result
    assert "OCI runtime create failed" in result.err
    assert phrase in result.err
    assert host.new_leftovers(containerd.leftovers, containerd.known_leftovers) == []


def test_run_with_a_missing_bind_source(containerd: Containerd, name: str) -> None:
    """The message names what is missing."""
    result = containerd.run(name, "true", options=["--mount", bind("/no/such/directory", "ro")])
    assert result.code == 1, result
    assert "/no/such/directory" in result.err
    assert "no such file or directory" in result.err


def test_kill(containerd: Containerd, name: str, shared: str) -> None:
    """A signal reaches the first process, which may handle it; the status of the task is its."""
    containerd.start_task(name, "sh", "-c", COUNTER, options=["--mount", bind(shared, "rw")])
    host.wait_until("the counter counts", lambda: read_count(shared) > 0)
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


def test_task_outlives_the_daemon(containerd: Containerd, name: str) -> None:
    """A containerd that is restarted under a running task finds it again and goes on with it."""
    containerd.start_task(name, "sleep", "1000")
    pid = containerd.pid(name)
    containerd.stop()
    assert host.command_line(pid) == "sleep 1000"
    containerd.start()
    assert containerd.tasks()[name] == (pid, "RUNNING")
    assert containerd.execute(name, "true").code == 0


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
