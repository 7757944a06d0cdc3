"""What `doctor` finds: one line about one subject."""

from __future__ import annotations

from typing import NamedTuple

OK, WARNING, MISSING = "ok", "warning", "missing"


class Finding(NamedTuple):
    """One line.

    Attributes:
        subject: what it is about, in a word or two.
        state: "ok"; "warning": containers run, but something they may ask for cannot be had; "missing":
            pyrunc needs it, for all or for what engines ask for by default.
        found: what there is.
        todo: what to do about it, "" when there is nothing to do.

    """

    subject: str
    state: str
    found: str
    todo: str = ""
