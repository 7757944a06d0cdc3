"""Podman (`podman --runtime`): containers, processes added to them, and pods."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import pytest

from conformance.engines import host, images
from conformance.engines.podman import Podman

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.engines.host import Session

IMAGE = images.NAME
# Ends on SIGTERM with 5; `sleep &` and `wait`, because a shell handles a signal only between commands.
POLITE = "trap 'exit 5' TERM; trap 'echo got USR1' USR1; echo ready; while :; do sleep 1000 & wait; done"
# With one --ulimit Podman no longer takes the others from its configuration: see podman.ULIMITS.
NPROC = ("--ulimit", "nproc=1024:1024")
COUNTER = "n=0; while :; do n=$((n+1)); echo $n > /mnt/count; sleep 0.05; done"


@pytest.fixture(scope="module")
def storage(session: Session) -> Iterator[Podman]:
    """One storage for all checks of this file, with the image in it."""
    podman = Podman(session)
    podman.succeed("load", "--input", session.archive)
    yield podman
    podman.remove_everything()


@pytest.fixture
def podman(storage: Podman) -> Iterator[Podman]:
    """Podman for one check, after which nothing may be left."""
    yield storage
    storage.remove_everything()
    assert host.new_leftovers(storage.leftovers, storage.known_leftovers) == []


def wait_for_log(podman: Podman, container: str, line: str) -> None:
    """Wait until the container has printed a line."""
    host.wait_until(f"{container} prints {line}", lambda: line in podman.podman("logs", container).out)


def test_run_gives_output_and_exit_status(podman: Podman) -> None:
    """Both streams come apart, and the status of the process is the status of `podman run`."""
    result = podman.run(IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (result.code, result.out, result.err) == (7, "out\n", "err\n"), result


def test_run_with_the_runtimes_own_directory(podman: Podman, name: str) -> None:
    """`--runtime /path/of/it` and nothing else, as it is used: the state is where the runtime puts it."""
    words = podman.run_words("--rm", "--name", name, IMAGE, "echo", "hello")
    argv = podman.argv(*words, runtime=podman.session.runtime)
    result = host.call(argv, env=podman.environment())
    assert (result.code, result.out) == (0, "hello\n"), result


def test_run_reads_standard_input(podman: Podman) -> None:
    """What is written to `podman run -i` reaches the process, and so does its end."""
    result = podman.run("-i", IMAGE, "cat", stdin="one\ntwo\n")
    assert (result.code, result.out) == (0, "one\ntwo\n"), result


def test_run_on_a_terminal(podman: Podman) -> None:
    """A dialogue over the pty, which conmon receives from the runtime and Podman gives its size."""
    script = "until [ \"$(stty size)\" = '33 101' ]; do sleep 0.1; done; tty; exit 9\n"
    argv = podman.argv(*podman.run_words("--rm", "-it", IMAGE, "sh"))
    result = host.on_terminal(argv, talk=[("# ", script)], env=podman.environment())
    assert result.code == 9, result
    assert "/dev/pts/0" in result.out or "/dev/console" in result.out


@pytest.mark.parametrize("json_errors", [True, False], ids=["json-log", "standard-error"])
@pytest.mark.parametrize(
    ("command", "status", "phrase"),
    [
        ("no-such-program", 127, "executable file not found in $PATH"),
        ("/no/such/program", 127, "no such file or directory"),
        ("/bin/not-executable", 126, "permission denied"),
    ],
    ids=["not-in-path", "no-file", "not-executable"],
)
def test_run_of_what_cannot_run(
    podman: Podman, command: str, status: int, phrase: str, *, json_errors: bool
) -> None:
    """Podman chooses the exit status by the runtime's words, read from its log or from its standard error."""
    words = podman.run_words("--rm", IMAGE, command)
    result = podman.podman(*words, json_errors=json_errors)
    assert result.code == status, result
    assert phrase in result.err


def test_run_with_an_option_that_is_none(podman: Podman) -> None:
    """An error of podman itself is 125."""
    assert podman.run("--no-such-option", IMAGE).code == 125


