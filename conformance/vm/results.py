"""Read from a guest's reports how each of its tests ended."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from conformance.vm.reporter import MARK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Of several ends of one test (its own, then that of a fixture) the worst counts.
_WORSE = ("passed", "skipped", "failed")
UNENDED = "it did not end: "


class End(NamedTuple):
    """How a test ended."""

    outcome: str  # one of _WORSE
    seconds: float
    text: str  # of a failure, or the reason of a skip


def _records(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if not line.startswith(MARK):
            continue
        try:
            yield json.loads(line.removeprefix(MARK))
        except ValueError:
            continue  # cut off with the machine


def system(lines: Iterable[str]) -> dict[str, str]:
    """Return what a guest said of itself, nothing if it did not come so far."""
    return next((said["system"] for said in _records(lines) if "system" in said), {})


def read(lines: Iterable[str], ending: str) -> dict[str, End]:
    """Return how the tests ended that began.

    Args:
        lines: what the guest wrote.
        ending: how the guest itself ended, for tests that did not.

    """
    begun: set[str] = set()
    ends: dict[str, End] = {}
    for said in _records(lines):
        if "id" not in said:
            continue
        name = said["id"]
        if "begins" in said:
            begun.add(name)
            continue
        new = End(said["outcome"], said["seconds"], said["text"])
        old = ends.get(name)
        if old is None:
            ends[name] = new
        else:
            worst = max(old, new, key=lambda end: _WORSE.index(end.outcome))
            ends[name] = End(
                worst.outcome, old.seconds + new.seconds, "\n".join(filter(None, (old.text, new.text)))
            )
    for name in begun - ends.keys():
        ends[name] = End("failed", 0.0, f"{UNENDED}{ending}")
    return ends


def unwanted_skip(end: End, allowed: Iterable[str]) -> bool:
    """Tell whether a test was skipped for a reason that the virtual machine was made to remove."""
    return end.outcome == "skipped" and not any(reason in end.text for reason in allowed)
