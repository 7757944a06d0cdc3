"""What a container gets, the same check for Docker, Podman and Podman of an ordinary user."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from conformance.engines import host, images

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.engines.client import Client

IMAGE = images.NAME
KINDS = ("pid", "net", "ipc", "uts", "mnt")
SHOW_NAMESPACES = f"for k in {' '.join(KINDS)}; do readlink /proc/self/ns/$k; done"
SHOW_SECURITY = "grep -E 'Seccomp:|NoNewPrivs' /proc/self/status | tr -d '[:alpha:]:[:space:]'"
CHOWN, NET_BIND_SERVICE, NET_RAW, SYS_ADMIN = 0, 10, 13, 21  # bits of capability sets (capability.h)


def mount_options(client: Client, point: str, options: list[str]) -> set[str]:
    """The options of a mount point of the container's, and the type of the file system."""
    fields = client.shell(f"grep ' {point} ' /proc/mounts | tail -n 1", options).split()
    return {fields[2], *fields[3].split(",")}


def test_output_and_exit_status(client: Client) -> None:
    """Both streams come apart, and the status of the process is the status of `run`."""
    result = client.run(IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (result.code, result.out, result.err) == (7, "out\n", "err\n"), result


def test_status_of_what_a_signal_ended(client: Client) -> None:
    """128 and the number of the signal."""
    result = client.run(IMAGE, "sh", "-c", "sh -c 'kill -9 $$'; exit $?")
    assert result.code == 137, result


def test_standard_input(client: Client) -> None:
    """What is written to `run -i` reaches the process, and so does its end."""
    result = client.run("-i", IMAGE, "cat", stdin="one\ntwo\n")
    assert (result.code, result.out) == (0, "one\ntwo\n"), result


def test_terminal(client: Client) -> None:
    """A dialogue over the pty of the container; the engine sets its size after the start."""
    script = "until [ \"$(stty size)\" = '33 101' ]; do sleep 0.1; done; tty; exit 9\n"
    result = client.terminal(*client.run_words("--rm", "-it", IMAGE, "sh"), script=script)
    assert result.code == 9, result
    assert "/dev/pts/0" in result.out or "/dev/console" in result.out


@pytest.mark.parametrize(
    ("command", "status", "phrase"),
    [
        ("no-such-program", 127, "executable file not found in $PATH"),
        ("/no/such/program", 127, "no such file or directory"),
        ("/bin/not-executable", 126, "permission denied"),
        ("/home", 126, "permission denied"),
    ],
    ids=["not-in-path", "no-file", "not-executable", "directory"],
)
def test_what_cannot_run(client: Client, command: str, status: int, phrase: str) -> None:
    """The engine reads the runtime's words and chooses the exit status by them."""
    result = client.run(IMAGE, command)
    assert result.code == status, result
    assert phrase in result.err


def test_option_that_is_none(client: Client) -> None:
    """An error of the engine itself is 125."""
    assert client.run("--no-such-option", IMAGE).code == 125


def test_process_settings(client: Client, name: str) -> None:
    """User by name with supplementary groups, working directory, environment, host name, umask."""
    options = ["--user", "app", "--workdir", "/home/app", "--env", "GREETING=hello", "--hostname", name]
    out = client.shell("id -u; id -g; id -G; pwd; echo $GREETING; hostname; umask", options)
    assert out.split("\n") == ["1000", "1000", "1000 2000", "/home/app", "hello", name, "0022", ""]


def test_added_groups(client: Client) -> None:
    """`--group-add`, by name and by number."""
    options = ["--user", "0", "--group-add", "extra", "--group-add", "3000"]
    assert {"2000", "3000"} <= set(client.shell("id -G", options).split())


def test_init(client: Client) -> None:
    """`--init` binds a first process of the host's into the container."""
    assert "init" in client.shell("tr '\\0' ' ' < /proc/1/cmdline", ["--init"]).split()[0]


def test_namespaces(client: Client) -> None:
    """New by default; the host's when asked for."""
    inside = client.shell(SHOW_NAMESPACES).split()
    assert not set(inside) & {os.readlink(f"/proc/self/ns/{kind}") for kind in KINDS}
    shared = client.shell(SHOW_NAMESPACES, ["--pid=host", "--uts=host"]).split()
    assert {os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "uts")} <= set(shared)