def test_process_settings_reach_the_process(podman: Podman, name: str) -> None:
    """User by name with supplementary groups, working directory, environment, host name."""
    options = ["--user", "app", "--workdir", "/home/app", "--env", "GREETING=hello", "--hostname", name]
    out = podman.shell("id -u; id -g; id -G; pwd; echo $GREETING; hostname", options)
    assert out.split("\n") == ["1000", "1000", "1000 2000", "/home/app", "hello", name, ""]


def test_first_process_is_an_init(podman: Podman) -> None:
    """`--init` binds an init of the host's into the container."""
    assert "/run/podman-init" in podman.shell("tr '\\0' ' ' < /proc/1/cmdline", ["--init"])


def test_namespaces(podman: Podman) -> None:
    """New by default; the host's when asked for."""
    kinds = ["pid", "net", "ipc", "uts", "mnt", "cgroup"]
    script = f"for k in {' '.join(kinds)}; do readlink /proc/self/ns/$k; done"
    inside = podman.shell(script, ["--cgroupns=private"]).split()
    assert not set(inside) & {os.readlink(f"/proc/self/ns/{kind}") for kind in kinds}
    kinds.remove("mnt")
    script = f"for k in {' '.join(kinds)}; do readlink /proc/self/ns/$k; done"
    options = ["--pid=host", "--network=host", "--ipc=host", "--uts=host", "--cgroupns=host"]
    assert podman.shell(script, options).split() == [os.readlink(f"/proc/self/ns/{kind}") for kind in kinds]


def test_user_namespace(podman: Podman) -> None:
    """Ids are mapped, and root of the container owns its files."""
    options = ["--uidmap", "0:200000:65536", "--gidmap", "0:200000:65536"]
    out = podman.shell("cat /proc/self/uid_map; stat -c %u /bin/busybox; touch /tmp/new; id -u", options)
    assert out.split() == ["0", "200000", "65536", "0", "0"]


def test_bind_mounts(podman: Podman, shared: str) -> None:
    """`-v` writable and not, and a file on a file."""
    podman.shell("cat /mnt/file; echo changed > /mnt/file", ["--volume", f"{shared}:/mnt"])
    with open(f"{shared}/file", encoding="utf-8") as file:
        assert file.read() == "changed\n"
    refused = podman.run("--volume", f"{shared}:/mnt:ro", IMAGE, "sh", "-c", "echo again > /mnt/file")
    assert refused.code == 1, refused
    assert "Read-only file system" in refused.err
    assert podman.shell("cat /etc/motd", ["--volume", f"{shared}/file:/etc/motd"]) == "changed\n"


def test_mount_options(podman: Podman, shared: str) -> None:
    """Words of `-v` and `--mount` end as options of the mount."""
    out = podman.shell("grep ' /mnt ' /proc/mounts", ["-v", f"{shared}:/mnt:ro,noexec,nodev,nosuid,rslave"])
    assert {"ro", "noexec", "nodev", "nosuid"} <= set(out.split()[3].split(","))
    options = ["--mount", f"type=bind,source={shared},target=/new/place,readonly"]
    assert "ro" in podman.shell("grep ' /new/place ' /proc/mounts", options).split()[3].split(",")


def test_named_volume(podman: Podman, name: str) -> None:
    """A fresh volume is filled from the image, and keeps what is written to it."""
    options = ["--volume", f"{name}:/seed"]
    assert podman.shell("cat /seed/file; echo more >> /seed/file", options) == "from the image\n"
    assert podman.shell("cat /seed/file", options) == "from the image\nmore\n"


def test_read_only_root_and_tmpfs(podman: Podman) -> None:
    """Nothing can be written but on a tmpfs, and Podman asks that it begin as a copy of what it covers."""
    out = podman.shell(
        "touch /file 2>&1 || true; touch /tmp/file; cat /seed/file; grep ' /seed ' /proc/mounts",
        ["--read-only", "--tmpfs", "/seed:size=64k,noexec"],
    )
    refused, copied, mount = out.splitlines()
    assert refused == "touch: /file: Read-only file system"
    assert copied == "from the image"
    assert {"rw", "noexec", "nosuid", "nodev", "size=64k"} <= set(mount.split()[3].split(","))


