"""Namespaces: new ones, joined ones, none; and their settings (hostname, sysctl, ids, time)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.engine import FOREIGN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.containers import Bundle
    from tests.support.engine import Engine

ours = pytest.mark.skipif(FOREIGN, reason="what the specification says, where runc 1.1 differs or is older")
FILES = {
    "pid": "pid", "network": "net", "mount": "mnt", "ipc": "ipc", "uts": "uts", "user": "user",
    "cgroup": "cgroup", "time": "time",
}  # fmt: skip


def namespaces(bundle: Bundle, **paths: str | None) -> None:
    """Set the paths of namespaces; None removes a namespace."""
    kept = [entry for entry in bundle.linux["namespaces"] if paths.get(entry["type"], "") is not None]
    for kind, path in paths.items():
        if path is not None:
            kept = [entry for entry in kept if entry["type"] != kind]
            kept.append({"type": kind, **({"path": path} if path else {})})
    bundle.linux["namespaces"] = kept


def plain_proc(bundle: Bundle) -> None:
    """Mount the host's /proc in a container without a pid namespace."""
    bundle.without_mount("/proc")
    bundle.mount("/proc", "/proc", "rbind", "ro")
    bundle.linux["maskedPaths"] = bundle.linux["readonlyPaths"] = []


@pytest.fixture
def sleeper() -> Iterator[int]:
    """A process in namespaces of its own, to be joined."""
    words = ["unshare", "--net", "--ipc", "--uts", "--mount", "--cgroup", "sleep", "1030"]
    with subprocess.Popen(words) as process:
        while os.readlink(f"/proc/{process.pid}/ns/uts") == os.readlink("/proc/self/ns/uts"):
            pass
        while "sleep" not in Path(f"/proc/{process.pid}/comm").read_text():
            pass
        yield process.pid
        process.kill()


def of_container(engine: Engine, name: str, kind: str) -> str:
    return os.readlink(f"/proc/{engine.state(name)['pid']}/ns/{FILES[kind]}")


@pytest.mark.parametrize("kind", ["pid", "network", "mount", "ipc", "uts", "cgroup"])
def test_each_kind_can_be_new(engine: Engine, bundle: Bundle, kind: str) -> None:
    namespaces(bundle, **{kind: ""})
    name = engine.start(bundle)
    assert of_container(engine, name, kind) != os.readlink(f"/proc/self/ns/{FILES[kind]}")


@pytest.mark.parametrize("kind", ["pid", "network", "ipc", "uts", "cgroup"])
def test_each_kind_can_be_the_caller_s(engine: Engine, bundle: Bundle, kind: str) -> None:
    namespaces(bundle, **{kind: None})
    if kind == "pid":
        plain_proc(bundle)
    if kind == "uts":
        del bundle.config["hostname"]
    if kind == "network":
        bundle.without_mount("/sys")
    name = engine.start(bundle)
    assert of_container(engine, name, kind) == os.readlink(f"/proc/self/ns/{FILES[kind]}")


@pytest.mark.parametrize("kind", ["network", "ipc", "uts", "cgroup", "mount"])
def test_each_kind_can_be_joined(engine: Engine, bundle: Bundle, sleeper: int, kind: str) -> None:
    path = f"/proc/{sleeper}/ns/{FILES[kind]}"
    namespaces(bundle, **{kind: path})
    name = engine.start(bundle)
    assert of_container(engine, name, kind) == os.readlink(path)


@pytest.mark.parametrize("how", ["delete", "force", "foreground", "failure"])
def test_without_a_mount_namespace_the_host_gets_its_table_back(
    engine: Engine, bundle: Bundle, how: str
) -> None:
    def mounted() -> list[str]:
        table = Path("/proc/self/mountinfo").read_text().splitlines()
        return [line for line in table if str(bundle.rootfs) in line]

    bundle.linux["namespaces"] = [entry for entry in bundle.linux["namespaces"] if entry["type"] != "mount"]
    for name in ("maskedPaths", "readonlyPaths"):
        bundle.linux.pop(name, None)
    # What was there before stays, and is no reason to touch it.
    subprocess.run(["mount", "--bind", bundle.rootfs, bundle.rootfs], check=True)
    try:
        before = mounted()
        if how == "foreground":
            engine.front(bundle, "ls -d /proc/self").ok()
        elif how == "failure":
            bundle.process["args"] = ["/no/such/program"]
            engine.front(bundle).fails("/no/such/program")
        else:
            name = engine.start(bundle)
            assert len(mounted()) > len(before)
            if how == "delete":
                engine.call("kill", name, "KILL").ok()
                engine.until(name, "stopped")
            engine.call("delete", *(["--force"] if how == "force" else []), name).ok()
        assert mounted() == before
    finally:
        while mounted():
            subprocess.run(["umount", "--recursive", "--lazy", bundle.rootfs], check=True)


