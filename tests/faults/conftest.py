"""The command under faults needs root, a static busybox, a C compiler and leave to trace."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults import faults
from tests.faults.bench import Bench
from tests.support.containers import BUSYBOX

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts containers, and skip it where none can be made."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("container")
            item.add_marker("root")
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="containers are tried as real root here"))
            elif BUSYBOX is None:
                item.add_marker(pytest.mark.skip(reason="needs a static busybox for the image"))


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
