"""The installed command, built from this checkout without touching the machine."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]


def build(lib: Path) -> Path:
    """Build the program in a directory, beside the script it stands in for: LIB/bin/pyrunc and pyrunc-script.

    Returns:
        The directory.

    """
    site = lib / "site"
    for folder in (site, lib / "bin"):
        folder.mkdir()
    for entry in Path(sysconfig.get_path("platlib")).iterdir():
        (site / entry.name).symlink_to(entry)
    for name in ("pyrunc", "schema"):
        (site / name).symlink_to(TOP / name)
    (lib / "bin/python3").symlink_to(sys.executable)
    python = os.path.realpath(sys.executable)
    script = (TOP / "install/launcher/script.py").read_text()
    (lib / "bin/pyrunc-script").write_text(script.replace("@PYTHON@", python).replace("@SITE@", str(site)))
    (lib / "bin/pyrunc-script").chmod(0o755)
    log = lib / "log"
    # Through a link, for a test that wants another Python to be there.
    (lib / "python").symlink_to(python)
    words = [str(TOP / "install/launcher/build"), str(lib), str(lib / "python"), str(site)]
    built = subprocess.run(words, env={**os.environ, "BUILD_LOG": str(log)}, check=False)
    if built.returncode != 0:
        if not list(Path(sysconfig.get_config_var("LIBPL")).glob("libpython*.a")):
            pytest.skip("this Python comes without a static library to build the program from")
        pytest.fail(log.read_text())
    return lib
