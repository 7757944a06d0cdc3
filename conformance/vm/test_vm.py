"""What this machine may lack (cgroup v2, systemd, AppArmor, SELinux, all capabilities): tests in a guest.

Each test of selection.toml is a test here as well, with its name and its text. The guest boots once for each
table, when the first of its tests is due, and runs those that pytest was asked for.

sudo make conformance ARGS='-k vm'                # the guests alone
sudo make conformance ARGS='-k "vm and systemd"'  # one of them
sudo PYRUNC_VM=0 make conformance                 # without them
sudo PYRUNC_VM=all make conformance ARGS='-k vm'  # with those that take long; results/guests.md is written
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import time
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from conformance import debian
from conformance.vm import arm64, kernels, machine, report, results, trixie

SELECTION = tomllib.loads(Path(__file__).with_name("selection.toml").read_text())
MAY_SKIP = SELECTION.pop("may_skip")["reasons"]
ASKED = os.environ.get("PYRUNC_VM", "1")
INSTALLED = "/usr/local/bin/pyrunc"
PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")

# In the guest: one pytest for each processor, no plugins but these, and the tests' patience (seconds) times
# ten: that much slower an emulated processor is.
JOB = """\
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 PYRUNC_TEST_PATIENCE=10 {runtime}
export PYRUNC_VM_LIST=/run/list PYRUNC_VM_CLAIMS=/run/claims
mkdir $PYRUNC_VM_CLAIMS
{setup}
.venv/bin/python -m conformance.vm.reporter
cat >$PYRUNC_VM_LIST <<'LIST'
{ids}
LIST
for _ in 1 2; do
    .venv/bin/python -m pytest -p pytest_timeout -p conformance.vm.reporter -p no:cacheprovider \
        -qq --tb=short --no-summary --color=no --timeout {timeout} {files} &
done
wait
"""

# Seconds for a test, and for one of a table that takes long: one that hangs must not take all of the time.
TIMEOUTS = {False: 400, True: 1200}


def refused() -> str:
    """Say why no guest is booted, "" if one is."""
    return "PYRUNC_VM=0" if ASKED == "0" else machine.missing()


def tables() -> dict[str, dict[str, Any]]:
    """Return the tables of this run: those that take long only if they are asked for."""
    return {name: table for name, table in SELECTION.items() if ASKED == "all" or not table["long"]}


class Files(NamedTuple):
    """What a guest boots from."""

    kernel: kernels.Kernel
    root: str = "/"
    checkout: str = str(machine.TOP)
    installed: str = ""  # the command, in another root than this machine's


@cache
def files(suite: str) -> Files:
    """Return the kernel of a suite of Debian's, for "" this machine's own.

    "arm64" and "trixie" come with a root file system of their own.

    Raises:
        debian.UnavailableError: it cannot be had.

    """
    if suite == "arm64":
        root, kernel = arm64.root()
        return Files(kernel, str(root), arm64.CHECKOUT)
    if suite == trixie.SUITE:
        root, kernel = trixie.root()
        return Files(kernel, str(root), trixie.CHECKOUT, INSTALLED)
    if suite:
        return Files(kernels.of(suite))
    found = kernels.installed()
    assert found is not None, "missing() was asked"
    return Files(found)


@cache
def collected() -> dict[str, list[str]]:
    """Return the ids of all selected tests of this run, by table."""
    return collect(tables())


def collect(chosen: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    """Return the ids of the tests of some tables: as the host's pytest finds them."""
    wanted = {name: table["tests"] for name, table in chosen.items()}
    everything = sorted({test for tests in wanted.values() for test in tests})
    done = subprocess.run(
        [*PYTEST, "--collect-only", *everything], cwd=machine.TOP, capture_output=True, text=True, check=False
    )
    ids = [line for line in done.stdout.splitlines() if "::" in line]
    assert done.returncode == 0, done.stdout + done.stderr
    return {
        name: [
            each
            for each in ids
            if any(each == test or each.startswith((f"{test}::", f"{test}[")) for test in tests)
        ]
        for name, tests in wanted.items()
    }


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test for each of the guests'."""
    if "guest_test" not in metafunc.fixturenames:
        return
    why = refused()
    if why:
        metafunc.parametrize(
            ("table", "guest_test"), [pytest.param("", "", marks=pytest.mark.skip(reason=why))]
        )
        return
    pairs = [(table, test) for table, tests in collected().items() for test in tests]
    metafunc.parametrize(
        ("table", "guest_test"),
        pairs,
        ids=[f"{table}-{test.removeprefix('tests/')}" for table, test in pairs],
    )


