"""HOOK: a hook inside the container, as the init program runs it."""

from __future__ import annotations

import errno
import os
import struct
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import pytest

from pyrunc.plan.program import Program
from tests.support.containers import wait_for
from tests.support.init_machine import BUSYBOX, STEP, Outcome, as_root, carry_out, execute, good

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = as_root

SECOND = 1_000_000_000
NOT_STARTED, EXITED, SIGNALLED, LATE = 1, 2, 3, 4


class Case(NamedTuple):
    """A script, and what comes of it."""

    script: str
    errno: int = 0
    kind: int = 0
    value: int = 0
    out: bytes = b""
    err: bytes = b""


def hook(
    *words: str,
    env: tuple[str, ...] = (),
    limit: int = 0,
    home: bool = False,
    here: str = "",
    state: tuple[str, str] = ("", ""),
) -> Program:
    """Return a program with one hook, after which a program prints that all went well."""
    made = Program()
    if home:
        made.add(STEP, "HOME", 4294967290)
    if here:
        made.add(STEP, "CHDIR", made.text(here))
    made.add(
        STEP,
        "HOOK",
        made.list(words),
        made.list(env),
        made.list(state),
        made.blob(struct.pack("=QQQ", limit, home, bool(here))),
        tag=7,
    )
    return execute(made, "echo", "went on")


def script(text: str, **how: object) -> Program:
    return hook(BUSYBOX, "sh", "-c", text, **how)  # type: ignore[arg-type]


def outputs(outcome: Outcome) -> tuple[bytes, bytes]:
    """Return what the hook wrote to stdout and stderr, as the report has it."""
    assert outcome.report is not None
    said = outcome.report.said
    (size,) = struct.unpack_from("=I", said)
    (more,) = struct.unpack_from("=I", said, 4 + size)
    assert len(said) == 8 + size + more
    return said[4 : 4 + size], said[8 + size :]


@pytest.mark.parametrize("limit", [0, 20 * SECOND, (1 << 63)])
@pytest.mark.parametrize(
    "case",
    [
        Case("true"),
        Case("yes | head -c 1000000"),  # more than a pipe holds
        Case("exit 3", errno.EIO, EXITED, 3),
        Case("exit 255", errno.EIO, EXITED, 255),
        Case("echo out; echo err >&2; exit 1", errno.EIO, EXITED, 1, b"out\n", b"err\n"),
        Case("kill -TERM $$", errno.EIO, SIGNALLED, 15),
        Case("kill -KILL $$", errno.EIO, SIGNALLED, 9),
        Case("head -c 30000 /dev/zero; echo last; exit 1", errno.EIO, EXITED, 1, bytes(8192 - 5) + b"last\n"),
        Case("exec <&- >&- 2>&-; exit 9", errno.EIO, EXITED, 9),
    ],
    ids=lambda case: case.script[:20],
)
def test_how_it_ends(case: Case, limit: int) -> None:
    outcome = carry_out(script(case.script, limit=limit))
    if not case.errno:
        assert (outcome.status, outcome.report, outcome.out) == (0, None, "went on\n")
        return
    report = outcome.report
    assert report is not None
    assert (report.operation, report.name, report.tag, report.errno) == (0, "HOOK", 7, case.errno)
    assert (report.detail & 0xFF, report.detail >> 8 & 0xFF) == (case.kind, case.value)
    assert report.detail & 0xFFFF0000 == 0
    assert outputs(outcome) == (case.out, case.err)
    assert outcome.out == ""


