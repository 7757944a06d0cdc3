"""Containers of an ordinary user (user_namespaces(7), cgroup_namespaces(7) "delegation")."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.consoles import Receiver, read_until
from tests.support.containers import wait_for
from tests.support.engine import FOREIGN, alive
from tests.support.ordinary import COUNT, FIRST, UID, Ordinary, give

if TYPE_CHECKING:
    from tests.support.containers import Bundle

pytestmark = pytest.mark.skipif(FOREIGN, reason="words and places of our own")


@pytest.fixture
def bundle(bundle: Bundle) -> Bundle:
    give(bundle)
    return bundle


LIBRARY = """
{path}
import pyrunc
done = pyrunc.run({bundle!r}, {name!r}, input="said", capture_output=True, text=True)
print(done.returncode, done.stdout, done.stderr, pyrunc.containers())
"""


@pytest.mark.parametrize("own_interpreter", [False, True])
def test_from_python(user: Ordinary, bundle: Bundle, place: Path, *, own_interpreter: bool) -> None:
    """The container's root could write to the user's interpreter, so the worker runs from a copy."""
    if len(user.words) < 2:
        pytest.skip("another command is under test, and the interface is no command")
    python, path = user.words[0], user.words[-1].partition("; from pyrunc")[0]
    if own_interpreter:
        own = place / "python/bin/python3"
        own.parent.mkdir(parents=True)
        shutil.copy2(os.path.realpath(python), own)
        (place / "python/pyvenv.cfg").write_text(f"home = {os.path.dirname(os.path.realpath(python))}\n")
        os.chown(own, UID, UID)
        python = str(own)
    bundle.process["args"] = ["sh", "-c", "cat; readlink /proc/1/exe; exit 3"]
    bundle.write()
    program = LIBRARY.format(path=path, bundle=str(bundle.path), name=user.new_id())
    user.words = [python, "-I", "-S", "-c", program]
    done = user.call().ok()
    assert done.out == "3 said/bin/busybox\n  []\n"


# -- run


def test_run(user: Ordinary, bundle: Bundle) -> None:
    script = "id -u; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; touch /tmp/new"
    out = user.front(bundle, script).ok().out.split()
    assert out == ["0", *["0", str(UID), "1"] * 2, "deny"]
    assert (bundle.rootfs / "tmp/new").stat().st_uid == UID


def test_devices_and_sys(user: Ordinary, bundle: Bundle) -> None:
    script = "echo x > /dev/null; head -c 3 /dev/zero | wc -c; touch /sys/new 2>/dev/null || echo kept"
    assert user.front(bundle, script).ok().out.split() == ["3", "kept"]


def test_without_a_network_namespace(user: Ordinary, bundle: Bundle) -> None:
    """The kernel refuses a new sysfs, so the host's is bound, read-only as requested."""
    bundle.linux["namespaces"] = [each for each in bundle.linux["namespaces"] if each["type"] != "network"]
    out = user.front(bundle, "ls -d /sys/class; grep ' /sys' /proc/mounts").ok().out.splitlines()
    assert out[0] == "/sys/class"
    assert all("ro" in line.split()[3].split(",") for line in out[1:])


def test_what_spec_writes(user: Ordinary, bundle: Bundle) -> None:
    user.call("spec", "--rootless", "--bundle", str(bundle.path)).ok()
    bundle.config = json.loads((bundle.path / "config.json").read_text())
    assert bundle.linux["uidMappings"] == [{"containerID": 0, "hostID": UID, "size": 1}]
    bundle.process["terminal"] = False
    bundle.process["env"] = ["PATH=/bin"]
    assert user.front(bundle, "id -u; hostname").ok().out.startswith("0\n")


def test_seccomp_without_no_new_privs(user: Ordinary, bundle: Bundle) -> None:
    """Root of the user namespace has the right to set a filter there."""
    bundle.process["noNewPrivileges"] = False
    bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
    }
    out = user.front(bundle, "grep Seccomp: /proc/self/status; mkdir /tmp/x 2>&1 || true").ok().out
    assert "Seccomp:\t2" in out
    assert "No space left" in out


def test_a_time_namespace(user: Ordinary, bundle: Bundle) -> None:
    """It belongs to the user namespace, so only a process in that can make it and set its clocks."""
    bundle.linux["namespaces"].append({"type": "time"})
    user.front(bundle, "exit 0").ok()
    bundle.linux["timeOffsets"] = {"boottime": {"secs": 1 << 28}}
    own = float(Path("/proc/uptime").read_text().split()[0])
    inside = float(user.front(bundle, "cat /proc/uptime").ok().out.split()[0])
    assert 1 << 28 <= inside - own < (1 << 28) + 10_000
    name = user.start(bundle)
    shown = user.call("exec", name, "/bin/cat", "/proc/uptime").ok().out
    assert float(shown.split()[0]) >= 1 << 28


