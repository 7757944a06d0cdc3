"""User namespaces that root makes and joins.

Source: user_namespaces(7); runtime-spec config-linux.md "User namespace mappings".
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.consoles import Receiver, read_until
from tests.support.containers import wait_for
from tests.support.engine import FOREIGN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.containers import Bundle
    from tests.support.engine import Engine

FIRST = 300000
FILES = {"network": "net", "mount": "mnt"}
ours = pytest.mark.skipif(FOREIGN, reason="words and abilities of our own")


def maps(bundle: Bundle, *extents: tuple[int, int, int]) -> None:
    for kind in ("uidMappings", "gidMappings"):
        bundle.linux[kind] = [
            {"containerID": inside, "hostID": outside, "size": size} for inside, outside, size in extents
        ]


def namespaces(bundle: Bundle, **paths: str) -> None:
    """Join or make namespaces, by type and path."""
    kept = [entry for entry in bundle.linux["namespaces"] if entry["type"] not in paths]
    added: list[dict[str, str]] = [
        {"type": kind, **({"path": path} if path else {})} for kind, path in paths.items()
    ]
    bundle.linux["namespaces"] = kept + added


def link(pid: int | str, kind: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/{FILES.get(kind, kind)}")


def path_of(pid: int, kind: str) -> str:
    return f"/proc/{pid}/ns/{FILES.get(kind, kind)}"


@pytest.fixture
def strangers() -> Iterator[int]:
    """A process of the host's user namespace with other namespaces of its own."""
    words = ["unshare", "--net", "--ipc", "--uts", "--cgroup", "--mount", "sleep", "1000"]
    with subprocess.Popen(words) as sleeper:
        assert wait_for(lambda: Path(f"/proc/{sleeper.pid}/comm").read_text() == "sleep\n")
        yield sleeper.pid
        sleeper.send_signal(signal.SIGKILL)


# -- mappings


def test_several_extents(engine: Engine, bundle: Bundle) -> None:
    bundle.user_namespace(FIRST)
    maps(bundle, (0, FIRST, 10), (10, FIRST + 100, 5), (1000, FIRST + 50, 1))
    bundle.process["user"] = {"uid": 1000, "gid": 12}
    out = engine.front(bundle, "id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map").ok().out
    lines = [line.split() for line in out.splitlines()]
    wanted = [["0", "300000", "10"], ["10", "300100", "5"], ["1000", "300050", "1"]]
    assert lines == [["1000"], ["12"], *wanted, *wanted]


def test_different_maps_of_users_and_groups(engine: Engine, bundle: Bundle) -> None:
    bundle.user_namespace(FIRST)
    bundle.linux["gidMappings"] = [{"containerID": 0, "hostID": 500000, "size": 100}]
    script = "cat /proc/self/uid_map /proc/self/gid_map; touch /tmp/new; stat -c '%u %g' /tmp/new"
    out = engine.front(bundle, script).ok().out.split()
    assert out == ["0", "300000", "65536", "0", "500000", "100", "0", "0"]
    status = (bundle.rootfs / "tmp/new").stat()
    assert (status.st_uid, status.st_gid) == (FIRST, 500000)


def test_as_many_extents_as_the_kernel_takes(engine: Engine, bundle: Bundle) -> None:
    """The map has 340 lines and must be smaller than a page, so the host's ids have three or four digits."""
    bundle.user_namespace(FIRST)
    maps(bundle, (0, FIRST, 1), *((number, 1000 + 2 * number, 1) for number in range(1, 340)))
    out = engine.front(bundle, "wc -l < /proc/self/uid_map; tail -n 1 /proc/self/gid_map").ok().out
    assert out.split() == ["340", "339", "1678", "1"]