def test_root_directory_without_an_image(podman: Podman, session: Session) -> None:
    """`--rootfs` of a plain directory, read-only."""
    words = podman.run_words("--rm", "--read-only", "--rootfs", session.rootfs, "cat", "/seed/file")
    assert podman.succeed(*words) == "from the image\n"


def test_masked_paths(podman: Podman) -> None:
    """`--security-opt mask=` and `unmask=`."""
    hidden = "cat /seed/file; ls -A /home"
    assert podman.shell(hidden, ["--security-opt", "mask=/seed/file:/home"]) == ""
    assert podman.shell("ls -d /sys/firmware; cat /seed/file", ["--security-opt", "unmask=ALL"])


@pytest.mark.parametrize(
    ("options", "present", "absent"),
    [
        ([], (0, 10), (21,)),  # CHOWN and NET_BIND_SERVICE, not SYS_ADMIN: Podman's default set
        (["--cap-drop", "CHOWN", "--cap-add", "SYS_ADMIN"], (10, 21), (0,)),
        (["--cap-drop", "all"], (), (0, 10, 21)),
    ],
    ids=["default", "one-less-one-more", "none"],
)
def test_capabilities(
    podman: Podman, options: list[str], present: tuple[int, ...], absent: tuple[int, ...]
) -> None:
    """Bits of the effective and the bounding set (capability.h)."""
    for field in ("CapEff", "CapBnd"):
        value = int(podman.shell(f"grep {field} /proc/self/status", options).split()[1], 16)
        assert all(value & 1 << bit for bit in present)
        assert not any(value & 1 << bit for bit in absent)


def test_capabilities_of_an_ordinary_user(podman: Podman) -> None:
    """A capability given to a user who is not root has to be ambient to reach the program."""
    options = ["--user", "app", "--cap-add", "NET_RAW"]
    fields = podman.shell("grep -E 'CapEff|CapAmb' /proc/self/status", options).split()
    assert [int(value, 16) & 1 << 13 for value in fields[1::2]] == [1 << 13, 1 << 13]


def test_security_options(podman: Podman, name: str) -> None:
    """Podman's own seccomp profile, none, and one of ours; and no_new_privs."""
    script = "grep -E 'Seccomp:|NoNewPrivs' /proc/self/status | tr -d '[:alpha:]:[:space:]'"
    assert podman.shell(script) == "02"
    options = ["--security-opt", "seccomp=unconfined", "--security-opt", "no-new-privileges"]
    assert podman.shell(script, options) == "10"
    profile = f"{podman.directory}/{name}.json"
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}
    with open(profile, "w", encoding="utf-8") as file:
        json.dump({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}, file)
    out = podman.shell("mkdir /new 2>&1 || true", ["--security-opt", f"seccomp={profile}"])
    assert "No space left on device" in out


def test_sysctl_ulimit_and_shared_memory(podman: Podman) -> None:
    """Smaller settings of `podman run`."""
    assert podman.shell("cat /proc/sys/kernel/msgmax", ["--sysctl", "kernel.msgmax=12345"]) == "12345\n"
    assert podman.shell("ulimit -Sn; ulimit -Hn", ["--ulimit", "nofile=100:200", *NPROC]) == "100\n200\n"
    assert "size=1024k" in podman.shell("grep ' /dev/shm ' /proc/mounts", ["--shm-size", "1m"])


def test_device(podman: Podman) -> None:
    """`--device` makes the node under another name, and the cgroup lets it be read."""
    script = "head -c 4 /dev/nothing | wc -c; ls -l /dev/nothing"
    out = podman.shell(script, ["--device", "/dev/zero:/dev/nothing:r"])
    assert out.startswith("4\ncr")


def test_preserved_descriptors(podman: Podman, shared: str) -> None:
    """`--preserve-fds 1` hands descriptor 3 of podman to the process."""
    argv = podman.argv(*podman.run_words("--rm", "--preserve-fds", "1", IMAGE, "sh", "-c", "cat <&3"))
    result = host.call(["sh", "-c", f'exec "$@" 3< {shared}/file', "sh", *argv], env=podman.environment())
    assert (result.code, result.out) == (0, "from the host\n"), result


