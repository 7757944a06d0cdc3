"""A new root file system of a distribution, with this checkout in it.

debootstrap makes one for each suite. It is kept in the cache (conformance/debian.py) and never changed; tests
run in a copy. `enter` enters it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from conformance import debian

if TYPE_CHECKING:
    from collections.abc import Iterable

HERE = Path(__file__).parent
TOP = HERE.parents[1]
CHECKOUT = "/srv/pyrunc"
# What a checkout needs before `make run` on a machine that has nothing.
PACKAGES = "make,git,ca-certificates"
# What the machine trusts, for a registry behind a proxy of the machine's own.
TRUSTED = Path("/etc/ssl/certs/ca-certificates.crt")
_TRUSTED_INSIDE = "/usr/local/share/machine.crt"


def pristine(suite: str) -> Path:
    """Return a suite's root file system as debootstrap makes it.

    Raises:
        debian.UnavailableError: it cannot be had.

    """
    with debian.locked(f"distributions/{suite}") as directory:
        if not (directory / "whole").exists():
            shutil.rmtree(directory)
            directory.mkdir()
            words = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite]
            debian.call([*words, str(directory / "root"), debian.mirror()])
            (directory / "whole").touch()
    return directory / "root"


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

    def __init__(self, suite: str, python: str, packages: Iterable[str]) -> None:
        """Make it, with a fresh clone of this checkout and its changes.

        Args:
            suite: of Debian.
            python: a version of pyenv's to build with, "" for the distribution's own.
            packages: what else is installed.

        Raises:
            debian.UnavailableError: something cannot be had.

        """
        source = pristine(suite)
        python_directory = pyenv(python) if python else None
        place = debian.CACHE / "distributions"
        self.directory = Path(tempfile.mkdtemp(prefix="try-", dir=place))
        self.path = self.directory / "root"
        debian.call(["cp", "-a", "--reflink=auto", str(source), str(self.path)])
        self.binds = [f"{debian.CACHE / 'distributions' / suite}.debs var/cache/apt/archives"]
        (place / f"{suite}.debs/partial").mkdir(parents=True, exist_ok=True)
        self.environment = {
            **{name: text for name, text in os.environ.items() if name.startswith(("PIP_", "LC_", "http"))},
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "CI": "true",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        }
        if python_directory is not None:
            self.binds.append(f"{python_directory} {str(python_directory).lstrip('/')} ro")
            self.environment["PYTHON"] = f"{python_directory}/bin/python{python}"
        self._like_the_machine()
        self._checkout()
        if packages:
            self.succeed("apt-get", "update", "-qq")
            self.succeed("apt-get", "install", "-qq", "-y", "--no-install-recommends", *packages)

    def _like_the_machine(self) -> None:
        """Take over how the machine reaches its registries."""
        for name in ("resolv.conf", "hosts"):
            (self.path / "etc" / name).unlink(missing_ok=True)
            shutil.copyfile(f"/etc/{name}", self.path / "etc" / name)
        if TRUSTED.exists():
            shutil.copyfile(TRUSTED, f"{self.path}{_TRUSTED_INSIDE}")
            self.environment["PIP_CERT"] = _TRUSTED_INSIDE
        keep = 'APT::Keep-Downloaded-Packages "true";\n'
        (self.path / "etc/apt/apt.conf.d/keep").write_text(keep)
        # It is thrown away, and waiting for a busy disk after every file takes minutes.
        (self.path / "etc/dpkg/dpkg.cfg.d/fast").write_text("force-unsafe-io\n")

    def _checkout(self) -> None:
        """Clone this checkout, and carry over what has changed in it."""
        clone = f"{self.path}{CHECKOUT}"
        git = ["git", "-c", "safe.directory=*"]
        debian.call([*git, "clone", "-q", "--no-hardlinks", str(TOP), clone])
        changed = debian.call([*git, "-C", str(TOP), "ls-files", "-mo", "--exclude-standard"]).splitlines()
        for name in changed:
            if (TOP / name).exists():
                (Path(clone) / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(TOP / name, f"{clone}/{name}", follow_symlinks=False)

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

    def close(self) -> None:
        """Remove it."""
        shutil.rmtree(self.directory)
