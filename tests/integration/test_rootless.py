"""Containers of an ordinary user (user_namespaces(7), cgroup_namespaces(7) "delegation")."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.cgroups import FACTS, V2, has
from tests.support.consoles import Receiver, read_until
from tests.support.containers import wait_for
from tests.support.engine import FOREIGN, alive
from tests.support.ordinary import COUNT, FIRST, UID, Ordinary, give, reachable, refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.containers import Bundle
    from tests.support.engine import Engine

pytestmark = pytest.mark.skipif(FOREIGN, reason="words and places of our own")


@pytest.fixture(scope="module")
def words() -> Iterator[list[str]]:
    """The command, in a copy an ordinary user can read."""
    copy = Path(tempfile.mkdtemp(prefix="pyrunc-copy-", dir="/tmp"))
    try:
        copy.chmod(0o755)
        found = reachable(copy)
        why = refused(found)
        if why:
            pytest.skip(why)
        yield found
    finally:
        shutil.rmtree(copy)


@pytest.fixture
def user(engine: Engine, place: Path, words: list[str]) -> Iterator[Ordinary]:
    """An ordinary user; none of its containers may be left."""
    made = Ordinary(place, words)
    made.ids = engine.ids  # their cgroups and processes are looked for with the others
    yield made
    made.close()
    left = [name for name in os.listdir(made.root) if not name.startswith("@")] if made.root.exists() else []
    assert not left


@pytest.fixture
def bundle(bundle: Bundle) -> Bundle:
    give(bundle)
    return bundle


def cgroup_of(user: Ordinary, name: str) -> dict[str, str]:
    found: dict[str, str] = json.loads((user.root / name / "state.json").read_text())["cgroup"]
    return found


LIBRARY = """
{path}
import pyrunc
done = pyrunc.run({bundle!r}, {name!r}, input="said", capture_output=True, text=True)
print(done.returncode, done.stdout, done.stderr, pyrunc.containers())
"""


@pytest.mark.parametrize("own_interpreter", [False, True])
def test_from_python(user: Ordinary, bundle: Bundle, place: Path, *, own_interpreter: bool) -> None:
    """The interpreter of a user is one the container's root could write to: the worker runs from a copy."""
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
    """There can be no new sysfs: the host's is bound, and read-only as asked."""
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
    """It belongs to the user namespace, so only who is in that may make it and set its clocks."""
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
    """The kernel's answer is told in its words, with the place in the file."""
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
    done = user.call(
        "exec", "--cwd", "/tmp/made", "--env", "A=b", name, "/bin/sh", "-c", "id -u; pwd; echo $A"
    )
    assert done.ok().out == "0\n/tmp/made\nb\n"
    user.call("kill", name, "TERM").ok()
    user.until(name, "stopped")
    user.call("delete", name).ok()


def test_created_killed_and_deleted_by_force(user: Ordinary, bundle: Bundle) -> None:
    name = user.create(bundle)
    assert user.status(name) == "created"
    pid = user.state(name)["pid"]
    user.call("delete", "--force", name).ok()
    assert not alive(pid)


@pytest.mark.xfail(
    strict=True,
    reason="the waiting init is an interpreter that nobody may look into, its user included: its memory holds"
    " the caller's environment, and joining a process's namespaces takes the right to look into it",
)
def test_exec_into_a_created_container(user: Ordinary, bundle: Bundle) -> None:
    name = user.create(bundle)
    assert user.call("exec", name, "/bin/sh", "-c", "id -u").ok().out == "0\n"


def test_its_state_is_its_own(user: Ordinary, bundle: Bundle) -> None:
    """Below XDG_RUNTIME_DIR, sticky so that it is not cleaned away, and closed to others."""
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


# -- cgroups


