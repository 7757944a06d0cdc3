"""Let OCI's runtime-tools judge runtimes: `python -m conformance.runtime_tools CHECKOUT [NAME ...]`.

CHECKOUT is a built checkout of opencontainers/runtime-tools: every validation/*/*.t is run for each
runtime, each in a directory and with a state root of its own. What is known to fail stands with its reason
in known.toml; anything else that fails, and an entry that is no longer true, is an error.
"""

from __future__ import annotations

import argparse
import glob
import os
import shutil
import sys

from conformance.suites import expected, guard, results, tap

HERE = os.path.dirname(os.path.abspath(__file__))
RESULTS = os.path.join(os.path.dirname(HERE), "results", "runtime_tools")

# A test that passes takes up to 15 s: it asks for the state once a second, and one has 25 containers.
LIMIT = 60.0

# The tests write this version; a runtime that is older than it refuses each of them for nothing else.
WRITTEN = "1.3.0"


def main(argv: list[str]) -> int:
    """Run the suite; 0 if nothing is unexpected."""
    options = _options(argv)
    with open(os.path.join(HERE, "known.toml"), encoding="utf-8") as file:
        entries = expected.parse(file.read())
    tests = find(options.checkout)
    if not tests:
        sys.exit(f"{options.checkout} has no validation/*/*.t: is it a built checkout of runtime-tools?")
    chosen = {name: path for name, path in tests.items() if not options.names or name in options.names}
    found = results.Results(
        suite=f"OCI runtime-tools validation, {results.revision(options.checkout)}",
        runtimes={name: results.version(path) for name, path in options.runtimes.items()},
        remarks=[
            f"{name} is given the configurations with ociVersion {older}: it refuses {WRITTEN}."
            for name, older in options.oci_version.items()
        ]
        + options.remark,
    )
    first = next(iter(options.runtimes))
    outcomes: dict[str, bool | None] = {}
    for test, path in chosen.items():
        cells = found.tests.setdefault(test, {})
        for name, runtime in options.runtimes.items():
            verdict, why = judge(_run(options.checkout, path, runtime, options.oci_version.get(name, "")))
            cells[name] = verdict
            print(
                f"{verdict.replace('*', ''):12} {name:10} {test}",
                *why[:3],
                sep="\n                 " if why else " ",
            )
            if name == first:
                outcomes[test] = verdict.startswith(results.PASS)
    found.notes = {entry.name: entry.reason for entry in entries if outcomes.get(entry.name) is False}
    if not options.names:
        found.write(options.output)
    problems = expected.check(
        [entry for entry in entries if not options.names or entry.name in options.names],
        outcomes,
        present=tests,
    )
    print(f"{first}: {found.count(first, results.PASS)} of {len(chosen)} pass", *problems, sep="\n")
    return 1 if problems else 0


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="conformance.runtime_tools", description=__doc__)
    parser.add_argument("checkout", type=os.path.abspath, help="a built checkout of runtime-tools")
    parser.add_argument(
        "names", nargs="*", help="directories below validation/ (default: all; no table then)"
    )
    parser.add_argument(
        "--runtime", action="append", default=[], metavar="NAME=PATH", help="the first one is judged"
    )
    parser.add_argument(
        "--oci-version",
        action="append",
        default=[],
        metavar="NAME=VERSION",
        help="for a runtime older than it",
    )
    parser.add_argument(
        "--remark", action="append", default=[], metavar="TEXT", help="a line above the table"
    )
    parser.add_argument("--output", default=RESULTS, metavar="PATH", help="write PATH.md and PATH.json")
    options = parser.parse_intermixed_args(argv)
    named = options.runtime or [
        f"{name}={path}" for name in ("pyrunc", "runc", "crun") if (path := shutil.which(name))
    ]
    options.runtimes = dict(word.split("=", 1) for word in named)
    options.oci_version = dict(word.split("=", 1) for word in options.oci_version)
    if not options.runtimes:
        parser.error("no runtime found: --runtime NAME=PATH")
    return options


def find(checkout: str) -> dict[str, str]:
    """Return the tests of a checkout: name of the directory -> path of the program."""
    paths = sorted(glob.glob(os.path.join(checkout, "validation", "*", "*.t")))
    return {os.path.basename(path).removesuffix(".t"): path for path in paths}


def _run(checkout: str, test: str, runtime: str, oci_version: str) -> guard.Outcome:
    """Run one test with a runtime whose containers are in a root of the test's own."""
    with guard.workplace(runtime) as directory:
        wrapper = os.path.join(directory, "runtime")
        with open(wrapper, "w", encoding="utf-8") as file:
            file.write(_wrapper(runtime, os.path.join(directory, "state"), oci_version))
        os.chmod(wrapper, 0o755)
        env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "TMPDIR": directory,
            "RUNTIME": wrapper,
            "HOME": "/root",
        }
        return guard.run([test], cwd=checkout, env=env, limit=LIMIT)


def _wrapper(runtime: str, root: str, oci_version: str) -> str:
    lines = ["#!/bin/sh"]
    if oci_version:
        change = f's/"ociVersion": *"{WRITTEN}"/"ociVersion":"{oci_version}"/'
        lines.append(f'[ "$1" != create ] || sed -i \'{change}\' "$3/config.json"')
    return "\n".join([*lines, f'exec {runtime} --root {root} "$@"', ""])


def judge(outcome: guard.Outcome) -> tuple[str, list[str]]:
    """Return the verdict on a test program's run with its numbers, and why it is not a pass.

    A program that prints no test line passes by saying nothing and exit status 0: those that expect `create`
    to fail are of that kind, and what the runtime said about it is on their standard error.
    """
    report = tap.read(outcome.out)
    why = report.problems()
    if outcome.status == guard.TIMED_OUT:
        why.append(f"no end within {LIMIT:g} s")
    elif outcome.status:
        said = outcome.err.strip().splitlines()
        why.append(f"exit status {outcome.status}" + (f": {said[-1]}" if said else ""))
    total = report.passed + report.failed
    numbers = f" {report.passed}/{total}" if total else ""
    if why:
        return results.FAIL + numbers, why
    return (results.SKIP if report.skipped and not report.passed else results.PASS) + numbers, []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
