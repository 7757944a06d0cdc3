"""Marks for tests that start real containers, and the reasons why they are skipped."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import BUSYBOX

if TYPE_CHECKING:
    from pathlib import Path


def mark_containers(items: list[pytest.Item], folder: Path, *also: str) -> None:
    """Mark the tests of a folder, and skip them where no container can be made.

    Args:
        items: all collected tests.
        folder: the folder.
        also: further marks.

    """
    for item in items:
        if folder not in item.path.parents:
            continue
        for mark in ("container", "root", *also):
            item.add_marker(mark)
        if os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="containers are tried as real root here"))
        elif BUSYBOX is None:
            item.add_marker(pytest.mark.skip(reason="needs a static busybox for the image"))