@ours
@pytest.mark.parametrize(
    ("extents", "words"),
    [
        (
            [(number, 1000 + 2 * number, 1) for number in range(341)],
            "there are 341 ranges, the kernel takes 340",
        ),
        ([(number, 10**6 + 2 * number, 1) for number in range(330)], "bytes long, the kernel takes 4095"),
        ([(0, 1000, 10), (5, 2000, 10)], "the ranges 0:1000:10 and 5:2000:10 share container ids"),
        ([(0, 1000, 10), (20, 1009, 10)], "the ranges 0:1000:10 and 20:1009:10 share host ids"),
    ],
    ids=["many", "long", "inside", "outside"],
)
def test_maps_the_kernel_refuses(
    engine: Engine, bundle: Bundle, extents: list[tuple[int, int, int]], words: str
) -> None:
    bundle.user_namespace(FIRST)
    maps(bundle, *extents)
    engine.front(bundle, "exit 0").fails("/linux/uidMappings", "write uid_map", "invalid argument", words)


@ours
def test_without_a_root(engine: Engine, bundle: Bundle) -> None:
    """The namespace does not map 0, so everything is made as the process's user."""
    bundle.user_namespace(FIRST)
    maps(bundle, (1000, FIRST, 10))
    bundle.process["user"] = {"uid": 1000, "gid": 1001}
    bundle.process["cwd"] = "/tmp/made"
    name = engine.start(bundle, "sleep 1000")
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{engine.state(name)['pid']}/status").read_text().splitlines()
        if ":\t" in line
    )
    assert set(status["Uid"].split()) == {str(FIRST)}
    assert set(status["Gid"].split()) == {str(FIRST + 1)}
    done = engine.call("exec", name, "/bin/sh", "-c", "id -u; stat -c '%u' /dev .")
    assert done.ok().out.split() == ["1000", "1000", "1000"]


# -- what belongs to whom


def test_a_root_file_system_of_others(engine: Engine, bundle: Bundle) -> None:
    """The owner of a file is not mapped: the file can be read, and does not look like root's."""
    bundle.user_namespace(FIRST)
    for directory, _names, files in os.walk(bundle.rootfs):
        for name in ("", *files):
            os.lchown(os.path.join(directory, name), 0, 0)
    bundle.without_mount("/dev/pts")
    bundle.without_mount("/dev/shm")
    out = engine.front(bundle, "stat -c %u /bin/busybox; touch /made 2>/dev/null || echo refused").ok().out
    assert out.split() == ["65534", "refused"]


def test_bind_sources_the_mapped_root_cannot_reach(engine: Engine, bundle: Bundle, place: Path) -> None:
    bundle.user_namespace(FIRST)
    closed = place / "closed"
    (closed / "inner").mkdir(parents=True)
    (closed / "inner/file").write_text("content\n")
    closed.chmod(0o700)
    bundle.mount("/one", closed / "inner", "rbind")
    bundle.mount("/two/file", closed / "inner/file", "bind", "ro")
    name = engine.start(bundle, "cat /one/file /two/file > /tmp/out; sleep 1000")
    out = bundle.rootfs / "tmp/out"
    assert wait_for(lambda: out.exists() and out.read_text() == "content\ncontent\n")
    done = engine.call(
        "exec", name, "/bin/sh", "-c", "cat /one/file; echo x 2>/dev/null > /two/file || echo no"
    )
    assert done.ok().out == "content\nno\n"


def test_devices_are_bound(engine: Engine, bundle: Bundle) -> None:
    """The kernel refuses mknod(2), so the host's nodes are bound, also with other names; fifos are made."""
    bundle.user_namespace(FIRST)
    bundle.linux["devices"] = [
        {"path": "/dev/urandom", "type": "c", "major": 1, "minor": 9, "fileMode": 0o600},
        {"path": "/dev/fifo", "type": "p", "uid": 5, "gid": 6, "fileMode": 0o640},
    ]
    if not FOREIGN:
        bundle.linux["devices"].append({"path": "/dev/further/null", "type": "c", "major": 1, "minor": 3})
        last = "echo x > /dev/further/null; stat -c '%t:%T' /dev/further/null"
    else:
        last = "echo 1:3"
    script = f"""
        for name in null zero full random urandom tty; do stat -c '%F %t:%T' /dev/$name; done
        echo x > /dev/null; stat -c '%F %u %g %a' /dev/fifo; {last}"""
    out = engine.front(bundle, script).ok().out.splitlines()
    numbers = ["1:3", "1:5", "1:7", "1:8", "1:9", "5:0"]
    assert out == [f"character special file {number}" for number in numbers] + ["fifo 5 6 640", "1:3"]
    assert os.stat("/dev/urandom").st_mode & 0o777 != 0o600  # that would be the host's node


