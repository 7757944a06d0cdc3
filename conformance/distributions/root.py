"""A new root file system of a distribution, with this checkout in it.

debootstrap makes one for each suite (archive.py). It is kept in the cache (conformance/debian.py) and never
changed; tests run in a copy. `enter` enters it. A copy can be kept, too, to be entered again later.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from conformance import debian
from conformance.distributions.archive import pristine

if TYPE_CHECKING:
    from collections.abc import Iterable

    from conformance.distributions.archive import Archive

HERE = Path(__file__).parent
TOP = HERE.parents[1]
PLACE = debian.CACHE / "distributions"
CHECKOUT = "/srv/pyrunc"
# What the machine trusts, for a registry behind a proxy of the machine's own.
TRUSTED = Path("/etc/ssl/certs/ca-certificates.crt")
_TRUSTED_INSIDE = "/usr/local/share/machine.crt"


def pyenv(version: str) -> Path:
    """Return the directory of pyenv's newest Python of a version ("3.12").

    Raises:
        debian.UnavailableError: there is none.

    """
    top = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    found = [path for path in top.glob(f"{version}.*") if (path / "bin/python3").exists()]
    if not found:
        raise debian.UnavailableError(f"pyenv has no Python {version} here")
    return max(found, key=lambda path: [int(part) for part in path.name.split(".") if part.isdigit()])


class Root:
    """A copy of a root file system, to be entered."""

    def __init__(self, directory: Path, environment: dict[str, str], binds: list[str]) -> None:
        """Say which.

        Args:
            directory: what close() removes; the root file system is in it.
            environment: of commands inside.
            binds: as `enter` reads them.

        """
        self.directory = directory
        self.path = directory / "root"
        self.environment = environment
        self.binds = binds

    def like_the_machine(self) -> None:
        """Take over how the machine reaches its registries."""
        for name in ("resolv.conf", "hosts"):
            (self.path / "etc" / name).unlink(missing_ok=True)
            shutil.copyfile(f"/etc/{name}", self.path / "etc" / name)
        if TRUSTED.exists():
            shutil.copyfile(TRUSTED, f"{self.path}{_TRUSTED_INSIDE}")
            self.environment["PIP_CERT"] = _TRUSTED_INSIDE
        # A mirror may be a copy of an earlier day, and sid's lists are valid for a week only.
        settings = 'APT::Keep-Downloaded-Packages "true";\nAcquire::Check-Valid-Until "false";\n'
        (self.path / "etc/apt/apt.conf.d/tests").write_text(settings)
        # It is thrown away, and waiting for a busy disk after every file takes minutes.
        (self.path / "etc/dpkg/dpkg.cfg.d/fast").write_text("force-unsafe-io\n")

    def check_out(self) -> None:
        """Clone this checkout, or bring the clone up to date, and carry over what has changed here."""
        clone = f"{self.path}{CHECKOUT}"
        git = ["git", "-c", "safe.directory=*"]
        if os.path.exists(clone):
            debian.call([*git, "-C", clone, "fetch", "-q", str(TOP), "HEAD"])
            debian.call([*git, "-C", clone, "checkout", "-q", "--force", "--detach", "FETCH_HEAD"])
            debian.call([*git, "-C", clone, "clean", "-q", "-fd"])
        else:
            debian.call([*git, "clone", "-q", "--no-hardlinks", str(TOP), clone])
        changed = debian.call([*git, "-C", str(TOP), "ls-files", "-mo", "--exclude-standard"]).splitlines()
        for name in changed:
            if (TOP / name).exists():
                (Path(clone) / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(TOP / name, f"{clone}/{name}", follow_symlinks=False)

    def install(self, *packages: str) -> None:
        """Install packages of the distribution's."""
        self.succeed("apt-get", "update", "-qq")
        self.succeed("apt-get", "install", "-qq", "-y", "--no-install-recommends", *packages)

    def run(self, *words: str, seconds: float = 1800) -> subprocess.CompletedProcess[str]:
        """Run a command in the checkout, inside; its output comes with its errors."""
        inside = ["sh", "-c", f'cd {CHECKOUT} && exec "$@"', "sh", *words]
        return subprocess.run(
            [str(HERE / "enter"), str(self.path), *inside],
            env={**self.environment, "BINDS": "\n".join(self.binds)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds,
        )

    def succeed(self, *words: str, seconds: float = 1800) -> str:
        """Run a command inside and return what it says.

        Raises:
            AssertionError: it failed.

        """
        done = self.run(*words, seconds=seconds)
        assert done.returncode == 0, f"{' '.join(words)} -> {done.returncode}\n{done.stdout[-8000:]}"
        return done.stdout

    def file(self, path: str) -> Path:
        """Return where a file of the inside is for the outside."""
        return Path(f"{self.path}{path}")

    def keep(self, name: str) -> None:
        """Let kept() find it by a name, in place of an earlier one."""
        place = PLACE / "kept" / re.sub(r"[^a-z0-9.]+", "-", name.lower())
        place.parent.mkdir(exist_ok=True)
        shutil.rmtree(place, ignore_errors=True)
        self.directory.rename(place)
        self.directory, self.path = place, place / "root"
        described = {"name": name, "environment": self.environment, "binds": self.binds}
        (place / "kept.json").write_text(json.dumps(described, indent=1))

    def close(self) -> None:
        """Remove it."""
        shutil.rmtree(self.directory)


def reachable(root: Path, directory: Path) -> None:
    """Let ordinary users come to a directory, although it may be below a home directory."""
    for parent in [*directory.parents][-2::-1]:
        inside = root / str(parent).lstrip("/")
        inside.mkdir(exist_ok=True)
        inside.chmod(inside.stat().st_mode | 0o111)


def make(suite: str, python: str, packages: Iterable[str], archive: Archive | None = None) -> Root:
    """Return a copy of a suite's root file system, with a fresh clone of this checkout and its changes.

    Args:
        suite: a distribution's.
        python: a version of pyenv's to build with, "" for the distribution's own.
        packages: what else is installed.
        archive: where the suite is, if this machine's apt does not know it.

    Raises:
        debian.UnavailableError: something cannot be had.

    """
    source = pristine(suite, archive)
    python_directory = pyenv(python) if python else None
    environment = {
        **{name: text for name, text in os.environ.items() if name.startswith(("PIP_", "LC_", "http"))},
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "CI": "true",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    }
    binds = [f"{PLACE / suite}.debs var/cache/apt/archives"]
    (PLACE / f"{suite}.debs/partial").mkdir(parents=True, exist_ok=True)
    if python_directory is not None:
        binds.append(f"{python_directory} {str(python_directory).lstrip('/')} ro")
        environment["PYTHON"] = f"{python_directory}/bin/python{python}"
    root = Root(Path(tempfile.mkdtemp(prefix="try-", dir=PLACE)), environment, binds)
    try:
        debian.call(["cp", "-a", "--reflink=auto", str(source), str(root.path)])
        root.like_the_machine()
        root.check_out()
        if python_directory is not None:
            reachable(root.path, python_directory)
        if packages:
            root.install(*packages)
    except BaseException:
        root.close()
        raise
    return root


def kept() -> dict[str, Root]:
    """Return the roots that were kept, by their names."""
    found = {}
    for file in sorted((PLACE / "kept").glob("*/kept.json")):
        told = json.loads(file.read_text())
        found[told["name"]] = Root(file.parent, told["environment"], told["binds"])
    return found
