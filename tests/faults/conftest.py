"""The command under faults needs root, a static busybox, a C compiler and the right to use ptrace."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults import faults
from tests.faults.bench import Bench
from tests.support.marks import mark_containers

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here, and skip it where no container can be made."""
    mark_containers(items, HERE)


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that makes calls fail."""
    directory = tmp_path_factory.mktemp("fault")
    made = faults.compiled(directory)
    if not faults.may_trace(made, directory):
        pytest.skip("nobody may be traced here (ptrace is refused)")
    return made


@pytest.fixture
def bench(program: Path) -> Iterator[Bench]:
    place = Path(tempfile.mkdtemp(prefix="pyrunc-faults-", dir="/tmp"))
    place.chmod(0o755)
    made = Bench(place, program)
    yield made
    try:
        made.close()
    finally:
        shutil.rmtree(place)
