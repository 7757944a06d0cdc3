"""Podman (`podman --runtime`): what only Podman does, besides the checks that all engines share."""

from __future__ import annotations

import json
import os
import re
import tomllib
from typing import TYPE_CHECKING

import pytest

from conformance.engines import host, images
from conformance.engines.test_clients_run import mount_options

if TYPE_CHECKING:
    from conformance.engines.host import Result, Session
    from conformance.engines.podman import Podman

IMAGE = images.NAME
PAGE = os.path.join(os.path.dirname(__file__), "../../docs/engines.md")


def test_run_with_the_runtimes_own_directory(podman: Podman, name: str) -> None:
    """`--runtime /path/of/it` and nothing else, as it is used: the state is where the runtime puts it."""
    words = podman.run_words("--rm", "--name", name, IMAGE, "echo", "hello")
    argv = podman.argv(*words, runtime=podman.session.runtime)
    result = host.call(argv, env=podman.environment())
    assert (result.code, result.out) == (0, "hello\n"), result


@pytest.mark.parametrize(
    ("command", "status", "phrase"),
    [
        ("no-such-program", 127, "executable file not found in $PATH"),
        ("/no/such/program", 127, "no such file or directory"),
        ("/bin/not-executable", 126, "permission denied"),
    ],
    ids=["not-in-path", "no-file", "not-executable"],
)
def test_errors_on_standard_error(podman: Podman, command: str, status: int, phrase: str) -> None:
    """A runtime that Podman does not know to write JSON is read from its standard error, by conmon."""
    result = podman.call(*podman.run_words("--rm", IMAGE, command), env=podman.without_json)
    assert result.code == status, result
    assert phrase in result.err


@pytest.mark.parametrize(
    ("options", "maps"),
    [
        (["--uidmap", "0:200000:65536", "--gidmap", "0:200000:65536"], ["0 200000 65536"]),
        (["--userns=auto"], ["0 700000 1024", "0 700000 2001"]),  # Podman 5 makes room for the image's users
        (["--userns=auto:size=4096"], ["0 700000 4096"]),
    ],
    ids=["mapped", "auto", "auto-size"],
)
def test_user_namespace(podman: Podman, options: list[str], maps: list[str]) -> None:
    """Ids are mapped, and root of the container owns its files."""
    script = "id -u; stat -c %u /bin/busybox; touch /tmp/new; cat /proc/self/uid_map"
    words = podman.run_words("--rm", *options, IMAGE, "sh", "-ec", script)
    result = podman.with_subordinate_ids(*words)
    assert result.code == 0, str(result)
    user, owner, first, *_ = result.out.splitlines()
    assert (user, owner) == ("0", "0")
    assert " ".join(first.split()) in maps


def test_two_automatic_user_namespaces(podman: Podman, name: str) -> None:
    """`--userns=auto` gives each container ids of its own, and exec joins them."""
    for member in "ab":
        words = podman.run_words("--detach", "--name", f"{name}-{member}", "--userns=auto", IMAGE)
        assert podman.with_subordinate_ids(*words, "sleep", "1000").code == 0
    first, second = (podman.execute(f"{name}-{member}", "cat /proc/self/uid_map") for member in "ab")
    assert first.split()[1] != second.split()[1]
    assert podman.execute(f"{name}-a", "touch /new; stat -c %u /new") == "0\n"


def test_joined_user_namespace(podman: Podman, name: str) -> None:
    """`--userns container:` joins by path, with the namespaces that belong to it."""
    podman.sleeper(name, "--uidmap", "0:200000:65536", "--gidmap", "0:200000:65536")
    joined = [f"--{kind}=container:{name}" for kind in ("userns", "pid", "network")]
    script = "readlink /proc/self/ns/user; tr '\\0' ' ' < /proc/1/cmdline"
    own = podman.execute(name, "readlink /proc/self/ns/user")
    assert podman.shell(script, joined) == f"{own}sleep 1000 "


def test_mount_options_of_a_bind(podman: Podman, shared: str) -> None:
    """Words of `-v` end as options of the mount."""
    found = mount_options(podman, "/mnt", ["-v", f"{shared}:/mnt:ro,noexec,nodev,nosuid,rslave"])
    assert {"ro", "noexec", "nodev", "nosuid"} <= found


def test_volume_over_an_overlay(podman: Podman, shared: str) -> None:
    """`:O`: what the container writes is gone with it."""
    if not podman.session.overlay:
        pytest.skip("no overlay can be mounted here")
    script = "echo changed > /mnt/file; cat /mnt/file; touch /mnt/new"
    assert podman.shell(script, ["-v", f"{shared}:/mnt:O"]) == "changed\n"
    assert os.listdir(shared) == ["file"]


