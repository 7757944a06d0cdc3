"""validate: everything that is wrong with a config.json at once, as a compiler would say it.

Law 2: the same judgement as create's, without its limit on how much is said. What is allowed but hardly meant
(misspelled names of properties, which the specification wants ignored, and names that are there twice) counts
as wrong here: whoever asks wants to know.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cli.match import Command
    from pyrunc.spec.explain import Problem


def main(cmd: Command) -> int:
    """Print a line for each problem and return 1, or print "ok" and return 0."""
    path = cmd.file or os.path.join(cmd.bundle or "", "config.json")
    problems = check(path)
    for problem in problems:
        print(problem.shown(path))
    if not problems:
        print("ok")
    return 1 if problems else 0


def check(path: str) -> list[Problem]:
    """Return all that is wrong with a config.json, in the order of its lines.

    Raises:
        Failure: the file cannot be read.

    """
    from pyrunc.spec.explain import Report
    from pyrunc.spec.load import read

    report = Report(read(path), "config")
    return sorted(report.problems + report.hints)