def test_a_pod_shares_the_namespaces_of_its_first_container(
    engine: Engine, bundle: Bundle, bundles: Callable[[str], Bundle]
) -> None:
    first = engine.start(bundle)
    pid = engine.state(first)["pid"]
    other = bundles("other")
    shared = ("network", "ipc", "uts", "pid")
    namespaces(other, **{kind: f"/proc/{pid}/ns/{FILES[kind]}" for kind in shared})
    second = engine.start(other, "ls -d /proc/[0-9]* | wc -l; sleep 1000")
    for kind in (*shared, "mount"):
        assert (of_container(engine, first, kind) == of_container(engine, second, kind)) is (kind in shared)
    # The second has no pid namespace of its own: its death must not need the first one's.
    engine.delete(second)
    assert engine.status(first) == "running"


@ours
@pytest.mark.parametrize("kind", ["network", "ipc", "uts", "pid", "cgroup", "mount"])
def test_a_path_to_another_kind_of_namespace(engine: Engine, bundle: Bundle, kind: str) -> None:
    """config-linux.md: the runtime MUST generate an error."""
    other = "/proc/self/ns/user"
    namespaces(bundle, **{kind: other})
    engine.front(bundle, "exit 0").fails(kind, other)


@pytest.mark.parametrize("path", ["/nosuch/ns", "/etc/passwd"])
def test_a_path_to_no_namespace(engine: Engine, bundle: Bundle, path: str) -> None:
    namespaces(bundle, network=path)
    failed = engine.front(bundle, "exit 0")
    assert failed.code == 1, failed
    if not FOREIGN:
        failed.fails(path)


@ours
@pytest.mark.parametrize(
    "change",
    [
        lambda linux: linux["namespaces"].append({"type": "uts"}),
        lambda linux: linux["namespaces"].append({"type": "nosuch"}),
    ],
)
def test_lists_that_make_no_sense(engine: Engine, bundle: Bundle, change: Callable[[Any], None]) -> None:
    change(bundle.linux)
    failed = engine.front(bundle, "exit 0")
    assert failed.code == 1, failed
    assert "namespace" in failed.err, failed


def test_loopback_is_up_in_a_new_network(engine: Engine, bundle: Bundle) -> None:
    out = engine.front(bundle, "ip -o link show lo; ip -o link | wc -l").ok().out
    assert "UP" in out.splitlines()[0]


# -- user namespaces


def test_a_user_namespace(engine: Engine, bundle: Bundle) -> None:
    bundle.user_namespace(300000)
    script = "id -u; cat /proc/self/uid_map /proc/self/gid_map; touch /made; stat -c %u /made"
    lines = engine.front(bundle, script).ok().out.split("\n")
    assert lines[0] == "0"
    assert [line.split() for line in lines[1:3]] == [["0", "300000", "65536"]] * 2
    assert lines[3] == "0"
    assert (bundle.rootfs / "made").stat().st_uid == 300000