def test_volume_given_to_the_user(podman: Podman, shared: str) -> None:
    """`:U`: the files become those of the container's user, in its user namespace."""
    options = ["--uidmap", "0:200000:65536", "--gidmap", "0:200000:65536", "--user", "app"]
    assert podman.shell("stat -c %u /mnt/file", [*options, "-v", f"{shared}:/mnt:U"]) == "1000\n"
    assert os.stat(f"{shared}/file").st_uid == 201000


def test_id_mapped_volume(podman: Podman, shared: str) -> None:
    """`:idmap`: root of the container is the files' owner, although its user namespace maps it to nobody."""
    options = ["--uidmap", "0:200000:65536", "--gidmap", "0:200000:65536", "-v", f"{shared}:/mnt:idmap"]
    os.chown(f"{shared}/file", 0, 0)
    assert podman.shell("stat -c %u /mnt/file; touch /mnt/new", options) == "0\n"
    assert os.stat(f"{shared}/new").st_uid == 0


def test_volume_of_a_file_system(podman: Podman, name: str) -> None:
    """A volume that is mounted when it is used, with options."""
    options = ("type=tmpfs", "device=tmpfs", "o=mode=1770")
    podman.succeed("volume", "create", *(f"--opt={option}" for option in options), name)
    assert {"tmpfs", "mode=1770"} <= mount_options(podman, "/mnt", ["-v", f"{name}:/mnt"])


def test_image_as_a_volume(podman: Podman) -> None:
    """`--mount type=image`: the files of an image, read-only."""
    options = ["--mount", f"type=image,source={IMAGE},destination=/mnt"]
    assert podman.shell("cat /mnt/seed/file", options) == "from the image\n"


def test_further_mounts(podman: Podman) -> None:
    """`--mount type=devpts`, and a tmpfs with and without a copy of what it covers."""
    options = ["--mount", "type=devpts,destination=/mnt,uid=1000"]
    assert {"devpts"} <= mount_options(podman, "/mnt", options)
    assert podman.shell("cat /seed/file", ["--tmpfs", "/seed:size=64k"]) == "from the image\n"
    assert podman.shell("ls /seed", ["--tmpfs", "/seed:size=64k,notmpcopyup"]) == ""


def test_secret(podman: Podman, name: str) -> None:
    """A file of Podman's in /run/secrets, with its own mode."""
    podman.succeed("secret", "create", name, "-", stdin="word")
    options = ["--secret", f"{name},mode=0400"]
    try:
        assert (
            podman.shell(f"cat /run/secrets/{name}; stat -c %a /run/secrets/{name}", options) == "word400\n"
        )
    finally:
        podman.succeed("secret", "rm", name)


def test_read_only_root_without_its_tmpfs(podman: Podman) -> None:
    """`--read-only-tmpfs=false`: /tmp cannot be written either."""
    result = podman.run("--read-only", "--read-only-tmpfs=false", IMAGE, "touch", "/tmp/file")
    assert "Read-only file system" in result.err
    assert podman.shell("touch /tmp/file && echo done", ["--read-only"]) == "done\n"


def test_root_directory_without_an_image(podman: Podman, session: Session) -> None:
    """`--rootfs` of a plain directory, read-only; and under an overlay."""
    words = podman.run_words("--rm", "--read-only", "--rootfs", session.rootfs, "cat", "/seed/file")
    assert podman.succeed(*words) == "from the image\n"
    if session.overlay:
        words = podman.run_words("--rm", "--rootfs", f"{session.rootfs}:O", "rm", "/seed/file")
        podman.succeed(*words)
        assert os.path.exists(f"{session.rootfs}/seed/file")


def test_masked_paths(podman: Podman) -> None:
    """`--security-opt mask=`, `unmask=` and `proc-opts=`."""
    hidden = "cat /seed/file; ls -A /home"
    assert podman.shell(hidden, ["--security-opt", "mask=/seed/file:/home"]) == ""
    options = ["--security-opt", "unmask=ALL"]
    points = [line.split()[1] for line in podman.shell("cat /proc/mounts", options).splitlines()]
    assert [point for point in points if point.startswith(("/proc/", "/sys/firmware"))] == []
    assert "hidepid=invisible" in mount_options(podman, "/proc", ["--security-opt", "proc-opts=hidepid=2"])