def test_host_ipc(rooted: Client) -> None:
    """`--ipc=host`; rootless Podman needs /dev/mqueue for it, which a host may lack."""
    assert rooted.shell("readlink /proc/self/ns/ipc", ["--ipc=host"]).strip() == os.readlink(
        "/proc/self/ns/ipc"
    )


def test_cgroup_namespace(rooted: Client) -> None:
    """A container sees its own cgroup as the root, or the host's namespace."""
    script = "readlink /proc/self/ns/cgroup; cut -d: -f3 /proc/self/cgroup | sort -u"
    namespace, *paths = rooted.shell(script, ["--cgroupns=private"]).split()
    assert namespace != os.readlink("/proc/self/ns/cgroup")
    assert "/" in paths
    assert not any(rooted.session.tag in path for path in paths)
    namespace, *paths = rooted.shell(script, ["--cgroupns=host"]).split()
    assert namespace == os.readlink("/proc/self/ns/cgroup")
    assert any(rooted.session.tag in path for path in paths)


def test_namespaces_of_another_container(client: Client, name: str) -> None:
    """`--pid`, `--network` and `--ipc container:` join by path."""
    client.sleeper(name, "--ipc=shareable")
    options = [f"--{kind}=container:{name}" for kind in ("pid", "network", "ipc")]
    assert client.shell("tr '\\0' ' ' < /proc/1/cmdline", options) == "sleep 1000 "
    script = "for k in pid net ipc; do readlink /proc/self/ns/$k; done"
    assert client.shell(script, options) == client.execute(name, script)


def test_bind_mounts(client: Client, shared: str) -> None:
    """`-v` writable and not, and a file on a file."""
    client.shell("cat /mnt/file; echo changed > /mnt/file", ["--volume", f"{shared}:/mnt"])
    with open(f"{shared}/file", encoding="utf-8") as file:
        assert file.read() == "changed\n"
    refused = client.run("--volume", f"{shared}:/mnt:ro", IMAGE, "sh", "-c", "echo again > /mnt/file")
    assert refused.code == 1, refused
    assert "Read-only file system" in refused.err
    assert client.shell("cat /etc/motd", ["--volume", f"{shared}/file:/etc/motd"]) == "changed\n"


def test_mount_words(client: Client, shared: str, name: str) -> None:
    """`--mount` of each type, with words of its own; a place that has to be made."""
    bind = f"type=bind,source={shared},target=/new/place,readonly,bind-propagation=rprivate"
    assert {"ro"} <= mount_options(client, "/new/place", ["--mount", bind])
    tmpfs = "type=tmpfs,target=/new/place,tmpfs-size=65536,tmpfs-mode=1770"
    assert {"tmpfs", "size=64k", "mode=1770"} <= mount_options(client, "/new/place", ["--mount", tmpfs])
    volume = f"type=volume,source={name},target=/new/place"
    client.shell("echo kept > /new/place/file", ["--mount", volume])
    assert client.shell("cat /new/place/file", ["--mount", f"{volume},ro"]) == "kept\n"
    assert "ro" in mount_options(client, "/new/place", ["--mount", f"{volume},ro"])


