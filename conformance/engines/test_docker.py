"""Docker (`dockerd --add-runtime`): what its users do from day to day."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import pytest

from conformance.engines import host, images
from conformance.engines.docker import Docker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.engines.host import Session

IMAGE = images.NAME
# Ends on SIGTERM with 5; `sleep &` and `wait`, because a shell handles a signal only between commands.
POLITE = "trap 'exit 5' TERM; trap 'echo got USR1' USR1; echo ready; while :; do sleep 1000 & wait; done"
COUNTER = "n=0; while :; do n=$((n+1)); echo $n > /mnt/count; sleep 0.05; done"


@pytest.fixture(scope="module")
def daemon(session: Session) -> Iterator[Docker]:
    """One dockerd for all checks of this file, with the image in it."""
    docker = Docker(session)
    docker.start()
    try:
        docker.succeed("load", "--input", session.archive)
        yield docker
        docker.remove_everything()
    finally:
        docker.stop()


@pytest.fixture
def docker(daemon: Docker) -> Iterator[Docker]:
    """The daemon for one check, after which nothing may be left."""
    yield daemon
    daemon.remove_everything()
    assert host.new_leftovers(daemon.leftovers, daemon.known_leftovers) == []


def wait_for_log(docker: Docker, container: str, line: str) -> None:
    """Wait until the container has printed a line."""
    host.wait_until(f"{container} prints {line}", lambda: line in docker.docker("logs", container).out)


def test_run_gives_output_and_exit_status(docker: Docker) -> None:
    """Both streams come apart, and the status of the process is the status of `docker run`."""
    result = docker.run(IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (result.code, result.out, result.err) == (7, "out\n", "err\n"), result


def test_run_reads_standard_input(docker: Docker) -> None:
    """What is written to `docker run -i` reaches the process, and so does its end."""
    assert docker.succeed("run", "--rm", "-i", IMAGE, "cat", stdin="one\ntwo\n") == "one\ntwo\n"


def test_run_on_a_terminal(docker: Docker) -> None:
    """A dialogue over the pty of the container; docker sets its size after the start."""
    script = "until [ \"$(stty size)\" = '33 101' ]; do sleep 0.1; done; tty; exit 9\n"
    result = host.on_terminal(docker.argv("run", "--rm", "-it", IMAGE), talk=[("# ", script)])
    assert result.code == 9, result
    assert "/dev/pts/0" in result.out or "/dev/console" in result.out


@pytest.mark.parametrize(
    ("command", "status", "phrase"),
    [
        ("no-such-program", 127, "executable file not found in $PATH"),
        ("/no/such/program", 127, "no such file or directory"),
        ("/bin/not-executable", 126, "permission denied"),
    ],
)
def test_run_of_what_cannot_run(docker: Docker, command: str, status: int, phrase: str) -> None:
    """Docker reads the runtime's words and chooses the exit status by them."""
    result = docker.run(IMAGE, command)
    assert result.code == status, result
    assert phrase in result.err


def test_run_with_an_option_that_is_none(docker: Docker) -> None:
    """An error of docker itself is 125."""
    assert docker.run("--no-such-option", IMAGE).code == 125


def test_run_with_a_file_mounted_on_a_directory(docker: Docker, shared: str) -> None:
    """Docker explains a mount that cannot be, by the runtime's `not a directory`."""
    result = docker.run("--volume", f"{shared}/file:/mnt", IMAGE, "true")
    assert result.code == 125, result  # by docker 20.10; 127 by later ones
    assert "not a directory" in result.err
    assert "Are you trying to mount a directory onto a file" in result.err


def test_process_settings_reach_the_process(docker: Docker, name: str) -> None:
    """User by name with supplementary groups, working directory, environment, host name."""
    options = ["--user", "app", "--workdir", "/home/app", "--env", "GREETING=hello", "--hostname", name]
    out = docker.shell("id -u; id -g; id -G; pwd; echo $GREETING; hostname", options)
    assert out.split("\n") == ["1000", "1000", "1000 2000", "/home/app", "hello", name, ""]


def test_first_process_is_dockers_init(docker: Docker) -> None:
    """`--init` binds docker-init over a file of the root and makes it the first process."""
    assert "docker-init" in docker.shell("tr '\\0' ' ' < /proc/1/cmdline", ["--init"])


