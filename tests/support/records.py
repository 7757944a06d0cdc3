"""State records without containers, for tests about what is kept of one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pyrunc import store
from pyrunc.life import creation, removal

if TYPE_CHECKING:
    import pytest


def reserved(root: str, name: str) -> store.Container:
    """Make a state directory as a creation does, and let go of its lock."""
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
    """Let a call of os fail with an errno where this is part of its first argument."""
    real = getattr(os, call)

    def instead(path: Any, *arguments: Any, **named: Any) -> Any:
        if part in str(path):
            raise OSError(number, os.strerror(number))
        return real(path, *arguments, **named)

    monkeypatch.setattr(os, call, instead)