@ours
def test_a_device_the_host_has_not(engine: Engine, bundle: Bundle) -> None:
    bundle.user_namespace(FIRST)
    bundle.linux["devices"] = [{"path": "/dev/none", "type": "c", "major": 10, "minor": 250}]
    engine.front(bundle, "exit 0").fails("/linux/devices/0", "/dev/none cannot be made in a user namespace")


def test_a_terminal_belongs_to_the_process(engine: Engine, bundle: Bundle, tmp_path: Path) -> None:
    bundle.user_namespace(FIRST)
    bundle.process.update(terminal=True, user={"uid": 7, "gid": 8})
    receiver = Receiver(tmp_path / "console.sock")
    try:
        script = "tty; stat -c 'own %u' $(tty); test -c /dev/console && echo console; sleep 1000"
        bundle.process["args"] = ["/bin/sh", "-c", script]
        name = engine.create(bundle, "--console-socket", str(receiver.path))
        master = receiver.take()
        engine.call("start", name).ok()
        seen = read_until(master, b"console\r\n")
        assert b"own 7\r\n" in seen
        assert os.fstat(master).st_uid != 7
    finally:
        receiver.close()


# -- what is set in it


def test_sysctls_of_the_namespaces_it_owns(engine: Engine, bundle: Bundle) -> None:
    bundle.user_namespace(FIRST)
    wanted = {
        "net.ipv4.ip_forward": "1",
        "net.ipv4.ping_group_range": "0 65535",
        "kernel.msgmax": "9000",
        "user.max_user_namespaces": "7",
    }
    bundle.linux["sysctl"] = wanted
    files = " ".join("/proc/sys/" + name.replace(".", "/") for name in wanted)
    out = engine.front(bundle, f"cat {files}").ok().out.splitlines()
    assert [line.split() for line in out] == [value.split() for value in wanted.values()]


def test_its_message_queues_belong_to_its_root(engine: Engine, bundle: Bundle) -> None:
    bundle.user_namespace(FIRST)
    bundle.mount("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev", kind="mqueue")
    out = engine.front(bundle, "stat -c '%u %g %a' /dev/mqueue; cat /proc/sys/fs/mqueue/msg_max").ok().out
    assert out.splitlines()[0] == "0 0 1777"


def test_the_oom_score(engine: Engine, bundle: Bundle) -> None:
    bundle.user_namespace(FIRST)
    bundle.process["oomScoreAdj"] = 321
    assert engine.front(bundle, "cat /proc/self/oom_score_adj").ok().out == "321\n"


def test_limits_and_groups(engine: Engine, bundle: Bundle) -> None:
    bundle.user_namespace(FIRST)
    bundle.process["user"] = {"uid": 1, "gid": 2, "additionalGids": [3, 4]}
    bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]
    name = engine.start(bundle)
    script = "id -u; id -g; id -G; ulimit -Sn; ulimit -Hn; cat /proc/self/setgroups"
    done = engine.call("exec", name, "/bin/sh", "-c", script).ok()
    assert done.out.split() == ["1", "2", "2", "3", "4", "100", "200", "allow"]
    added = engine.call(
        "exec", "--user", "9:8", "--additional-gids", "5", name, "/bin/sh", "-c", "id -u; id -G"
    )
    assert added.ok().out.split() == ["9", "8", "3", "4", "5"]


@ours
@pytest.mark.parametrize("option", [["--user", "65536"], ["--user", "0:65536"]])
def test_exec_as_somebody_without_a_name(engine: Engine, bundle: Bundle, option: list[str]) -> None:
    bundle.user_namespace(FIRST)
    name = engine.start(bundle)
    engine.call("exec", *option, name, "/bin/true").fails("has no mapping in /linux/", code=255)


