"""A container's resctrl group: created, with its schemata, and changed.

Law 1: plan/intel_rdt.py has decided what to write. Joining and removing are the same as for a cgroup of
version 1 (a process writes "0" to the `tasks` file; rmdir), so apply/cgroups/cgroup.py does both.

Source: Documentation/filesystems/resctrl.rst of Linux 6.18.
"""

from __future__ import annotations

import os

from pyrunc import files
from pyrunc.errors import Failure
from pyrunc.files import closing
from pyrunc.plan import intel_rdt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.plan.intel_rdt import IntelRdtPlan


def create(plan: IntelRdtPlan) -> dict[str, str]:
    """Make the group and write its schemata; return its entries for the container's paths.

    Raises:
        Failure: it cannot be made, one that is named in config.json is missing or has other values, or the
            kernel refuses a line. What was made is removed again.

    """
    made = []
    there = os.path.isdir(plan.path)
    if not there and not plan.create:
        raise Failure(f"resctrl group {plan.path} does not exist", pointer=intel_rdt.POINTER + "/closID")
    try:
        if there:
            _compare(plan)
        else:
            _mkdir(plan, plan.path)
            made.append(plan.path)
        for line, pointer in plan.lines:
            _write(plan.root, plan.path, line, pointer)
        if plan.monitor:
            _mkdir(plan, plan.monitor)
    except BaseException:
        for path in made:
            os.rmdir(path)
        raise
    return plan.paths()


def _mkdir(plan: IntelRdtPlan, path: str) -> None:
    try:
        os.mkdir(path, 0o755)
    except OSError as exc:
        raise Failure(
            f"make resctrl group {path}",
            pointer=intel_rdt.POINTER,
            errno=exc.errno or 0,
            hint=_why(plan.root),
        ) from None


def _compare(plan: IntelRdtPlan) -> None:
    """Refuse an existing group whose values differ from those in config.json."""
    present = _values(files.text(plan.path + "/schemata").splitlines())
    for name, wanted in _values(plan.compare).items():
        have = present.get(name, {})
        for domain, value in wanted.items():
            if have.get(domain) != value:
                raise Failure(
                    f"resctrl group {plan.path} has {name}:{domain}={have.get(domain, 'nothing')},"
                    f" not {name}:{domain}={value}",
                    pointer=intel_rdt.POINTER,
                )


def _values(lines: object) -> dict[str, dict[str, str]]:
    """Return resource -> domain -> value of lines such as "L3:0=7f0;1=1f", values without leading zeros."""
    found: dict[str, dict[str, str]] = {}
    if isinstance(lines, (list, tuple)):
        for line in lines:
            name, _, rest = line.strip().partition(":")
            pairs = (pair.partition("=") for pair in rest.split(";") if pair)
            found[name] = {domain.strip(): value.strip().lstrip("0") for domain, _, value in pairs}
    return found


def update(
    paths: dict[str, str], section: dict[str, Any] | None, cache: str | None, bandwidth: str | None
) -> None:
    """Change the schemata of a container's group, and the values in the given section.

    Raises:
        Failure: the container has no group, or the kernel refuses.

    """
    path = paths.get(intel_rdt.OWN, paths.get(intel_rdt.SHARED))
    if section is None or path is None:
        raise Failure("updating a non-existent Intel RDT configuration is not supported")
    for line, pointer in intel_rdt.schemas(cache, bandwidth):
        _write(os.path.dirname(path), path, line, pointer)
    for key, value in (("l3CacheSchema", cache), ("memBwSchema", bandwidth)):
        if value:
            section[key] = value


def _write(root: str, path: str, line: str, pointer: str) -> None:
    try:
        with closing(os.open(path + "/schemata", os.O_WRONLY | os.O_CLOEXEC)) as fd:
            os.write(fd, line.encode() + b"\n")
    except OSError as exc:
        raise Failure(
            f"write {line!r} to {path}/schemata", pointer=pointer, errno=exc.errno or 0, hint=_why(root)
        ) from None


def _why(root: str) -> str:
    """Return the file system's explanation of the last refusal, "" if there is none."""
    status = files.text(root + "/info/last_cmd_status")
    return "" if status == "ok" else status
