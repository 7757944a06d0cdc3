"""doctor: what is printed, and the exit status."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

import pyrunc as library
from pyrunc.apply.doctor.finding import MISSING, OK, WARNING, Finding
from pyrunc.verbs import doctor
from tests.support import refuse

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Call


def test_it_runs_here(pyrunc: Call) -> None:
    done = pyrunc("doctor")
    assert done.stderr == ""
    lines = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    states = {line.split()[0] for line in lines}
    assert states <= {OK, WARNING, MISSING}
    assert done.returncode == (1 if MISSING in states else 0)
    rows = json.loads(pyrunc("doctor", "--json").stdout)
    assert [list(row) for row in rows] == [["subject", "state", "found", "todo"]] * len(rows)
    assert len(rows) == len(lines)
    assert [row["subject"] for row in rows] == [each.subject for each in library.doctor()]


@pytest.mark.parametrize("call", ["openat2", "close_range"])
def test_something_is_missing(pyrunc_argv: list[str], tmp_path: Path, call: str) -> None:
    words = [*refuse.prefix("ENOSYS", call), *pyrunc_argv, "doctor"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert (
        f"missing  system calls      {call}(2), without which no container can be made safely" in done.stdout
    )
    assert "-> use Linux 5.9 or later; inside another container" in done.stdout


def test_what_to_do_stands_below() -> None:
    found = [Finding("kernel", OK, "Linux\n6"), Finding("own cgroup", WARNING, "none", "do this")]
    assert doctor.table(found) == (
        "ok       kernel      Linux\\n6\nwarning  own cgroup  none\n                     -> do this\n"
    )


def test_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: name not in ("_prctl", "jeepney") or None)
    (line,) = doctor._packages()
    assert (line.subject, line.state) == ("python", MISSING)
    assert line.found.endswith("without python-prctl")
    assert line.todo.endswith("pip install python-prctl")
    monkeypatch.setattr(doctor, "find_spec", lambda name: name != "jeepney" or None)
    well, warned = doctor._packages()
    assert (well.state, warned.state) == (OK, WARNING)
    assert warned.found == "without jeepney: no --systemd-cgroup"


def test_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: None)
    assert (doctor._command().state, doctor._command().todo) == (WARNING, "sudo make install")
    monkeypatch.setattr("shutil.which", lambda name: f"/opt/{name}")
    assert doctor._command().state == OK
    assert doctor._command().found.endswith("/opt/pyrunc is the one in $PATH")
