"""validate: print everything that is wrong with a config.json, in the form of a compiler's messages.

Law 2: the check is create's, without its limit on the number of messages. What has no effect counts as an
error here: misspelled property names, which the specification wants ignored, and names that occur twice. For
a file without errors, values that are probably not meant are warnings (spec/slips.py).
"""

from __future__ import annotations

import os

from pyrunc.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.cli.match import Command
    from pyrunc.spec.problems import Problem
    from pyrunc.spec.slips import Slip


def main(cmd: Command) -> int:
    """Print a line for each problem; the exit status is 1 if the file cannot be used."""
    from pyrunc.spec import slips

    path = cmd.file or os.path.join(cmd.bundle or "", "config.json")
    report = _report(path)
    errors = sorted(report.problems + report.hints)
    rows: list[tuple[str, Problem]] = [(slips.ERROR, problem) for problem in errors]
    if not report.problems:
        systemd = bool(cmd.systemd_cgroup) or cmd.cgroup_manager == "systemd"
        found = slips.find(report.value, systemd=systemd)
        found += _without_directory(report.value, os.path.dirname(os.path.abspath(path)))
        rows += [(slip.severity, _placed(slip, report.document)) for slip in found]
        rows.sort(key=lambda row: row[1])
    if cmd.json or cmd.format == "json":
        _print_json(rows)
    else:
        _print(rows, path)
    severities = {severity for severity, _ in rows}
    return 1 if slips.ERROR in severities or (cmd.strict and slips.WARNING in severities) else 0


def check(path: str) -> list[Problem]:
    """Return all that is wrong with a config.json, in the order of its lines.

    Raises:
        Failure: the file cannot be read.

    """
    report = _report(path)
    return sorted(report.problems + report.hints)


def _report(path: str) -> Any:
    from pyrunc.spec.load import read
    from pyrunc.spec.problems import Report

    return Report(read(path), "config")


def _placed(slip: Slip, document: Any) -> Problem:
    from pyrunc.spec.problems import Problem

    return Problem(document.line(slip.pointer), slip.pointer, slip.text)


def _print(rows: list[tuple[str, Problem]], path: str) -> None:
    from pyrunc import screen

    paint = screen.painter()
    for severity, problem in rows:
        text = problem.shown(path, severity if severity != "error" else "")
        if paint:
            place, colon, rest = text.partition(": ")
            text = f"{paint(place, severity)}{colon}{rest}"
        print(text)
    if not any(severity == "error" for severity, _ in rows):
        print(paint("ok", "good") if paint else "ok")


def _print_json(rows: list[tuple[str, Problem]]) -> None:
    from pyrunc.jsonio import dumps_indent

    found = [
        {
            "severity": severity,
            "line": problem.line or None,
            "column": problem.column or None,
            "pointer": problem.pointer,
            "text": problem.text,
        }
        for severity, problem in rows
    ]
    print(dumps_indent(found))


def _without_directory(config: Any, bundle: str) -> list[Slip]:
    """Check that the working directory exists, if it cannot be made because the root is read-only.

    Only if there is a root file system to look at, and no mount that could bring the directory.
    """
    from pyrunc.spec.slips import WARNING, Slip

    root = config.get("root") or {}
    cwd = (config.get("process") or {}).get("cwd") or "/"
    mounts = [mount["destination"].rstrip("/") + "/" for mount in config.get("mounts") or ()]
    if not root.get("readonly") or any((cwd + "/").startswith(place) for place in mounts):
        return []
    path = os.path.join(bundle, root["path"])
    try:
        below = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return []
    from pyrunc.apply import target

    try:
        os.close(target.resolve(below, cwd))
    except FileNotFoundError:
        text = f"{cwd} is not in {path}: it will be made there, although root.readonly asks for no changes"
        return [Slip("/process/cwd", WARNING, text)]
    except (OSError, Failure):
        return []
    finally:
        os.close(below)
    return []
