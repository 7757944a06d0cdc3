"""A finding of `doctor`: one line about one subject."""

from __future__ import annotations

from typing import NamedTuple

OK, WARNING, MISSING = "ok", "warning", "missing"


class Finding(NamedTuple):
    """One line of `doctor`.

    Attributes:
        subject: the subject, in a word or two.
        state: "ok"; "warning": containers run, but something that they may ask for does not work; "missing":
            pyrunc needs it, for all or for what engines ask for by default.
        found: what was found.
        todo: what to do about it, "" when there is nothing to do.

    """

    subject: str
    state: str
    found: str
    todo: str = ""