def test_clocks_that_cannot_be_set(user: Ordinary, bundle: Bundle) -> None:
    """The message has the kernel's answer and the place in the file."""
    bundle.linux["namespaces"].append({"type": "time"})
    bundle.linux["timeOffsets"] = {"boottime": {"secs": -(1 << 40)}}
    failed = user.front(bundle, "exit 0")
    failed.fails("/linux/timeOffsets: set the clock offsets: numerical result out of range")
    assert "Error(" not in failed.err


def test_a_score_for_the_out_of_memory_killer(user: Ordinary, bundle: Bundle) -> None:
    """Raising it takes no rights (proc(5)); its file is root's as soon as init is not dumpable."""
    bundle.process["oomScoreAdj"] = 321
    assert user.front(bundle, "cat /proc/self/oom_score_adj").ok().out == "321\n"


@pytest.mark.parametrize("kind", ["uidMappings", "gidMappings"])
def test_ids_that_are_not_the_users(user: Ordinary, bundle: Bundle, kind: str) -> None:
    """The process that waits for its maps ends, and nothing is left."""
    user.exist()
    bundle.linux[kind] = [
        {"containerID": 0, "hostID": 0, "size": 1},
        {"containerID": 1, "hostID": 1, "size": 9},
    ]
    user.front(bundle, "exit 0").fails(f"/linux/{kind}: new{kind[:3]}map refused 0:0:1, 1:1:9")


# -- a life


def test_a_life(user: Ordinary, bundle: Bundle) -> None:
    name = user.start(bundle, "trap 'exit 3' TERM; touch /tmp/up; while :; do sleep 0.05; done")
    assert wait_for((bundle.rootfs / "tmp/up").exists)
    assert user.status(name) == "running"
    assert name in user.call("list", "--quiet").ok().out.split()
    assert str(user.state(name)["pid"]) in user.call("ps", name).ok().out
    done = user.call("exec", "--cwd", "/tmp", "--env", "A=b", name, "/bin/sh", "-c", "id -u; pwd; echo $A")
    assert done.ok().out == "0\n/tmp\nb\n"
    user.call("kill", name, "TERM").ok()
    user.until(name, "stopped")
    user.call("delete", name).ok()


def test_a_limit_of_what_exec_makes(user: Ordinary, bundle: Bundle) -> None:
    """From inside a user namespace no hard limit can be raised, so the parent sets them."""
    bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "hard": 200, "soft": 100}]
    name = user.start(bundle)
    out = user.call("exec", name, "/bin/sh", "-c", "ulimit -Sn; ulimit -Hn").ok().out
    assert out.split() == ["100", "200"]


def test_created_killed_and_deleted_by_force(user: Ordinary, bundle: Bundle) -> None:
    name = user.create(bundle)
    assert user.status(name) == "created"
    pid = user.state(name)["pid"]
    user.call("delete", "--force", name).ok()
    assert not alive(pid)


def test_exec_into_a_created_container(user: Ordinary, bundle: Bundle) -> None:
    name = user.create(bundle)
    assert user.call("exec", name, "/bin/sh", "-c", "id -u").ok().out == "0\n"


def test_its_state_is_its_own(user: Ordinary, bundle: Bundle) -> None:
    """It is below XDG_RUNTIME_DIR. It is sticky, so that it is not cleaned up, and closed to other users."""
    name = user.create(bundle)
    root = user.root.stat()
    assert root.st_mode & stat.S_ISVTX
    assert (root.st_uid, root.st_mode & 0o066) == (UID, 0)
    directory = (user.root / name).stat()
    assert (directory.st_uid, stat.S_IMODE(directory.st_mode)) == (UID, 0o700)
    for path in (user.root / name).iterdir():
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_a_terminal(user: Ordinary, bundle: Bundle, place: Path) -> None:
    bundle.process["terminal"] = True
    receiver = Receiver(place / "console.sock")
    receiver.path.chmod(0o777)
    try:
        bundle.process["args"] = ["/bin/sh", "-c", "stat -c 'owner %u' $(tty); sleep 1000"]
        name = user.create(bundle, "--console-socket", str(receiver.path))
        master = receiver.take()
        user.call("start", name).ok()
        assert b"owner 0" in read_until(master, b"\n")
    finally:
        receiver.close()


# -- what is refused


def test_without_a_user_namespace(user: Ordinary, bundle: Bundle) -> None:
    bundle.linux["namespaces"] = [each for each in bundle.linux["namespaces"] if each["type"] != "user"]
    del bundle.linux["uidMappings"], bundle.linux["gidMappings"]
    done = user.front(bundle, "exit 0")
    done.fails(
        "rootless container requires user namespaces", "call pyrunc with sudo", "pyrunc spec --rootless"
    )


