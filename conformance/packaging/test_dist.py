"""`make dist`: the files and their sums; pip, pipx and uv install the wheel; DESTDIR of `make install`."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import pyrunc
from conformance.packaging.conftest import call, runs_a_container

pytestmark = pytest.mark.timeout(600)
TOOLS = Path(sys.executable).parent
SYSTEM = call("install/python").strip()
VERSION = pyrunc.__version__


def test_the_files_are_all_there_and_have_their_sums(dist: Path) -> None:
    """Nothing is without a sum, and no sum without a file."""
    machine = os.uname().machine
    debian = subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True
    ).stdout.strip()
    listed = [line.split("  ") for line in (dist / "SHA256SUMS").read_text().splitlines()]
    sums = {name: digest for digest, name in listed}
    assert sums == {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in dist.iterdir()
        if file.name != "SHA256SUMS"
    }
    assert set(sums) >= {
        f"pyrunc-{VERSION}.tar.gz",
        f"pyrunc-{VERSION}-cp311-abi3-manylinux_2_28_{machine}.whl",
        f"pyrunc_{VERSION}-1_{debian}.deb",
        f"python3-pyrunc_{VERSION}-1_{debian}.deb",
        f"pyrunc_{VERSION}-1.dsc",
    }


def pip(wheel: Path, place: Path) -> tuple[Path, Path]:
    """Install into a virtual environment; return the command and where the manual pages are."""
    call(SYSTEM, "-m", "venv", place / "venv")
    call(place / "venv/bin/python", "-m", "pip", "install", "-q", wheel)
    return place / "venv/bin/pyrunc", place / "venv/share/man"


def pipx(wheel: Path, place: Path) -> tuple[Path, Path]:
    """Install with pipx, which links command and manual pages to where the user's are."""
    where = {"PIPX_HOME": "home", "PIPX_BIN_DIR": "bin", "PIPX_MAN_DIR": "man"}
    here = {name: str(place / folder) for name, folder in where.items()}
    call(TOOLS / "pipx", "install", wheel, PIPX_DEFAULT_PYTHON=SYSTEM, **here)
    return place / "bin/pyrunc", place / "man"


def uv(wheel: Path, place: Path) -> tuple[Path, Path]:
    """Install with uv, which links the command and leaves the manual pages in the tool's directory."""
    where = {"UV_TOOL_DIR": "tools", "UV_TOOL_BIN_DIR": "bin", "UV_CACHE_DIR": "cache"}
    here = {name: str(place / folder) for name, folder in where.items()}
    words = ("tool", "install", "--python", SYSTEM, "--no-python-downloads", wheel)
    call(TOOLS / "uv", *words, **here)
    return place / "bin/pyrunc", place / "tools/pyrunc/share/man"


@pytest.mark.parametrize("install", [pip, pipx, uv])
def test_the_wheel_brings_command_pages_completions_and_commit(
    install: object, dist: Path, commit: str, tmp_path: Path
) -> None:
    """Each tool gives the command all that belongs to it, and the command works."""
    assert callable(install)
    command, pages = install(next(dist.glob("*.whl")), tmp_path)
    said = call(command, "--version").splitlines()
    assert said[:2] == [f"pyrunc version {VERSION}", f"commit: {commit}"]
    assert said[-1].startswith("faster: ")
    assert "sudo make install" in said[-1]
    assert "pyrunc\\-run" in (pages / "man8/pyrunc-run.8").read_text()
    share = command.resolve().parent.parent / "share"
    assert (share / "bash-completion/completions/pyrunc").read_text() == call(command, "completion", "bash")
    runs_a_container(command, tmp_path / "state")


def test_a_package_is_put_together_below_destdir_and_works_where_it_belongs(tmp_path: Path) -> None:
    """No file names the directory it was put together in; uninstall leaves what is not ours."""
    stage, prefix = tmp_path / "stage", tmp_path / "final"
    call("make", "install", f"DESTDIR={stage}/", f"PREFIX={prefix}/")
    assert not prefix.exists()
    named = subprocess.run(
        ["grep", "-rlF", str(stage), str(stage)], capture_output=True, text=True, check=False
    )
    assert named.stdout == ""
    (stage / str(prefix).lstrip("/")).rename(prefix)
    command = prefix / "bin/pyrunc"
    assert f"pyrunc version {VERSION}" in call(command, "--version")
    assert "USAGE" in call(command, "run", "--help")
    runs_a_container(command, tmp_path / "state")
    kept = prefix / "bin/other"
    kept.touch()
    call("make", "uninstall", f"PREFIX={prefix}")
    assert [path for path in prefix.rglob("*") if not path.is_dir()] == [kept]
