"""The steps of a process: identity, limits, scheduling, program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pyrunc.errors import Failure
from pyrunc.plan import process, steps

if TYPE_CHECKING:
    from pyrunc.spec.types import Process

ALL = process.ALL_CAPABILITIES
CHOWN, KILL = 1 << 0, 1 << 5


def test_without_capabilities_nothing_is_touched() -> None:
    identity = process.identity({"cwd": "/"}, available=ALL)
    assert identity == steps.Identity(
        uid=0,
        gid=0,
        gids=(),
        umask=0o022,
        bounding=None,
        effective=0,
        permitted=0,
        inheritable=0,
        ambient=0,
        no_new_privileges=False,
        pointer="/process",
    )


# Every property of a process object: what the container has, and what a file that does not say it gets.
CONTAINER: dict[str, object] = {
    "terminal": True,
    "consoleSize": {"height": 1, "width": 2},
    "user": {"uid": 7, "gid": 8, "umask": 0o77, "additionalGids": [9]},
    "args": ["sleep"],
    "env": ["A=1"],
    "cwd": "/srv",
    "capabilities": {"bounding": ["CAP_KILL"]},
    "noNewPrivileges": True,
    "apparmorProfile": "profile",
    "selinuxLabel": "label",
    "rlimits": [{"type": "RLIMIT_CORE", "soft": 1, "hard": 1}],
    "scheduler": {"policy": "SCHED_BATCH"},
    "ioPriority": {"class": "IOPRIO_CLASS_IDLE"},
    "oomScoreAdj": 5,
    "execCPUAffinity": {"initial": "0"},
}
KEPT = (
    "capabilities", "noNewPrivileges", "apparmorProfile", "selinuxLabel", "rlimits", "scheduler",
    "ioPriority", "oomScoreAdj", "execCPUAffinity",
)  # fmt: skip
OTHER: dict[str, object] = {
    "capabilities": {},
    "noNewPrivileges": False,
    "apparmorProfile": "other",
    "selinuxLabel": "other",
    "rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}],
    "scheduler": {},
    "ioPriority": {},
    "oomScoreAdj": 0,
    "execCPUAffinity": {},
}


@pytest.mark.parametrize("name", CONTAINER)
def test_what_a_process_file_does_not_say(name: str) -> None:
    given: Process = {"cwd": "/", "args": ["x"]}
    found = process.over(given, CONTAINER)  # type: ignore[arg-type]
    expected: object = None
    if name in KEPT:
        expected = CONTAINER[name]
    elif name == "user":
        expected = {"umask": 0o77}  # else root, as for runc
    elif name in ("cwd", "args"):
        expected = given[name]  # type: ignore[literal-required]
    assert found.get(name) == expected
    assert process.over(given, {"cwd": "/"}) == given, "a container that has nothing gives nothing"


@pytest.mark.parametrize("name", KEPT)
def test_what_a_process_file_says(name: str) -> None:
    given: Process = {"cwd": "/", name: OTHER[name]}  # type: ignore[misc]
    assert process.over(given, CONTAINER).get(name) == OTHER[name]  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "empty"), [("apparmorProfile", ""), ("selinuxLabel", ""), ("rlimits", [])])
def test_empty_values_of_a_process_file_say_nothing(name: str, empty: object) -> None:
    given: Process = {"cwd": "/", name: empty}  # type: ignore[misc]
    assert process.over(given, CONTAINER).get(name) == CONTAINER[name]  # type: ignore[arg-type]


def test_the_umask_of_a_process_file_is_its_own() -> None:
    given: Process = {"cwd": "/", "user": {"uid": 1, "gid": 2, "umask": 0o27}}
    assert process.over(given, CONTAINER)["user"] == given["user"]  # type: ignore[arg-type]


def test_an_empty_object_means_none() -> None:
    assert process.identity({"cwd": "/", "capabilities": {}}, available=ALL).bounding == 0


def test_sets_are_what_the_configuration_says_and_no_more() -> None:
    sets = {
        "bounding": ["CAP_CHOWN", "CAP_KILL"],
        "effective": ["CAP_CHOWN", "CAP_KILL"],
        "permitted": ["CAP_CHOWN"],
        "inheritable": ["CAP_CHOWN"],
        "ambient": ["CAP_CHOWN", "CAP_KILL"],
    }
    command: Process = {"cwd": "/", "capabilities": sets}  # type: ignore[typeddict-item]
    identity = process.identity(command, available=ALL)
    assert identity.bounding == CHOWN | KILL
    assert identity.effective == CHOWN, "the kernel refuses what is not permitted"
    assert (identity.permitted, identity.inheritable) == (CHOWN, CHOWN)
    assert identity.ambient == CHOWN, "only what is permitted and inheritable"
    assert process.identity(command, available=KILL).bounding == KILL
    warnings = process.warnings(command, ALL)
    assert warnings == ("can't raise ambient capability CAP_KILL: it is not in the inheritable set",)
    sets["inheritable"] = []
    (warning,) = process.warnings(command, ALL)
    assert (
        warning == "can't raise ambient capabilities CAP_CHOWN CAP_KILL: they are not in the inheritable set"
    )


def test_unknown_and_unavailable_capabilities_are_warned_of() -> None:
    command: Process = {"cwd": "/", "capabilities": {"bounding": ["CAP_NEW", "CAP_CHOWN"]}}
    assert process.warnings(command, KILL) == (
        "ignoring unknown or unavailable capabilities: CAP_CHOWN CAP_NEW",
    )
    assert process.warnings({"cwd": "/"}, ALL) == ()


@pytest.mark.parametrize("name", ["CAP_SYSADMIN", "SYS_ADMIN", "cap_sys_admin"])
def test_a_capability_that_is_almost_one_gets_a_guess(name: str) -> None:
    command: Process = {"cwd": "/", "capabilities": {"bounding": [name]}}
    (warning,) = process.warnings(command, ALL)
    assert warning.endswith(f'capabilities: {name} (did you mean "CAP_SYS_ADMIN"?)')


def test_a_umask_of_zero_is_a_umask() -> None:
    user = {"uid": 1, "gid": 2, "umask": 0, "additionalGids": [3, 4]}
    command: Process = {"cwd": "/", "user": user}  # type: ignore[typeddict-item]
    identity = process.identity(command, available=ALL)
    assert (identity.uid, identity.gid, identity.gids, identity.umask) == (1, 2, (3, 4), 0)


def test_limits_keep_their_place() -> None:
    limits = [{"type": "RLIMIT_CORE", "soft": 0, "hard": 1}, {"type": "RLIMIT_NOFILE", "soft": 5, "hard": 6}]
    command: Process = {"cwd": "/", "rlimits": limits}  # type: ignore[typeddict-item]
    assert process.rlimits(command) == [
        steps.Rlimit(name="RLIMIT_CORE", number=4, soft=0, hard=1, pointer="/process/rlimits/0"),
        steps.Rlimit(name="RLIMIT_NOFILE", number=7, soft=5, hard=6, pointer="/process/rlimits/1"),
    ]
    with pytest.raises(Failure, match="wrong rlimit value: RLIMIT_X"):
        process.rlimits({"cwd": "/", "rlimits": [{"type": "RLIMIT_X", "soft": 0, "hard": 0}]})


def test_scheduler_and_io_priority() -> None:
    command: Process = {
        "cwd": "/",
        "scheduler": {"policy": "SCHED_BATCH", "nice": 5, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 3},
    }
    scheduler, priority = process.attributes(command, cpuset=True)
    assert isinstance(scheduler, steps.Scheduler)
    assert (scheduler.policy, scheduler.flags, scheduler.nice, scheduler.cpuset) == (3, 1, 5, True)
    assert priority == steps.IoPriority(value=2 << 13 | 3, pointer="/process/ioPriority")
    assert process.attributes({"cwd": "/"}) == []


def test_labels() -> None:
    command: Process = {"cwd": "/", "apparmorProfile": "a", "selinuxLabel": "s"}
    assert [
        (step.lsm, step.label) for step in process.labels(command) if isinstance(step, steps.LsmLabel)
    ] == [
        ("apparmor", "a"),
        ("selinux", "s"),
    ]


def test_terminal() -> None:
    assert process.terminal({"cwd": "/"}, console=True) == []
    size = {"height": 20, "width": 40}
    command: Process = {"cwd": "/", "terminal": True, "consoleSize": size}  # type: ignore[typeddict-item]
    assert process.terminal(command, console=False) == [
        steps.Terminal(width=40, height=20, console=False, pointer="/process/terminal")
    ]
    (plain,) = process.terminal({"cwd": "/", "terminal": True}, console=True)
    assert isinstance(plain, steps.Terminal)
    assert (plain.width, plain.height, plain.console) == (0, 0, True)


def test_of_a_variable_given_twice_the_last_counts() -> None:
    command: Process = {"cwd": "/", "args": ["a", "b"], "env": ["A=1", "B=2", "A=3=4", "C=5"]}
    program = process.program(command)
    assert (program.args, program.env) == (("a", "b"), ("A=3=4", "B=2", "C=5"))


def test_memory_policy() -> None:
    policy = {"mode": "MPOL_BIND", "nodes": "0-1,3", "flags": ["MPOL_F_STATIC_NODES"]}
    assert process.memory_policy(policy) == [
        steps.MemoryPolicy(mode=2 | 1 << 15, nodes=(0, 1, 3), pointer="/linux/memoryPolicy")
    ]
    assert process.memory_policy(None) == []
    assert process.memory_policy({}) == []


def test_a_umask_is_cut_as_the_kernel_cuts_it() -> None:
    identity = process.identity({"cwd": "/", "user": {"umask": 2**32 - 1}}, available=ALL)
    assert identity.umask == 0o777


def test_more_groups_than_linux_takes() -> None:
    most = list(range(1, 65537))
    identity = process.identity({"cwd": "/", "user": {"additionalGids": most}}, available=0)
    assert identity.gids == tuple(most)
    with pytest.raises(Failure) as refused:
        process.identity({"cwd": "/", "user": {"additionalGids": [*most, 0]}}, available=0)
    text = "/process/user/additionalGids: 65537 groups, where Linux takes 65536 (setgroups(2))"
    assert refused.value.text() == text


@pytest.mark.parametrize(
    ("user", "warned"),
    [
        ({"username": "nobody"}, True),
        ({"username": "nobody", "uid": 0}, True),
        ({"username": "nobody", "uid": 65534}, False),
        ({"username": ""}, False),
        ({}, False),
    ],
)
def test_a_user_by_name_only_is_root(user: dict[str, Any], warned: bool) -> None:
    said = process.warnings({"cwd": "/", "user": user}, ALL)  # type: ignore[typeddict-item]
    assert said == ((process.USER_BY_NAME,) if warned else ())
    assert "runs as uid 0; write uid and gid" in process.USER_BY_NAME
