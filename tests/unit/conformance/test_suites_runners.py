"""The runners of public test suites: how a run becomes a result and a table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conformance.engines import host
from conformance.runc_suite import __main__ as runc_suite
from conformance.runc_suite import rootless
from conformance.runtime_tools import __main__ as runtime_tools
from conformance.suites import expected, guard, results, tap

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKOUT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("status", "out", "err", "verdict", "why"),
    [
        (0, "ok 1\nok 2\n1..2\n", "", "pass 2/2", []),
        (0, "ok 1\nnot ok 2 - x\n1..2\n", "", "**fail** 1/2", ["not ok: x"]),
        (0, "ok 1 # SKIP no\n1..1\n", "", "skip", []),
        (0, "1..0\n", "failed to create\n", "pass", []),
        (1, "", "oh\nexit status 1\n", "**fail**", ["exit status 1: exit status 1"]),
        (2, "ok 1\n", "", "**fail** 1/1", ["exit status 2"]),
        (guard.TIMED_OUT, "ok 1\n", "", "**fail** 1/1", ["no end within 60 s"]),
    ],
)
def test_judging_a_program_of_runtime_tools(
    status: int, out: str, err: str, verdict: str, why: list[str]
) -> None:
    assert runtime_tools.judge(guard.Outcome(status, out, err)) == (verdict, why)


def test_finding_the_programs(tmp_path: Path) -> None:
    for name in ("b/b.t", "a/a.t", "a/a.go", "util/util.go"):
        (tmp_path / "validation" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "validation" / name).touch()
    assert list(runtime_tools.find(str(tmp_path))) == ["a", "b"]


def test_finding_the_tests_of_a_file(tmp_path: Path) -> None:
    where = tmp_path / "tests/integration"
    where.mkdir(parents=True)
    (where / "run.bats").write_text(
        '@test "runc run [a]" {\n\ttrue\n}\n# @test "no" {\n@test \'it "quotes" \' {\n}\n'
    )
    (where / "helpers.bash").touch()
    assert runc_suite.find(str(tmp_path)) == ["run.bats"]
    assert runc_suite.tests_of(str(tmp_path), "run.bats") == ["runc run [a]", 'it "quotes"']


def test_judging_a_file_of_bats() -> None:
    report = tap.read("1..4\nok 1 a\nnot ok 2 b\nok 3 c # skip no systemd\n")
    assert runc_suite.verdicts("x.bats", report, ["a", "b", "c", "d"]) == {
        "x.bats: a": ("pass", True),
        "x.bats: b": ("**fail**", False),
        "x.bats: c": ("skip (no systemd)", None),
        "x.bats: d": ("**fail**", False),
    }


def test_the_places_of_an_ordinary_users_run() -> None:
    files = ["a.bats", "b.bats"]
    assert list(runc_suite.places([], files)) == [("", "a.bats"), ("", "b.bats")]
    assert list(runc_suite.places(["none", "idmap"], files[:1])) == [("none", "a.bats"), ("idmap", "a.bats")]


def test_the_list_of_what_fails_as_an_ordinary_user_names_flavours() -> None:
    path = CHECKOUT / "conformance/runc_suite/skips_rootless.toml"
    for entry in expected.parse(path.read_text()):
        assert entry.name.split(" ")[0] in rootless.FLAVOURS
        assert entry.name.split(" ")[1].endswith(".bats:")


def test_the_table(tmp_path: Path) -> None:
    found = results.Results("A suite, v1", {"pyrunc": "0.1", "runc": "1.5"}, remarks=["Mind the gap."])
    found.tests = {"a|b": {"pyrunc": "pass 2/2", "runc": "**fail**"}, "c": {"pyrunc": "**fail** 1/2"}}
    found.notes = {"c": "why\nso"}
    found.write(str(tmp_path / "new" / "table"))
    page = (tmp_path / "new" / "table.md").read_text()
    assert page.startswith("# A suite, v1\n\n20")
    assert "| pyrunc | 0.1 | 1 | 1 | 0 |\n| runc | 1.5 | 0 | 1 | 0 |\n\nMind the gap.\n" in page
    assert "| test | pyrunc | runc | why pyrunc fails |\n| --- | --- | --- | --- |\n" in page
    assert "| a\\|b | pass 2/2 | **fail** |  |\n| c | **fail** 1/2 | not run | why so |\n" in page
    data = json.loads((tmp_path / "new" / "table.json").read_text())
    assert data["tests"] == found.tests
    assert data["host"].startswith("Linux ")


# -- the guard becomes the subreaper of all it starts and kills what is left, so it gets a process of its own

DRIVER = """
import json, sys
from conformance.suites import guard
script, limit, terminal = json.loads(sys.argv[1])
env = {"PATH": "/usr/bin:/bin", "WORD": "here"}
print(json.dumps(guard.run(["sh", "-c", script], cwd="/", env=env, limit=limit, terminal=terminal)))
"""


def run(script: str, *, limit: float = 20.0, terminal: bool = False) -> guard.Outcome:
    command = [sys.executable, "-c", DRIVER, json.dumps([script, limit, terminal])]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=CHECKOUT, timeout=60)
    return guard.Outcome(*json.loads(done.stdout))


def test_the_guard_returns_status_and_streams() -> None:
    assert run("echo $WORD; pwd; echo no >&2; exit 3") == guard.Outcome(3, "here\n/\n", "no\n")
    assert run("kill -9 $$").status == 137


def test_the_guard_gives_a_terminal_or_nothing_as_input() -> None:
    assert run("tty; cat").out == "not a tty\n"
    assert run("tty", terminal=True).out.startswith("/dev/pts/")
    assert run("echo words > /dev/tty; echo done", terminal=True).out == "done\n"


def test_the_guard_ends_what_takes_too_long_and_what_outlives_the_program(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    outcome = run(f"setsid sleep 1000 & echo $! >> {pids}; sleep 1000 & echo $! >> {pids}; wait", limit=0.5)
    assert outcome.status == guard.TIMED_OUT
    assert run(f"(setsid sleep 1000 & echo $! >> {pids}) & wait").status == 0
    left = pids.read_text().split()
    assert len(left) == 3
    assert not [pid for pid in left if Path(f"/proc/{pid}").exists()]


def test_the_guard_says_when_there_is_no_such_program() -> None:
    driver = DRIVER.replace('"sh", "-c", script', '"no-such-program"')
    command = [sys.executable, "-c", driver, json.dumps(["", 9, False])]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=CHECKOUT, timeout=60)
    assert json.loads(done.stdout) == [127, "", "no-such-program: No such file or directory\n"]


def test_a_workplace_leaves_nothing(tmp_path: Path) -> None:
    runtime = tmp_path / "runtime"
    runtime.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/called\n')
    runtime.chmod(0o755)
    with guard.workplace(str(runtime)) as place:
        Path(place, "a/state/c1/deep").mkdir(parents=True)
        Path(place, "file").touch()
    assert not Path(place).exists()
    assert (tmp_path / "called").read_text() == f"--root {place}/a/state delete --force c1\n"


def test_a_mount_point_of_somebody_elses_may_have_any_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    table = tmp_path / "mountinfo"
    table.write_bytes(b"1 1 0:1 / / rw - ext4 x rw\n2 1 0:2 / /tmp/\xff\\040name rw - tmpfs x rw\n")
    opened: Callable[..., object] = open

    def from_the_table(path: str, *how: str, **options: str) -> object:
        return opened(table if path == "/proc/self/mountinfo" else path, *how, **options)

    monkeypatch.setattr("builtins.open", from_the_table)
    assert host.mounts_below("/tmp") == ["/tmp/\udcff name"]
    assert guard._mounts_below("/tmp") == ["/tmp/\udcff\\040name"]


@pytest.mark.parametrize(
    ("line", "limited"),
    [("wait # for both subshells to finish", False), ("wait", False), ("wait $pid", True)],
)
def test_a_test_that_waits_for_all_its_children_has_no_clock_of_bats(
    tmp_path: Path, line: str, *, limited: bool
) -> None:
    """The clock is one of them: runc's events.bats took 90 s a test, and failed."""
    file = tmp_path / "events.bats"
    file.write_text(f'@test "events" {{\n\t{line}\n}}\n')
    assert ("BATS_TEST_TIMEOUT" in runc_suite.test_limit(str(file))) == limited