@pytest.mark.parametrize(
    ("propagation", "seen_inside", "seen_outside"),
    [("rprivate", False, False), ("rslave", True, False), ("rshared", True, True)],
)
def test_propagation(
    rooted: Client, name: str, propagated: str, propagation: str, *, seen_inside: bool, seen_outside: bool
) -> None:
    """Whether a mount made on one side of a bind is seen on the other."""
    # To mount inside takes CAP_SYS_ADMIN, which seccomp profiles of engines open mount(2) for.
    mount = f"type=bind,source={propagated},target=/mnt,bind-propagation={propagation}"
    rooted.sleeper(name, "--cap-add", "SYS_ADMIN", "--mount", mount)
    host.succeed(["mount", "-t", "tmpfs", "outside", f"{propagated}/outside"])
    assert ("outside" in rooted.execute(name, "cat /proc/mounts")) == seen_inside
    rooted.execute(name, "mount -t tmpfs inside /mnt/inside")
    assert (f"{propagated}/inside" in host.mounts_below(propagated)) == seen_outside


@pytest.fixture
def propagated(shared: str) -> Iterator[str]:
    """A mount of the host's that is shared, with places to mount on."""
    host.succeed(["mount", "-t", "tmpfs", "shared", shared])
    host.succeed(["mount", "--make-shared", shared])
    for place in ("inside", "outside"):
        os.mkdir(f"{shared}/{place}")
    yield shared
    for point in host.mounts_below(shared):
        host.succeed(["umount", point])


def test_named_volume(client: Client, name: str) -> None:
    """A fresh volume is filled from the image, and keeps what is written to it."""
    options = ["--volume", f"{name}:/seed"]
    assert client.shell("cat /seed/file; echo more >> /seed/file", options) == "from the image\n"
    assert client.shell("cat /seed/file", options) == "from the image\nmore\n"


def test_volumes_of_another_container(client: Client, name: str) -> None:
    """`--volumes-from`, and a volume without a name."""
    client.scripted(name, "echo shared > /mnt/file; exec sleep 1000", "--volume", "/mnt")
    host.wait_until("it is written", lambda: client.call("exec", name, "test", "-s", "/mnt/file").code == 0)
    assert client.shell("cat /mnt/file", ["--volumes-from", name]) == "shared\n"
    refused = client.run("--volumes-from", f"{name}:ro", IMAGE, "touch", "/mnt/new")
    assert "Read-only file system" in refused.err


def test_tmpfs_on_what_the_image_does_not_have(client: Client) -> None:
    """Any user may write to it, as the manual pages say of its mode."""
    words = ("--user", "app", "--tmpfs", "/scratch")
    result = client.run(*words, IMAGE, "sh", "-ec", "touch /scratch/new; stat -c %a /scratch")
    assert (result.code, result.out) == (0, "1777\n"), result


def test_read_only_root_and_tmpfs(client: Client) -> None:
    """Nothing can be written but on the tmpfs, which has the options asked for."""
    options = ["--read-only", "--tmpfs", "/scratch:size=64k,mode=1770,noexec"]
    out = client.shell(
        "touch /file 2>&1 || true; touch /scratch/file; grep ' /scratch ' /proc/mounts", options
    )
    refused, mount = out.splitlines()
    assert refused == "touch: /file: Read-only file system"
    assert {"rw", "noexec", "nosuid", "nodev", "size=64k", "mode=1770"} <= set(mount.split()[3].split(","))


def test_protected_paths(client: Client) -> None:
    """What engines mask is empty, and what they protect is read-only."""
    files = ("/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/sched_debug")
    present = " ".join(path for path in files if os.path.exists(path))
    assert client.shell(f"cat {present} /dev/null; ls -A /sys/firmware") == ""
    mounts = [line.split() for line in client.shell("cat /proc/mounts").splitlines()]
    read_only = {point for _, point, _, options, *_ in mounts if "ro" in options.split(",")}
    paths = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
    assert {path for path in paths if os.path.exists(path)} <= read_only


def test_small_settings(client: Client) -> None:
    """A sysctl of a namespace of its own, a limit of the process, the size of /dev/shm, an OOM score."""
    assert client.shell("cat /proc/sys/kernel/msgmax", ["--sysctl", "kernel.msgmax=12345"]) == "12345\n"
    limits = ["--ulimit", "nofile=100:200", *client.ulimits]
    assert client.shell("ulimit -Sn; ulimit -Hn", limits) == "100\n200\n"
    assert "size=1024k" in mount_options(client, "/dev/shm", ["--shm-size", "1m"])
    assert client.shell("cat /proc/self/oom_score_adj", ["--oom-score-adj", "500"]) == "500\n"