def test_namespaces(docker: Docker) -> None:
    """New by default; the host's, or another container's, when asked for."""
    kinds = ("pid", "net", "ipc", "uts", "mnt")
    script = f"for k in {' '.join(kinds)}; do readlink /proc/self/ns/$k; done"
    inside = docker.shell(script).split()
    assert not set(inside) & {os.readlink(f"/proc/self/ns/{kind}") for kind in kinds}
    shared = docker.shell(script, ["--pid=host", "--ipc=host", "--uts=host"]).split()
    assert {os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "ipc", "uts")} <= set(shared)


def test_namespaces_of_another_container(docker: Docker, name: str) -> None:
    """`--pid container:` and `--network container:` join by path."""
    docker.succeed("run", "--detach", "--name", name, IMAGE, "sleep", "1000")
    options = [f"--pid=container:{name}", f"--network=container:{name}"]
    out = docker.shell("tr '\\0' ' ' < /proc/1/cmdline; readlink /proc/self/ns/net", options)
    assert out.split("\n")[0] == f"sleep 1000 {os.readlink(f'/proc/{docker.pid(name)}/ns/net')}"


def test_bind_mounts(docker: Docker, shared: str) -> None:
    """`-v` writable and not, and a file on a file."""
    docker.shell("cat /mnt/file; echo changed > /mnt/file", ["--volume", f"{shared}:/mnt"])
    with open(f"{shared}/file", encoding="utf-8") as file:
        assert file.read() == "changed\n"
    refused = docker.run("--volume", f"{shared}:/mnt:ro", IMAGE, "sh", "-c", "echo again > /mnt/file")
    assert refused.code == 1, refused
    assert "Read-only file system" in refused.err
    assert docker.shell("cat /etc/motd", ["--volume", f"{shared}/file:/etc/motd"]) == "changed\n"


def test_mount_options(docker: Docker, shared: str) -> None:
    """`--mount` with its own words."""
    options = ["--mount", f"type=bind,source={shared},target=/new/place,readonly,bind-propagation=rprivate"]
    assert "ro," in docker.shell("grep ' /new/place ' /proc/mounts", options)


def test_named_volume(docker: Docker, name: str) -> None:
    """A fresh volume is filled from the image, and keeps what is written to it."""
    options = ["--volume", f"{name}:/seed"]
    assert docker.shell("cat /seed/file; echo more >> /seed/file", options) == "from the image\n"
    assert docker.shell("cat /seed/file", options) == "from the image\nmore\n"


def test_read_only_root_and_tmpfs(docker: Docker) -> None:
    """Nothing can be written but on the tmpfs, which has the options asked for."""
    options = ["--read-only", "--tmpfs", "/scratch:size=64k,mode=1770,noexec"]
    out = docker.shell(
        "touch /file 2>&1 || true; touch /scratch/file; grep ' /scratch ' /proc/mounts", options
    )
    refused, mount = out.splitlines()
    assert refused == "touch: /file: Read-only file system"
    assert {"rw", "noexec", "nosuid", "nodev", "size=64k", "mode=1770"} <= set(mount.split()[3].split(","))


def test_protected_paths(docker: Docker) -> None:
    """What docker masks is empty, and what it protects is read-only."""
    files = ("/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/sched_debug")
    present = " ".join(path for path in files if os.path.exists(path))
    assert docker.shell(f"cat {present} /dev/null; ls -A /sys/firmware") == ""
    mounts = [line.split() for line in docker.shell("cat /proc/mounts").splitlines()]
    read_only = {point for _, point, _, options, *_ in mounts if "ro" in options.split(",")}
    paths = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
    assert {path for path in paths if os.path.exists(path)} <= read_only


def test_sysctl(docker: Docker) -> None:
    """A sysctl of a namespace of its own is set before the process starts."""
    assert docker.shell("cat /proc/sys/kernel/msgmax", ["--sysctl", "kernel.msgmax=12345"]) == "12345\n"


def test_shared_memory(docker: Docker) -> None:
    """`--shm-size` sizes /dev/shm."""
    assert "size=1024k" in docker.shell("grep ' /dev/shm ' /proc/mounts", ["--shm-size", "1m"])