def test_a_user_in_a_user_namespace(engine: Engine, bundle: Bundle) -> None:
    bundle.user_namespace(300000)
    bundle.process["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [5]}
    name = engine.start(bundle)
    lines = Path(f"/proc/{engine.state(name)['pid']}/status").read_text().splitlines()
    status = dict(line.split(":	", 1) for line in lines if ":	" in line)
    assert set(status["Uid"].split()) == {"301000"}
    assert set(status["Gid"].split()) == {"301001"}
    assert "300005" in status["Groups"].split()


@ours
@pytest.mark.parametrize(
    ("user", "words"),
    [({"uid": 70000, "gid": 0}, "/process/user/uid"), ({"uid": 0, "gid": 70000}, "/process/user/gid")],
)
def test_a_user_that_is_not_mapped(engine: Engine, bundle: Bundle, user: dict[str, int], words: str) -> None:
    bundle.user_namespace(300000)
    bundle.process["user"] = user
    engine.front(bundle, "exit 0").fails(words)


@ours
def test_mappings_without_a_user_namespace(engine: Engine, bundle: Bundle) -> None:
    bundle.linux["uidMappings"] = [{"containerID": 0, "hostID": 300000, "size": 1000}]
    done = engine.front(bundle, "cat /proc/self/uid_map")
    assert done.out.split() == ["0", "0", "4294967295"], done
    assert "/linux/uidMappings: the container has no user namespace" in done.err, done


@ours
def test_a_user_namespace_below_a_closed_directory(engine: Engine, bundle: Bundle, place: Any) -> None:
    """The root file system is opened with the caller's rights.

    The container's root needs no access to its parents.
    """
    bundle.user_namespace(300000)
    place.chmod(0o711)
    assert engine.front(bundle, "echo in").ok().out == "in\n"


@ours
def test_joining_a_user_namespace(engine: Engine, bundle: Bundle, bundles: Callable[[str], Bundle]) -> None:
    bundle.user_namespace(300000)
    first = engine.start(bundle)
    pid = engine.state(first)["pid"]
    other = bundles("other")
    other.user_namespace(300000)
    del other.linux["uidMappings"], other.linux["gidMappings"]
    kinds = ("user", "network", "ipc", "uts")
    namespaces(other, **{kind: f"/proc/{pid}/ns/{FILES[kind]}" for kind in kinds})
    second = engine.start(other)
    for kind in kinds:
        assert of_container(engine, first, kind) == of_container(engine, second, kind)


# -- what is set in them


def test_hostname_and_domainname(engine: Engine, bundle: Bundle) -> None:
    bundle.config["hostname"] = "here.example"
    if not FOREIGN:
        bundle.config["domainname"] = "there.example"
    out = engine.front(bundle, "hostname; cat /proc/sys/kernel/domainname").ok().out.split()
    assert out == ["here.example", "(none)" if FOREIGN else "there.example"]
    assert os.uname().nodename != "here.example"


@ours
def test_two_domain_names(engine: Engine, bundle: Bundle) -> None:
    bundle.config["domainname"] = "one.example"
    bundle.linux["sysctl"] = {"kernel.domainname": "other.example"}
    engine.front(bundle, "exit 0").fails("/linux/sysctl/kernel.domainname", 'the OCI "domainname" field')
    bundle.linux["sysctl"] = {"kernel.domainname": "one.example"}
    assert engine.front(bundle, "cat /proc/sys/kernel/domainname").ok().out == "one.example\n"


def test_a_hostname_without_its_namespace(engine: Engine, bundle: Bundle) -> None:
    namespaces(bundle, uts=None)
    before = os.uname().nodename
    failed = engine.front(bundle, "exit 0")
    assert failed.code == 1, failed
    assert "hostname" in failed.err, failed
    assert os.uname().nodename == before


def test_sysctl(engine: Engine, bundle: Bundle) -> None:
    bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.shmmni": "1234"}
    script = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni"
    assert engine.front(bundle, script).ok().out == "1\n1234\n"


@pytest.mark.parametrize("name", ["kernel.panic", "vm.swappiness", "kernel.hostname", "fs.file-max"])
def test_a_sysctl_of_the_host(engine: Engine, bundle: Bundle, name: str) -> None:
    bundle.linux["sysctl"] = {name: "1"}
    engine.front(bundle, "exit 0").fails(name)


@pytest.mark.parametrize(("name", "kind"), [("net.ipv4.ip_forward", "network"), ("kernel.shmmni", "ipc")])
def test_a_sysctl_without_its_namespace(engine: Engine, bundle: Bundle, name: str, kind: str) -> None:
    namespaces(bundle, **{kind: None})
    bundle.linux["sysctl"] = {name: "1"}
    engine.front(bundle, "exit 0").fails(name)


@ours
def test_time_offsets(engine: Engine, bundle: Bundle) -> None:
    if not os.path.exists("/proc/self/ns/time"):
        pytest.skip("this kernel has no time namespaces")
    namespaces(bundle, time="")
    bundle.linux["timeOffsets"] = {"monotonic": {"secs": 7881, "nanosecs": 2}, "boottime": {"secs": 1000000}}
    out = engine.front(bundle, "cat /proc/self/timens_offsets; cut -d. -f1 /proc/uptime").ok().out.split()
    assert out[:6] == ["monotonic", "7881", "2", "boottime", "1000000", "0"]
    assert int(out[6]) > 1000000
    name = engine.start(bundle)
    done = engine.call("exec", name, "/bin/cut", "-d.", "-f1", "/proc/uptime").ok()
    assert int(done.out) > 1000000


def test_the_cgroup_namespace_hides_the_path(engine: Engine, bundle: Bundle) -> None:
    namespaces(bundle, cgroup="")
    out = engine.front(bundle, "cat /proc/self/cgroup").ok().out
    assert {line.split(":", 2)[2] for line in out.splitlines()} == {"/"}


def test_a_root_file_system_its_own_root_cannot_walk_to(engine: Engine, bundle: Bundle) -> None:
    """The parent copies the mount, so the container's root needs access only to the directory itself."""
    bundle.user_namespace()
    bundle.path.chmod(0o700)
    done = engine.front(bundle, "cat /proc/self/uid_map; ls /").ok()
    assert done.out.split()[:3] == ["0", "100000", "65536"]
    assert "bin" in done.out.split()
