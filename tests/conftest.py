"""Shared by all tests: the command runs as an installed pyrunc would."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest
from hypothesis import settings

from tests.support.ordinary import reachable, refused

if TYPE_CHECKING:
    from collections.abc import Iterator

# A test says what holds, not how fast: a busy machine is no failure.
settings.register_profile("pyrunc", deadline=None)
settings.load_profile("pyrunc")

REPOSITORY = Path(__file__).resolve().parent.parent

# A shell makes its background jobs ignore these signals, and such a job could not be interrupted.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)


class Call(Protocol):
    """Run pyrunc with these words and return how it ended, with its output as text."""

    def __call__(self, *words: str, **options: object) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture(scope="session")
def pyrunc_argv() -> list[str]:
    """Return the words that start pyrunc from the checkout as its launcher does: isolated, without site."""
    paths = [str(REPOSITORY), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    program = f"import sys; sys.path[:0] = {paths!r}; from pyrunc.__main__ import main; main()"
    return [sys.executable, "-I", "-S", "-c", program]


@pytest.fixture(scope="session")
def reachable_command() -> Iterator[list[str]]:
    """Return the words that start pyrunc from a copy that an ordinary user can read."""
    copy = Path(tempfile.mkdtemp(prefix="pyrunc-copy-", dir="/tmp"))
    try:
        copy.chmod(0o755)
        words = reachable(copy)
        if why := refused(words):
            pytest.skip(why)
        yield words
    finally:
        shutil.rmtree(copy)


@pytest.fixture
def pyrunc(pyrunc_argv: list[str], tmp_path: Path) -> Call:
    """Return a function that runs pyrunc with a state root of its own, in an empty directory.

    It is for calls that leave no process behind: such a process would hold the pipes that are read here.
    """
    root = tmp_path / "state"
    root.mkdir(mode=0o700)

    def call(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
        settings: dict[str, object] = {
            "cwd": tmp_path,
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "timeout": 60,
            **options,
        }
        done: subprocess.CompletedProcess[str] = subprocess.run(  # type: ignore[call-overload]
            [*pyrunc_argv, "--root", str(root), *words], text=True, check=False, **settings
        )
        return done

    return call
