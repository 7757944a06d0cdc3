"""The life of a container, the same check for Docker, Podman and Podman of an ordinary user."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from conformance.engines import host, images
from conformance.engines.client import COUNTER, POLITE, read_count

if TYPE_CHECKING:
    from conformance.engines.client import Client
    from conformance.engines.host import Session

IMAGE = images.NAME


def test_exec(client: Client, name: str) -> None:
    """A further process sees the container's environment and returns its own status."""
    client.sleeper(name, "--env", "GREETING=hello")
    result = client.call("exec", name, "sh", "-c", "echo $GREETING; tr '\\0' ' ' < /proc/1/cmdline; exit 3")
    assert (result.code, result.out) == (3, "hello\nsleep 1000 "), result


def test_exec_options(client: Client, name: str) -> None:
    """User, working directory, environment and standard input of an exec are its own."""
    client.sleeper(name)
    options = ["--user", "app", "--workdir", "/tmp", "--env", "A=b", "-i"]
    command = ["sh", "-c", "id -u; id -G; pwd; echo $A; cat"]
    out = client.succeed("exec", *options, name, *command, stdin="input\n")
    assert out == "1000\n1000 2000\n/tmp\nb\ninput\n"


def test_exec_is_confined(client: Client, name: str) -> None:
    """A further process has the capabilities, the filter and no_new_privs of the container."""
    client.sleeper(name, "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
    script = "grep -E 'CapBnd|NoNewPrivs|Seccomp:' /proc/self/status | cut -f2"
    assert client.execute(name, script).split() == ["0000000000000000", "1", "2"]


def test_exec_on_a_terminal(client: Client, name: str) -> None:
    """`exec -it` gets a terminal of its own, with the size of the caller's."""
    client.sleeper(name)
    script = "until [ \"$(stty size)\" = '33 101' ]; do sleep 0.1; done; tty; exit 4\n"
    result = client.terminal("exec", "-it", name, "sh", script=script)
    assert result.code == 4, result
    assert "/dev/pts/" in result.out


@pytest.mark.parametrize(
    ("command", "missing", "phrase"),
    [
        ("no-such-program", True, "executable file not found in $PATH"),
        ("/no/such/program", True, "no such file or directory"),
        ("/bin/not-executable", False, "permission denied"),
        ("/home", False, "permission denied"),
    ],
    ids=["not-in-path", "no-file", "not-executable", "directory"],
)
def test_exec_of_what_cannot_run(
    client: Client, name: str, command: str, phrase: str, *, missing: bool
) -> None:
    """The message is passed on, the status is chosen by it, and the container stays."""
    client.sleeper(name)
    result = client.call("exec", name, command)
    assert result.code == (client.exec_not_found if missing else 126), result
    assert phrase in result.text
    assert client.status(name) == "running 0"


def test_exec_detached_and_top(client: Client, name: str) -> None:
    """A process added in the background is listed by `top` with the first one."""
    client.sleeper(name)
    client.succeed("exec", "--detach", name, "sleep", "2000")
    assert sorted(client.command_lines(name)) == ["sleep 1000", "sleep 2000"]


def test_stop_of_a_process_that_obeys(client: Client, name: str) -> None:
    """SIGTERM is enough; the status is the process's own."""
    client.scripted(name, POLITE)
    client.wait_for_log(name, "ready")
    client.succeed("stop", "--time", "30", name)
    assert client.status(name) == "exited 5"


def test_stop_of_a_process_that_does_not(client: Client, name: str) -> None:
    """After its time it is killed: the first process of a pid namespace has no default action for SIGTERM."""
    client.sleeper(name)
    client.succeed("stop", "--time", "1", name)
    assert client.status(name) == "exited 137"


def test_stop_signal(client: Client, name: str) -> None:
    """`--stop-signal`: stop asks with another signal."""
    script = "trap 'exit 6' USR1; trap 'exit 5' TERM; echo ready; while :; do sleep 1000 & wait; done"
    client.scripted(name, script, "--stop-signal", "SIGUSR1")
    client.wait_for_log(name, "ready")
    client.succeed("stop", "--time", "30", name)
    assert client.status(name) == "exited 6"


def test_kill_and_wait(client: Client, name: str) -> None:
    """Any signal, by name."""
    client.scripted(name, POLITE)
    client.wait_for_log(name, "ready")
    client.succeed("kill", "--signal", "USR1", name)
    client.wait_for_log(name, "got USR1")
    client.succeed("kill", name)
    assert client.succeed("wait", name) == "137\n"


def test_attach(client: Client, name: str) -> None:
    """`attach` shows what a running container prints on its terminal, and types into it."""
    # Without a terminal docker 20.10 stops reading at the end of its own input, whatever the runtime.
    script = "until read -t 1 word; do echo '# '; done; echo got $word; exit 8"
    client.start(name, "-it", IMAGE, "sh", "-c", script)
    result = client.terminal("attach", name, script="hello\n")
    assert "got hello" in result.out, result
    assert client.succeed("wait", name) == "8\n"


def test_pause_and_unpause(rooted: Client, name: str, shared: str) -> None:
    """Paused, nothing runs, and nothing can be added; unpaused, it goes on where it was."""
    rooted.scripted(name, COUNTER, "-v", f"{shared}:/mnt")
    host.wait_until("the counter counts", lambda: read_count(shared))
    rooted.succeed("pause", name)
    before = read_count(shared)
    time.sleep(0.5)  # ten numbers, if it ran
    assert read_count(shared) == before
    assert rooted.status(name) == "paused 0"
    assert rooted.call("exec", name, "true").code != 0
    rooted.succeed("unpause", name)
    host.wait_until("the counter goes on", lambda: read_count(shared) > before)


def test_removal_of_what_is_paused(rooted: Client, name: str) -> None:
    """`rm --force` ends what is frozen."""
    rooted.sleeper(name)
    pid = rooted.pid(name)
    rooted.succeed("pause", name)
    rooted.succeed("rm", "--force", name)
    host.wait_until("it is gone", lambda: not os.path.exists(f"/proc/{pid}"))


def test_create_start_and_restart(client: Client, name: str) -> None:
    """The steps one by one; a restart uses the same root and bundle again."""
    client.create(name, IMAGE, "sh", "-c", "echo x >> /runs; exec sleep 1000")
    assert client.status(name) == "created 0"
    client.succeed("start", name)
    client.succeed("restart", "--time", "0", name)
    client.succeed("stop", "--time", "0", name)
    client.succeed("start", name)
    host.wait_until("three runs", lambda: client.succeed("exec", name, "cat", "/runs") == "x\nx\nx\n")


def test_start_that_is_attached(client: Client, name: str) -> None:
    """`start --attach` gives the output and the status."""
    client.create(name, IMAGE, "sh", "-c", "echo hello; exit 3")
    result = client.call("start", "--attach", name)
    assert (result.code, result.out) == (3, "hello\n"), result


def test_start_of_what_cannot_run(client: Client, name: str) -> None:
    """A created container whose program is missing says so when it is started, and can be removed."""
    client.create(name, IMAGE, "no-such-program")
    result = client.call("start", name)
    assert result.code in {1, 125, 127}, result
    assert "executable file not found in $PATH" in result.err
    client.succeed("rm", name)


def test_restart_policy(client: Client, name: str) -> None:
    """`--restart on-failure:2` starts a failing container twice more."""
    client.scripted(name, "exit 3", "--restart", "on-failure:2")
    template = "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}"
    host.wait_until("two restarts", lambda: client.inspect(name, template) == "exited 3 2", seconds=30)


def test_restart_policy_always(client: Client, name: str) -> None:
    """`--restart always` starts again what has been killed from outside, and not what has been stopped."""
    client.scripted(name, "echo started; exec sleep 1000", "--restart", "always")
    client.wait_for_log(name, "started")
    os.kill(client.pid(name), 9)
    host.wait_until(
        "it runs again", lambda: client.call("logs", name).out == "started\nstarted\n", seconds=30
    )
    client.succeed("stop", "--time", "0", name)
    assert client.status(name) == "exited 137"


def test_limits(rooted: Client, name: str) -> None:
    """Limits end in the files of the cgroup, v1 or v2."""
    options = ["--memory", "64m", "--memory-reservation", "32m", "--pids-limit", "50", "--cpus", "0.5"]
    rooted.sleeper(name, *options, "--cpuset-cpus", "0")
    assert rooted.setting(name, "memory.limit_in_bytes", "memory.max") == "67108864"
    assert rooted.setting(name, "memory.soft_limit_in_bytes", "memory.low") == "33554432"
    assert rooted.setting(name, "pids.max") == "50"
    assert rooted.setting(name, "cpu.cfs_quota_us", "cpu.max") == "50000"
    assert rooted.setting(name, "cpuset.cpus") == "0"


def test_update(rooted: Client, name: str) -> None:
    """`update` changes limits while the container runs."""
    rooted.sleeper(name, "--memory", "64m", "--cpu-shares", "512")
    rooted.succeed("update", "--memory", "128m", "--memory-swap", "128m", "--cpu-shares", "256", name)
    assert rooted.setting(name, "memory.limit_in_bytes", "memory.max") == "134217728"
    weight = rooted.setting(name, "cpu.shares", "cpu.weight")
    assert weight in {"256", "10", "35"}  # v2's scale, by the old and by the new formula of runtimes


def test_pids_limit_holds(rooted: Client) -> None:
    """A process too many is refused."""
    out = rooted.run("--pids-limit", "4", IMAGE, "sh", "-c", "for n in 1 2 3 4 5 6; do sleep 3 & done; wait")
    assert "can't fork" in out.err


def test_out_of_memory(rooted: Client) -> None:
    """What eats more than it may is killed."""
    options = ["--memory", "16m", "--memory-swap", "16m"]
    assert rooted.run(*options, IMAGE, "sh", "-c", "exec tail /dev/zero").code == 137


def test_copy_and_logs(client: Client, name: str, shared: str) -> None:
    """`cp` both ways while the container runs, and what it printed."""
    client.scripted(name, "echo printed; exec sleep 1000")
    client.succeed("cp", f"{shared}/file", f"{name}:/copied")
    assert client.succeed("exec", name, "cat", "/copied") == "from the host\n"
    client.succeed("cp", f"{name}:/seed/file", f"{shared}/back")
    with open(f"{shared}/back", encoding="utf-8") as file:
        assert file.read() == "from the image\n"
    client.wait_for_log(name, "printed")


def test_commit_and_difference(client: Client, name: str) -> None:
    """What a container has written becomes an image, from which another one runs."""
    client.scripted(name, "echo kept > /new; exec sleep 1000")
    host.wait_until("it is written", lambda: "A /new" in client.succeed("diff", name))
    client.succeed("commit", name, f"localhost/{name}")
    assert client.run(f"localhost/{name}", "cat", "/new").out == "kept\n"
    client.succeed("image", "rm", f"localhost/{name}")


def test_health(client: Client, name: str) -> None:
    """A check of health is an exec, whose status decides."""
    client.sleeper(name, *client.health_options, "--health-cmd", "test -e /healthy", "--health-retries", "1")

    def health() -> str:
        return client.ask_health(name)

    host.wait_until("unhealthy", lambda: health() == "unhealthy", seconds=30)
    client.execute(name, "touch /healthy")
    host.wait_until("healthy", lambda: health() == "healthy", seconds=30)


def test_import(client: Client, session: Session, name: str) -> None:
    """An image made from a plain tar of a root file system."""
    client.succeed("import", "--change", "CMD echo imported", session.rootfs_tar, f"localhost/{name}")
    result = client.run(f"localhost/{name}")
    assert (result.code, result.out) == (0, "imported\n"), result
    client.succeed("image", "rm", f"localhost/{name}")


def test_build(client: Client, name: str) -> None:
    """RUN goes through the runtime, as the user and in the directory the lines before it say."""
    context = f"{client.directory}/{name}"
    os.mkdir(context)
    with open(f"{context}/Dockerfile", "w", encoding="utf-8") as file:
        file.write(f"FROM {IMAGE}\nRUN echo built > /built\nUSER app\nWORKDIR /tmp\nRUN id -un; pwd\n")
        file.write("CMD cat /built; id -un\n")
    built = client.call(*client.build_words, "--tag", f"localhost/{name}", context)
    assert built.code == 0, str(built)
    assert "app\n/tmp\n" in built.out
    assert client.succeed(*client.run_words("--rm", f"localhost/{name}")) == "built\napp\n"
    client.succeed("image", "rm", f"localhost/{name}")


def test_many_at_once(client: Client, name: str) -> None:
    """Eight containers are started without waiting for one another, and all of them run."""
    starts = [
        host.background(
            client.argv(*client.run_words("--detach", "--name", f"{name}-{number}", IMAGE, "sleep", "1000")),
            f"{client.directory}/many-{number}",
            env=client.environment(),
        )
        for number in range(8)
    ]
    assert [process.wait(60) for process in starts] == [0] * 8
    assert len(client.succeed("ps", "--quiet").split()) == 8
