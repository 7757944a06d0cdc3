"""Packages of other suites of Debian, without changing the machine's own apt.

Fetched files are kept below CACHE, outside the checkout, and fetched again if they are removed; the mirror is
the one of this machine's apt.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CACHE = Path(os.environ.get("PYRUNC_CONFORMANCE_CACHE", "/var/cache/pyrunc-conformance"))
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_FRESH = 86400  # seconds for which a list of packages is good enough


class UnavailableError(Exception):
    """Something is not available here; the text says what was tried."""


@contextmanager
def locked(name: str) -> Iterator[Path]:
    """Yield a directory of the cache that no other process changes meanwhile."""
    directory = CACHE / name
    directory.mkdir(parents=True, exist_ok=True)
    with open(f"{directory}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield directory


def call(words: Sequence[str], **options: object) -> str:
    """Run a program and return what it says.

    Raises:
        UnavailableError: it failed, or is not there.

    """
    try:
        done = subprocess.run(  # type: ignore[call-overload]
            words,
            capture_output=True,
            text=True,
            check=False,
            **{"timeout": 900, "stdin": subprocess.DEVNULL, **options},
        )
    except FileNotFoundError:
        raise UnavailableError(f"{words[0]} is not installed") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-3:]
        raise UnavailableError(f"{' '.join(words[:2])} ... {words[-1]}: {' / '.join(said)}")
    return str(done.stdout)


def mirror() -> str:
    """Return where this machine's apt has Debian from.

    Raises:
        UnavailableError: it is no Debian.

    """
    words = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Label: Debian"]
    found = call(words).split()
    if not found:  # a fresh machine's lists may be absent, and with them the label
        call(["apt-get", "update", "-qq"])
        found = call(words).split()
    if not found:
        raise UnavailableError("apt has no mirror of Debian here")
    return found[0].rstrip("/")


class Suite:
    """One suite of Debian's, with lists of packages of its own."""

    def __init__(self, name: str, architecture: str = "") -> None:
        """Say which: "bullseye", "sid"; architecture: of its packages, "" for this machine's.

        Raises:
            UnavailableError: its lists cannot be had.

        """
        self.name = name
        self.architecture = architecture
        place = "-".join(filter(None, (name, architecture)))
        self.directory = CACHE / "apt" / place
        with locked(f"apt/{place}"):
            self._update()

    def _update(self) -> None:
        sources = self.directory / "sources.list"
        for part in ("lists/partial", "archives/partial"):
            (self.directory / part).mkdir(parents=True, exist_ok=True)
        if sources.exists() and time.time() - sources.stat().st_mtime < _FRESH:
            return
        text = f"deb [signed-by={KEYRING}] {mirror()} {self.name} main\n"
        new = self.directory / "sources.new"
        new.write_text(text)
        self._apt("apt-get", "update", "-qq", sources=new)
        new.rename(sources)

    def _apt(self, program: str, *words: str, sources: Path | None = None, **options: object) -> str:
        settings = {
            "Dir::Etc::SourceList": sources or self.directory / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State::Lists": self.directory / "lists",
            "Dir::State::Status": "/dev/null",  # nothing of it is installed
            "Dir::Cache::Archives": self.directory / "archives",
            "Dir::Cache::PkgCache": "",
            "Dir::Cache::SrcPkgCache": "",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::Check-Valid-Until": "false",  # an old suite is not signed anew
        }
        if self.architecture:
            settings |= {"APT::Architecture": self.architecture, "APT::Architectures::": self.architecture}
        given = [f"-o{name}={value}" for name, value in settings.items()]
        return call([program, *given, *words], **options)

    def needed(self, package: str, prefix: str) -> list[str]:
        """Return a package and all it needs whose names begin with a prefix."""
        said = self._apt(
            "apt-cache", "depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts",
            "--no-breaks", "--no-replaces", "--no-enhances", package,
        )  # fmt: skip
        names = {line for line in said.splitlines() if line.startswith(prefix)}
        return sorted(names | {package})

    def unpack(self, packages: Sequence[str], into: Path) -> None:
        """Fetch packages and unpack them, without installing them.

        Raises:
            UnavailableError: they cannot be had.

        """
        place = into.with_name(f"{into.name}.debs")
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        try:
            self._apt("apt-get", "download", "-qq", *packages, cwd=place)
            for file in sorted(place.glob("*.deb")):
                call(["dpkg-deb", "--extract", str(file), str(into)])
        finally:
            shutil.rmtree(place)

    def unpack_with_needs(self, packages: Sequence[str], into: Path) -> None:
        """Fetch packages and all that they need, and unpack them, without running anything of theirs.

        Raises:
            UnavailableError: they cannot be had.

        """
        words = ("-qq", "-y", "--no-install-recommends", "--download-only", "-oDebug::NoLocking=1")
        self._apt("apt-get", "install", *words, *packages)
        # What a package has in /bin goes to /usr/bin, where /bin is a link to it.
        tar = ["tar", "--extract", "--keep-directory-symlink", "--directory", str(into)]
        for file in sorted((self.directory / "archives").glob("*.deb")):
            with subprocess.Popen(
                ["dpkg-deb", "--fsys-tarfile", str(file)], stdout=subprocess.PIPE
            ) as unpacked:
                call(tar, stdin=unpacked.stdout)
        shutil.rmtree(self.directory / "archives")
        (self.directory / "archives/partial").mkdir(parents=True)
