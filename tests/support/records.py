"""State records without containers, for tests of records."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pyrunc import store
from pyrunc.life import creation, removal

if TYPE_CHECKING:
    import pytest


def reserved(root: str, name: str) -> store.Container:
    """Make a state directory as a creation does, and release its lock."""
    made, lock = creation.reserve(root, name)
    os.close(lock)
    return made


def removed(root: str, name: str) -> None:
    """Remove a state directory, if it is there."""
    try:
        lock = store.hold(root, name)
    except store.AbsentError:
        return
    try:
        removal.remove(store.Container(root, name), lock)
    finally:
        os.close(lock)


def refuse(monkeypatch: pytest.MonkeyPatch, call: str, part: str, number: int) -> None:
    """Make a function of os fail with an errno if its first argument contains a text."""
    real = getattr(os, call)

    def instead(path: Any, *arguments: Any, **named: Any) -> Any:
        if part in str(path):
            raise OSError(number, os.strerror(number))
        return real(path, *arguments, **named)

    monkeypatch.setattr(os, call, instead)