def test_too_late() -> None:
    """A hook that takes too long is killed, together with the processes it has started."""
    outcome = carry_out(script("echo $$; sleep 1000 & echo $!; sleep 1000", limit=SECOND // 5))
    assert outcome.report is not None
    assert outcome.report.detail & 0xFFFF == LATE
    assert outcome.report.detail >> 32 >= 200, "milliseconds"
    out, _err = outputs(outcome)
    for pid in map(int, out.split()):
        assert wait_for(partial(dead, pid))


def leave_open() -> None:
    os.dup2(0, 50)


def dead(pid: int) -> bool:
    """Tell whether a process has ended, waited for or not."""
    try:
        with open(f"/proc/{pid}/status") as file:
            return "\nState:\tZ" in file.read()
    except OSError:
        return True


@pytest.mark.parametrize(
    ("words", "number"),
    [
        (("/nosuch", "x"), errno.ENOENT),
        (("/etc", "x"), errno.EACCES),
        (("/etc/passwd", "x"), errno.EACCES),
        ((BUSYBOX + "/x", "x"), errno.ENOTDIR),
    ],
)
def test_it_cannot_be_started(words: tuple[str, ...], number: int) -> None:
    outcome = carry_out(hook(*words))
    assert outcome.report is not None
    assert (outcome.report.errno, outcome.report.detail, outcome.report.said) == (number, NOT_STARTED, b"")


def test_what_it_gets(tmp_path: Path) -> None:
    """A hook gets its environment, a working directory, and no further descriptors.

    The state has the pid of the container's process.
    """
    place = tmp_path / "seen"
    text = f"(cat; echo; echo $PPID; pwd; echo $A; ls /proc/self/fd; cat /proc/self/stat) > {place} 2>&1"
    outcome = carry_out(
        script(text, env=("A=b c", "PATH=/bin"), state=('{"pid":', ',"x":1}')),
        before=leave_open,
    )
    assert outcome.out == "went on\n"
    state, parent, cwd, variable, *rest = place.read_text().splitlines()
    assert state == f'{{"pid":{parent},"x":1}}'
    assert (cwd, variable) == ("/", "b c")
    assert rest[:4] == ["0", "1", "2", "3"], "the last is what ls reads from"
    assert "50" not in rest


@pytest.mark.parametrize("home", [False, True])
def test_the_home(tmp_path: Path, home: bool) -> None:
    place = tmp_path / "seen"
    carry_out(script(f"echo $HOME > {place}", home=home))
    assert place.read_text() == ("/\n" if home else "\n")


def test_who_does_not_read_the_state() -> None:
    """The state is larger than a pipe, and the hook reads none of it, or only a part."""
    big = "x" * 300_000
    for text in ("true", "exec <&-; true", "head -c 10 >/dev/null"):
        assert carry_out(script(text, state=(big, big))).out == "went on\n"


def test_all_of_the_state_is_read() -> None:
    outcome = carry_out(script("exit $(($(wc -c) > 600000))", state=("x" * 300_000, "y" * 300_000)))
    assert outcome.report is not None
    assert outcome.report.detail & 0xFFFF == EXITED | 1 << 8


def test_what_it_leaves_in_the_background_is_not_waited_for(tmp_path: Path) -> None:
    place = tmp_path / "pid"
    outcome = carry_out(script(f"sleep 1000 & echo $! > {place}"))
    pid = int(place.read_text())
    os.kill(pid, 9)  # it was there
    assert outcome.out == "went on\n"


@pytest.mark.parametrize("closed", [(0,), (0, 1), (0, 1, 2), (1, 2), (2,)])
def test_where_stdio_is_closed(tmp_path: Path, closed: tuple[int, ...]) -> None:
    """The hook's pipes then get the numbers 0 to 2 themselves; they must not overwrite each other."""
    place = tmp_path / "seen"

    def close() -> None:
        for fd in closed:
            os.close(fd)

    text = f"cat > {place}; echo out; echo err >&2; exit 4"
    outcome = carry_out(script(text, state=("<", ">")), before=close)
    assert outcome.report is not None
    assert outcome.report.detail & 0xFFFF == EXITED | 4 << 8
    assert outputs(outcome) == (b"out\n", b"err\n")
    assert place.read_text()[0] + place.read_text()[-1] == "<>"


# Everything but ppoll(2), which is EPERM: load the number, compare, answer. (x86_64, and the others' number.)
POLLS = {"x86_64": 271}


def test_a_filter_that_refuses_to_poll() -> None:
    number = POLLS.get(os.uname().machine, 73)
    rows = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
    made = Program()
    filtered = made.blob(b"".join(struct.pack("=HBBI", *row) for row in rows))
    made.add(STEP, "SECCOMP", 0, filtered, 0, 0)
    made.add(
        STEP,
        "HOOK",
        made.list([BUSYBOX, "sh", "-c", "cat > /dev/null; echo out; exit 3"]),
        made.list([]),
        made.list(["x" * 100_000, ""]),
        made.blob(struct.pack("=QQQ", 0, 0, 0)),
    )
    outcome = carry_out(made)
    assert outcome.report is not None
    assert outcome.report.detail & 0xFFFF == EXITED | 3 << 8
    assert outputs(outcome) == (b"out\n", b"")


def test_it_runs_in_the_root_or_in_the_working_directory(tmp_path: Path) -> None:
    good(carry_out(script(f"pwd >{tmp_path}/root")))
    good(carry_out(script("pwd >here", here=str(tmp_path))))
    assert (tmp_path / "root").read_text() == "/\n"
    assert (tmp_path / "here").read_text() == f"{tmp_path}\n"
