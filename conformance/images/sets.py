"""The images that pyrunc and umoci unpack, and how long unpacking them takes."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from typing import TYPE_CHECKING, NamedTuple

from conformance.engines import images as busybox
from conformance.images import odd
from tests.support.images import layout

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Of what these there are on the machine, files as a distribution installs them: some thousands, and more.
_PARTS = ("usr/share/perl", "usr/share/perl5", "usr/share/zoneinfo")
_MORE = ("usr/share/doc", "usr/share/man", "usr/lib/python3", *_PARTS)


def _debian(*parts: str) -> list[bytes]:
    parts = tuple(part for part in parts if os.path.isdir(f"/{part}"))
    words = ["tar", "-C", "/", "--format=posix", "--xattrs", "--exclude=__pycache__", "-c", *parts]
    return [subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout]


SETS: dict[str, Callable[[Path], list[bytes]]] = {
    "busybox": lambda _: [busybox.rootfs()],
    "a part of Debian's /usr": lambda _: _debian(*_PARTS),
    "every odd entry": lambda directory: [odd.first(), odd.links(), odd.second(), *odd.sparse(directory)],
}

# Measured only: comparing it would take too long.
LARGE: dict[str, Callable[[Path], list[bytes]]] = {"more of Debian's /usr": lambda _: _debian(*_MORE)}

# What umoci does not do as the image specification has it, or nobody says how to do.
KNOWN = {
    ("a part of Debian's /usr", "", "changed"): "umoci leaves a root without an entry to what is put into it",
    ("every odd entry", "", "changed"): "umoci leaves the root's time to what is put into it later",
    (
        "every odd entry",
        "late/both",
        "changed",
    ): "umoci leaves the time of a directory below an opaque one to that",
}


class Cost(NamedTuple):
    """What unpacking took: seconds on the clock, seconds of processors."""

    clock: float
    processor: float


def make(name: str, directory: Path) -> Path:
    """Make an image; return its layout."""
    return layout(directory / "image", *{**SETS, **LARGE}[name](directory))


def unpack(words: list[str]) -> Cost:
    """Call a program that has to succeed."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    clock, after = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}"
    return Cost(clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def ours(runtime: str, image: Path, made: Path) -> list[str]:
    """Return the words that unpack an image with pyrunc."""
    return [runtime, "bundle", f"{image}:latest", str(made)]


def shared(runtime: str, image: Path, made: Path, store: Path) -> list[str]:
    """Return the words that make a bundle of an image's layers in a store, and unpack those it lacks."""
    return [*ours(runtime, image, made), "--layer-root", str(store)]


def theirs(image: Path, made: Path) -> list[str]:
    """Return the words that unpack an image with umoci."""
    return ["umoci", "unpack", "--image", f"{image}:latest", str(made)]
