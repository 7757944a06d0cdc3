"""Docker (`dockerd --add-runtime`): what only Docker does, besides the checks that all engines share."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from conformance.engines import host, images

if TYPE_CHECKING:
    from conformance.engines.docker import Docker

IMAGE = images.NAME


def test_run_with_a_file_mounted_on_a_directory(docker: Docker, shared: str) -> None:
    """Docker explains a mount that cannot be, by the runtime's `not a directory`."""
    result = docker.run("--volume", f"{shared}/file:/mnt", IMAGE, "true")
    assert result.code == 125, result  # by docker 20.10; 127 by later ones
    assert "not a directory" in result.err
    assert "Are you trying to mount a directory onto a file" in result.err


@pytest.mark.parametrize(
    ("command", "status", "phrase"),
    [
        ("/bin/no-interpreter", 127, "no such file or directory"),
        ("/home", 126, "is a directory"),
        ("/bin/busybox/sh", 125, "not a directory"),  # by docker 20.10 and 26; 127 by later ones
    ],
    ids=["no-interpreter", "directory", "below-a-file"],
)
def test_what_else_cannot_run(docker: Docker, command: str, status: int, phrase: str) -> None:
    """What docker does with the rarer words."""
    result = docker.run(IMAGE, command)
    assert (result.code, phrase in result.err) == (status, True), result


def test_working_directory_that_is_not_there(docker: Docker) -> None:
    """It is made."""
    assert docker.shell("pwd", ["--workdir", "/new/place"]) == "/new/place\n"


def test_files_docker_writes(docker: Docker) -> None:
    """/etc/hosts, hostname and resolv.conf are files of docker's, bound over the image's."""
    options = ["--hostname", "inside", "--add-host", "other:10.0.0.7", "--dns", "10.0.0.8"]
    out = docker.shell("cat /etc/hostname; grep other /etc/hosts; grep ^name /etc/resolv.conf", options)
    assert out.split() == ["inside", "10.0.0.7", "other", "nameserver", "10.0.0.8"]


def test_domain_name(docker: Docker) -> None:
    """`--domainname` is the UTS namespace's."""
    assert docker.shell("cat /proc/sys/kernel/domainname", ["--domainname", "example.org"]) == "example.org\n"


def test_unprotected_paths(docker: Docker) -> None:
    """`--security-opt systempaths=unconfined` leaves /proc as it is."""
    options = ["--security-opt", "systempaths=unconfined"]
    points = [line.split()[1] for line in docker.shell("cat /proc/mounts", options).splitlines()]
    assert [point for point in points if point.startswith("/proc/")] == []


def test_cgroup_parent(docker: Docker, name: str) -> None:
    """`--cgroup-parent` is where the cgroup is."""
    parent = f"/{docker.session.tag}/of-{name}"
    docker.sleeper(name, "--cgroup-parent", parent)
    with open(f"/proc/{docker.pid(name)}/cgroup", encoding="utf-8") as file:
        assert f"{parent}/{docker.inspect(name, '{{.Id}}')}" in file.read()
    docker.remove_everything()
    for path in host.cgroups_of(f"{docker.session.tag}/of-{name}"):
        os.rmdir(path)  # a parent stays, whoever made it


def test_limits_of_input_and_output(docker: Docker, name: str) -> None:
    """`--cpu-shares` and `--kernel`-less `--memory-swappiness` where there is cgroup v1, swap on both."""
    docker.sleeper(name, "--memory", "64m", "--memory-swap", "96m", "--cpu-shares", "512")
    swap = docker.setting(name, "memory.memsw.limit_in_bytes", "memory.swap.max")
    assert swap in {str(96 << 20), str(32 << 20)}  # v1 counts both, v2 swap alone
    assert docker.setting(name, "cpu.shares", "cpu.weight") in {"512", "20", "59"}


def test_stats(docker: Docker, name: str) -> None:
    """`docker stats` reads the cgroup, before and after an update."""
    docker.sleeper(name, "--memory", "64m")
    words = ("stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", name)
    assert docker.succeed(*words).split()[-2:] == ["64MiB", "1"]
    docker.succeed("update", "--memory", "128m", "--memory-swap", "128m", name)
    assert docker.succeed(*words).split()[-2:] == ["128MiB", "1"]


