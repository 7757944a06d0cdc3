"""Shared by all conformance checks: the judged runtime, the session's directory, the search for leftovers.

The whole session uses one temporary directory and one tag, and both are removed at its end.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
from typing import TYPE_CHECKING

import pytest

from conformance.engines import host, images
from conformance.engines.host import Session

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

RUNTIME = "/usr/local/bin/pyrunc"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --runtime."""
    parser.addoption(
        "--runtime",
        default=os.environ.get("PYRUNC_RUNTIME", RUNTIME),
        help=f"the runtime to judge (default: $PYRUNC_RUNTIME, else {RUNTIME})",
    )


@pytest.fixture(scope="session")
def runtime(request: pytest.FixtureRequest) -> str:
    """The runtime that is judged, as an absolute path: engines look names up in different ways."""
    name = str(request.config.getoption("--runtime"))
    found = shutil.which(name)
    if found is None:
        pytest.exit(f"{name} is not a program: run `make install`, or name another with --runtime=PATH", 2)
    if os.geteuid() != 0:
        pytest.exit("the engines need root: sudo make conformance", 2)
    return os.path.abspath(found)


def _overlay_works(directory: str) -> bool:
    """Whether the kernel mounts an overlay over this directory (not where it lies on one itself)."""
    for name in ("lower", "upper", "work", "merged"):
        os.makedirs(f"{directory}/{name}")
    where = ",".join(f"{option}dir={directory}/{option}" for option in ("lower", "upper", "work"))
    works = host.call(["mount", "-t", "overlay", "-o", where, "probe", f"{directory}/merged"]).code == 0
    if works:
        host.call(["umount", f"{directory}/merged"])
    shutil.rmtree(directory)
    return works


@pytest.fixture(scope="session")
def session(runtime: str) -> Iterator[Session]:
    """The directory, the tag and the images; at the end nothing of them may still be in use."""
    tag = f"pyrunc-conf-{secrets.token_hex(3)}"
    # A short path: sockets below it have to fit into the 108 bytes of sun_path (unix(7)).
    directory = f"/tmp/{tag}"
    os.mkdir(directory, 0o711)  # the processes of a user namespace have to reach their root file system
    layer = images.rootfs()
    for file_name, content in (("rootfs.tar", layer), ("image.tar", images.archive(layer))):
        with open(f"{directory}/{file_name}", "wb") as file:
            file.write(content)
    os.mkdir(f"{directory}/rootfs")
    host.succeed(["tar", "-C", f"{directory}/rootfs", "-xf", f"{directory}/rootfs.tar"])
    try:
        yield Session(
            runtime=runtime,
            directory=directory,
            tag=tag,
            rootfs=f"{directory}/rootfs",
            rootfs_tar=f"{directory}/rootfs.tar",
            archive=f"{directory}/image.tar",
            overlay=_overlay_works(f"{directory}/probe"),
        )
        left = host.new_leftovers(
            lambda: [str(item) for item in host.processes_with(directory).items()], known=set()
        )
    finally:
        host.clear(directory, tag)
    assert left == [], "processes that outlived the whole session"


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name for the test's container, the same in each run: the test's own."""
    words = re.sub(r"[^a-z0-9]+", "-", str(request.node.name).removeprefix("test_").lower())
    return words[:60].strip("-")


@pytest.fixture
def shared(session: Session) -> Iterator[str]:
    """A directory of the host to share with a container; it holds `file`."""
    directory = tempfile.mkdtemp(prefix="shared-", dir=session.directory)
    os.chmod(directory, 0o777)
    with open(f"{directory}/file", "w", encoding="utf-8") as file:
        file.write("from the host\n")
    os.chmod(f"{directory}/file", 0o666)  # ids of user namespaces have no rights on the host
    yield directory
    shutil.rmtree(directory)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the end of the daemon's log beside a failure: it knows what the check cannot see."""
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        logs = {getattr(fixture, "log", None) for fixture in item.funcargs.values()}
        report.sections += [(log, host.tail(log)) for log in logs if log]
    return report