def test_without_a_cgroup(user: Ordinary, bundle: Bundle) -> None:
    """No permission: the container has none, and what needs one says why it cannot be done."""
    name = user.start(bundle)
    assert cgroup_of(user, name) == {}
    user.call("pause", name).fails("unable to freeze: the container has no freezer cgroup")
    user.call("update", "--pids-limit", "10", name).fails(
        "cannot set pids limits: the container has no cgroup"
    )
    assert user.status(name) == "running"
    user.call("kill", name, "KILL").ok()
    user.until(name, "stopped")


def test_all_its_processes_are_found_without_a_cgroup(user: Ordinary, bundle: Bundle) -> None:
    name = user.start(bundle, "sleep 1001 & (sleep 1002 & exec sleep 1003) & touch /tmp/up; exec sleep 1000")
    user.call("exec", "--detach", name, "/bin/sleep", "1004").ok()
    table = user.call("ps", name, "-eo", "pid,args").ok().out
    assert [f"sleep 100{number}" in table for number in range(5)] == [True] * 5
    pids = json.loads(user.call("ps", "--format", "json", name).ok().out)
    assert len(pids) == 5
    assert user.state(name)["pid"] in pids
    user.call("kill", "--all", name, "0").ok()
    assert all(alive(pid) for pid in pids)
    user.call("kill", "--all", name, "KILL").ok()
    user.until(name, "stopped")
    assert wait_for(lambda: not any(alive(pid) for pid in pids))
    user.call("kill", "--all", name, "KILL").ok()


@pytest.mark.parametrize("verb", [("kill", "--all"), ("kill",), ("delete", "--force")])
def test_all_are_killed_without_a_pid_namespace_of_its_own(
    user: Ordinary, bundle: Bundle, verb: tuple[str, ...]
) -> None:
    """Nothing but init's descendants tells who belongs to it."""
    bundle.linux["namespaces"] = [each for each in bundle.linux["namespaces"] if each["type"] != "pid"]
    bundle.without_mount("/proc")
    bundle.mount("/proc", "/proc", "rbind")
    bundle.linux["maskedPaths"] = bundle.linux["readonlyPaths"] = []
    name = user.start(bundle, "sleep 1001 & (sleep 1002 & exec sleep 1003) & touch /tmp/up; exec sleep 1000")
    assert wait_for((bundle.rootfs / "tmp/up").exists)
    assert wait_for(lambda: user.call("ps", name, "-eo", "pid,args").out.count(" sleep 100") == 4)
    pids = json.loads(user.call("ps", "--format", "json", name).ok().out)
    user.call(*verb, name, *(["KILL"] if verb[0] == "kill" else [])).ok()
    assert wait_for(lambda: not any(alive(pid) for pid in pids))


def test_what_is_not_applied_is_listed(user: Ordinary, bundle: Bundle) -> None:
    bundle.linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    bundle.process["oomScoreAdj"] = -10
    done = user.front(bundle, "echo in")
    assert (done.code, done.out) == (0, "in\n"), done
    first, second = done.err.splitlines()
    assert first.startswith("warning: /linux/resources/devices: not applied, there is no permission")
    assert second.startswith("warning: /process/oomScoreAdj: not applied, lowering it to -10 needs")


def test_limits_without_permission(user: Ordinary, bundle: Bundle) -> None:
    bundle.linux["resources"] = {"pids": {"limit": 10}, "memory": {"limit": 1 << 28}}
    words = "rootless needs no limits + no cgrouppath when no permission is granted for cgroups"
    user.front(bundle, "exit 0").fails(words, "(limits: pids, memory)", "permission denied")


def test_a_cgroup_by_name_without_permission(user: Ordinary, bundle: Bundle) -> None:
    bundle.linux["cgroupsPath"] = f"/test-of-{os.getpid()}/inner"
    user.front(bundle, "exit 0").fails("unable to apply cgroup configuration", "permission denied")


def test_no_word_of_rootless_cgroups(user: Ordinary, bundle: Bundle) -> None:
    """With --rootless=false cgroups are not done without."""
    bundle.write()
    failed = user.call("--rootless", "false", "run", "--bundle", str(bundle.path), user.new_id())
    failed.fails("unable to apply cgroup configuration", "permission denied")