def test_time_offsets(engine: Engine, bundle: Bundle) -> None:
    if not os.path.exists("/proc/self/ns/time"):
        pytest.skip("this kernel has no time namespaces")
    bundle.user_namespace(FIRST)
    namespaces(bundle, time="")
    bundle.linux["timeOffsets"] = {"boottime": {"secs": 1000000}}
    name = engine.start(bundle)
    done = engine.call("exec", name, "/bin/cut", "-d.", "-f1", "/proc/uptime").ok()
    assert int(done.out) > 1000000


def test_the_cgroup_namespace(engine: Engine, bundle: Bundle) -> None:
    bundle.user_namespace(FIRST)
    namespaces(bundle, cgroup="")
    bundle.mount("/sys/fs/cgroup", "cgroup", "ro", "nosuid", "noexec", "nodev", kind="cgroup")
    script = "cut -d: -f3 /proc/self/cgroup | sort -u; ls /sys/fs/cgroup | wc -l; mkdir /sys/fs/cgroup/x"
    out = engine.front(bundle, script + " 2>/dev/null || echo no").ok().out.split()
    assert out[0] == "/"
    assert int(out[1]) > 0
    assert out[2:] == ["no"]


def test_with_the_host_s_network_sys_is_the_host_s(engine: Engine, bundle: Bundle) -> None:
    """A new sysfs needs a network namespace of the same owner.

    So the host's is bound, read-only as requested.
    """
    bundle.user_namespace(FIRST)
    bundle.linux["namespaces"] = [entry for entry in bundle.linux["namespaces"] if entry["type"] != "network"]
    failed = engine.front(bundle, "ls -d /sys/class; cat /proc/mounts")
    if FOREIGN and failed.code:
        pytest.skip("this runtime does without a fallback")
    lines = [line.split() for line in failed.ok().out.splitlines()[1:]]
    below = [fields for fields in lines if (fields[1] + "/").startswith("/sys/")]
    assert below
    assert all("ro" in fields[3].split(",") for fields in below)


# -- joined


@pytest.fixture
def first(engine: Engine, bundle: Bundle) -> int:
    """The init of a container with all kinds of namespaces."""
    bundle.user_namespace(FIRST)
    namespaces(bundle, cgroup="", **({"time": ""} if os.path.exists("/proc/self/ns/time") else {}))
    return int(engine.state(engine.start(bundle))["pid"])


@pytest.mark.parametrize(
    "shared", [(), ("network",), ("network", "ipc", "uts", "pid"), ("cgroup", "time", "ipc")]
)
def test_joined_with_others(
    engine: Engine, first: int, bundles: Callable[[str], Bundle], shared: tuple[str, ...]
) -> None:
    if FOREIGN and "time" in shared:
        pytest.skip("not every runtime joins time namespaces")
    other = bundles("other")
    other.user_namespace(FIRST)
    del other.linux["uidMappings"], other.linux["gidMappings"]
    kinds = ("user", *(kind for kind in shared if os.path.exists(path_of(first, kind))))
    namespaces(other, **{kind: path_of(first, kind) for kind in kinds})
    name = engine.start(other)
    pid = engine.state(name)["pid"]
    for kind in ("user", "network", "ipc", "uts", "pid", "cgroup", "mount"):
        assert (link(pid, kind) == link(first, kind)) is (kind in kinds), kind
    done = engine.call("exec", name, "/bin/sh", "-c", "id -u; cat /proc/self/uid_map").ok()
    assert done.out.split() == ["0", "0", str(FIRST), "65536"]