def test_ulimit(docker: Docker) -> None:
    """`--ulimit` is what the process has."""
    assert docker.shell("ulimit -Sn; ulimit -Hn", ["--ulimit", "nofile=100:200"]) == "100\n200\n"


@pytest.mark.parametrize(
    ("options", "present", "absent"),
    [
        ([], (0, 10), (21,)),  # CHOWN and NET_BIND_SERVICE, not SYS_ADMIN: docker's default set
        (["--cap-drop", "CHOWN", "--cap-add", "SYS_ADMIN"], (10, 21), (0,)),
        (["--cap-drop", "ALL"], (), (0, 10, 21)),
    ],
)
def test_capabilities(
    docker: Docker, options: list[str], present: tuple[int, ...], absent: tuple[int, ...]
) -> None:
    """Bits of the effective and the bounding set (capability.h)."""
    for field in ("CapEff", "CapBnd"):
        value = int(docker.shell(f"grep {field} /proc/self/status", options).split()[1], 16)
        assert all(value & 1 << bit for bit in present)
        assert not any(value & 1 << bit for bit in absent)


def test_security_options(docker: Docker, name: str) -> None:
    """Docker's own seccomp profile, none, and one of ours; and no_new_privs."""
    script = "grep -E 'Seccomp:|NoNewPrivs' /proc/self/status | tr -d '[:alpha:]:[:space:]'"
    assert docker.shell(script) == "02"
    options = ["--security-opt", "seccomp=unconfined", "--security-opt", "no-new-privileges"]
    assert docker.shell(script, options) == "10"
    profile = f"{docker.directory}/{name}.json"
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}
    with open(profile, "w", encoding="utf-8") as file:
        json.dump({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}, file)
    out = docker.shell("mkdir /new 2>&1 || true", ["--security-opt", f"seccomp={profile}"])
    assert "No space left on device" in out


def test_privileged(docker: Docker) -> None:
    """All capabilities and all devices."""
    status = docker.run("--cap-add", "SYS_RESOURCE", IMAGE, "true")
    if status.code and "operation not permitted" in status.err:
        pytest.skip("this machine lacks CAP_SYS_RESOURCE, which --privileged includes")
    out = docker.shell("grep CapEff /proc/self/status; test -c /dev/kmsg && echo kmsg", ["--privileged"])
    assert int(out.split()[1], 16) & 1 << 21
    assert out.endswith("kmsg\n")


def test_device(docker: Docker) -> None:
    """`--device` makes the node under another name, and the cgroup lets it be read."""
    out = docker.shell(
        "head -c 4 /dev/nothing | wc -c; ls -l /dev/nothing", ["--device", "/dev/zero:/dev/nothing:r"]
    )
    assert out.startswith("4\ncr")


def test_exec(docker: Docker, name: str) -> None:
    """A further process sees the container's environment and returns its own status."""
    docker.succeed("run", "--detach", "--name", name, "--env", "GREETING=hello", IMAGE, "sleep", "1000")
    result = docker.docker("exec", name, "sh", "-c", "echo $GREETING; tr '\\0' ' ' < /proc/1/cmdline; exit 3")
    assert (result.code, result.out) == (3, "hello\nsleep 1000 "), result


def test_exec_options(docker: Docker, name: str) -> None:
    """User, working directory, environment and standard input of an exec are its own."""
    docker.succeed("run", "--detach", "--name", name, IMAGE, "sleep", "1000")
    words = [
        "--user",
        "app",
        "--workdir",
        "/tmp",
        "--env",
        "A=b",
        "-i",
        name,
        "sh",
        "-c",
        "id -u; pwd; echo $A; cat",
    ]
    assert docker.succeed("exec", *words, stdin="input\n") == "1000\n/tmp\nb\ninput\n"


def test_exec_on_a_terminal(docker: Docker, name: str) -> None:
    """`docker exec -it` gets a terminal of its own, with the size of the caller's."""
    docker.succeed("run", "--detach", "--name", name, IMAGE, "sleep", "1000")
    script = "until [ \"$(stty size)\" = '33 101' ]; do sleep 0.1; done; tty; exit 4\n"
    result = host.on_terminal(docker.argv("exec", "-it", name, "sh"), talk=[("# ", script)])
    assert result.code == 4, result
    assert "/dev/pts/" in result.out


