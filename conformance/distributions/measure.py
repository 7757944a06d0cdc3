"""Measure in the root file systems that were kept, beside each distribution's runc and crun.

sudo PYRUNC_DISTRIBUTIONS=all PYRUNC_DISTRIBUTIONS_KEEP=1 make conformance ARGS='-k distributions'
sudo .venv/bin/python -m conformance.distributions.measure [NAME...]    # all that were kept, or some of them
sudo .venv/bin/python -m conformance.distributions.measure --remove     # them; nothing is measured

Before it measures, it installs this checkout in all of them. The ratios go to
conformance/results/distributions.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from conformance.distributions import report
from conformance.distributions.root import kept

if TYPE_CHECKING:
    from conformance.distributions.root import Root

HOURS = 4 * 3600


def prepare(root: Root) -> None:
    """Install this checkout, and what it is compared with."""
    root.check_out()
    root.succeed("make", "install", ".venv/ready", seconds=HOURS)
    root.install(*report.PEERS)


def measure(root: Root, row: report.Row) -> None:
    """Note ratios, and to what."""
    titles = [word for title in report.MEASURES for word in ("--title", title)]
    said = root.succeed(".venv/bin/python", "-m", "bench", *titles, seconds=HOURS)
    row.ratios = report.ratios(said)
    row.runtimes = report.runtimes(said)


def main() -> int:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(prog="conformance.distributions.measure", description=__doc__)
    parser.add_argument("--remove", action="store_true", help="remove the root file systems")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="of matrix.toml (default: all that are kept)"
    )
    asked = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("entering a root file system takes root")
    there = kept()
    if unknown := [name for name in asked.names if name not in there]:
        sys.exit(f"not kept: {'; '.join(unknown)}. There are: {'; '.join(there) or 'none'}")
    chosen = {name: there[name] for name in asked.names or there}
    if asked.remove:
        for root in chosen.values():
            root.close()
        return 0
    for root in chosen.values():  # first all of this: it leaves the machine busy
        prepare(root)
    for name, root in chosen.items():
        row = report.rows(report.RESULTS).get(name) or report.Row(name)
        measure(root, row)
        report.write(report.RESULTS, [row])
        print(f"{name}: {row.ratios}, {row.runtimes}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
