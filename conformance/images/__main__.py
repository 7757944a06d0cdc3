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

from conformance.images import compare, sets
from conformance.suites import results

ROUNDS = 3
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
TABLE = Path(__file__).parents[1] / "results/images.md"


def measure(runtime: str, name: str, directory: Path) -> str:
    """Return the row of an image; the two take turns."""
    image = sets.make(name, directory)
    costs: dict[str, list[sets.Cost]] = {"ours": [], "theirs": []}
    for _ in range(1 if name in sets.LARGE else ROUNDS):
        for who, words in (
            ("ours", sets.ours(runtime, image, directory / "ours")),
            ("theirs", sets.theirs(image, directory / "theirs")),
        ):
            shutil.rmtree(directory / who, ignore_errors=True)
            os.sync()
            costs[who].append(sets.unpack(words))
    found = compare.describe(f"{directory}/ours/rootfs")
    size = sum(layer.stat().st_size for layer in (image / "blobs/sha256").iterdir())
    room = [compare.blocks(f"{directory}/{who}/rootfs") / 1000 for who in costs]
    clock = [statistics.median(cost.clock for cost in each) for each in costs.values()]
    processor = [statistics.median(cost.processor for cost in each) for each in costs.values()]
    cells = [name, f"{len(found):,}", f"{size / 1e6:.1f}", *(f"{value:.1f}" for value in room)]
    cells += [*(f"{value:.2f}" for value in (*clock, *processor)), f"{clock[0] / clock[1]:.2f}"]
    return f"| {' | '.join(cells)} |"


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
        "`test_umoci.py` compares the trees.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "| --- |" + " ---: |" * 9,
    ]
    for name in (*sets.SETS, *sets.LARGE):
        with tempfile.TemporaryDirectory() as directory:
            lines.append(measure(runtime, name, Path(directory)))
        print(lines[-1], flush=True)
    TABLE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