@pytest.mark.parametrize("verb", ["create", "run"])
def test_a_forgotten_sudo_is_said_before_anything_else(
    user: Ordinary, bundle: Bundle, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This holds without a directory for the state, too: that is not the cause."""
    bundle.linux["namespaces"] = [each for each in bundle.linux["namespaces"] if each["type"] != "user"]
    bundle.write()
    environment = user.environment()
    del environment["XDG_RUNTIME_DIR"]
    monkeypatch.setattr(user, "environment", lambda: environment)
    done = user.call(verb, "--bundle", str(bundle.path), "-v", "data:/data", "box")
    done.fails("/linux/namespaces: you are not root", "call pyrunc with sudo", "pyrunc spec --rootless")
    user.call("list").fails("no place for container state; call pyrunc with sudo for root's")


@pytest.mark.parametrize("number", [0, 7])
def test_additional_groups(user: Ordinary, bundle: Bundle, number: int) -> None:
    """With a group map of only one id, setgroups(2) is not allowed (user_namespaces(7))."""
    bundle.process["user"]["additionalGids"] = [number]
    words = "has no mapping" if number else "cannot set any additional groups in a rootless container"
    user.front(bundle, "exit 0").fails(words)
    del bundle.process["user"]["additionalGids"]
    name = user.start(bundle)
    failed = user.call("exec", "--additional-gids", str(number), name, "/bin/true")
    failed.fails("cannot set any additional groups in a rootless container", code=255)
    user.call("exec", "--user", "5", name, "/bin/true").fails("no mapping in /linux/uidMappings", code=255)


def test_a_file_system_for_a_group_that_is_not_mapped(user: Ordinary, bundle: Bundle) -> None:
    bundle.mount("/pts", "devpts", "newinstance", "gid=5", kind="devpts")
    user.front(bundle, "exit 0").fails(
        f"/mounts/{len(bundle.config['mounts']) - 1}/options/1", "gid=5 has no mapping"
    )


def test_a_procfs_of_a_pid_namespace_of_others(user: Ordinary, bundle: Bundle) -> None:
    bundle.linux["namespaces"] = [each for each in bundle.linux["namespaces"] if each["type"] != "pid"]
    user.front(bundle, "exit 0").fails("/mounts/0", "operation not permitted", "a pid namespace of its own")


def test_raising_a_limit(user: Ordinary, bundle: Bundle) -> None:
    bundle.process["rlimits"] = [{"type": "RLIMIT_NPROC", "soft": 1 << 40, "hard": 1 << 40}]
    user.front(bundle, "exit 0").fails("/process/rlimits/0", "needs CAP_SYS_RESOURCE")


# -- subordinate ids


@pytest.fixture
def mapped(user: Ordinary, bundle: Bundle) -> Ordinary:
    """A user with subordinate ids, all of which the container has."""
    if not shutil.which("newuidmap"):
        pytest.skip("needs newuidmap (package uidmap)")
    user.exist()
    for kind in ("uidMappings", "gidMappings"):
        bundle.linux[kind].append({"containerID": 1, "hostID": FIRST, "size": COUNT})
    return user


def test_subordinate_ids(mapped: Ordinary, bundle: Bundle) -> None:
    """Newuidmap and newgidmap write the maps, and setgroups stays allowed."""
    bundle.process["user"] = {"uid": 5, "gid": 6, "additionalGids": [7, 8]}
    name = mapped.start(bundle)
    script = "id -u; id -G; cat /proc/self/uid_map; cat /proc/self/setgroups"
    done = mapped.call("exec", name, "/bin/sh", "-c", script).ok()
    maps = ["0", str(UID), "1", "1", str(FIRST), str(COUNT)]
    assert done.out.split() == ["5", "6", "7", "8", *maps, "allow"]
    assert Path(f"/proc/{mapped.state(name)['pid']}").stat().st_uid == FIRST + 4
    mapped.call("exec", "--user", "0", name, "/bin/touch", "/tmp/root").ok()
    assert (bundle.rootfs / "tmp/root").stat().st_uid == UID


def test_ids_that_are_somebody_else_s(mapped: Ordinary, bundle: Bundle) -> None:
    bundle.linux["uidMappings"][1]["hostID"] = FIRST + 1
    words = f"newuidmap refused 0:{UID}:1, 1:{FIRST + 1}:{COUNT}"
    mapped.front(bundle, "exit 0").fails("/linux/uidMappings", words, "/etc/subuid")


# -- mounts


def test_mounts(user: Ordinary, bundle: Bundle, place: Path) -> None:
    source = place / "source"
    source.mkdir()
    (source / "file").write_text("of the host\n")
    name = user.start(bundle)
    tree = user.call("mounts", name).ok().out
    assert "pyrunc: masked path" in tree
    assert "(nobody)" not in tree
    assert user.call("mounts", "--check", name).ok().out == "no drift\n"
    user.call("mounts", name, "--add", f"{source}:/new/place:ro").ok()
    assert user.call("exec", name, "/bin/cat", "/new/place/file").ok().out == "of the host\n"
    assert user.call("mounts", "--check", name).ok().out == "no drift\n"
    user.call("mounts", name, "--remove", "/new/place").ok()
    assert user.call("exec", name, "/bin/ls", "/new/place").ok().out == ""
