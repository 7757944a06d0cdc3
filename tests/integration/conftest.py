"""Fixtures of the tests with real containers; after each test they check that nothing is left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import installed as installation
from tests.support.containers import Bundle
from tests.support.criu import Fake, stand_in
from tests.support.engine import Engine
from tests.support.leaks import Watch
from tests.support.marks import mark_containers
from tests.support.mounts import HostMounts
from tests.support.ordinary import Ordinary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here, and skip it where no container can be made."""
    mark_containers(items, HERE)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an installed command that was built from this checkout."""
    return installation.build(tmp_path_factory.mktemp("installed"))


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory for bundles that the root of a user namespace can reach, unlike tmp_path."""
    made = Path(tempfile.mkdtemp(prefix="pyrunc-test-", dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def bundle(place: Path) -> Bundle:
    return Bundle(place / "bundle")


@pytest.fixture
def bundles(place: Path) -> Callable[[str], Bundle]:
    """Return a function that makes further bundles, by name."""
    return lambda name: Bundle(place / name)


@pytest.fixture
def source(place: Path) -> Path:
    """A directory of the host with a file."""
    made = place / "source"
    made.mkdir()
    (made / "file").write_text("of the host\n")
    return made


@pytest.fixture
def shared(place: Path) -> Iterator[Path]:
    """A mount that is shared."""
    made = place / "shared"
    made.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "shared", made], check=True)
    subprocess.run(["mount", "--make-shared", made], check=True)
    yield made
    subprocess.run(["umount", "-R", made], check=True)


@pytest.fixture
def host() -> Iterator[HostMounts]:
    """Mounts of the host that are unmounted after the test."""
    made = HostMounts()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def engine(place: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """The command under test with a state root of its own; its containers are deleted at the end.

    Autouse: a test that only looks at the host is watched as well.
    """
    made = Engine(tmp_path)
    watch = Watch([tmp_path, place], made.root)
    yield made
    made.close()
    left = watch.leaks(made.ids)
    assert not left, f"{request.node.name} left behind:\n" + "\n".join(left)


@pytest.fixture
def fake(tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """A program in place of CRIU."""
    return stand_in(tmp_path / "fake", place, monkeypatch)


@pytest.fixture
def user(engine: Engine, place: Path, reachable_command: list[str]) -> Iterator[Ordinary]:
    """An ordinary user; none of its containers may be left."""
    made = Ordinary(place, reachable_command)
    made.ids = engine.ids  # their cgroups and processes are looked for with the others
    yield made
    made.close()
    left = [name for name in os.listdir(made.root) if not name.startswith("@")] if made.root.exists() else []
    assert not left
