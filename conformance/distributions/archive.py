"""Where a distribution comes from, and its root file system as debootstrap makes it."""

from __future__ import annotations

import hashlib
import shutil
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, NamedTuple

from conformance import debian

if TYPE_CHECKING:
    from pathlib import Path

# What a checkout needs before `make run` on a machine that has nothing.
PACKAGES = "make,git,ca-certificates"


class Archive(NamedTuple):
    """An archive that this machine's apt does not know; a table of matrix.toml.

    Attributes:
        url: of the archive.
        components: what debootstrap takes packages from, separated by commas.
        script: of debootstrap's, for it may be older than a suite.
        package: the package with the archive's keys, a path below its url.
        sha256: of that package. It is what is trusted: nothing else here knows these keys.
        keyring: the file with the keys, in that package.

    """

    url: str
    components: str
    script: str
    package: str
    sha256: str
    keyring: str

    def keys(self, place: Path) -> Path:
        """Fetch the keyring's package and unpack it below `place`; return the keyring.

        Raises:
            debian.UnavailableError: it cannot be had, or is not the one that is trusted.

        """
        address = f"{self.url}/{self.package}"
        try:
            with urllib.request.urlopen(address, timeout=60) as answer:
                content = answer.read()
        except (urllib.error.URLError, TimeoutError) as why:
            raise debian.UnavailableError(f"{address}: {why}") from None
        found = hashlib.sha256(content).hexdigest()
        if found != self.sha256:
            raise debian.UnavailableError(f"{address} has the SHA-256 sum {found}, not {self.sha256}")
        (place / "keyring.deb").write_bytes(content)
        debian.call(["dpkg-deb", "--extract", str(place / "keyring.deb"), str(place / "keyring")])
        return place / "keyring" / self.keyring


def pristine(suite: str, archive: Archive | None = None) -> Path:
    """Return a suite's root file system as debootstrap makes it.

    Args:
        suite: its name.
        archive: where it is; None for Debian's, as this machine's apt has it.

    Raises:
        debian.UnavailableError: it cannot be had.

    """
    with debian.locked(f"distributions/{suite}") as directory:
        if not (directory / "whole").exists():
            shutil.rmtree(directory)
            directory.mkdir()
            words = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}"]
            place = [suite, str(directory / "root")]
            if archive is None:
                words += [*place, debian.mirror()]
            else:
                words += [f"--components={archive.components}", f"--keyring={archive.keys(directory)}"]
                words += [*place, archive.url, archive.script]
            debian.call(words)
            (directory / "whole").touch()
    return directory / "root"