def test_capabilities_of_an_ordinary_user(podman: Podman) -> None:
    """A capability given to a user who is not root has to be ambient to reach the program."""
    options = ["--user", "app", "--cap-add", "NET_RAW"]
    fields = podman.shell("grep -E 'CapEff|CapAmb' /proc/self/status", options).split()
    assert [int(value, 16) & 1 << 13 for value in fields[1::2]] == [1 << 13, 1 << 13]


def test_smaller_settings(podman: Podman) -> None:
    """`--umask`, `--tz`, `--env-host` and a personality."""
    assert podman.shell("umask", ["--umask", "0077"]) == "0077\n"
    assert podman.shell("ls -l /etc/localtime", ["--tz", "local"]) != ""
    assert podman.shell("echo $HOME $TERM", ["--env-host", "--unsetenv", "HOME"]).split()[-1] == "xterm"
    assert podman.shell("uname -m", ["--personality", "LINUX32"]) in {"i686\n", "armv8l\n"}


def test_preserved_descriptors(podman: Podman, shared: str, name: str) -> None:
    """`--preserve-fds 1` hands descriptor 3 of podman to the process, of a run and of an exec."""
    podman.sleeper(name)
    run = podman.run_words("--rm", "--preserve-fds", "1", IMAGE)
    for words in (run, ["exec", "--preserve-fds", "1", name]):
        argv = podman.argv(*words, "sh", "-c", "cat <&3")
        result = host.call(["sh", "-c", f'exec "$@" 3< {shared}/file', "sh", *argv], env=podman.environment())
        assert (result.code, result.out) == (0, "from the host\n"), result


def test_process_that_says_when_it_is_ready(podman: Podman, name: str) -> None:
    """`--sdnotify=container`: the runtime passes the socket that the process tells its state by."""
    out = podman.shell("test -S $NOTIFY_SOCKET && echo a socket", ["--sdnotify=container"])
    assert out == "a socket\n", name


def test_container_for_systemd(podman: Podman) -> None:
    """`--systemd=always`: tmpfs where systemd writes, and its cgroup to manage."""
    out = podman.shell(
        "grep -E ' /(run|tmp|run/lock|var/log/journal) ' /proc/mounts; echo $container", ["--systemd=always"]
    )
    points = {line.split()[1] for line in out.splitlines()[:-1]}
    assert {"/run", "/tmp", "/run/lock"} <= points
    assert out.splitlines()[-1] == "podman"


def test_hooks(podman: Podman, shared: str) -> None:
    """`--hooks-dir`: hooks of OCI configurations are called with the state, in their order."""
    hook = f"{shared}/hook"
    with open(hook, "w", encoding="utf-8") as file:
        file.write(f'#!/bin/sh\n(echo "$1"; cat; echo) >> {shared}/calls\n')
    os.chmod(hook, 0o755)
    for stage in ("createRuntime", "poststart", "poststop"):
        config = {
            "version": "1.0.0",
            "hook": {"path": hook, "args": ["hook", stage]},
            "when": {"always": True},
        }
        with open(f"{shared}/{stage}.json", "w", encoding="utf-8") as file:
            json.dump({**config, "stages": [stage]}, file)
    podman.succeed("--hooks-dir", shared, *podman.run_words("--rm", IMAGE, "true"))
    with open(f"{shared}/calls", encoding="utf-8") as file:
        lines = [line for line in file.read().splitlines() if line]
    states = [json.loads(line)["status"] for line in lines[1::2]]
    assert (lines[::2], states) == (
        ["createRuntime", "poststart", "poststop"],
        ["creating", "running", "stopped"],
    )


def test_no_cgroup(podman: Podman) -> None:
    """`--cgroups=disabled` needs a runtime that Podman knows to manage without: it is told so."""
    words = podman.run_words("--rm", "--cgroups=disabled", "--cgroupns=host", IMAGE)
    words.remove("--cgroup-parent")
    words.remove(f"/{podman.session.tag}")
    result = podman.call(*words, "cat", "/proc/self/cgroup")
    assert result.code == 0, str(result)
    assert podman.session.tag not in result.out
    assert "libpod-" not in result.out


def test_stop_in_the_hosts_pid_namespace(podman: Podman, name: str) -> None:
    """Without a pid namespace of its own (`kill --all`), all processes are gone with the container."""
    podman.scripted(name, "sleep 1000 & sleep 2000", "--pid=host")
    tag = podman.session.tag
    both = {"sleep 1000", "sleep 2000"}
    host.wait_until("two processes", lambda: both <= set(host.processes_of(tag).values()))
    podman.succeed("stop", "--time", "0", name)
    host.wait_until("all are gone", lambda: not host.processes_of(tag))


