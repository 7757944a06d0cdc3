"""The installed command, built from this checkout without changing the machine."""

from __future__ import annotations

import os
import site as places
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]


def build(lib: Path, python: str = sys.executable, **environment: str) -> Path:
    """Build the program in a directory, and the script that it replaces: LIB/bin/pyrunc and pyrunc-script.

    Args:
        lib: the directory.
        python: the interpreter. If it is not this one, there are no packages besides pyrunc.
        environment: more variables for the build.

    Returns:
        The directory. LIB/log is the log of the build; LIB/why says in one line why there is no program or
        image.

    """
    site = lib / "site"
    for folder in (site, lib / "bin"):
        folder.mkdir()
    if python == sys.executable:
        for place in filter(
            os.path.isdir, places.getsitepackages()
        ):  # more than one, outside of an environment
            for entry in Path(place).iterdir():
                if not (site / entry.name).is_symlink():
                    (site / entry.name).symlink_to(entry)
    for name in ("pyrunc", "schema"):
        (site / name).symlink_to(TOP / name)
    (lib / "bin/python3").symlink_to(python)
    real = os.path.realpath(python)
    script = (TOP / "install/launcher/script.py").read_text()
    (lib / "bin/pyrunc-script").write_text(script.replace("@PYTHON@", real).replace("@SITE@", str(site)))
    (lib / "bin/pyrunc-script").chmod(0o755)
    # Through a link, for a test that replaces Python.
    (lib / "python").symlink_to(real)
    built = again(lib, **environment)
    if built.returncode != 0:
        if " comes without " in built.stdout:
            pytest.skip(built.stdout)
        pytest.fail(built.stdout + (lib / "log").read_text())
    return lib


def again(lib: Path, *before: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Build again, with words before the command; return the result, with its one line of output."""
    words = [*before, str(TOP / "install/launcher/build"), str(lib), str(lib / "python"), str(lib / "site")]
    surroundings = {**os.environ, "BUILD_LOG": str(lib / "log"), **environment}
    built = subprocess.run(words, env=surroundings, stdout=subprocess.PIPE, text=True, check=False)
    (lib / "why").write_text(built.stdout)
    return built


def is_image(program: Path) -> bool:
    """Tell whether it is an image: an image has no section headers."""
    return program.read_bytes()[40:48] == bytes(8)
