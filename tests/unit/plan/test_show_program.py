"""`pyrunc plan --program`: golden lists of operations, below the steps they belong to."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from pyrunc.plan import program_exec, program_first, show, show_program, steps
from pyrunc.plan.program import Program
from tests.support.programs import beginning, created, entered, entering
from tests.support.specs import engine, small, with_linux, with_process


def listed(program: Program) -> list[str]:
    program.settle()
    return [show_program.spelled(program, operation) for operation in program.operations]


DEVICES = [
    'NODE "/dev/null" 8630 259 0',
    'NODE "/dev/zero" 8630 261 0',
    'NODE "/dev/full" 8630 263 0',
    'NODE "/dev/random" 8630 264 0',
    'NODE "/dev/urandom" 8630 265 0',
    'NODE "/dev/tty" 8630 1280 0',
    'SYMLINK "/dev/fd" "/proc/self/fd" 0',
    'SYMLINK "/dev/stdin" "/proc/self/fd/0" 0',
    'SYMLINK "/dev/stdout" "/proc/self/fd/1" 0',
    'SYMLINK "/dev/stderr" "/proc/self/fd/2" 0',
    'SYMLINK "/dev/ptmx" "pts/ptmx" 1',
]
TREE = [
    "CLOSE cgroup",
    "SETSID",
    "UMASK 0",
    "ALL_CPUS",
    'KEYRING "_ses.c1" 524288',
    "LOOPBACK",
    "PROPAGATION 540672",
    "TREE made proc 16384",
    'ATTACH_ROOT mount4 "/b/rootfs" 1',
    "UNSHARE 33554432",
    *DEVICES,
    "OWN_NULL",
    "PIVOT",
]


def test_a_small_container() -> None:
    """The whole list, in its order."""
    found = listed(show_program.lowered(created(small())))
    assert found == [
        "PRCTL 4 0",
        'NAME "pyrunc:[init]"',
        "KEEP 3 <ffff>",
        "SIGNALS",
        *TREE,
        'MAKE_CWD "/"',
        "VERIFY 0 0",
        next(line for line in found if line.startswith("WIPE 1 ")),
        "HOME 0",
        "KEEP 3 <07>",
        'CWD "/"',
        "STDIO_OWNER 0",
        "GROUPS <>",
        "GROUP 0",
        "USER 0",
        "AMBIENT 0",
        "UMASK 18",
        'CWD_AGAIN "/"',
        "FIND []",
        "SEND 82",
        "WAIT 83",
        "AWAIT go answers",
        'EXEC ["sh"] []',
    ]


def test_one_more_process() -> None:
    made = entered(small())
    assert listed(program_exec.lower(made, entering(made, tasks=1, null=True, passed=2))) == [
        "PRCTL 4 0",
        'NAME "pyrunc:[init]"',
        "KEEP 5 <ff>",
        "SIGNALS",
        "STDIO_NULL null",
        "ALL_CPUS",
        "WRITE tasks0 <30>",
        "SETNS init 537001984",
        "KEEP 5 <01>",
        "CLONE 32768 nothing",
        "WAIT 79",
        "SETSID",
        'KEYRING "_ses.c1" 524288',
        "OWN_NULL",
        "HOME 0",
        "KEEP 5 <01>",
        'CWD "/"',
        "STDIO_OWNER 0",
        "GROUPS <>",
        "GROUP 0",
        "USER 0",
        "AMBIENT 0",
        "UMASK 18",
        'CWD_AGAIN "/"',
        "FIND []",
        'EXEC ["sh"] []',
    ]


def test_every_operation_is_below_a_step_once() -> None:
    for config in (
        small(),
        engine(),
        with_linux(without=("pid",), also=({"type": "pid", "path": "/proc/7/ns/pid"},)),
    ):
        made = created(config)
        rows = show.rows(made)
        show_program.add(made, rows)
        numbers = [int(line.split(".")[0]) for row in rows for line in row.below]
        assert sorted(numbers) == list(range(1, len(show_program.lowered(made).operations) + 1))


def test_a_namespace_that_is_joined_is_the_namespaces_row_s() -> None:
    made = created(with_linux(without=("pid",), also=({"type": "pid", "path": "/proc/7/ns/pid"},)))
    rows = show.rows(made)
    show_program.add(made, rows)
    (row,) = [row for row in rows if row.step is made.namespaces]
    assert any("SETNS join-pid" in line for line in row.below)


def test_the_table_and_the_document() -> None:
    made = created(with_process(args=["sh", "a\nb"]))
    rows = show.rows(made)
    assert "AMBIENT" not in show.table(rows)
    assert all("operations" not in entry for entry in show.document(made, rows)["steps"])  # type: ignore[attr-defined]
    show_program.add(made, rows)
    lines = show.table(rows).splitlines()
    assert any(line.split()[1:] == ["EXEC", '["sh",', '"a\\nb"]', "[]"] for line in lines), "one line each"
    steps_of: Any = show.document(made, rows)["steps"]
    assert steps_of[-1]["operations"] == list(rows[-1].below)


FULL: dict[str, Any] = {
    "user": {"uid": 1000, "gid": 1001, "additionalGids": [7], "umask": 0o77},
    "env": ["PATH=/bin:/usr/bin", "HOME="],
    "cwd": "/work",
    "args": ["sh", "-c", "x"],
    "noNewPrivileges": True,
    "capabilities": {
        kind: ["CAP_CHOWN"] for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")
    },
    "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1 << 80, "hard": (1 << 64) - 1}],
    "scheduler": {"policy": "SCHED_BATCH", "nice": 3},
    "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
    "apparmorProfile": "profile",
    "selinuxLabel": "label",
}


def test_a_container_with_everything() -> None:
    config = with_process(**FULL)
    config["linux"].update(
        personality={"domain": "LINUX32"},
        memoryPolicy={"mode": "MPOL_BIND", "nodes": "0,65"},
        seccomp={"defaultAction": "SCMP_ACT_ALLOW"},
    )
    config["hooks"] = {
        "startContainer": [{"path": "/h", "args": ["h", "x"], "env": ["A=1"], "timeout": 2}, {"path": "/i"}]
    }
    found = listed(show_program.lowered(created(config)))
    nodes, profile = struct.pack("=2Q", 1, 2).hex(), b"exec profile".hex()
    scheduler = struct.pack("=IIQiIQQQ", 48, 3, 0, 3, 0, 0, 0, 0).hex()
    state = '["the state, pid ", ""]'
    env = '["PATH=/bin:/usr/bin"]'
    at = found.index("SIGNALS")
    assert found[at + 1 :] == [
        *TREE,
        'MAKE_CWD "/work"',
        "VERIFY 0 0",
        next(line for line in found if line.startswith("WIPE 1 ")),
        f"SCHEDULER <{scheduler}>",
        "IO_PRIORITY 16388",
        "PERSONALITY 8",
        f"MEMORY_POLICY 2 <{nodes}> 129",
        "PROCFS procfs",
        f'WRITE_BELOW procfs "thread-self/attr/apparmor/exec" "thread-self/attr/exec" <{profile}>',
        "PROCFS procfs",
        f'WRITE_BELOW procfs "thread-self/attr/exec" "thread-self/attr/exec" <{b"label".hex()}>',
        "HOME 1000",
        "KEEP 3 <07>",
        'CWD "/work"',
        "RLIMIT 7 0xffffffffffffffff 0xffffffffffffffff",
        "STDIO_OWNER 1000",
        "BOUNDING 1",
        "PRCTL 8 1",
        "GROUPS <07000000>",
        "GROUP 1001",
        "USER 1000",
        "CAPABILITIES 1 1 1",
        "PRCTL 8 0",
        "AMBIENT 1",
        "PRCTL 38 1",
        "UMASK 63",
        'CWD_AGAIN "/work"',
        'FIND ["/bin/sh", "/usr/bin/sh"]',
        "SEND 82",
        "WAIT 83",
        "AWAIT go answers",
        "SECCOMP 4 <> 0 1",
        f'HOOK ["/h", "h", "x"] ["A=1"] {state} <{struct.pack("=QQQ", 2 * 10**9, 0, 0).hex()}>',
        f'HOOK ["/i", "/i"] {env} {state} <{struct.pack("=QQQ", 0, 1, 0).hex()}>',
        f'EXEC ["sh", "-c", "x"] {env}',
    ]


def test_a_filter_is_too_long_to_be_shown() -> None:
    program = Program()
    program.add(steps.Step(), "SECCOMP", 0, program.blob(bytes(49)), 0, 0)
    program.add(steps.Step(), "SECCOMP", 0, program.blob(bytes(48)), 0, 0)
    assert listed(program) == ["SECCOMP 0 <49 bytes> 0 0", f"SECCOMP 0 <{'00' * 48}> 0 0"]


def test_with_mount_2_init_is_made_in_the_pid_namespace() -> None:
    """With the new mount API the pid namespace is entered after everything else."""

    def cloned_after_the_root_is_entered() -> bool:
        found = listed(show_program.lowered(made))
        (at,) = (number for number, line in enumerate(found) if line.startswith("CLONE "))
        return at > found.index("PIVOT")

    made = created(with_linux(without=("pid",), also=({"type": "pid", "path": "/proc/7/ns/pid"},)))
    assert cloned_after_the_root_is_entered()
    made.child = (steps.ClassicMounts(missing=("fsopen",), handed=False), *made.child)
    assert not cloned_after_the_root_is_entered()


@pytest.mark.parametrize("terminal", [False, True])
def test_the_terminal_s_other_side(terminal: bool) -> None:
    made = created(with_process(terminal=terminal))
    found = listed(program_first.lower(made, beginning(made)))
    assert ("TAKE_TERMINAL slave 0" in found) == terminal
    assert any(line.startswith("TERMINAL devpts slave") for line in found) == terminal
    assert ("CONSOLE devpts" in found) == terminal
    last = next(line for line in reversed(found) if line.startswith("KEEP"))
    assert last == "KEEP 3 <01>", "the other side is stdio by then"
