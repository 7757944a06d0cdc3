"""pyrunc on other distributions and Pythons than this machine's, from a checkout to its tests.

Each table of matrix.toml is a new root file system of Debian, entered in namespaces of its own:
`make run`, as a new user would, then `make test`, as many tests as there are here.

sudo make conformance ARGS='-k distributions'                             # the quick part
sudo PYRUNC_DISTRIBUTIONS=all make conformance ARGS='-k distributions'    # every table, measured too
sudo PYRUNC_DISTRIBUTIONS='sid; trixie' make conformance ARGS='-k distributions'    # some of them
sudo PYRUNC_DISTRIBUTIONS=0 make conformance                              # without them

With PYRUNC_DISTRIBUTIONS_TESTS=all these run the whole of `make test`, not only the chosen part of it. With
PYRUNC_DISTRIBUTIONS_KEEP=1 the root file systems are kept, and measure.py can measure there again.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from conformance import debian
from conformance.distributions import matrix, measure, report
from conformance.distributions.root import CHECKOUT, TOP, make

if TYPE_CHECKING:
    from collections.abc import Iterator

ASKED = os.environ.get("PYRUNC_DISTRIBUTIONS", "1")
WHOLE = os.environ.get("PYRUNC_DISTRIBUTIONS_TESTS") == "all"
KEEP = os.environ.get("PYRUNC_DISTRIBUTIONS_KEEP") == "1"
JUNIT = f"{CHECKOUT}/build/junit.xml"
HOURS = 4 * 3600  # seconds: all tests on a busy machine

pytestmark = [
    pytest.mark.timeout(HOURS),
    pytest.mark.skipif(ASKED == "0", reason="PYRUNC_DISTRIBUTIONS=0"),
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="roots are made for x86_64"),
]


def tables(asked: str) -> list[str]:
    """Return the tables to try: for "1" those that are not long, for "all" all, else those it names."""
    if asked in ("0", "1"):
        return [name for name, table in matrix.TABLES.items() if not table.long]
    return list(matrix.TABLES) if asked == "all" else [name.strip() for name in asked.split(";")]


class Trial:
    """A distribution that is tried, and what was found."""

    def __init__(self, name: str) -> None:
        """Make its root file system.

        Raises:
            debian.UnavailableError: something cannot be had.

        """
        table = matrix.TABLES[name]
        archive = matrix.ARCHIVES[table.archive] if table.archive else None
        self.root = make(table.suite, table.python, table.packages, archive)
        self.row = report.Row(name)

    def look(self) -> None:
        """Note what was installed where."""
        release = '. /etc/os-release; echo "$PRETTY_NAME"; [ "$ID" != debian ] || cat /etc/debian_version'
        system, *version = self.root.succeed("sh", "-c", release).splitlines()
        self.row.system = f"{system} ({version[0]})" if version else system
        python = self.root.environment.get("PYTHON", "/usr/bin/python3")
        self.row.python = self.root.succeed(python, "--version").split()[-1]
        said = self.root.succeed("/usr/local/bin/pyrunc", "--version")
        self.row.command = said.partition("\ncommand: ")[2].split()[0]


@pytest.fixture(scope="module", params=tables(ASKED))
def trial(request: pytest.FixtureRequest) -> Iterator[Trial]:
    """One of the tables; what was found is written at the end, if everything was asked for."""
    try:
        made = Trial(request.param)
    except debian.UnavailableError as why:
        pytest.skip(f"{request.param} cannot be had: {why}")
    try:
        yield made
    finally:
        if KEEP:
            made.root.keep(request.param)
        else:
            made.root.close()
        if ASKED != "1" and made.row.command:
            report.write(report.RESULTS, [made.row])


def ids(collected: str) -> Counter[str]:
    """Return the tests that pytest lists; numbers in their names may be those of processes."""
    lines = (line for line in collected.splitlines() if line.startswith("tests/") and "::" in line)
    return Counter(re.sub(r"\d+", "#", line) for line in lines)


def test_make_run(trial: Trial) -> None:
    """On a machine that has nothing: it installs what it needs and runs a container."""
    assert "Hello from a container" in trial.root.succeed("make", "run")
    trial.look()
    assert "pyrunc" in trial.root.succeed("/usr/local/bin/pyrunc", "--version")


def test_make_test(trial: Trial) -> None:
    """All that are chosen pass, and nothing is skipped for what could be installed."""
    chosen = [] if WHOLE else matrix.QUICK
    words = ["-q", "-p", "no:cacheprovider", f"--junit-xml={JUNIT}", *chosen]
    done = trial.root.run("make", "test", f"ARGS={shlex.join(words)}", seconds=HOURS)
    assert trial.root.file(JUNIT).exists(), done.stdout[-8000:]
    tests = report.read(trial.root.file(JUNIT))
    counts = f"{tests.passed} passed, {len(tests.failed)} failed, {len(tests.skipped)} skipped"
    trial.row.tests = counts if WHOLE else f"{counts} (chosen ones)"
    assert tests.failed == {}, done.stdout[-20000:]
    assert done.returncode == 0, done.stdout[-8000:]
    assert tests.passed > 0
    assert tests.unwanted([*matrix.MAY_SKIP, *matrix.TABLES[trial.row.name].may_skip]) == {}


def test_there_are_as_many_tests_as_here(trial: Trial) -> None:
    """The same ones, by name."""
    words = ["-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    here = subprocess.run([sys.executable, *words], cwd=TOP, capture_output=True, text=True, check=True)
    there = trial.root.succeed(".venv/bin/python", *words)
    assert ids(there) == ids(here.stdout)
    assert ids(there)


@pytest.mark.skipif(ASKED == "1", reason="the quick part measures nothing")
def test_it_is_measured(trial: Trial) -> None:
    """Beside that distribution's own runc and crun."""
    trial.root.install(*report.PEERS)
    measure.measure(trial.root, trial.row)
    assert {re.sub(r" \(v\d\)", "", name) for name in trial.row.ratios} == {
        f"{title} / {peer}" for title in report.MEASURES for peer in report.PEERS
    }
    assert set(trial.row.runtimes) == set(report.PEERS)
