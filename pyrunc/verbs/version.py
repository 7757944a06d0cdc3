"""version: the version, for people and for engines.

Docker and containerd look for "version X" in the first line and for a line that begins with "commit:". So the
lines and their order are an interface, the same as runc's.
"""

from __future__ import annotations

import sys

from pyrunc import versions
from pyrunc.apply.seccomp import compiler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cli.match import Command

# pip's command for [project.scripts] starts Python with all installed packages.
FASTER = "unpack the source archive, and there sudo make install (this is pip's script)"


def main(cmd: Command) -> int:  # noqa: ARG001 - every verb is called alike
    """Print the versions of pyrunc and of what it depends on."""
    lines = [
        f"pyrunc version {versions.__version__}",
        f"commit: {versions.commit()}",
        f"spec: {versions.SPEC_VERSION}",
        f"python: {'.'.join(map(str, sys.version_info[:3]))}",
        f"command: {versions.command()}",
    ]
    library = compiler.version()
    if library:
        lines.append(f"libseccomp: {library}")
    if not sys.flags.no_site:
        lines.append(f"faster: {FASTER}")
    print("\n".join(lines))
    return 0
