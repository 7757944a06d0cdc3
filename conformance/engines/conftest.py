"""The engines as fixtures: one daemon or storage for the whole session, and a clean one for each check."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from conformance.engines import host
from conformance.engines.buildah import Buildah
from conformance.engines.containerd import Containerd
from conformance.engines.cri import Cri
from conformance.engines.docker import Docker
from conformance.engines.podman import Podman
from conformance.engines.podman_rootless import RootlessPodman

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.engines.client import Client
    from conformance.engines.host import Session


@pytest.fixture(scope="session")
def containerd_daemon(session: Session) -> Iterator[Containerd]:
    """One containerd with the image in it."""
    containerd = Containerd(session)
    containerd.start_daemon()
    try:
        containerd.import_image(session.archive)
        yield containerd
        containerd.remove_everything()
    finally:
        containerd.stop_daemon()


@pytest.fixture(scope="session")
def cri_daemon(session: Session) -> Iterator[Cri]:
    """One containerd with the CRI plugin and the images in it."""
    cri = Cri(session)
    try:
        cri.start_daemon()
        cri.load_images()
        yield cri
        cri.remove_everything()
    finally:
        cri.stop_daemon()


@pytest.fixture(scope="session")
def docker_daemon(session: Session) -> Iterator[Docker]:
    """One dockerd with the image in it."""
    docker = Docker(session)
    docker.start_daemon()
    try:
        docker.succeed("load", "--input", session.archive)
        yield docker
        docker.remove_everything()
    finally:
        docker.stop_daemon()


@pytest.fixture(scope="session")
def podman_storage(session: Session) -> Iterator[Podman]:
    """One storage of Podman's with the image in it."""
    podman = Podman(session)
    podman.load_images()
    yield podman
    podman.remove_everything()


@pytest.fixture(scope="session")
def rootless_storage(session: Session) -> Iterator[RootlessPodman]:
    """One storage of an ordinary user's Podman with the image in it."""
    podman = RootlessPodman(session)
    allowed = host.call([podman.enter, "unshare", "--user", "true"])
    if allowed.code != 0:
        pytest.skip(f"no user namespaces for ordinary users here: {allowed.err.strip()}")
    podman.load_images()
    yield podman
    podman.remove_everything()
    podman.close()


@pytest.fixture(scope="session")
def buildah_storage(session: Session) -> Buildah:
    """One storage of buildah's with the image in it."""
    buildah = Buildah(session)
    buildah.make_image()
    return buildah


@contextlib.contextmanager
def nothing_left(engine: Client | Containerd | Buildah) -> Iterator[None]:
    """Give the engine to one check. What the check leaves is removed; if something remains, it fails."""
    yield
    engine.remove_everything()
    assert host.new_leftovers(engine.leftovers, engine.known_leftovers) == []


@pytest.fixture
def containerd(containerd_daemon: Containerd) -> Iterator[Containerd]:
    """Containerd for one check, after which nothing may be left."""
    with nothing_left(containerd_daemon):
        yield containerd_daemon


@pytest.fixture
def cri(cri_daemon: Cri) -> Iterator[Cri]:
    """CRI for one check, after which nothing may be left."""
    with nothing_left(cri_daemon):
        yield cri_daemon


@pytest.fixture
def docker(docker_daemon: Docker) -> Iterator[Docker]:
    """Docker for one check, after which nothing may be left."""
    with nothing_left(docker_daemon):
        yield docker_daemon


@pytest.fixture
def podman(podman_storage: Podman) -> Iterator[Podman]:
    """Podman for one check, after which nothing may be left."""
    with nothing_left(podman_storage):
        yield podman_storage


@pytest.fixture
def rootless(rootless_storage: RootlessPodman) -> Iterator[RootlessPodman]:
    """Podman of an ordinary user for one check, after which nothing may be left."""
    with nothing_left(rootless_storage):
        yield rootless_storage


@pytest.fixture
def buildah(buildah_storage: Buildah) -> Iterator[Buildah]:
    """Buildah for one check, after which nothing may be left."""
    with nothing_left(buildah_storage):
        yield buildah_storage


@pytest.fixture(params=["docker", "podman", "rootless"])
def client(request: pytest.FixtureRequest) -> Client:
    """Each engine with Docker's command line in turn."""
    engine: Client = request.getfixturevalue(request.param)
    return engine


@pytest.fixture(params=["docker", "podman"])
def rooted(request: pytest.FixtureRequest) -> Client:
    """Each engine with Docker's command line that root calls, so that there are cgroups and devices."""
    engine: Client = request.getfixturevalue(request.param)
    return engine