def test_exec(podman: Podman, name: str) -> None:
    """A further process sees the container's environment and returns its own status."""
    podman.start(name, "--env", "GREETING=hello", IMAGE, "sleep", "1000")
    result = podman.podman("exec", name, "sh", "-c", "echo $GREETING; tr '\\0' ' ' < /proc/1/cmdline; exit 3")
    assert (result.code, result.out) == (3, "hello\nsleep 1000 "), result


def test_exec_options(podman: Podman, name: str) -> None:
    """User, working directory, environment and standard input of an exec are its own."""
    podman.start(name, IMAGE, "sleep", "1000")
    options = ["--user", "app", "--workdir", "/tmp", "--env", "A=b", "-i"]
    command = ["sh", "-c", "id -u; pwd; echo $A; cat"]
    assert podman.succeed("exec", *options, name, *command, stdin="input\n") == "1000\n/tmp\nb\ninput\n"


def test_exec_on_a_terminal(podman: Podman, name: str) -> None:
    """`podman exec -it` gets a terminal of its own, with the size of the caller's."""
    podman.start(name, IMAGE, "sleep", "1000")
    script = "until [ \"$(stty size)\" = '33 101' ]; do sleep 0.1; done; tty; exit 4\n"
    argv = podman.argv("exec", "-it", name, "sh")
    result = host.on_terminal(argv, talk=[("# ", script)], env=podman.environment())
    assert result.code == 4, result
    assert "/dev/pts/" in result.out


@pytest.mark.parametrize(
    ("command", "status"), [("no-such-program", 127), ("/no/such/program", 127), ("/bin/not-executable", 126)]
)
def test_exec_of_what_cannot_run(podman: Podman, name: str, command: str, status: int) -> None:
    """The same statuses as for run, and the container stays."""
    podman.start(name, IMAGE, "sleep", "1000")
    result = podman.podman("exec", name, command)
    assert result.code == status, result
    assert podman.status(name) == "running 0"


def test_exec_detached_and_top(podman: Podman, name: str) -> None:
    """A process added in the background is in the same pid namespace."""
    podman.start(name, IMAGE, "sleep", "1000")
    podman.succeed("exec", "--detach", name, "sleep", "2000")
    listing = podman.succeed("top", name, "args").splitlines()[1:]
    assert sorted(line.strip() for line in listing) == ["sleep 1000", "sleep 2000"]


def test_stop_of_a_process_that_obeys(podman: Podman, name: str) -> None:
    """SIGTERM is enough; the status is the process's own."""
    podman.start(name, IMAGE, "sh", "-c", POLITE)
    wait_for_log(podman, name, "ready")
    podman.succeed("stop", "--time", "30", name)
    assert podman.status(name) == "exited 5"


def test_stop_of_a_process_that_does_not(podman: Podman, name: str) -> None:
    """After its time it is killed: the first process of a pid namespace has no default action for SIGTERM."""
    podman.start(name, IMAGE, "sleep", "1000")
    podman.succeed("stop", "--time", "1", name)
    assert podman.status(name) == "exited 137"


def test_stop_in_the_hosts_pid_namespace(podman: Podman, name: str) -> None:
    """Without a pid namespace of its own (`kill --all`), all processes are gone with the container."""
    podman.start(name, "--pid=host", IMAGE, "sh", "-c", "sleep 1000 & sleep 2000")
    tag = podman.session.tag
    both = {"sleep 1000", "sleep 2000"}
    host.wait_until("two processes", lambda: both <= set(host.processes_of(tag).values()))
    podman.succeed("stop", "--time", "0", name)
    host.wait_until("all are gone", lambda: not host.processes_of(tag))


def test_kill_and_wait(podman: Podman, name: str) -> None:
    """Any signal, by name."""
    podman.start(name, IMAGE, "sh", "-c", POLITE)
    wait_for_log(podman, name, "ready")
    podman.succeed("kill", "--signal", "USR1", name)
    wait_for_log(podman, name, "got USR1")
    podman.succeed("kill", name)
    assert podman.succeed("wait", name) == "137\n"


