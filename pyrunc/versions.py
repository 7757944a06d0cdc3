"""The version of pyrunc, and of what it depends on."""

from __future__ import annotations

import os
import sys

__version__ = "0.1.0"

SPEC_VERSION = "1.3.0"  # the newest version of the runtime specification that is implemented


def commit() -> str:
    """Return the commit from which pyrunc was installed, "unknown" if it was not kept."""
    path = os.path.join(os.path.dirname(__file__), "commit.txt")
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.readline().strip() or "unknown"
    except OSError:
        return "unknown"


def command() -> str:
    """Return the kind of this command (install/README.md), and the interpreter for which it was made.

    "image" starts with an interpreter that is initialised already, "program" initialises one that is linked
    into it, "script" is run by the interpreter.
    """
    embed = sys.modules.get("_pyrunc_embed")
    kind = embed.kind() if embed is not None else "script"
    return f"{kind} ({sys.executable})"
