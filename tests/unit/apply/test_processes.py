"""The processes of a container without a cgroup, found by their parents."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pyrunc import store
from pyrunc.apply import processes

if TYPE_CHECKING:
    from collections.abc import Callable

DEPTH = 5000


def chain(number: int) -> int:
    """Each process is the child of the one before."""
    return number - 1


def fan(number: int) -> int:
    """All processes are children of the first one."""
    return 10 if 10 < number <= 10 + DEPTH else 1


@pytest.mark.parametrize("family", [chain, fan])
def test_all_descendants(family: Callable[[int], int], monkeypatch: pytest.MonkeyPatch) -> None:
    container = store.Container("/nowhere", "box")
    container.pid = 10
    everybody = [str(number) for number in reversed(range(1, 20 + DEPTH))]
    monkeypatch.setattr(store, "status", lambda _container: "running")
    monkeypatch.setattr(os, "listdir", lambda _path: [*everybody, "self", "stat"])
    monkeypatch.setattr(processes, "_parent", family)
    end = 20 + DEPTH if family is chain else 11 + DEPTH
    assert processes.of(container) == list(range(10, end))
