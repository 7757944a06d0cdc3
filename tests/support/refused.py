"""Callers on an older kernel, or inside a container whose filter refuses system calls."""

from __future__ import annotations

from tests.support import refuse
from tests.support.containers import command
from tests.support.engine import Engine


class Refused(Engine):
    """A caller whose system calls fail."""

    def __init__(self, engine: Engine, answer: str = "ENOSYS", *calls: str) -> None:
        """Take over the containers of another engine.

        Args:
            engine: the other engine.
            answer: name of the error.
            calls: which calls; none for all of the new mount API.

        """
        super().__init__(engine.directory)
        self.ids = engine.ids
        self._prefix = refuse.prefix(answer, *calls)

    def argv(self, *words: str) -> list[str]:
        """Return the words of a call."""
        return [*self._prefix, *super().argv(*words)]


class OldOverlay(Engine):
    """A caller whose overlayfs takes no descriptors, as before Linux 6.13."""

    def __init__(self, engine: Engine) -> None:
        """Take over another's containers."""
        super().__init__(engine.directory)
        self.ids = engine.ids

    def argv(self, *words: str) -> list[str]:
        """Return the words of a call."""
        *start, program = command()
        start_again = "from pyrunc.__main__"
        older = f"from pyrunc.plan import overlay; overlay.LAYER_FDS = 99, 0; {start_again}"
        assert start_again in program
        return [*start, program.replace(start_again, older), "--root", str(self.root), *words]