@pytest.mark.parametrize(
    ("command", "phrase"),
    [
        ("no-such-program", "executable file not found in $PATH"),
        ("/no/such/program", "no such file or directory"),
        ("/bin/not-executable", "permission denied"),
    ],
)
def test_exec_of_what_cannot_run(docker: Docker, name: str, command: str, phrase: str) -> None:
    """The message is passed on, the status is 126, and the container stays."""
    docker.succeed("run", "--detach", "--name", name, IMAGE, "sleep", "1000")
    result = docker.docker("exec", name, command)
    assert result.code == 126, result  # for all three by docker 20.10; 127 for the first two by later ones
    assert phrase in result.text
    assert docker.status(name) == "running 0"


def test_exec_detached_and_top(docker: Docker, name: str) -> None:
    """`docker top` lists the processes the runtime's `ps` names."""
    docker.succeed("run", "--detach", "--name", name, IMAGE, "sleep", "1000")
    docker.succeed("exec", "--detach", name, "sleep", "2000")
    listing = docker.succeed("top", name, "-o", "pid,args").splitlines()[1:]
    assert sorted(line.split(None, 1)[1] for line in listing) == ["sleep 1000", "sleep 2000"]


def test_stop_of_a_process_that_obeys(docker: Docker, name: str) -> None:
    """SIGTERM is enough; the status is the process's own."""
    docker.succeed("run", "--detach", "--name", name, IMAGE, "sh", "-c", POLITE)
    wait_for_log(docker, name, "ready")
    docker.succeed("stop", "--time", "30", name)
    assert docker.status(name) == "exited 5"


def test_stop_of_a_process_that_does_not(docker: Docker, name: str) -> None:
    """After its time it is killed: the first process of a pid namespace has no default action for SIGTERM."""
    docker.succeed("run", "--detach", "--name", name, IMAGE, "sleep", "1000")
    docker.succeed("stop", "--time", "1", name)
    assert docker.status(name) == "exited 137"


def test_kill(docker: Docker, name: str) -> None:
    """Any signal, by name."""
    docker.succeed("run", "--detach", "--name", name, IMAGE, "sh", "-c", POLITE)
    wait_for_log(docker, name, "ready")
    docker.succeed("kill", "--signal", "USR1", name)
    wait_for_log(docker, name, "got USR1")
    docker.succeed("kill", name)
    assert docker.succeed("wait", name) == "137\n"


def test_pause_and_unpause(docker: Docker, name: str, shared: str) -> None:
    """Paused, nothing runs; unpaused, it goes on where it was."""

    def count() -> int:
        with open(f"{shared}/count", encoding="ascii") as file:
            return int(file.read() or 0)

    docker.succeed("run", "--detach", "--name", name, "-v", f"{shared}:/mnt", IMAGE, "sh", "-c", COUNTER)
    host.wait_until("the counter counts", lambda: os.path.exists(f"{shared}/count") and count())
    docker.succeed("pause", name)
    before = count()
    time.sleep(0.5)  # ten numbers, if it ran
    assert count() == before
    assert docker.status(name) == "paused 0"
    docker.succeed("unpause", name)
    host.wait_until("the counter goes on", lambda: count() > before)


def test_restart(docker: Docker, name: str) -> None:
    """`docker restart` and `docker start` use the same root and bundle again."""
    docker.succeed("run", "--detach", "--name", name, IMAGE, "sh", "-c", "echo x >> /runs; exec sleep 1000")
    docker.succeed("restart", "--time", "0", name)
    docker.succeed("stop", "--time", "0", name)
    docker.succeed("start", name)
    host.wait_until("three runs", lambda: docker.succeed("exec", name, "cat", "/runs") == "x\nx\nx\n")


def test_restart_policy(docker: Docker, name: str) -> None:
    """`--restart on-failure:2` starts a failing container twice more."""
    docker.succeed(
        "run", "--detach", "--name", name, "--restart", "on-failure:2", IMAGE, "sh", "-c", "exit 3"
    )
    template = "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}"
    host.wait_until("two restarts", lambda: docker.inspect(name, template) == "exited 3 2", seconds=30)