def test_pause_and_unpause(podman: Podman, name: str, shared: str) -> None:
    """Paused, nothing runs; unpaused, it goes on where it was."""

    def count() -> int:
        with open(f"{shared}/count", encoding="ascii") as file:
            return int(file.read() or 0)

    podman.start(name, "-v", f"{shared}:/mnt", IMAGE, "sh", "-c", COUNTER)
    host.wait_until("the counter counts", lambda: os.path.exists(f"{shared}/count") and count())
    podman.succeed("pause", name)
    before = count()
    time.sleep(0.5)  # ten numbers, if it ran
    assert count() == before
    assert podman.status(name) == "paused 0"
    podman.succeed("unpause", name)
    host.wait_until("the counter goes on", lambda: count() > before)


def test_create_start_and_restart(podman: Podman, name: str) -> None:
    """The steps one by one: `podman create`, `init`, `start`, `restart`, `rm`."""
    words = podman.run_words("--name", name, IMAGE, "sh", "-c", "echo x >> /runs; exec sleep 1000")[1:]
    podman.succeed("create", *words)
    podman.succeed("init", name)
    assert podman.status(name) == "initialized 0"
    podman.succeed("start", name)
    podman.succeed("restart", "--time", "0", name)
    host.wait_until("two runs", lambda: podman.succeed("exec", name, "cat", "/runs") == "x\nx\n")
    podman.succeed("rm", "--force", "--time", "0", name)


def test_limits_and_stats(podman: Podman, name: str) -> None:
    """Limits are set, and `podman stats` reads the cgroup."""
    options = ["--memory", "64m", "--pids-limit", "50", "--cpus", "0.5", "--cpu-shares", "512"]
    podman.start(name, *options, IMAGE, "sleep", "1000")
    (stats,) = json.loads(podman.succeed("stats", "--no-stream", "--format", "json", name))
    assert stats["pids"] == "1"
    assert stats["mem_usage"].endswith("/ 67.11MB")


def test_update(podman: Podman, name: str) -> None:
    """`podman update` changes a limit while the container runs."""
    podman.start(name, "--memory", "64m", IMAGE, "sleep", "1000")
    podman.succeed("update", "--memory", "128m", "--cpu-shares", "256", name)
    identity = podman.inspect(name, "{{.Id}}")
    assert host.setting(podman.session.tag, identity, "memory.limit_in_bytes", "memory.max") == "134217728"
    weight = host.setting(podman.session.tag, identity, "cpu.shares", "cpu.weight")
    assert weight in {"256", "10", "35"}  # v2's scale, by the old and by the new formula of runtimes


def test_out_of_memory(podman: Podman) -> None:
    """What eats more than it may is killed."""
    options = ["--memory", "16m", "--memory-swap", "16m"]
    assert podman.run(*options, IMAGE, "sh", "-c", "exec tail /dev/zero").code == 137


def test_copy_and_logs(podman: Podman, name: str, shared: str) -> None:
    """`podman cp` both ways while the container runs, and what it printed."""
    podman.start(name, IMAGE, "sh", "-c", "echo printed; exec sleep 1000")
    podman.succeed("cp", f"{shared}/file", f"{name}:/copied")
    assert podman.succeed("exec", name, "cat", "/copied") == "from the host\n"
    podman.succeed("cp", f"{name}:/seed/file", f"{shared}/back")
    with open(f"{shared}/back", encoding="utf-8") as file:
        assert file.read() == "from the image\n"
    wait_for_log(podman, name, "printed")


def test_health_check(podman: Podman, name: str) -> None:
    """A check of health is an exec, whose status decides."""
    options = ["--health-cmd", "test -e /healthy", "--health-interval", "disable", "--health-retries", "1"]
    podman.start(name, *options, IMAGE, "sleep", "1000")
    assert podman.podman("healthcheck", "run", name).code == 1
    podman.succeed("exec", name, "touch", "/healthy")
    podman.succeed("healthcheck", "run", name)


