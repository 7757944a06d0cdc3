"""Let runc's own integration suite judge a runtime: `python -m conformance.runc_suite CHECKOUT [FILE ...]`.

CHECKOUT is a checkout of opencontainers/runc, its test helpers built and its images there. Every
tests/integration/*.bats is run with RUNC= set to the runtime, on a terminal of its own. What is skipped,
and why, stands in skips.toml; anything else that fails, and an entry that is no longer true, is an error. A
skipped test is run all the same: that is how an entry is found to be stale.

With --rootless the tests are an ordinary user's, in each flavour of the suite's own tests/rootless.sh; a
test is then named by its flavour and its file, and what is known to fail stands in skips_rootless.toml.
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import os
import re
import shutil
import sys
from typing import TYPE_CHECKING

from conformance.runc_suite import rootless
from conformance.suites import expected, guard, results, tap

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE = os.path.dirname(os.path.abspath(__file__))
RESULTS = os.path.join(os.path.dirname(HERE), "results", "runc_suite")
SKIPS = ("skips.toml", "skips_rootless.toml")
TEST_LIMIT = 90  # seconds; the slowest test of runc's takes 20 on 2 busy cores
FILE_LIMIT = 1200.0
# A test that waits for all its children would wait for the clock by which bats limits it, too (bats 1.8).
_WAITS_FOR_ALL = re.compile(r"^\s*wait *(#.*)?$", re.MULTILINE)
_TEST = re.compile(r'^@test (["\'])(.*)\1 \{', re.MULTILINE)


def main(argv: list[str]) -> int:
    """Run the suite; 0 if nothing is unexpected."""
    options = _options(argv)
    with open(os.path.join(HERE, SKIPS[bool(options.rootless)]), encoding="utf-8") as file:
        entries = expected.parse(file.read())
    files = find(options.checkout)
    if not files:
        sys.exit(f"{options.checkout} has no tests/integration/*.bats: is it a checkout of runc?")
    chosen = [name for name in files if not options.files or name.removesuffix(".bats") in options.files]
    user = "runc's integration suite as an ordinary user" if options.rootless else "runc's integration suite"
    found = results.Results(
        suite=f"{user}, {results.revision(options.checkout)}",
        runtimes={name: results.version(path) for name, path in options.runtimes.items()},
    )
    first = next(iter(options.runtimes))
    outcomes: dict[str, bool | None] = {}
    for flavour, file_name in places(options.rootless, chosen):
        place = " ".join(word for word in (flavour, file_name) if word)
        for name, runtime in options.runtimes.items():
            outcome = _run(options.checkout, file_name, runtime, flavour)
            report = tap.read(outcome.out)
            said = verdicts(place, report, tests_of(options.checkout, file_name))
            for test, (verdict, ok) in said.items():
                found.tests.setdefault(test, {})[name] = verdict
                if name == first:
                    outcomes[test] = ok
            bad = [test for test, (_, ok) in said.items() if ok is False]
            numbers = f"{report.passed:3} ok {len(bad):3} not ok {report.skipped:3} skipped"
            print(f"{name:10} {place:32} {numbers}", *bad, sep="\n    ", flush=True)
    found.notes = {entry.name: entry.reason for entry in entries if outcomes.get(entry.name) is False}
    if options.rootless:
        # Four flavours of all that is root's business would hide the rest.
        found.tests = {test: cells for test, cells in found.tests.items() if _ran(cells)}
    if not options.files and options.rootless in ([], list(rootless.FLAVOURS)):
        found.write(options.output or RESULTS + "_rootless" * bool(options.rootless))
    ran = tuple(f"{' '.join(filter(None, place))}: " for place in places(options.rootless, chosen))
    there = [" ".join(filter(None, place)) for place in places(options.rootless and rootless.FLAVOURS, files)]
    problems = expected.check([entry for entry in entries if _of(entry, ran, there)], outcomes)
    print(f"{first}: {found.count(first, results.PASS)} of {len(outcomes)} pass", *problems, sep="\n")
    return 1 if problems else 0


def places(flavours: Sequence[str], files: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Return each flavour with each file; without flavours the files alone."""
    for flavour in flavours or [""]:
        for file_name in files:
            yield flavour, file_name


def _ran(cells: dict[str, str]) -> bool:
    return not all(verdict.startswith(results.SKIP) for verdict in cells.values())


