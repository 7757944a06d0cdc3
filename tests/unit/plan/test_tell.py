"""A container described in sentences."""

from __future__ import annotations

from typing import Any

import pytest

from pyrunc.plan import process, tell
from pyrunc.plan.mount_steps import AttachRoot
from tests.support.mount_kinds import mount
from tests.support.specs import small, with_linux, with_process
from tests.unit.plan.test_build import plan

ALL = list(process.CAPABILITIES)


def told(config: dict[str, Any]) -> dict[str, list[str]]:
    return dict(tell.tell(config, plan(config)))  # type: ignore[arg-type]


def test_every_capability_has_words() -> None:
    assert set(tell.CAPABILITIES) == set(process.CAPABILITIES)


def test_a_small_container() -> None:
    said = told(small())
    assert said["It runs"][:2] == ["the program sh", "in the directory /"]
    assert said["It runs"][2] == "as user 0 and group 0; files it makes have umask 0022"
    assert said["It may"] == [
        "what its caller may: no capabilities are configured",
        "get rights from set-user-ID programs, within its bounding set of capabilities",
        "make every system call: there is no seccomp filter",
    ]
    assert said["It may not"] == []
    assert said["It has of its own"][0] == "namespaces: pid, network, mount, ipc, uts, cgroup"
    assert said["It has of its own"][1:] == [
        "no user namespace: its users are the host's: root in it is root"
    ]
    assert said["Its limits"] == [
        "no limit of memory",
        "no limit of memory and swap",
        "any number of tasks",
        "all the CPU time it gets",
    ]
    assert said["It sees"] == ["/b/rootfs as /, and may write to it"]
    assert said["Around it"] == ["no hooks run"]


def test_one_without_a_program() -> None:
    config = {key: value for key, value in small().items() if key != "process"}
    assert told(config)["It runs"][0].startswith("nothing: there is no process")
    assert told(config)["It may"][0].startswith("what its caller may")


def test_one_with_all_there_is() -> None:
    config = with_linux(
        without=("network", "ipc"),
        also=({"type": "network", "path": "/run/netns/blue"},),
        maskedPaths=["/proc/kcore"],
        readonlyPaths=["/proc/sys"],
        resources={
            "memory": {"limit": 1536 << 20, "swap": 3 << 40},
            "pids": {"limit": 7},
            "cpu": {"quota": 50000, "cpus": "0-1"},
        },
        seccomp={
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [
                {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["close"], "action": "SCMP_ACT_ALLOW"},
            ],
        },
    )
    config["root"]["readonly"] = True
    config["mounts"] = [{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}]
    config["hooks"] = {"poststop": [{"path": "/bin/gone"}], "prestart": []}
    config["process"] |= {
        "args": ["sh", "-c", "id"],
        "terminal": True,
        "user": {"uid": 7, "gid": 8, "additionalGids": [9, 10]},
        "noNewPrivileges": True,
        "apparmorProfile": "box",
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 5, "hard": 6}],
    }
    said = told(config)
    assert said["It runs"] == [
        "the program sh -c id",
        "in the directory /",
        "as user 7 and group 8, and groups 9, 10; files it makes have umask 0022",
        "with a terminal",
        "apparmor label box at execve",
    ]
    assert said["It may"][-1] == "make system calls as its filter says: 3 are allowed, all others fail"
    assert said["It may not"] == [
        "get rights from set-user-ID programs",
        "write to its root file system",
        "see what is at /proc/kcore",
        "write to /proc/sys",
    ]
    own = said["It has of its own"]
    assert "the network namespace of /run/netns/blue, which it joins" in own
    assert "no ipc namespace: System V IPC and message queues are the host's" in own
    assert said["Its limits"] == [
        "1.5 GiB of memory",
        "3072 GiB of memory and swap",
        "7 tasks",
        "0.5 CPUs' time",
        "on CPUs 0-1",
        "RLIMIT_NOFILE 5, which it may raise to 6",
    ]
    assert said["It sees"][0] == "/b/rootfs as /, read-only"
    assert said["It sees"][1].startswith("mount tmpfs on /tmp")
    assert said["Around it"] == ["poststop hooks run /bin/gone"]


def test_only_joined_namespaces() -> None:
    spaces = [{"type": kind, "path": f"/proc/7/ns/{kind}"} for kind in ("pid", "mount")]
    own = told(small(linux={"namespaces": spaces}))["It has of its own"]
    assert own[0] == "the pid namespace of /proc/7/ns/pid, which it joins"


@pytest.mark.parametrize(
    ("uid", "no_new_privileges", "sets", "names"),
    [
        # capabilities(7): root gets its bounding set at execve, with no_new_privs at most what is permitted.
        (
            0,
            False,
            {"bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL"]},
            ["CAP_CHOWN", "CAP_KILL"],
        ),
        (0, True, {"bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL"]}, ["CAP_KILL"]),
        (7, False, {"bounding": ALL, "permitted": ALL, "effective": ALL}, []),
        (
            7,
            False,
            {kind: ["CAP_KILL"] for kind in ("bounding", "permitted", "inheritable", "ambient")},
            ["CAP_KILL"],
        ),
    ],
)
def test_capabilities_after_execve(
    uid: int, no_new_privileges: bool, sets: dict[str, list[str]], names: list[str]
) -> None:
    config = with_process(user={"uid": uid, "gid": uid}, noNewPrivileges=no_new_privileges, capabilities=sets)
    said = told(config)
    assert [line.rpartition("(")[2][:-1] for line in said["It may"] if "(CAP_" in line] == names
    assert "make device nodes (CAP_MKNOD)" in said["It may not"]


def test_all_capabilities() -> None:
    said = told(with_process(capabilities={"bounding": ALL, "permitted": ALL, "effective": ALL}))
    assert said["It may"][0] == "everything: it has all capabilities"
    assert said["It may not"] == []


def test_a_layer_of_its_own() -> None:
    made = plan(small())
    (root,) = (step for step in made.child if isinstance(step, AttachRoot))
    root.overlay = mount("new", fstype="overlay", destination="/")
    said = dict(tell.tell(small(), made))  # type: ignore[arg-type]
    assert said["It sees"][0] == "/b/rootfs as /, through a writable layer of its own"
