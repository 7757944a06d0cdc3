"""Compare `pyrunc bundle` with umoci in time, and write the table: python -m conformance.images [RUNTIME]."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from conformance.images import compare, sets
from conformance.suites import results

if TYPE_CHECKING:
    from collections.abc import Iterable

ROUNDS = 9
COLUMNS = (
    "image",
    "files",
    "MB compressed",
    "MB on disk, pyrunc",
    "umoci",
    "s, pyrunc",
    "umoci",
    "CPU s, pyrunc",
    "umoci",
    "pyrunc / umoci",
)
SHARED_COLUMNS = (
    "image",
    "s, first bundle",
    "next one",
    "CPU s, first bundle",
    "next one",
    "MB on disk, first bundle",
    "next one",
    "first bundle / umoci",
    "next one / umoci",
)
TABLE = Path(__file__).parents[1] / "results/images.md"


def measure(runtime: str, name: str, directory: Path) -> tuple[str, str]:
    """Return the rows of an image in the two tables; all ways of unpacking it take turns."""
    image = sets.make(name, directory)
    store = directory / "store"
    ways = {
        "ours": sets.ours(runtime, image, directory / "ours"),
        "theirs": sets.theirs(image, directory / "theirs"),
        "first": sets.shared(runtime, image, directory / "first", store),
        "next": sets.shared(runtime, image, directory / "next", store),
    }
    costs: dict[str, list[sets.Cost]] = {who: [] for who in ways}
    for _ in range(1 if name in sets.LARGE else ROUNDS):
        shutil.rmtree(store, ignore_errors=True)
        for who, words in ways.items():
            shutil.rmtree(directory / who, ignore_errors=True)
            os.sync()
            costs[who].append(sets.unpack(words))
    clock = {who: statistics.median(cost.clock for cost in each) for who, each in costs.items()}
    processor = {who: statistics.median(cost.processor for cost in each) for who, each in costs.items()}
    room = {who: compare.blocks(f"{directory}/{who}/rootfs") / 1000 for who in ways}
    room["first"] += compare.blocks(str(store)) / 1000
    found = compare.describe(f"{directory}/ours/rootfs")
    size = sum(layer.stat().st_size for layer in (image / "blobs/sha256").iterdir())
    whole = [
        *(name, f"{len(found):,}", f"{size / 1e6:.1f}", f"{room['ours']:.1f}", f"{room['theirs']:.1f}"),
        *(f"{cost[who]:.2f}" for cost in (clock, processor) for who in ("ours", "theirs")),
        f"{clock['ours'] / clock['theirs']:.2f}",
    ]
    shared = [
        name,
        *(f"{cost[who]:.2f}" for cost in (clock, processor) for who in ("first", "next")),
        *(f"{room[who]:.1f}" for who in ("first", "next")),
        *(f"{clock[who] / clock['theirs']:.2f}" for who in ("first", "next")),
    ]
    return row(whole), row(shared)


def row(cells: Iterable[str]) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(cells)} |"


def head(columns: tuple[str, ...]) -> list[str]:
    """Return the first lines of a table: a name, and numbers."""
    return [row(columns), "| --- |" + " ---: |" * (len(columns) - 1)]


def main() -> None:
    """Measure all."""
    runtime = shutil.which(sys.argv[1] if len(sys.argv) > 1 else "pyrunc")
    if runtime is None:
        sys.exit("no such runtime: run `make install`")
    said = subprocess.run(["umoci", "--version"], capture_output=True, text=True, check=True).stdout.split()
    lines = [
        "# Images unpacked: pyrunc bundle and umoci",
        "",
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, {results.host()}.",
        f"pyrunc {results.version(runtime)}, umoci {said[-1]}.",
        "",
        f"Medians of {ROUNDS} rounds in one run (one for the last image), taking turns;",
        f"the machine had a load of {os.getloadavg()[0]:.0f} on {os.cpu_count()} processors.",
        "On a busy machine the processors' time says more than the clock.",
        "`test_umoci.py` compares the trees.",
        "",
        *head(COLUMNS),
    ]
    shared = [
        "",
        "## Layers that bundles share",
        "",
        "With `pyrunc bundle --shared-layers`, in the same rounds: the first bundle of an image unpacks its",
        "layers into the store, the next one finds them there. `test_umoci.py` compares the tree that the",
        "kernel makes of them for a container.",
        "",
        *head(SHARED_COLUMNS),
    ]
    for name in (*sets.SETS, *sets.LARGE):
        with tempfile.TemporaryDirectory() as directory:
            for rows, line in zip((lines, shared), measure(runtime, name, Path(directory)), strict=True):
                rows.append(line)
                print(line, flush=True)
    lines += shared
    TABLE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
