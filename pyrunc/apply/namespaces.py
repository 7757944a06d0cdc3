"""Existing namespaces, which the parent opens and the init program enters."""

from __future__ import annotations

import os
from errno import EINVAL

from pyrunc.errors import Failure, failing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.steps import Join


def open_join(join: Join) -> int:
    """Open a namespace to be entered.

    Raises:
        Failure: there is nothing at the path.

    """
    with failing(f"open {join.kind} namespace {join.path}", pointer=join.pointer):
        return os.open(join.path, os.O_RDONLY | os.O_CLOEXEC)


def refused(join: Join, errno: int) -> Failure:
    """Return the Failure for a namespace that cannot be joined."""
    if errno == EINVAL:
        return Failure(f"{join.path} is not a {join.kind} namespace that can be joined", pointer=join.pointer)
    return Failure(f"join {join.kind} namespace {join.path}", pointer=join.pointer, errno=errno)
