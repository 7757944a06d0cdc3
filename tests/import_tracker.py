"""Run pyrunc as its launcher does, and note every import that is not answered from sys.modules.

    python3 -IS import_tracker.py LOG PATH[:PATH...] WORD...

Each line of LOG is "NAME KIND FILE:LINE": what was imported, "package" or "module" or "missing", and who
asked. It is written at once, one O_APPEND write per line, because hot verbs leave by os._exit and
children are forked on the way. Not a test itself, and free of imports itself, lest it hide some.
"""

from __future__ import annotations

import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


class Tracker:
    """A finder that finds nothing and remembers which module imports what."""

    def __init__(self, log: str) -> None:
        """Open the log."""
        self.log = posix.open(log, posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND | posix.O_CLOEXEC, 0o600)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Ask the finders behind this one, write down the answer and pass it on."""
        spec = None
        for finder in sys.meta_path:
            if isinstance(finder, Tracker):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                break
        kind = (
            "missing" if spec is None else "module" if spec.submodule_search_locations is None else "package"
        )
        frame = sys._getframe(1)
        while frame.f_back is not None and "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        posix.write(self.log, f"{name} {kind} {frame.f_code.co_filename}:{frame.f_lineno}\n".encode())
        return spec


def main() -> None:
    """Take this script's words away and become pyrunc."""
    log, path = sys.argv[1:3]
    sys.argv[:] = ["pyrunc", *sys.argv[3:]]
    sys.path[:0] = path.split(":")
    sys.meta_path.insert(0, Tracker(log))
    from pyrunc.__main__ import main as pyrunc_main

    sys.exit(pyrunc_main())


main()
