"""The parts of distributions/ that need no distribution: reading and writing files, and entering a root."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from conformance import debian
from conformance.distributions import archive, matrix, report, root, test_distributions
from tests.support.containers import BUSYBOX

JUNIT = """<testsuites><testsuite>
<testcase classname="tests.a" name="test_good"/>
<testcase classname="tests.a" name="test_bad"><failure message="it is bad">long</failure></testcase>
<testcase classname="tests.b" name="test_left"><error message="left behind">long</error></testcase>
<testcase classname="tests.b" name="test_not"><skipped message="this host has no SELinux"/></testcase>
</testsuite></testsuites>
"""
BENCH = """
pyrunc version 0.9.0, runc version 1.3.6+ds1, crun version 1.28; Linux 6.18.44, 2 CPUs, Python 3.14.8

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


def test_reading_versions() -> None:
    assert report.runtimes(BENCH) == {"runc": "1.3.6", "crun": "1.28"}
    assert report.runtimes("pyrunc version 0.9.0, crun version 1.8.1; Linux") == {"crun": "1.8.1"}


def test_rows_stay_until_there_are_new_ones(tmp_path: Path) -> None:
    path = tmp_path / "table"
    report.write(
        path,
        [
            report.Row("one", tests="1 passed"),
            report.Row("two", ratios={"state / runc": "0.5"}, runtimes={"runc": "1.3.6"}),
        ],
    )
    report.write(path, [report.Row("one", tests="2 passed")])
    rows = report.rows(path).values()
    assert [(row.name, row.tests) for row in rows] == [("one", "2 passed"), ("two", "")]
    page = path.with_suffix(".md").read_text().splitlines()
    assert page[-4].endswith("| tests | runc | crun | state / runc |")
    assert page[-2:] == ["| one |  |  |  | 2 passed |  |  |  |", "| two |  |  |  |  | 1.3.6 |  | 0.5 |"]


@pytest.mark.parametrize(
    ("asked", "some"),
    [("1", ["trixie"]), ("all", list(matrix.TABLES)), ("sid; trixie", ["sid", "trixie"])],
)
def test_which_are_tried(asked: str, some: list[str]) -> None:
    assert test_distributions.tables(asked) == some


def test_tests_are_the_same_ones_but_for_numbers() -> None:
    here = "tests/a.py::test_a[/proc/17/root]\ntests/a.py::test_b[x]\n2 tests collected\n"
    there = "tests/a.py::test_b[x]\ntests/a.py::test_a[/proc/1/root]\n"
    assert test_distributions.ids(here) == test_distributions.ids(there)
    assert test_distributions.ids(here) != test_distributions.ids(there + "tests/a.py::test_b[y]\n")


def test_what_is_chosen_is_there() -> None:
    assert {table.archive for table in matrix.TABLES.values()} == {"", *matrix.ARCHIVES}
    for test in matrix.QUICK:
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


@pytest.fixture
def keyring(tmp_path: Path) -> archive.Archive:
    """An archive that has a package of keys, among this machine's lists."""
    (tmp_path / "package/DEBIAN").mkdir(parents=True)
    control = "Package: keys\nVersion: 1\nArchitecture: all\nMaintainer: nobody <a@example.org>\n"
    (tmp_path / "package/DEBIAN/control").write_text(f"{control}Description: keys\n")
    (tmp_path / "package/keys.gpg").write_text("the keys\n")
    file = tmp_path / "keys.deb"
    words = ["dpkg-deb", "--root-owner-group", "--build", str(tmp_path / "package"), str(file)]
    subprocess.run(words, check=True, capture_output=True)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    return archive.Archive(f"file://{tmp_path}", "main", "gutsy", "keys.deb", sha256, "keys.gpg")


needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed")


@needs_dpkg
def test_an_archive_is_trusted_by_the_sum_of_its_keys(tmp_path: Path, keyring: archive.Archive) -> None:
    (tmp_path / "place").mkdir()
    assert keyring.keys(tmp_path / "place").read_text() == "the keys\n"


@needs_dpkg
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sha256": "0" * 64}, "keys.deb has the SHA-256 sum .*, not 0000"),
        ({"package": "none.deb"}, "none.deb: "),
    ],
)
def test_other_keys_are_not_used(
    change: dict[str, str], said: str, tmp_path: Path, keyring: archive.Archive
) -> None:
    (tmp_path / "place").mkdir()
    with pytest.raises(debian.UnavailableError, match=said):
        keyring._replace(**change).keys(tmp_path / "place")
    assert list((tmp_path / "place").iterdir()) == []


def test_roots_that_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kept root is found by its name, with its variables and binds; a newer one replaces an older one."""
    monkeypatch.setattr(root, "PLACE", tmp_path)
    assert root.kept() == {}
    for text in ("old", "new"):
        (tmp_path / f"try-{text}/root").mkdir(parents=True)
        (tmp_path / f"try-{text}/root/file").write_text(text)
        root.Root(tmp_path / f"try-{text}", {"PYTHON": text}, ["a b ro"]).keep("suite, Python 3.12")
    found = root.kept()
    assert list(found) == ["suite, Python 3.12"]
    one = found["suite, Python 3.12"]
    assert (one.environment, one.binds) == ({"PYTHON": "new"}, ["a b ro"])
    assert one.file("/file").read_text() == "new"
    one.close()
    assert root.kept() == {}


def test_ordinary_users_reach_a_python_below_a_home_directory(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir(mode=0o700)
    root.reachable(tmp_path, Path("/root/.pyenv/versions/3.13.0"))
    modes = [(tmp_path / name).stat().st_mode & 0o7777 for name in ("root", "root/.pyenv/versions")]
    assert (modes[0], modes[1] & 0o111) == (0o711, 0o111)


def test_nothing_is_left_of_a_root_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "place").mkdir()
    monkeypatch.setattr(root, "PLACE", tmp_path / "place")
    monkeypatch.setattr(root, "pristine", lambda *_: tmp_path / "none")
    with pytest.raises(debian.UnavailableError, match=r"none.*No such file"):
        root.make("suite", "", [])
    assert list((tmp_path / "place").glob("try-*")) == []


def test_a_clone_is_brought_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets the last commit and all later changes; what was built in the clone stays."""
    top = tmp_path / "top"
    git = ["git", "-C", str(top), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    monkeypatch.setattr(root, "TOP", top)
    made = root.Root(tmp_path, {}, [])
    clone = made.file(root.CHECKOUT)
    clone.parent.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", str(top)], check=True)
    (top / ".gitignore").write_text("built\n")
    for text in ("one", "two"):
        (top / "file").write_text(text)
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "-q", "-m", text], check=True)
        (top / f"new {text}").write_text(text)
        made.check_out()
        assert (clone / "file").read_text() == text
        (clone / "built").touch()
        (top / f"new {text}").unlink()
    assert sorted(path.name for path in clone.iterdir()) == [".git", ".gitignore", "built", "file", "new two"]


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
