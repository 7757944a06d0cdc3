"""System calls that tests need and pyrunc itself does not make: libc's own functions for them."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

LIBC = ctypes.CDLL(None, use_errno=True)
_VERSION_3 = 0x20080522


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def set_capabilities(effective: int, permitted: int, inheritable: int) -> None:
    """Set the three capability sets of this process, bit N for capability N: capset(2)."""
    sets = (effective, permitted, inheritable)
    words = struct.pack("=6I", *(each >> shift & 0xFFFFFFFF for shift in (0, 32) for each in sets))
    _check(LIBC.capset(struct.pack("=Ii", _VERSION_3, 0), words))


def pivot_root(new_root: str, put_old: str) -> None:
    """Make another directory the root of this mount namespace."""
    _check(LIBC.pivot_root(os.fsencode(new_root), os.fsencode(put_old)))


def execute(program: int, words: Sequence[str]) -> None:
    """Execute the program of a descriptor: fexecve(3). Python's own function needs at least one word."""
    strings = (ctypes.c_char_p * (len(words) + 1))(*map(os.fsencode, words), None)
    _check(LIBC.fexecve(program, strings, (ctypes.c_char_p * 1)(None)))