def make_pod(podman: Podman, pod: str, *options: str) -> None:
    """A pod whose first container is made from our image: the usual one would have to be built or fetched."""
    infra = ("--infra-image", IMAGE, "--infra-command", "/bin/sleep 1000")
    parent = ("--cgroup-parent", f"/{podman.session.tag}")
    podman.succeed("pod", "create", "--name", pod, *parent, *infra, *options)


def test_pod_shares_namespaces(podman: Podman, name: str) -> None:
    """Two containers of a pod share network, IPC and UTS namespaces; mounts and processes are their own."""
    make_pod(podman, name, "--network", "none", "--hostname", name)
    for member in ("a", "b"):
        podman.succeed("run", "--detach", "--pod", name, "--name", f"{name}-{member}", IMAGE, "sleep", "1000")
    script = "for k in net ipc uts mnt pid; do readlink /proc/self/ns/$k; done; hostname"
    first, second = (
        podman.succeed("exec", f"{name}-{member}", "sh", "-c", script).split() for member in "ab"
    )
    assert first[:3] == second[:3]
    assert not set(first[3:5]) & set(second[3:5])
    assert first[5] == second[5] == name


def test_pod_with_shared_processes(podman: Podman, name: str) -> None:
    """`--share pid`: the second container sees the first process of the pod."""
    make_pod(podman, name, "--network", "none", "--share", "pid,ipc,uts")
    command = ["sh", "-c", "tr '\\0' ' ' < /proc/1/cmdline"]
    out = podman.succeed("run", "--rm", "--pod", name, IMAGE, *command)
    assert out == "/bin/sleep 1000 "


def test_pod_life(podman: Podman, name: str) -> None:
    """Pause, unpause, stop, start, kill and remove reach all members."""
    make_pod(podman, name, "--network", "none")
    member = f"{name}-member"
    podman.succeed("run", "--detach", "--pod", name, "--name", member, IMAGE, "sleep", "1000")
    podman.succeed("pod", "pause", name)
    assert podman.status(member) == "paused 0"
    podman.succeed("pod", "unpause", name)
    assert podman.status(member) == "running 0"
    podman.succeed("pod", "stop", "--time", "0", name)
    assert podman.status(member) == "exited 137"
    podman.succeed("pod", "start", name)
    assert podman.status(member) == "running 0"
    podman.succeed("pod", "kill", name)
    # Its exit status says nothing: it may stumble over its own false cgroups.
    podman.podman("pod", "rm", "--force", "--time", "0", name)
    assert podman.podman("container", "exists", member).code == 1


def test_pod_with_an_init_container(podman: Podman, name: str) -> None:
    """What must run first has run, to its end, before the others start."""
    make_pod(podman, name, "--network", "none")
    volume = ["--pod", name, "--volume", f"{name}:/mnt"]
    podman.succeed("create", "--init-ctr", "always", *volume, IMAGE, "sh", "-c", "echo first > /mnt/file")
    podman.succeed("create", "--name", f"{name}-member", *volume, IMAGE, "cat", "/mnt/file")
    podman.succeed("pod", "start", name)
    wait_for_log(podman, f"{name}-member", "first")


def test_import(podman: Podman, session: Session, name: str) -> None:
    """An image made from a plain tar of a root file system."""
    podman.succeed("import", "--change", "CMD echo imported", session.rootfs_tar, name)
    result = podman.run(f"localhost/{name}")
    assert (result.code, result.out) == (0, "imported\n"), result
    podman.succeed("image", "rm", name)


def test_many_at_once(podman: Podman, name: str) -> None:
    """Eight containers are started without waiting for one another, and all of them run."""
    starts = [
        host.background(
            podman.argv(*podman.run_words("--detach", "--name", f"{name}-{number}", IMAGE, "sleep", "1000")),
            f"{podman.directory}/many-{number}",
            env=podman.environment(),
        )
        for number in range(8)
    ]
    assert [process.wait(60) for process in starts] == [0] * 8
    assert len(podman.succeed("ps", "--quiet").split()) == 8
