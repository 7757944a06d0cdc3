"""How fast volumes are: python3 -m bench.volumes [--files N] [--rounds N] [--dir DIR].

It compares copy-up with `cp -a` on the same tree. They take turns, each into an empty directory of the same
file system. It also lists and prunes ten thousand volumes. The ratios count; absolute times depend on the
disk.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# A process like the command's own, isolated and without site, that fills one volume.
FILL = """
import os, sys
sys.path[:0] = [sys.argv[1]]
from pyrunc.volumes import copyup
volume = os.open(sys.argv[3], os.O_RDONLY | os.O_DIRECTORY)
copyup.fill(copyup.open_image(sys.argv[2]), "/data", volume, "bench")
"""


def tree(top: Path, files: int) -> None:
    """Make small files: a thousand to a directory, 200 bytes to 8 KiB, some of them symlinks or links."""
    for number in range(files):
        folder = top / f"d{number // 1000}"
        if not number % 1000:
            folder.mkdir(parents=True)
        place = folder / f"f{number}"
        if number % 20 == 10:
            place.symlink_to("f0")
        elif number % 20 == 11:
            os.link(folder / f"f{number - 2}", place)
        else:
            place.write_bytes(b"x" * (200 if number % 10 else 8192))


def timed(words: list[str]) -> tuple[float, float]:
    """Run a command; return its wall-clock and CPU seconds."""
    before = os.times()
    start = time.perf_counter()
    subprocess.run(words, check=True)
    wall = time.perf_counter() - start
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, cpu


def copy_up(folder: Path, files: int, rounds: int) -> None:
    """Compare copy-up with cp -a."""
    source = folder / "rootfs/data"
    tree(source, files)
    taken: dict[str, list[tuple[float, float]]] = {"copy-up": [], "cp -a": []}
    for number in range(rounds + 1):
        for name in sorted(taken, reverse=bool(number % 2)):
            # Nothing is removed in between: ext4 takes long to find free inodes if some were freed just
            # before.
            target = folder / f"target-{name}-{number}"
            target.mkdir()
            os.sync()
            if name == "cp -a":
                words = ["cp", "-a", f"{source}/.", str(target)]
            else:
                words = [sys.executable, "-IS", "-c", FILL, str(ROOT), str(source.parent), str(target)]
            times = timed(words)
            if number:  # the first round warms up
                taken[name].append(times)
    print(f"{files:,} small files, median of {rounds}: seconds (of CPU)")
    medians = {
        name: [statistics.median(column) for column in zip(*rows, strict=True)]
        for name, rows in taken.items()
    }
    for name, (wall, cpu) in medians.items():
        print(f"  {name:8} {wall:6.2f} ({cpu:.2f})")
    ratio = [ours / theirs for ours, theirs in zip(medians["copy-up"], medians["cp -a"], strict=True)]
    print(f"  copy-up / cp -a: {ratio[0]:.2f} ({ratio[1]:.2f})")


def many(folder: Path, program: str, count: int) -> None:
    """List, filter and prune many volumes."""
    sys.path[:0] = [str(ROOT)]
    from pyrunc.volumes.volume_store import Store

    store = Store(str(folder / "volumes"))
    for _ in range(count):
        store.make(os.urandom(32).hex(), labels={"bench": "yes"}, anonymous=True)
    print(f"{count:,} volumes: milliseconds")
    for words in (
        ["ls", "-q"],
        ["ls", "--filter", "label=bench"],
        ["ls", "--filter", "dangling=true"],
        ["ls", "--format", "json"],
        ["prune", "--dry-run"],
        ["prune", "--force"],
    ):
        start = time.perf_counter()
        command = [program, "--volume-root", store.path, "volume", *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        print(f"  volume {' '.join(words):28} {1000 * (time.perf_counter() - start):6.0f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.volumes", description=__doc__)
    parser.add_argument("--files", type=int, default=100_000, help="files to copy up")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each")
    parser.add_argument("--volumes", type=int, default=10_000, help="volumes to list")
    parser.add_argument("--dir", help="where to do it (default: the directory for temporary files)")
    parser.add_argument("--pyrunc", default="/usr/local/bin/pyrunc", help="the command to measure")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pyrunc-bench-", dir=arguments.dir) as work:
        copy_up(Path(work), arguments.files, arguments.rounds)
        many(Path(work), arguments.pyrunc, arguments.volumes)


if __name__ == "__main__":
    main()
