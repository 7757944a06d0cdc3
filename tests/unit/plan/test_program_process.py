"""The program of a process: the operations of each step."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from pyrunc.errors import Failure
from pyrunc.linux.flags import CLONE_NEWUSER
from pyrunc.plan import program_process, steps
from pyrunc.plan.program import ONLY_SOCKET, Program
from tests.support.programs import created, entered, entering, filters
from tests.support.specs import small, with_linux, with_process
from tests.unit.plan.test_show_program import listed


def lowered(
    plan: steps.Plan,
    todo: list[steps.Step],
    stay: tuple[int, ...] = ONLY_SOCKET,
    **given: Any,
) -> list[str]:
    program = Program()
    program_process.lower(program, todo, plan, entering(plan, **given), stay=stay)
    return listed(program)


def of(plan: steps.Plan, kind: type[steps.Step], **given: Any) -> list[str]:
    return lowered(plan, [step for step in (*plan.child, *plan.start) if type(step) is kind], **given)


def test_every_step_from_where_the_program_begins_is_lowered() -> None:
    assert set(program_process._LOWER) >= {
        steps.CloseDescriptors,
        steps.Cwd,
        steps.Identity,
        steps.Program,
        steps.Seccomp,
        steps.Hooks,
    }
    assert of(created(small()), steps.OwnNull) == ["OWN_NULL"]


@pytest.mark.parametrize(
    ("env", "home"), [([], True), (["HOME="], True), (["HOME=/x"], False), (["XHOME=/x"], True)]
)
def test_the_home_is_looked_for_where_nobody_names_it(env: list[str], home: bool) -> None:
    made = created(with_process(env=env, user={"uid": 7, "gid": 8}))
    assert of(made, steps.CloseDescriptors, passed=2, stay=(0, 2)) == ["HOME 7"] * home + ["KEEP 5 <05>"]


@pytest.mark.parametrize("kinds", [0, CLONE_NEWUSER])
def test_who_may_search_the_keyring(kinds: int) -> None:
    assert of(entered(small()), steps.Keyring, kinds=kinds) == [
        f'KEYRING "_ses.c1" {8 if kinds else 0x80000}'
    ]


@pytest.mark.parametrize(
    ("nodes", "text"),
    [("", "<> 0"), ("0", "<0100000000000000> 65"), ("64", "<00000000000000000100000000000000> 129")],
)
def test_a_memory_policy(nodes: str, text: str) -> None:
    policy = {"mode": "MPOL_PREFERRED", "nodes": nodes} if nodes else {"mode": "MPOL_LOCAL"}
    (line,) = of(created(with_linux(memoryPolicy=policy)), steps.MemoryPolicy)
    assert line.split(" ", 2)[2] == text


@pytest.mark.parametrize(
    ("flags", "sendmsg", "listener"), [(0, True, 0), (8, True, 1), (8, False, 2), (2, False, 0)]
)
@pytest.mark.parametrize("clock", [False, True])
def test_a_filter_and_its_listener(flags: int, sendmsg: bool, listener: int, clock: bool) -> None:
    made = created(with_linux(seccomp={"defaultAction": "SCMP_ACT_ALLOW"}))
    given = filters(made, flags=flags, sendmsg=sendmsg, clock=clock)
    (line,) = of(made, steps.Seccomp, filters=given)
    assert line == f"SECCOMP {flags} <{b'8 bytes.'.hex()}> {listener} {int(clock)}"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (None, []),
        ("PATH=", []),
        ("PATH=/a:/b", ["/a/x", "/b/x"]),
        ("PATH=:/b:", ["./x", "/b/x", "./x"]),
    ],
)
def test_where_a_program_may_be(path: str | None, words: list[str]) -> None:
    step = steps.Program(args=("x",), env=() if path is None else ("PATH=/first", path), pointer="")
    assert program_process.candidates(step) == words
    step.args = ("./x",)
    assert program_process.candidates(step) == ["./x"]


@pytest.mark.parametrize(
    ("changes", "kind", "text", "pointer"),
    [
        ({"cwd": "relative"}, steps.Cwd, "Cwd must be an absolute path", "/process/cwd"),
        ({"cwd": "/a\0b"}, steps.Cwd, "has a NUL inside", "/process/cwd"),
        ({"args": ["/a\0b"]}, steps.Program, "has a NUL inside", "/process/args"),
        ({"args": [""]}, steps.Program, r'exec: "": executable file not found in \$PATH; ', "/process/args"),
    ],
)
def test_what_can_be_seen_to_be_impossible(
    changes: dict[str, Any], kind: type[steps.Step], text: str, pointer: str
) -> None:
    made = entered(small())
    for step in made.child:
        if isinstance(step, steps.Cwd) and "cwd" in changes:
            step.path = changes["cwd"]
        if isinstance(step, steps.Program) and "args" in changes:
            step.args = tuple(changes["args"])
    with pytest.raises(Failure, match=text) as caught:
        of(made, kind)
    assert caught.value.pointer == pointer


def test_no_words_at_all() -> None:
    with pytest.raises(Failure, match="args must not be empty"):
        lowered(entered(small()), [steps.Program(args=(), env=(), pointer="")])


def test_a_process_without_a_working_directory_tries_none_again() -> None:
    made = entered(small())
    made.child = tuple(step for step in made.child if not isinstance(step, steps.Cwd))
    assert of(made, steps.Program) == ["FIND []"]


def test_no_process() -> None:
    """This is no failure at create; `start` fails, because there is no program."""
    made = created(small())
    made.child = ()
    assert program_process.identity(made) is None
    assert program_process.uid_of(made) == 0
    program = Program()
    program_process.execute(program, made)
    assert listed(program) == ["EXEC [] []"]
    assert program.operations[0].step is made.namespaces


@pytest.mark.parametrize(
    ("timeout", "limit"),
    [(None, 0), (1, 10**9), (0.5, 5 * 10**8), (10**30, (1 << 63) // 10**9 * 10**9)],
)
def test_the_time_of_a_hook(timeout: float | None, limit: int) -> None:
    hook = {"path": "/h"} if timeout is None else {"path": "/h", "timeout": timeout}
    config = {**small(), "hooks": {"startContainer": [hook]}}
    (line,) = of(created(config), steps.Hooks, state=f"before{program_process.STATE_PID}after")
    assert line.split()[-1] == f"<{struct.pack('=QQQ', limit, 1, 0).hex()}>"
    assert '["before", "after"]' in line


def test_the_hooks_are_told_apart_by_their_tags() -> None:
    config = {**small(), "hooks": {"startContainer": [{"path": f"/{number}"} for number in range(3)]}}
    made = created(config)
    program = Program()
    program_process.lower(program, made.start, made, entering(made))
    assert [operation.tag for operation in program.operations] == [0, 1, 2]


def test_hooks_of_a_container_without_a_process_have_no_environment() -> None:
    made = created({**small(), "hooks": {"startContainer": [{"path": "/h"}]}})
    made.child = ()
    assert of(made, steps.Hooks)[0].startswith('HOOK ["/h", "/h"] []')


def test_limits_are_cut_to_what_the_kernel_can_count() -> None:
    step = steps.Rlimit(name="RLIMIT_CPU", number=0, soft=1 << 70, hard=1 << 80, pointer="")
    assert lowered(entered(small()), [step]) == ["RLIMIT 0 0xffffffffffffffff 0xffffffffffffffff"]