@pytest.fixture
def delegated(user: Ordinary) -> Iterator[None]:
    """Cgroups handed to the user, who is in them; on version 2 in a leaf, the container's is beside."""
    made: list[str] = []
    for controller, mount in FACTS.mounts.items():
        top = f"{mount}{FACTS.own[controller].rstrip('/')}/test-delegated-{os.getpid()}"
        for path in (top, top + "/leaf") if V2 else (top,):
            if path not in made:
                os.mkdir(path)
                made.append(path)
            if controller == "cpuset":
                for file in ("cpuset.cpus", "cpuset.mems"):
                    Path(path, file).write_text(Path(path, "..", file).read_text())
            for file in ("", "tasks", "cgroup.procs", "cgroup.subtree_control"):
                if os.path.exists(f"{path}/{file}"):
                    os.chown(f"{path}/{file}", UID, UID)
    user.cgroups = [path for path in dict.fromkeys(made) if not V2 or path.endswith("/leaf")]
    yield
    user.close()
    user.ids.clear()
    for path in reversed(made):
        os.rmdir(path)


@pytest.mark.usefixtures("delegated")
@pytest.mark.skipif(not has("pids"), reason="this host cannot limit the number of processes")
def test_a_delegated_cgroup(user: Ordinary, bundle: Bundle) -> None:
    """It is used, limits are set in it, and what needs a cgroup works."""
    if V2 and "pids" not in Path(user.cgroups[0], "..", "cgroup.controllers").read_text():
        pytest.skip("the controller pids is not handed down to here")
    bundle.linux["resources"] = {"pids": {"limit": 17}}
    name = user.start(bundle)
    where = cgroup_of(user, name)
    directory = Path(where.get("pids") or where[""])
    assert f"/test-delegated-{os.getpid()}/" in str(directory)
    assert (directory / "pids.max").read_text() == "17\n"
    user.call("update", "--pids-limit", "18", name).ok()
    assert (directory / "pids.max").read_text() == "18\n"
    user.call("pause", name).ok()
    assert user.status(name) == "paused"
    user.call("resume", name).ok()
    assert user.call("exec", name, "/bin/cat", "/proc/self/cgroup").ok().out.count(name) >= 1
    user.delete(name)
    assert not directory.exists()


@pytest.mark.usefixtures("delegated")
def test_what_spec_writes_leaves_the_hosts_cgroups_closed(user: Ordinary, bundle: Bundle) -> None:
    """What is delegated to the user is the user's to write to, and root of the container is that user."""
    user.call("spec", "--rootless", "--bundle", str(bundle.path)).ok()
    bundle.config = json.loads((bundle.path / "config.json").read_text())
    bundle.process["terminal"] = False
    bundle.process["env"] = ["PATH=/bin"]
    places = " ".join(user.cgroups)
    script = f"""
    for place in {places} /sys/fs/cgroup /sys/fs/cgroup/*; do
        test -d $place || continue
        mkdir $place/made-inside 2>/dev/null && echo made in $place
        echo 0 2>/dev/null > $place/cgroup.procs && echo moved to $place
    done
    grep -E '^([^ ]+ ){{4}}/sys' /proc/self/mountinfo | grep -vE '^([^ ]+ ){{5}}ro' || echo all closed
    """
    assert user.front(bundle, script).ok().out == "all closed\n"


# -- what is refused


def test_without_a_user_namespace(user: Ordinary, bundle: Bundle) -> None:
    bundle.linux["namespaces"] = [each for each in bundle.linux["namespaces"] if each["type"] != "user"]
    del bundle.linux["uidMappings"], bundle.linux["gidMappings"]
    done = user.front(bundle, "exit 0")
    done.fails("rootless container requires user namespaces", "pyrunc spec --rootless")


@pytest.mark.parametrize("number", [0, 7])
def test_additional_groups(user: Ordinary, bundle: Bundle, number: int) -> None:
    """A group map of one id costs setgroups (user_namespaces(7))."""
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
