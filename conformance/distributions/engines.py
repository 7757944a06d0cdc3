"""The newest engines, from another suite of Debian: conformance/engines runs in its root file system.

sudo .venv/bin/python -m conformance.distributions.engines [--suite trixie] [NAME...]

NAME is the beginning of the checks' files (clients, podman, docker, containerd, buildah, ...). They run
for pyrunc, installed there by `make install`, and for that suite's runc; tables go to conformance/results.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from conformance.distributions.root import CHECKOUT, TOP, Root, make

NAMES = ("clients", "podman", "docker", "containerd", "buildah", "buildkit", "compose", "checkpoints")
RESULTS = TOP / "conformance/results"
# Beside conformance/packages.txt: Docker's client, which is a package of its own since Debian 13, the runtime
# to compare with, ps for `docker top`, Podman's network, the client's part of BuildKit, a newer CRIU.
PACKAGES = (
    *("docker-cli", "runc", "procps", "netavark", "aardvark-dns", "passt", "iptables", "fuse-overlayfs"),
    *("docker-buildx", "criu"),
)
HOURS = 2 * 3600


def listed(path: Path) -> list[str]:
    """Return the packages of a list."""
    lines = (line.strip() for line in path.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def prepare(suite: str) -> Root:
    """Return a root file system of a suite with its engines and pyrunc."""
    root = make(suite, "", [*listed(TOP / "conformance/packages.txt"), *PACKAGES])
    try:
        root.succeed("make", "install", ".venv/ready", seconds=HOURS)
    except BaseException:
        root.close()
        raise
    return root


def versions(root: Root) -> str:
    """Return which engines there are."""
    said = root.succeed("dpkg-query", "-W", "-f=${Package} ${Version}\n", "podman", "docker.io", "containerd")
    found = dict(line.split(" ", 1) for line in said.splitlines() if " " in line)
    titles = {"podman": "Podman", "docker.io": "Docker", "containerd": "containerd"}
    plain = {name: version.partition("+")[0].partition("~")[0] for name, version in found.items()}
    return ", ".join(f"{title} {plain[name]}" for name, title in titles.items())


def run(root: Root, suite: str, name: str, engines: str) -> bool:
    """Run the checks of one name; tell whether pyrunc passes."""
    output = f"/srv/{name}"
    words = [".venv/bin/python", "-m", "conformance.engines", name, "--output", output]
    words += ["--engine", f"{engines} (Debian's {suite})"]
    words += ["--runtime", "pyrunc=/usr/local/bin/pyrunc", "--runtime", "runc=/usr/sbin/runc"]
    done = root.run(*words, seconds=HOURS)
    print(done.stdout[-20000:], flush=True)
    for ending in ("md", "json"):
        made = root.file(f"{output}.{ending}")
        if made.exists():
            shutil.copyfile(made, RESULTS / f"{name}_{suite}.{ending}")
    return done.returncode == 0


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(prog="conformance.distributions.engines", description=__doc__)
    parser.add_argument("--suite", default="trixie", help="of Debian (default: trixie)")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: {' '.join(NAMES)}")
    asked = parser.parse_args()
    root = prepare(asked.suite)
    try:
        engines = versions(root)
        print(f"{engines}, in {root.path}{CHECKOUT}", flush=True)
        passed = [run(root, asked.suite, name, engines) for name in asked.names or NAMES]
    finally:
        root.close()
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
