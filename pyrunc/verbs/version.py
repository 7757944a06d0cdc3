"""version: who this is, for people and for engines.

Docker and containerd look for "version X" in the first line and for a line that begins with "commit:", so the
lines and their order are an interface, the same as runc's.
"""

from __future__ import annotations

import os
import sys

import pyrunc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cli.match import Command

SPEC_VERSION = "1.3.0"  # newest version of the runtime specification that is implemented

# What pip makes of [project.scripts] starts Python with all that is installed beside it.
FASTER = "unpack the source archive, and there sudo make install (this is pip's script)"


def main(cmd: Command) -> int:  # noqa: ARG001 - every verb is called alike
    """Print the versions of pyrunc and of what its behaviour depends on."""
    lines = [
        f"pyrunc version {pyrunc.__version__}",
        f"commit: {commit()}",
        f"spec: {SPEC_VERSION}",
        f"python: {'.'.join(map(str, sys.version_info[:3]))}",
        f"command: {command()}",
    ]
    library = libseccomp()
    if library:
        lines.append(f"libseccomp: {library}")
    if not sys.flags.no_site:
        lines.append(f"faster: {FASTER}")
    print("\n".join(lines))
    return 0


def commit() -> str:
    """Return the commit pyrunc was installed from, "unknown" if the installation did not keep it."""
    path = os.path.join(os.path.dirname(pyrunc.__file__), "commit.txt")
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.readline().strip() or "unknown"
    except OSError:
        return "unknown"


def command() -> str:
    """Return which of the commands this is (install/README.md), and the interpreter it was made for.

    "image" begins with an interpreter that is initialised already, "program" initialises one that is linked
    into it, "script" is run by the interpreter.
    """
    embed = sys.modules.get("_pyrunc_embed")
    kind = embed.kind() if embed is not None else "script"
    return f"{kind} ({sys.executable})"


def libseccomp() -> str:
    """Return the version of the installed libseccomp, "" if there is none."""
    from pyrunc.apply.seccomp import compiler

    return compiler.version() or ""