def test_joined_by_a_bind_mount_of_its_file(
    engine: Engine, first: int, bundles: Callable[[str], Bundle], place: Path
) -> None:
    kept = place / "userns"
    kept.touch()
    subprocess.run(["mount", "--bind", path_of(first, "user"), str(kept)], check=True)
    try:
        other = bundles("other")
        other.user_namespace(FIRST)
        del other.linux["uidMappings"], other.linux["gidMappings"]
        namespaces(other, user=str(kept))
        assert engine.front(other, "cat /proc/self/uid_map").ok().out.split() == ["0", str(FIRST), "65536"]
    finally:
        subprocess.run(["umount", str(kept)], check=True)


@ours
def test_joined_with_new_ones(engine: Engine, first: int, bundles: Callable[[str], Bundle]) -> None:
    """New namespaces belong to the user namespace that is joined.

    The offsets of clocks are set from inside.
    """
    other = bundles("other")
    other.user_namespace(FIRST)
    namespaces(other, user=path_of(first, "user"), cgroup="", time="")
    other.linux["timeOffsets"] = {"boottime": {"secs": 2000000}}
    other.mount("/dev/mqueue", "mqueue", "nosuid", kind="mqueue")
    script = "cut -d. -f1 /proc/uptime; stat -c %u /dev/mqueue; cut -d: -f3 /proc/self/cgroup | sort -u"
    out = engine.front(other, script).ok().out.split()
    assert int(out[0]) > 2000000
    assert out[1:] == ["0", "/"]


@ours
def test_joined_with_mappings_that_are_not_its_own(
    engine: Engine, first: int, bundles: Callable[[str], Bundle]
) -> None:
    other = bundles("other")
    other.user_namespace(FIRST)
    namespaces(other, user=path_of(first, "user"))
    maps(other, (0, FIRST, 100))
    words = "user namespaces enabled, but both namespace path and non-matching mapping specified"
    engine.front(other, "exit 0").fails("/linux/uidMappings", words, f"0:{FIRST}:65536")


@pytest.mark.parametrize(
    "kinds",
    [("network",), ("ipc", "uts"), pytest.param(("cgroup",), marks=ours)],
    ids=["net", "ipc-uts", "cgroup"],
)
def test_a_new_one_with_namespaces_of_the_host(
    engine: Engine, bundle: Bundle, strangers: int, kinds: tuple[str, ...]
) -> None:
    """They are entered with the host's rights, before the user namespace: afterwards it would be refused."""
    bundle.user_namespace(FIRST)
    namespaces(bundle, **{kind: path_of(strangers, kind) for kind in kinds})
    if "network" in kinds:
        bundle.without_mount("/sys")
        bundle.linux["maskedPaths"] = []
    if "uts" in kinds:
        del bundle.config["hostname"]
    name = engine.start(bundle)
    pid = engine.state(name)["pid"]
    for kind in kinds:
        assert link(pid, kind) == link(strangers, kind)
    assert link(pid, "user") != link("self", "user")
    assert link("self", kinds[0]) != link(strangers, kinds[0])
    done = engine.call("exec", name, "/bin/sh", "-c", "id -u; cat /proc/self/uid_map").ok()
    assert done.out.split() == ["0", "0", str(FIRST), "65536"]


@ours
def test_a_joined_one_with_a_cgroup_namespace_of_the_host(
    engine: Engine, first: int, bundles: Callable[[str], Bundle], strangers: int
) -> None:
    other = bundles("other")
    other.user_namespace(FIRST)
    namespaces(other, user=path_of(first, "user"), cgroup=path_of(strangers, "cgroup"))
    name = engine.start(other)
    pid = engine.state(name)["pid"]
    assert link(pid, "cgroup") == link(strangers, "cgroup")
    # It is in its cgroup nevertheless, which was made before.
    assert name in Path(f"/proc/{pid}/cgroup").read_text()


@ours
@pytest.mark.parametrize("broken", ["/nowhere", "/proc/self/ns/net"])
def test_one_that_cannot_be_joined(engine: Engine, bundle: Bundle, broken: str) -> None:
    bundle.user_namespace(FIRST)
    namespaces(bundle, user=broken)
    done = engine.front(bundle, "exit 0")
    done.fails(f"/linux/namespaces/{len(bundle.linux['namespaces']) - 1}", broken)
