"""Fixtures for tests that make real system calls: each in a process of its own, and nothing is left."""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING

import pytest

from tests.support.mounts import read_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def forked() -> Callable[[Callable[[], object]], str]:
    """Run a function in a forked process: gives repr() of its result, or fails with its traceback."""

    def run(function: Callable[[], object]) -> str:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.close(reader)
                os.write(writer, repr(function()).encode())
                status = 0
            except BaseException:  # noqa: BLE001 - whatever it is, the parent is told, and pytest does not run twice
                os.write(writer, traceback.format_exc().encode())
            finally:
                os._exit(status)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            answer = pipe.read().decode()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert status == 0, f"exit status {status}:\n{answer}"
        return answer

    return run


@pytest.fixture
def cgroup2() -> Iterator[str]:
    """A fresh cgroup v2 directory, wherever the hierarchy is mounted; removed afterwards."""
    points = [row.place for row in read_rows() if row.kind == "cgroup2"]
    if not points:
        pytest.skip("no cgroup v2 hierarchy is mounted")
    path = f"{points[0]}/pyrunc-test-{os.getpid()}"
    os.mkdir(path)
    yield path
    os.rmdir(path)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs root where there is none, saying so."""
    if os.geteuid() != 0:
        for item in items:
            if item.get_closest_marker("root"):
                item.add_marker(pytest.mark.skip(reason="needs real root: mounts and namespaces"))