@pytest.mark.parametrize(
    ("options", "present", "absent"),
    [
        ([], {CHOWN, NET_BIND_SERVICE}, {SYS_ADMIN}),
        (["--cap-drop", "CHOWN", "--cap-add", "SYS_ADMIN"], {NET_BIND_SERVICE, SYS_ADMIN}, {CHOWN}),
        (["--cap-drop", "ALL"], set(), {CHOWN, NET_BIND_SERVICE, SYS_ADMIN}),
        (["--cap-drop", "ALL", "--cap-add", "NET_RAW"], {NET_RAW}, {CHOWN, SYS_ADMIN}),
    ],
    ids=["default", "one-less-one-more", "none", "one"],
)
def test_capabilities(client: Client, options: list[str], present: set[int], absent: set[int]) -> None:
    """Bits of the effective and the bounding set."""
    out = client.shell("grep -E 'CapEff|CapBnd' /proc/self/status", options)
    for line in out.splitlines():
        value = int(line.split()[1], 16)
        assert present == {bit for bit in present | absent if value & 1 << bit}, line


def test_security_options(client: Client, name: str) -> None:
    """The engine's own seccomp profile, none, and one of ours; no_new_privs; labels that are off anyway."""
    assert client.shell(SHOW_SECURITY) == "02"
    words = ("seccomp=unconfined", "no-new-privileges", "label=disable")
    assert client.shell(SHOW_SECURITY, [f"--security-opt={word}" for word in words]) == "10"
    profile = f"{client.directory}/{name}.json"
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}
    with open(profile, "w", encoding="utf-8") as file:
        json.dump({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}, file)
    out = client.shell("mkdir /new 2>&1 || true", ["--security-opt", f"seccomp={profile}"])
    assert "No space left on device" in out


def test_device(client: Client) -> None:
    """`--device`: a node of the host's that works."""
    out = client.shell("ls -l /dev/full; echo x 2>&1 > /dev/full || true", ["--device", "/dev/full"])
    assert out.startswith("cr")
    assert "No space left on device" in out


def test_device_under_another_name(rooted: Client) -> None:
    """`--device` makes the node where it is wanted, and the cgroup lets it be read and not written."""
    out = rooted.shell(
        "head -c 4 /dev/nothing | wc -c; ls -l /dev/nothing; echo x 2>&1 > /dev/nothing || true",
        ["--device", "/dev/zero:/dev/nothing:r"],
    )
    assert out.startswith("4\ncr")


@pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="the host has no /dev/fuse")
def test_device_rule(rooted: Client) -> None:
    """What no rule allows cannot be opened, what `--device-cgroup-rule` allows can; 10:229 is /dev/fuse."""
    script = "mknod /fuse c 10 229; : < /fuse && echo opened"
    refused = rooted.run("--cap-add", "MKNOD", IMAGE, "sh", "-c", script)
    assert "Operation not permitted" in refused.err
    options = ["--cap-add", "MKNOD", "--device-cgroup-rule", "c 10:229 rwm"]
    assert rooted.shell(script, options) == "opened\n"


def test_privileged(rooted: Client) -> None:
    """All capabilities and all devices."""
    status = rooted.run("--cap-add", "SYS_RESOURCE", IMAGE, "true")
    if status.code and "operation not permitted" in status.err:
        pytest.skip("this machine lacks CAP_SYS_RESOURCE, which --privileged includes")
    out = rooted.shell("grep CapEff /proc/self/status; test -c /dev/kmsg && echo kmsg", ["--privileged"])
    assert int(out.split()[1], 16) & 1 << SYS_ADMIN
    assert out.endswith("kmsg\n")
