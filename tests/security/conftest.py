"""Fixtures of the attacks: a bundle, a runtime, a file of the host to attack, and C programs to attack it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import Bundle, Canary, Runtime
from tests.support.marks import mark_containers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here, and skip it where no container can be made."""
    mark_containers(items, Path(__file__).parent, "attack")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle(tmp_path / "bundle")


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    made = Runtime(tmp_path / "state")
    yield made
    made.close()


@pytest.fixture
def canary(tmp_path: Path) -> Canary:
    return Canary(tmp_path / "host")


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that compiles a C program statically (once per session)."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc for the attacker's program")
    directory = tmp_path_factory.mktemp("attackers")

    def build(name: str, source: str, *options: str) -> Path:
        program = directory / name
        if not program.exists():
            (directory / f"{name}.c").write_text(source)
            flags = options or ("-static",)
            subprocess.run(["gcc", "-O1", *flags, "-o", program, directory / f"{name}.c"], check=True)
        return program

    return build
