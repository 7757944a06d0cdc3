"""What is installed is all of pyrunc, and works without the checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Build a wheel from a copy, with the tools that are here."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "copy"
    copy.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md"):
        (copy / name).write_bytes((ROOT / name).read_bytes())
    words = ["cp", "-r", str(ROOT / "pyrunc"), str(ROOT / "schema"), str(copy)]
    subprocess.run(words, check=True)
    for built in copy.glob("pyrunc/**/*.so"):
        built.unlink()
    words = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-build-isolation",
        "--no-deps",
        "-w",
        str(folder),
        str(copy),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_one_wheel_serves_every_python(wheel: zipfile.ZipFile) -> None:
    assert "-cp311-abi3-linux_" in str(wheel.filename)
    assert any(re.fullmatch(r"pyrunc/linux/_linux\.abi3\.so", name) for name in wheel.namelist())


def test_the_wheel_has_every_module_and_schema(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    modules = {
        str(path.relative_to(ROOT)) for path in (ROOT / "pyrunc").rglob("*.py*") if path.suffix != ".pyc"
    }
    schemas = {f"pyrunc/schema/{path.name}" for path in (ROOT / "schema").glob("*.json")}
    assert schemas
    assert (modules | schemas) - names == set()
    assert [name for name in names if name.endswith((".c", ".h"))] == []


def test_the_wheel_works_without_the_checkout(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / "site")
    (tmp_path / "config.json").write_text('{"ociVersion": "1.0.2", "hostname": 1}')
    paths = [str(tmp_path / "site"), *(path for path in sys.path if path.endswith("site-packages"))]
    program = f"import sys; sys.path[:0] = {paths!r}; from pyrunc.__main__ import main; main()"
    words = [sys.executable, "-IS", "-c", program, "--root", str(tmp_path / "state"), "run", "x"]
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, cwd=tmp_path, env=dict(os.environ)
    )
    assert done.returncode == 1
    assert "/hostname" in done.stderr


def test_make_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (help .*)$", text, re.MULTILINE)
    assert phony
    said = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = dict(re.findall(r"^  make (\S+) +(\S.*)$", said, re.MULTILINE))
    assert set(listed) == set(phony[1].split())