def test_limits_stats_and_update(docker: Docker, name: str) -> None:
    """Limits are set, shown by `docker stats`, and changed while the container runs."""
    options = ["--memory", "64m", "--pids-limit", "50", "--cpus", "0.5", "--cpu-shares", "512"]
    docker.succeed("run", "--detach", "--name", name, *options, IMAGE, "sleep", "1000")
    template = "{{.MemUsage}} {{.PIDs}}"
    stats = docker.succeed("stats", "--no-stream", "--format", template, name)
    assert stats.split()[-2:] == ["64MiB", "1"]
    docker.succeed("update", "--memory", "128m", "--memory-swap", "128m", "--cpu-shares", "256", name)
    stats = docker.succeed("stats", "--no-stream", "--format", template, name)
    assert stats.split()[-2:] == ["128MiB", "1"]


def test_pids_limit_holds(docker: Docker) -> None:
    """A process too many is refused."""
    out = docker.run("--pids-limit", "4", IMAGE, "sh", "-c", "for n in 1 2 3 4 5 6; do sleep 3 & done; wait")
    assert "can't fork" in out.err


def test_out_of_memory(docker: Docker, name: str) -> None:
    """Docker learns that the kernel killed it for its memory."""
    command = ["sh", "-c", "exec tail /dev/zero"]
    result = docker.docker("run", "--name", name, "--memory", "16m", "--memory-swap", "16m", IMAGE, *command)
    assert result.code == 137, result
    assert docker.inspect(name, "{{.State.OOMKilled}}") == "true"


def test_copy_and_logs(docker: Docker, name: str, shared: str) -> None:
    """`docker cp` both ways while the container runs, and what it printed."""
    docker.succeed("run", "--detach", "--name", name, IMAGE, "sh", "-c", "echo printed; exec sleep 1000")
    docker.succeed("cp", f"{shared}/file", f"{name}:/copied")
    assert docker.succeed("exec", name, "cat", "/copied") == "from the host\n"
    docker.succeed("cp", f"{name}:/seed/file", f"{shared}/back")
    with open(f"{shared}/back", encoding="utf-8") as file:
        assert file.read() == "from the image\n"
    wait_for_log(docker, name, "printed")


def test_build(docker: Docker, name: str) -> None:
    """RUN in a Dockerfile goes through the default runtime."""
    context = f"{docker.directory}/{name}"
    os.mkdir(context)
    with open(f"{context}/Dockerfile", "w", encoding="utf-8") as file:
        file.write(f"FROM {IMAGE}\nRUN echo built > /built\nUSER app\nCMD cat /built; id -un\n")
    built = docker.docker("build", "--quiet", "--tag", name, context, env={"DOCKER_BUILDKIT": "0"})
    assert built.code == 0, built
    assert docker.succeed("run", "--rm", name) == "built\napp\n"
    docker.succeed("image", "rm", name)


def test_import(docker: Docker, session: Session, name: str) -> None:
    """An image made from a plain tar of a root file system."""
    docker.succeed("import", "--change", "CMD echo imported", session.rootfs_tar, name)
    assert docker.succeed("run", "--rm", name) == "imported\n"
    docker.succeed("image", "rm", name)


def test_container_outlives_the_daemon(docker: Docker, name: str) -> None:
    """--live-restore: dockerd and its containerd are restarted, the container goes on and is found again."""
    docker.succeed("run", "--detach", "--name", name, IMAGE, "sleep", "1000")
    pid = docker.pid(name)
    docker.stop()
    assert host.command_line(pid) == "sleep 1000"
    docker.start()
    assert docker.pid(name) == pid
    assert docker.succeed("exec", name, "echo", "still here") == "still here\n"


def test_many_at_once(docker: Docker, name: str) -> None:
    """Eight containers are started without waiting for one another, and all of them run."""
    starts = [
        host.background(
            docker.argv("run", "--detach", "--name", f"{name}-{number}", IMAGE, "sleep", "1000"),
            f"{docker.directory}/many-{number}",
        )
        for number in range(8)
    ]
    assert [process.wait(60) for process in starts] == [0] * 8
    assert len(docker.succeed("ps", "--quiet").split()) == 8