def _of(entry: expected.Entry, ran: tuple[str, ...], there: list[str]) -> bool:
    """Whether an entry has to be true now: its file was run, or there is no such file at all."""
    return entry.name.startswith(ran) or entry.name.split(": ")[0] not in there


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="conformance.runc_suite", description=__doc__)
    parser.add_argument("checkout", type=os.path.abspath, help="a built checkout of runc")
    parser.add_argument("files", nargs="*", help="files of tests/integration (default: all; no table then)")
    parser.add_argument(
        "--runtime", action="append", default=[], metavar="NAME=PATH", help="the first one is judged"
    )
    parser.add_argument(
        "--rootless",
        action="append",
        default=[],
        choices=[*rootless.FLAVOURS, "all"],
        help="as an ordinary user, with what that flavour gives",
    )
    parser.add_argument("--output", metavar="PATH", help="write PATH.md and PATH.json")
    options = parser.parse_intermixed_args(argv)
    if "all" in options.rootless:
        options.rootless = list(rootless.FLAVOURS)
    if options.rootless and rootless.missing():
        parser.error(rootless.missing())
    options.files = [os.path.basename(name).removesuffix(".bats") for name in options.files]
    named = list(options.runtime)
    if not named:
        # The suite's own runtime is the measure: what it fails, the machine is to blame for.
        found = {
            "pyrunc": shutil.which("pyrunc"),
            "runc": shutil.which(os.path.join(options.checkout, "runc")),
        }
        named = [f"{name}={path}" for name, path in found.items() if path]
    options.runtimes = dict(word.split("=", 1) for word in named)
    if not options.runtimes:
        parser.error("no runtime found: --runtime NAME=PATH")
    if shutil.which("bats") is None:
        parser.error("bats is not installed")
    return options


def find(checkout: str) -> list[str]:
    """Return the names of a checkout's files of tests."""
    return sorted(
        os.path.basename(path) for path in glob.glob(os.path.join(checkout, "tests", "integration", "*.bats"))
    )


def tests_of(checkout: str, file_name: str) -> list[str]:
    """Return the names of the tests in a file, in their order."""
    with open(os.path.join(checkout, "tests", "integration", file_name), encoding="utf-8") as file:
        return [match[2].strip() for match in _TEST.finditer(file.read())]


def verdicts(place: str, report: tap.Report, tests: list[str]) -> dict[str, tuple[str, bool | None]]:
    """Return for each test of a file its verdict and whether it passed (None: skipped by the suite).

    A test without a line of its own did not come to an end, so it failed: bats was killed before.
    """
    points = {point.name: point for point in report.points}
    said: dict[str, tuple[str, bool | None]] = {}
    for test in [*tests, *(name for name in points if name not in tests)]:
        point = points.get(test)
        if point is None or point.failed:
            said[f"{place}: {test}"] = (results.FAIL, False)
        elif point.directive == "skip":
            said[f"{place}: {test}"] = (f"{results.SKIP} ({point.reason})", None)
        else:
            said[f"{place}: {test}"] = (results.PASS, True)
    return said


def test_limit(path: str) -> dict[str, str]:
    """Return the variable that makes bats end each test of a file in time, where the file permits it."""
    with open(path, encoding="utf-8") as file:
        return {} if _WAITS_FOR_ALL.search(file.read()) else {"BATS_TEST_TIMEOUT": str(TEST_LIMIT)}


def _run(checkout: str, file_name: str, runtime: str, flavour: str) -> guard.Outcome:
    """Run one file in a directory of its own: the suite puts bundles and state roots below TMPDIR."""
    where = os.path.join(checkout, "tests", "integration")
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(guard.workplace(runtime))
        env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": "/root",
            "TERM": "xterm",
            "TMPDIR": directory,
            "RUNC": runtime,
            **test_limit(os.path.join(where, file_name)),
        }
        words: list[str] = []
        if flavour:
            words, variables = stack.enter_context(rootless.user(flavour))
            env |= variables
            os.chown(directory, rootless.ID, rootless.ID)
        # A good part of the suite runs containers with a terminal in the foreground.
        command = [*words, "bats", "--tap", file_name]
        return guard.run(command, cwd=where, env=env, limit=FILE_LIMIT, terminal=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
