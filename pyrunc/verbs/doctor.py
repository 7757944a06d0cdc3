"""doctor: can this machine run containers, and what to do if it cannot.

Each line is about one subject and says what to do. It needs no rights; what depends on the caller is checked
for this caller.
"""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import find_spec

from pyrunc import jsonio, screen, text_tables, versions
from pyrunc.apply.doctor import engines, host
from pyrunc.apply.doctor.finding import MISSING, OK, WARNING, Finding
from pyrunc.errors import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrunc.cli.match import Command

# What pyrunc imports, and the packages to install for it; the last ones only some containers need.
_PACKAGES = (("click", "click"), ("jsonschema", "jsonschema"), ("_prctl", "python-prctl"))
_STYLES = {OK: "good", WARNING: "warning", MISSING: "error"}
_OPTIONAL = (("jeepney", "jeepney", "--systemd-cgroup"),)


def main(cmd: Command) -> int:
    """Print the findings; the exit status is 1 if something needed is missing."""
    found = doctor()
    if cmd.json or cmd.format == "json":
        print(jsonio.dumps_indent([dict(zip(Finding._fields, each, strict=True)) for each in found]))
    else:
        print(table(found, width=screen.width(), paint=screen.painter()), end="")
    return 1 if any(each.state == MISSING for each in found) else 0


def doctor() -> list[Finding]:
    """Return the findings about this machine, as `pyrunc doctor` does."""
    return [_command(), *_packages(), *host.findings(), *engines.findings()]


def table(found: list[Finding], *, width: int = 0, paint: Callable[[str, str], str] | None = None) -> str:
    """Return findings as lines, each with what to do below it.

    Args:
        found: the findings.
        width: width of the terminal in columns, which the lines fit; 0: no terminal.
        paint: a function that colours a text in a style.

    """
    subjects = max(len(each.subject) for each in found)
    lead = 7 + 2 + subjects + 2
    room = max(20, width - lead) if width else text_tables.ENDLESS
    lines = []
    for each in found:
        state = paint(f"{each.state:7}", _STYLES[each.state]) if paint else f"{each.state:7}"
        first, *more = text_tables.fold(printable(each.found), room)
        lines.append(f"{state}  {each.subject:{subjects}}  {first}")
        if each.todo:
            more += text_tables.fold(f"-> {printable(each.todo)}", room)
        lines += [" " * lead + line for line in more]
    return "".join(line.rstrip() + "\n" for line in lines)


def _command() -> Finding:
    """Which command this is, and which one an engine finds."""
    home = os.path.dirname(versions.__file__)
    how = "a program with Python inside" if "_pyrunc_embed" in sys.modules else f"run by {sys.executable}"
    found = f"{versions.__version__} (commit {versions.commit()[:12]}) in {home}, {how}"
    path = shutil.which("pyrunc")
    if path is None:
        return Finding("pyrunc", WARNING, f"{found}; there is none in $PATH", "sudo make install")
    return Finding("pyrunc", OK, f"{found}; {path} is the one in $PATH")


def _packages() -> list[Finding]:
    python = ".".join(map(str, sys.version_info[:3]))
    lacking = [package for module, package in _PACKAGES if find_spec(module) is None]
    if lacking:
        todo = f"sudo make install, or: {sys.executable} -m pip install {' '.join(lacking)}"
        return [Finding("python", MISSING, f"{python}, without {', '.join(lacking)}", todo)]
    found = [Finding("python", OK, f"{python} with {', '.join(package for _, package in _PACKAGES)}")]
    for module, package, what in _OPTIONAL:
        if find_spec(module) is None:
            todo = f"sudo make install, or: {sys.executable} -m pip install {package}"
            found.append(Finding("python", WARNING, f"without {package}: no {what}", todo))
    return found
