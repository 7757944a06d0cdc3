"""The engines of another suite: reading lists and versions, without that suite."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.distributions import engines

if TYPE_CHECKING:
    from pathlib import Path


class Told:
    """Stands for a root file system, and answers like dpkg-query."""

    def succeed(self, *words: str) -> str:
        """Return the answer."""
        assert words[0] == "dpkg-query"
        return "podman 5.4.2+ds1-2+b2\ndocker.io 26.1.5+dfsg1-9\ncontainerd 1.7.24~ds1-6\n"


def test_packages_of_a_list(tmp_path: Path) -> None:
    (tmp_path / "packages.txt").write_text("# why\npodman\n\n  buildah\n")
    assert engines.listed(tmp_path / "packages.txt") == ["podman", "buildah"]


def test_versions_are_those_of_the_projects() -> None:
    said = engines.versions(Told())  # type: ignore[arg-type]
    assert said == "Podman 5.4.2, Docker 26.1.5, containerd 1.7.24"
