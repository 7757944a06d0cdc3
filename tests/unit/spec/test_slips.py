"""Configurations that are valid but probably wrong: each rule, its warning, and that usual files get none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pyrunc.spec import default, slips
from pyrunc.spec.slips import NOTE, WARNING
from tests.support.specs import engine, small, with_linux, with_process


def found(config: Any, **how: bool) -> list[tuple[str, str, str]]:
    return [(slip.pointer, slip.severity, slip.text) for slip in slips.find(config, **how)]


def mounted(*entries: tuple[str, list[str]]) -> dict[str, Any]:
    mounts = [{"destination": place, "type": "tmpfs", "options": options} for place, options in entries]
    return small(mounts=mounts)


def filtered(default: str, *actions: str) -> dict[str, Any]:
    rules = [{"names": ["x"], "action": action} for action in actions]
    return with_linux(seccomp={"defaultAction": default, "syscalls": rules})


def capable(uid: int = 0, **sets: list[str]) -> dict[str, Any]:
    return with_process(capabilities=sets, user={"uid": uid, "gid": uid}, noNewPrivileges=True)


KILL, CHOWN = ["CAP_KILL"], ["CAP_CHOWN"]
FIVE = ["CAP_CHOWN", "CAP_FOWNER", "CAP_KILL", "CAP_MKNOD", "CAP_SETUID"]
CASES = [
    (
        "a user by name",
        with_process(user={"username": "nobody"}),
        "/process/user/username",
        WARNING,
        "runs as uid 0",
    ),
    (
        "only effective",
        capable(effective=KILL),
        "/process/capabilities/effective",
        WARNING,
        "CAP_KILL without being",
    ),
    (
        "many only effective",
        capable(effective=FIVE, bounding=FIVE),
        "/process/capabilities/effective",
        WARNING,
        "CAP_CHOWN, CAP_FOWNER, CAP_KILL and 2 more without",
    ),
    (
        "lost by who is not root",
        capable(7, effective=KILL, permitted=KILL, bounding=KILL),
        "/process/capabilities/effective",
        NOTE,
        "loses CAP_KILL when",
    ),
    (
        "not in the bounding set",
        capable(effective=KILL, permitted=KILL, bounding=CHOWN),
        "/process/capabilities/bounding",
        WARNING,
        "root loses CAP_KILL",
    ),
    (
        "sudo without new privileges",
        with_process(args=["/usr/bin/sudo", "id"], user={"uid": 7, "gid": 7}, noNewPrivileges=True),
        "/process/noNewPrivileges",
        WARNING,
        "sudo needs its set-user-ID bit",
    ),
    ("new privileges", with_process(user={"uid": 7, "gid": 7}), "/process", NOTE, "makes this user root"),
    (
        "hidden below",
        mounted(("/data/inner", []), ("/data", [])),
        "/mounts/0",
        WARNING,
        "hidden by /mounts/1, which is mounted on /data later: mount it before",
    ),
    (
        "hidden at the same place",
        mounted(("/data/", []), ("//data", [])),
        "/mounts/0",
        WARNING,
        "on /data, too",
    ),
    ("hidden by a root", mounted(("/data", []), ("/", [])), "/mounts/0", WARNING, "hidden by /mounts/1"),
    (
        "no mount namespace",
        with_linux(without=("mount",)),
        "/linux/namespaces",
        WARNING,
        "no mount namespace",
    ),
    ("no pid namespace", with_linux(without=("pid",)), "/linux/namespaces", WARNING, "no pid namespace"),
    ("no network namespace", with_linux(without=("network",)), "/linux/namespaces", NOTE, "no network"),
    ("no ipc namespace", with_linux(without=("ipc",)), "/linux/namespaces", NOTE, "no ipc namespace"),
    (
        "a filter that refuses nothing",
        filtered("SCMP_ACT_ALLOW", "SCMP_ACT_LOG"),
        "/linux/seccomp/defaultAction",
        WARNING,
        "refuses nothing",
    ),
    (
        "a filter by exceptions",
        filtered("SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"),
        "/linux/seccomp/defaultAction",
        NOTE,
        "all calls but those listed are allowed",
    ),
    (
        "no number of tasks",
        with_linux(resources={"pids": {"limit": -5}}),
        "/linux/resources/pids/limit",
        WARNING,
        "-5 is no limit",
    ),
    (
        "systemd's spelling",
        with_linux(cgroupsPath="system.slice:pyrunc:box"),
        "/linux/cgroupsPath",
        WARNING,
        '"system.slice:pyrunc:box" is for systemd',
    ),
]


@pytest.mark.parametrize(
    ("config", "pointer", "severity", "text"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_a_slip(config: dict[str, Any], pointer: str, severity: str, text: str) -> None:
    ((place, grade, said),) = found(config)
    assert (place, grade) == (pointer, severity)
    assert text in said


@pytest.mark.parametrize(
    "config",
    [
        small(),
        {**small(), "process": {"cwd": "/", "args": ["sh"]}},
        {key: value for key, value in small().items() if key != "process"},
        engine(),
        json.loads(json.dumps(default.default(unified=True))),
        mounted(("/data", []), ("/data/inner", []), ("/data", ["remount", "ro"])),
        mounted(("/data", []), ("/database", [])),
        filtered("SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW"),
        filtered(""),
        with_linux(resources={"pids": {"limit": -1}, "memory": {"limit": 5}, "cpu": None}),
        with_process(user={"username": "nobody", "uid": 65534}, noNewPrivileges=True),
        with_process(args=["sudo"], noNewPrivileges=True),
        capable(7, effective=KILL, permitted=KILL, bounding=KILL, inheritable=KILL, ambient=KILL),
    ],
)
def test_nothing_is_said_of_what_may_well_be_meant(config: dict[str, Any]) -> None:
    assert found(config) == []


def test_systemds_spelling_for_systemd() -> None:
    assert found(with_linux(cgroupsPath="system.slice:pyrunc:box"), systemd=True) == []
    assert found(with_linux(cgroupsPath="/a:b:c")) == []