def test_init_before_start(podman: Podman, name: str) -> None:
    """`podman init` is the runtime's `create`; nothing of the container's has run yet."""
    podman.create(name, IMAGE, "echo", "started")
    podman.succeed("init", name)
    assert podman.status(name) == "initialized 0"
    assert podman.succeed("logs", name) == ""
    podman.succeed("start", "--attach", name)
    assert podman.succeed("logs", name) == "started\n"


def test_replacement(podman: Podman, name: str) -> None:
    """`--replace` takes the running one's place."""
    podman.sleeper(name, "--stop-timeout", "0")
    pid = podman.pid(name)
    podman.scripted(name, "exec sleep 2000", "--replace")
    assert not os.path.exists(f"/proc/{pid}")
    assert podman.status(name) == "running 0"


def test_stats(podman: Podman, name: str) -> None:
    """`podman stats` reads the cgroup."""
    podman.sleeper(name, "--memory", "64m")
    (stats,) = json.loads(podman.succeed("stats", "--no-stream", "--format", "json", name))
    assert stats["pids"] == "1"
    assert stats["mem_usage"].endswith("/ 67.11MB")


def test_update_of_more(podman: Podman, name: str) -> None:
    """What Podman 4.3 can change beside memory and shares."""
    podman.sleeper(name, "--cpus", "0.5")
    podman.succeed("update", "--cpus", "0.25", "--cpuset-cpus", "0", name)
    assert podman.setting(name, "cpu.cfs_quota_us", "cpu.max") == "25000"
    assert podman.setting(name, "cpuset.cpus") == "0"


def test_split_of_the_cgroup(podman: Podman, name: str) -> None:
    """`--cgroups=no-conmon`: the container's cgroup is made, conmon stays where Podman is."""
    podman.sleeper(name, "--cgroups=no-conmon")
    assert podman.setting(name, "cgroup.procs") == str(podman.pid(name))


def test_configuration_of_the_page(podman: Podman, name: str) -> None:
    """docs/engines.md: Podman finds the runtime by its name, and knows what it can do."""
    with open(PAGE, encoding="utf-8") as file:
        (block,) = re.findall(r"```toml\n(\[engine\].*?)```", file.read(), re.DOTALL)
    engine = tomllib.loads(block)["engine"]
    assert engine.pop("runtimes") == {"pyrunc": ["/usr/local/bin/pyrunc"]}
    path = podman.configure("page.conf", "none", engine=engine)
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"[engine.runtimes]\npyrunc = [{json.dumps(podman.wrapper)}]\n")

    def call(*words: str) -> Result:
        argv = podman.argv(*words)
        at = argv.index("--runtime")
        del argv[at : at + 2]
        return host.call(argv, env={"CONTAINERS_CONF": path}, directory=podman.directory)

    asked = call("info", "--format", "{{.Host.OCIRuntime.Name}} {{.Host.OCIRuntime.Path}}")
    assert asked.out == f"pyrunc {podman.wrapper}\n", asked
    words = ("--rm", "--name", name, "--cgroupns=host")
    free = call(
        "run", *words, "--cgroups=disabled", IMAGE, "echo", "there"
    )  # no parent, which it would refuse
    assert (free.code, free.out) == (0, "there\n"), free
    failed = call(*podman.run_words(*words), IMAGE, "no-such-program")
    assert (failed.code, "executable file not found in $PATH" in failed.err) == (127, True), failed


def test_checkpoint_that_cannot_be(podman: Podman, name: str) -> None:
    """CRIU's failure is passed on, and the container runs on; where CRIU works, so does the checkpoint."""
    podman.scripted(name, "while :; do sleep 1; done")  # CRIU interrupts a sleep, which then ends
    result = podman.call("container", "checkpoint", "--leave-running", name)
    if result.code:
        assert "criu" in result.err.lower(), result
    assert podman.execute(name, "echo alive") == "alive\n"


def test_clone_and_rename(podman: Podman, name: str) -> None:
    """A second container from the configuration of the first, which has another name by then."""
    podman.sleeper(name, "--env", "GREETING=hello", "--network", "none")
    podman.succeed("rename", name, f"{name}-first")
    podman.succeed("container", "clone", "--name", name, "--run", f"{name}-first")
    outs = [podman.execute(member, "echo $GREETING") for member in (name, f"{name}-first")]
    assert outs == ["hello\n", "hello\n"]
