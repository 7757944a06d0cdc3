"""The mount table of a process, as it is now."""

from __future__ import annotations

import errno
import os

import pytest

from pyrunc.apply import mount_table
from pyrunc.errors import Failure


def test_our_own_table() -> None:
    rows = mount_table.read()
    assert "/proc" in [row.point for row in rows if row.fstype == "proc"]
    assert [row.id for row in rows] == [row.id for row in mount_table.read(os.getpid())]


def test_a_process_that_is_gone() -> None:
    with pytest.raises(Failure, match="read the mount table of process 4194305") as caught:
        mount_table.read(4194305)  # above the largest there can be
    assert caught.value.errno == errno.ENOENT