def under_test(runtime: str) -> str:
    """Return the variables by which the tests and the checks of engines know which command to try."""
    said = subprocess.run([runtime, "--version"], capture_output=True, text=True, check=False).stdout
    variables = ("INSTALLED_PYRUNC" if said.startswith("pyrunc") else "PYRUNC", "PYRUNC_RUNTIME")
    return " ".join(f"{variable}={shlex.quote(runtime)}" for variable in variables)


class Guests:
    """The guests' results; a guest is booted when the first of its tests is asked for."""

    def __init__(self, runtime: str, asked: dict[str, list[str]], inside: str = INSTALLED) -> None:
        """Begin without any guest.

        Args:
            runtime: the command under test.
            asked: the ids of the tests to run, by table.
            inside: the runtime that engines call where pyrunc is installed in another root file system.

        """
        self.runtime = runtime
        self.inside = inside
        self.asked = asked
        self.ends: dict[str, dict[str, results.End]] = {}
        self.words: dict[str, str] = {}

    def of(self, table: str) -> dict[str, results.End]:
        """Return how the tests of a table ended."""
        if table not in self.ends:
            self.ends[table] = self._run(table)
        return self.ends[table]

    def _run(self, table: str) -> dict[str, results.End]:
        settings: dict[str, Any] = SELECTION[table]
        ids = self.asked[table]
        kernel, root, checkout, installed = files(settings["kernel"])
        inside = f"INSTALLED_PYRUNC={installed} PYRUNC_RUNTIME={self.inside}" if installed else ""
        job = JOB.format(
            runtime=under_test(self.runtime) if root == "/" else inside,
            ids="\n".join(ids),
            files=shlex.join(dict.fromkeys(each.partition("::")[0] for each in ids)),
            setup=settings["setup"],
            timeout=TIMEOUTS[settings["long"]],
        )
        with tempfile.TemporaryDirectory(prefix="pyrunc-vm-") as directory:
            guest = machine.Machine(
                Path(directory),
                job,
                kernel,
                systemd=settings["systemd"],
                options=settings["options"],
                kind="arm64" if settings["kernel"] == "arm64" else "",
                root=root,
                checkout=checkout,
            )
            start = time.monotonic()
            ending = guest.wait(settings["seconds"])
            if kept := os.environ.get("PYRUNC_VM_KEEP"):
                Path(f"{kept}.{table}").write_text(guest.output.read_text(errors="replace"))
            self.words[table] = f"{ending}\n{guest.last_words()}"
            ends = results.read(guest.said(), ending)
            if ASKED == "all" and ids == collected()[table]:
                made = report.row(
                    table,
                    ids,
                    ends,
                    [*MAY_SKIP, *settings["may_skip"]],
                    system=results.system(guest.said()),
                    seconds=time.monotonic() - start,
                )
                report.write(report.PATH, made)
            return ends


@pytest.fixture(scope="module")
def guests(request: pytest.FixtureRequest, runtime: str) -> Guests:
    """All guests, for the tests that pytest was asked for."""
    asked: dict[str, list[str]] = {}
    for item in request.session.items:
        if isinstance(item, pytest.Function) and "guest_test" in item.fixturenames:
            given = item.callspec.params
            asked.setdefault(str(given["table"]), []).append(str(given["guest_test"]))
    return Guests(runtime, asked)


LONGEST: int = max(table["seconds"] for table in SELECTION.values()) + 120


@pytest.mark.timeout(LONGEST)
def test_vm(guests: Guests, table: str, guest_test: str) -> None:
    """A test of the project's, in a guest."""
    if table == "systemd" and (why := machine.missing(systemd=True)):
        pytest.skip(why)
    try:
        files(SELECTION[table]["kernel"])
    except debian.UnavailableError as why:
        pytest.skip(f"the kernel cannot be had: {why}")
    end = guests.of(table).get(guest_test)
    if end is None:
        pytest.fail(f"it was not run: {guests.words[table]}", pytrace=False)
    if end.outcome == "failed":
        pytest.fail(end.text, pytrace=False)
    if results.unwanted_skip(end, [*MAY_SKIP, *SELECTION[table]["may_skip"]]):
        pytest.fail(f"the virtual machine was made so that this is not skipped: {end.text}", pytrace=False)
    if end.outcome == "skipped":
        pytest.skip(end.text)