def test_update_of_more(docker: Docker, name: str) -> None:
    """Processors, the number of processes, and back to no limit."""
    docker.sleeper(name, "--pids-limit", "50", "--cpus", "0.5")
    docker.succeed("update", "--pids-limit", "70", "--cpus", "0.25", "--cpuset-cpus", "0", name)
    assert docker.setting(name, "pids.max") == "70"
    assert docker.setting(name, "cpu.cfs_quota_us", "cpu.max") == "25000"
    assert docker.setting(name, "cpuset.cpus") == "0"
    docker.succeed("update", "--pids-limit", "-1", name)
    assert docker.setting(name, "pids.max") == "max"


def test_out_of_memory_is_known(docker: Docker, name: str) -> None:
    """Docker learns that the kernel killed it for its memory."""
    words = ["--name", name, "--memory", "16m", "--memory-swap", "16m", IMAGE, "tail", "/dev/zero"]
    result = docker.call("run", *words)
    assert result.code == 137, result
    assert docker.inspect(name, "{{.State.OOMKilled}}") == "true"


def test_events(docker: Docker, name: str) -> None:
    """The end of a container and of an exec are told with their statuses."""
    docker.sleeper(name)
    since = docker.inspect(name, "{{.State.StartedAt}}")
    assert docker.call("exec", name, "sh", "-c", "exit 3").code == 3
    docker.succeed("kill", name)
    docker.succeed("wait", name)
    until = f"{time.time() + 0.5:.6f}"  # without it the listing would not end
    words = ("events", "--since", since, "--until", until, "--filter", f"container={name}")
    events = [json.loads(line) for line in docker.succeed(*words, "--format", "{{json .}}").splitlines()]
    ends = {
        event["Action"]: event["Actor"]["Attributes"]["exitCode"]
        for event in events
        if event["Action"] in {"die", "exec_die"}
    }
    assert ends == {"exec_die": "3", "die": "137"}


def test_exec_with_privileges(docker: Docker, name: str) -> None:
    """`exec --privileged` has what the container was refused."""
    docker.sleeper(name, "--cap-drop", "ALL")
    result = docker.call("exec", "--privileged", name, "grep", "CapBnd", "/proc/self/status")
    if result.code and "operation not permitted" in result.text:
        pytest.skip("this machine lacks CAP_SYS_RESOURCE, which --privileged includes")
    assert int(result.out.split()[1], 16) & 1 << 21, result


def test_exec_in_what_is_paused(docker: Docker, name: str) -> None:
    """Docker refuses by itself, and says so."""
    docker.sleeper(name)
    docker.succeed("pause", name)
    assert "is paused" in docker.call("exec", name, "true").err


def test_checkpoint_that_cannot_be(docker: Docker, name: str) -> None:
    """CRIU's failure is passed on, and the container runs on; where CRIU works, so does the checkpoint."""
    docker.sleeper(name, "--security-opt", "seccomp=unconfined")
    result = docker.call("checkpoint", "create", "--leave-running", name, "one")
    if result.code:
        assert "criu" in result.err.lower(), result
        assert docker.execute(name, "echo alive") == "alive\n"
    else:
        assert docker.succeed("checkpoint", "ls", name).split()[-1] == "one"


def test_container_outlives_the_daemon(docker: Docker, name: str) -> None:
    """--live-restore: dockerd is started again, the container is found, and its end seen."""
    docker.sleeper(name)
    pid = docker.pid(name)
    docker.stop_daemon()
    assert host.command_line(pid) == "sleep 1000"
    docker.start_daemon()
    assert docker.pid(name) == pid
    assert docker.succeed("exec", name, "echo", "still here") == "still here\n"
    docker.succeed("stop", "--time", "0", name)
    assert docker.status(name) == "exited 137"


def test_end_while_the_daemon_is_away(docker: Docker, name: str) -> None:
    """--live-restore: what ended in the meantime is known to have, with its status, and is started again."""
    docker.scripted(name, "echo started; exec sleep 1000", "--restart", "always")
    docker.wait_for_log(name, "started")
    pid = docker.pid(name)
    docker.stop_daemon()
    os.kill(pid, signal.SIGKILL)
    docker.start_daemon()
    host.wait_until(
        "it runs again",
        lambda: docker.status(name) == "running 0" and docker.pid(name) not in {0, pid},
        seconds=30,
    )
