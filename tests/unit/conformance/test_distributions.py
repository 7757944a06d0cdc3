"""The parts of distributions/ that need no distribution: reading and writing files, and entering a root."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from conformance import debian
from conformance.distributions import report, root, test_distributions
from tests.support.containers import BUSYBOX

JUNIT = """<testsuites><testsuite>
<testcase classname="tests.a" name="test_good"/>
<testcase classname="tests.a" name="test_bad"><failure message="it is bad">long</failure></testcase>
<testcase classname="tests.b" name="test_left"><error message="left behind">long</error></testcase>
<testcase classname="tests.b" name="test_not"><skipped message="this host has no SELinux"/></testcase>
</testsuite></testsuites>
"""
BENCH = """
runc 1, crun 2; Linux

| median, ms | pyrunc (v1) | runc (v1) | pyrunc (v2) | crun (v2) | pyrunc / runc (v1) | pyrunc / crun (v2) |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
| state | 2.0 | 4.0 | 2.1 | 2.1 | 0.50 | 1.00 |
| run | 9.0 | 18.0 | 9.0 | 7.5 | 0.50 | 1.20 |
"""


def test_reading_what_pytest_wrote(tmp_path: Path) -> None:
    (tmp_path / "junit.xml").write_text(JUNIT)
    tests = report.read(tmp_path / "junit.xml")
    assert (tests.passed, tests.count) == (1, 4)
    assert tests.failed == {"tests.a::test_bad": "it is bad", "tests.b::test_left": "left behind"}
    assert tests.unwanted(["no AppArmor"]) == {"tests.b::test_not": "this host has no SELinux"}
    assert tests.unwanted(["has no SELinux"]) == {}


def test_reading_ratios() -> None:
    assert report.ratios(BENCH) == {
        "state / runc (v1)": "0.50",
        "state / crun (v2)": "1.00",
        "run / runc (v1)": "0.50",
        "run / crun (v2)": "1.20",
    }
    assert report.ratios("nothing") == {}


def test_rows_stay_until_there_are_new_ones(tmp_path: Path) -> None:
    path = tmp_path / "table"
    report.write(
        path, [report.Row("one", tests="1 passed"), report.Row("two", ratios={"state / runc": "0.5"})]
    )
    report.write(path, [report.Row("one", tests="2 passed")])
    rows = json.loads(path.with_suffix(".json").read_text())["rows"]
    assert [(row["name"], row["tests"]) for row in rows] == [("one", "2 passed"), ("two", "")]
    page = path.with_suffix(".md").read_text().splitlines()
    assert page[-4].endswith("| tests | state / runc |")
    assert page[-2:] == ["| one |  |  |  | 2 passed |  |", "| two |  |  |  |  | 0.5 |"]


@pytest.mark.parametrize(
    ("asked", "some"),
    [("1", ["trixie"]), ("all", list(test_distributions.MATRIX)), ("sid; trixie", ["sid", "trixie"])],
)
def test_which_are_tried(asked: str, some: list[str]) -> None:
    assert test_distributions.tables(asked) == some


def test_tests_are_the_same_ones_but_for_numbers() -> None:
    here = "tests/a.py::test_a[/proc/17/root]\ntests/a.py::test_b[x]\n2 tests collected\n"
    there = "tests/a.py::test_b[x]\ntests/a.py::test_a[/proc/1/root]\n"
    assert test_distributions.ids(here) == test_distributions.ids(there)
    assert test_distributions.ids(here) != test_distributions.ids(there + "tests/a.py::test_b[y]\n")


def test_what_is_chosen_is_there() -> None:
    for name, table in test_distributions.MATRIX.items():
        assert set(table) == set(test_distributions.MATRIX["trixie"]), name
    for test in test_distributions.TESTS["quick"]:
        assert (root.TOP / test.partition("::")[0]).exists(), test


def test_the_newest_of_pyenvs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    for version in ("3.12.9", "3.12.10", "3.13.1"):
        (tmp_path / "versions" / version / "bin").mkdir(parents=True)
        (tmp_path / "versions" / version / "bin/python3").touch()
    (tmp_path / "versions/3.12.11").mkdir()  # half removed
    assert root.pyenv("3.12").name == "3.12.10"
    with pytest.raises(debian.UnavailableError, match=r"no Python 3\.14"):
        root.pyenv("3.14")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="enters a root file system, which takes root")
def test_a_root_is_a_machine_of_its_own(tmp_path: Path) -> None:
    assert BUSYBOX is not None
    for name in ("bin", "proc", "sys", "dev", "tmp", "run"):
        (tmp_path / "root" / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, tmp_path / "root/bin/busybox")
    for name in ("sh", "umount", "rmdir", "hostname", "ls", "cat"):
        (tmp_path / "root/bin" / name).symlink_to("busybox")
    (tmp_path / "given").mkdir()
    (tmp_path / "given/file").write_text("of the outside\n")
    script = """
    echo $PPID $(hostname) $(ls -A /) $(ls -A /tmp); cat /given/file; echo no >/given/file || echo refused
    echo kept >/file
    """
    before = Path("/proc/self/mountinfo").read_text()
    words = [str(root.HERE / "enter"), str(tmp_path / "root"), "/bin/sh", "-c", script]
    environment = {"PATH": os.environ["PATH"], "BINDS": f"{tmp_path}/given given ro"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        "1 distribution bin dev given proc run sys tmp",
        "of the outside",
        "refused",
    ], done.stderr
    assert done.returncode == 0
    assert (tmp_path / "root/file").read_text() == "kept\n"
    assert (tmp_path / "given/file").read_text() == "of the outside\n"
    assert Path("/proc/self/mountinfo").read_text() == before
