"""Write the table of an engine's checks for several runtimes: `python -m conformance.engines cri`.

The checks are those whose files begin with test_NAME. They are run once for each runtime; results/NAME.md and
.json say how each check ended. The first runtime is judged: the exit status is 1 if one of its checks fails.
"""

from __future__ import annotations

import argparse
import glob
import os
import shutil
import subprocess
import sys
import tempfile
from xml.etree import ElementTree as ET

from conformance.suites import results

HERE = os.path.dirname(os.path.abspath(__file__))
RESULTS = os.path.join(os.path.dirname(HERE), "results")


def main(argv: list[str]) -> int:
    """Run the checks and write the table."""
    parser = argparse.ArgumentParser(prog="conformance.engines", description=__doc__)
    parser.add_argument("name", help="whose checks: cri, docker, podman, containerd, buildah")
    parser.add_argument("--engine", help="what the title says after the name, such as the engine's version")
    parser.add_argument(
        "--runtime", action="append", default=[], metavar="NAME=PATH", help="the first one is judged"
    )
    parser.add_argument("--output", metavar="PATH", help="write PATH.md and PATH.json")
    options = parser.parse_args(argv)
    named = options.runtime or [
        f"{name}={path}" for name in ("pyrunc", "runc") if (path := shutil.which(name))
    ]
    runtimes = dict(word.split("=", 1) for word in named)
    files = sorted(glob.glob(f"{HERE}/test_{options.name}*.py"))
    if not runtimes or not files:
        parser.error("no runtime found: --runtime NAME=PATH" if files else f"no checks of {options.name}")
    table = results.Results(
        suite=f"Checks of {options.name}" + (f", {options.engine}" if options.engine else ""),
        runtimes={name: results.version(path) for name, path in runtimes.items()},
    )
    first = next(iter(runtimes))
    for name, path in runtimes.items():
        for test, (verdict, why) in run(files, path).items():
            table.tests.setdefault(test, {})[name] = verdict
            if why and verdict != results.PASS and (name == first or test not in table.notes):
                table.notes[test] = why if name == first else f"{name}: {why}"
    table.write(options.output or os.path.join(RESULTS, options.name))
    return 1 if table.count(first, results.FAIL) or not table.count(first, results.PASS) else 0


def run(files: list[str], runtime: str) -> dict[str, tuple[str, str]]:
    """Run checks for a runtime; how each ended, and why it is not a pass."""
    with tempfile.TemporaryDirectory() as place:
        report = f"{place}/report.xml"
        argv = [sys.executable, "-m", "pytest", "-q", f"--runtime={runtime}", f"--junitxml={report}", *files]
        subprocess.run(argv, check=False, cwd=os.path.dirname(os.path.dirname(HERE)))
        return dict(map(_verdict, ET.parse(report).getroot().iter("testcase")))


def _verdict(case: ET.Element) -> tuple[str, tuple[str, str]]:
    """A check's name, how it ended, and the first line of why."""
    name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
    for kind, verdict in (("failure", results.FAIL), ("error", results.FAIL), ("skipped", results.SKIP)):
        if (found := case.find(kind)) is not None:
            return name, (verdict, (found.get("message") or "").split("\n")[0])
    return name, (results.PASS, "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
