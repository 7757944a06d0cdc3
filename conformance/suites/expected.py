"""The published list of what is known to fail, and why: an entry that is no longer true is an error.

The file is TOML, one table per test:

    [[test]]
    name = "create.bats: runc create"     # the test, as the results name it
    kind = "test"                         # who is wrong, see KINDS
    reason = "one sentence"
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

KINDS = {
    "test": "the test is wrong, or looks at another runtime's insides: it must fail, or the entry is stale",
    "host": "the machine lacks what the test needs: it may pass on another one",
    "race": "the test is wrong, and passes when it is lucky",
    "ours": "we are wrong, and know it: it must fail, or the entry is stale",
}

_MAY_PASS = ("host", "race")


@dataclass(frozen=True)
class Entry:
    """A test that is known to fail."""

    name: str
    kind: str
    reason: str


def parse(text: str) -> list[Entry]:
    """Read a list.

    Raises:
        ValueError: it is no TOML, an entry lacks something, is of an unknown kind, or is there twice.

    """
    entries: list[Entry] = []
    for number, table in enumerate(tomllib.loads(text).get("test", []), 1):
        if set(table) != {"name", "kind", "reason"} or not all(isinstance(v, str) for v in table.values()):
            raise ValueError(f"entry {number} must have name, kind and reason, all text: {table}")
        entry = Entry(**table)
        if entry.kind not in KINDS:
            raise ValueError(f"{entry.name}: kind {entry.kind!r} is none of {', '.join(KINDS)}")
        if not entry.reason.strip():
            raise ValueError(f"{entry.name}: no reason")
        entries.append(entry)
    names = [entry.name for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"more than one entry for: {', '.join(twice)}")
    return entries


def check(
    entries: Collection[Entry], outcomes: Mapping[str, bool | None], *, present: Collection[str] = ()
) -> list[str]:
    """Compare the list with a run.

    Args:
        entries: those of the tests that were to run.
        outcomes: for each test that did run whether it passed; None: it was skipped by the suite itself.
        present: tests that exist but were not run.

    Returns:
        What is wrong, in sentences: unexpected failures, then entries that are out of date.

    """
    known = {entry.name for entry in entries}
    found = [
        f"unexpected failure: {name}" for name, ok in outcomes.items() if ok is False and name not in known
    ]
    for entry in entries:
        if entry.name not in outcomes:
            if entry.name not in present:
                found.append(f"stale entry: there is no test {entry.name!r}")
        elif outcomes[entry.name] and entry.kind not in _MAY_PASS:
            found.append(f"stale entry: {entry.name!r} passes")
    return found
