"""containerd (`ctr run --runc-binary`): what a container gets."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from conformance.engines import host, images

if TYPE_CHECKING:
    from conformance.engines.containerd import Containerd
    from conformance.engines.host import Session


def bind(source: str, *options: str) -> str:
    """A --mount of a directory of the host on /mnt."""
    return f"type=bind,src={source},dst=/mnt,options={':'.join(('rbind', *options))}"


def test_run_gives_output_and_exit_status(containerd: Containerd, name: str) -> None:
    """Both streams come apart, and the status of the process is the status of `ctr`.

    More than a FIFO holds: the process cannot end before `ctr` reads.
    """
    much = "head -c 200000 /dev/zero | tr '\\0' x"
    script = f"echo out; echo err >&2; {much}; {much} >&2; exit 7"
    result = containerd.ctr(*containerd.run_words(name, ("sh", "-c", script), ["--rm"]))
    assert (result.code, result.out) == (7, "out\n" + 200000 * "x"), result.code
    assert "err\n" + 200000 * "x" in result.err


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


def test_place_of_the_cgroup(containerd: Containerd, name: str) -> None:
    """`--cgroup`: where the caller wants it."""
    path = f"/{containerd.session.tag}/below/{name}"
    containerd.start_task(name, "sleep", "1000", options=["--cgroup", path])
    with open(f"/proc/{containerd.pid(name)}/cgroup", encoding="utf-8") as file:
        assert f"{path}\n" in file.read()
    containerd.remove_everything()
    for left in host.cgroups_of(f"{containerd.session.tag}/below"):
        os.rmdir(left)  # a parent stays, whoever made it


def test_limits_of_processors(containerd: Containerd, name: str) -> None:
    """`--cpu-quota`, `--cpu-period` and `--cpu-shares`."""
    options = ["--cpu-quota", "30000", "--cpu-period", "60000", "--cpu-shares", "512"]
    containerd.start_task(name, "sleep", "1000", options=options)
    tag = containerd.session.tag
    assert host.setting(tag, name, "cpu.cfs_quota_us", "cpu.max") == "30000"
    assert host.setting(tag, name, "cpu.shares", "cpu.weight") in {"512", "20", "59"}


def test_root_directory_without_an_image(containerd: Containerd, name: str) -> None:
    """`--rootfs` of a plain directory."""
    words = containerd.run_words(name, ["/bin/cat", "/seed/file"], ["--rm", "--rootfs", "--read-only"])
    words[words.index(images.NAME)] = containerd.session.rootfs
    result = containerd.ctr(*words)
    assert (result.code, result.out) == (0, "from the image\n"), result


@pytest.mark.parametrize(
    ("propagation", "field"), [("shared", "shared:"), ("slave", "master:"), ("private", "")]
)
def test_propagation_of_the_root(containerd: Containerd, name: str, propagation: str, field: str) -> None:
    """`--rootfs-propagation` is what the root mount of the container has (proc(5), mountinfo)."""
    out = containerd.run_shell(
        name, "grep ' / / ' /proc/self/mountinfo | head -n 1", "--rootfs-propagation", propagation
    )
    optional = out.split()[6 : out.split().index("-")]
    assert [word for word in optional if field and word.startswith(field)] == optional[:1], out


def test_namespace_of_another_process(containerd: Containerd, name: str) -> None:
    """`--with-ns`: joined by path."""
    containerd.start_task(f"{name}-first", "sleep", "1000")
    place = f"/proc/{containerd.pid(f'{name}-first')}/ns"
    options = [f"--with-ns={kind}:{place}/{file}" for kind, file in (("network", "net"), ("ipc", "ipc"))]
    out = containerd.run_shell(name, "readlink /proc/self/ns/net; readlink /proc/self/ns/ipc", *options)
    assert out.split() == [os.readlink(f"{place}/net"), os.readlink(f"{place}/ipc")]


def test_privileged(containerd: Containerd, name: str) -> None:
    """`--privileged`: all capabilities that there are, and nothing is masked."""
    result = containerd.run(name, "sh", "-c", "cat /proc/self/status /proc/mounts", options=["--privileged"])
    if result.code and "operation not permitted" in result.err:
        pytest.skip("this machine lacks CAP_SYS_RESOURCE, which --privileged includes")
    assert result.code == 0, result
    assert "CapBnd:\t0000000000000000" not in result.out
    assert " /proc/kcore " not in result.out


def test_new_privileges(containerd: Containerd, name: str) -> None:
    """Off by default, on by `--allow-new-privs`."""
    script = "grep NoNewPrivs /proc/self/status | cut -f2"
    assert containerd.run_shell(name, script) == "1\n"
    assert containerd.run_shell(name, script, "--allow-new-privs") == "0\n"


def test_own_seccomp_profile(containerd: Containerd, name: str) -> None:
    """`--seccomp-profile` of one's own."""
    profile = f"{containerd.directory}/{name}-profile.json"
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}
    with open(profile, "w", encoding="utf-8") as file:
        json.dump({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}, file)
    options = ("--seccomp", "--seccomp-profile", profile)
    out = containerd.run_shell(name, "mkdir /new 2>&1 || true", *options)
    assert "No space left on device" in out


def test_without_pivot_root(containerd: Containerd, name: str) -> None:
    """`--no-pivot`: the root is moved, and is the container's all the same."""
    assert containerd.run_shell(name, "cat /seed/file; ls /", "--no-pivot").startswith("from the image\n")


def test_file_of_variables(containerd: Containerd, name: str, shared: str) -> None:
    """`--env-file`, and the file with the task's pid."""
    with open(f"{shared}/variables", "w", encoding="utf-8") as file:
        file.write("GREETING=hello there\n")
    options = ["--env-file", f"{shared}/variables", "--pid-file", f"{shared}/pid"]
    containerd.start_task(name, "sleep", "1000", options=options)
    with open(f"{shared}/pid", encoding="ascii") as file:
        assert int(file.read()) == containerd.pid(name)
    assert containerd.execute_shell(name, "echo $GREETING").out == "hello there\n"


def test_directory_of_devices(containerd: Containerd, name: str) -> None:
    """`--device` of a directory: each node in it."""
    if not os.path.isdir("/dev/net"):
        pytest.skip("the host has no /dev/net")
    assert "tun" in containerd.run_shell(name, "ls /dev/net", "--device", "/dev/net")


def test_output_to_a_file(containerd: Containerd, name: str, shared: str) -> None:
    """`--log-uri file:`: the shim writes what a detached task prints."""
    options = ["--log-uri", f"file://{shared}/log"]
    containerd.start_task(name, "sh", "-c", "echo printed; exec sleep 1000", options=options)
    host.wait_until("it is printed", lambda: "printed" in host.tail(f"{shared}/log"))
