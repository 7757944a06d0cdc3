"""Write the table of what a guest's checks say of several runtimes: `python -m conformance.vm trixie`.

The guest is booted once for each runtime; results/NAME_guest.md and .json say how each check ended. The first
runtime is judged: the exit status is 1 if one of its checks fails. Runtimes are programs of the guest's root
file system, so the table must be one that has its own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from conformance.suites import results as tables
from conformance.vm import test_vm, trixie
from conformance.vm.machine import TOP

VERDICTS = {"passed": tables.PASS, "failed": tables.FAIL, "skipped": tables.SKIP}
RUNTIMES = {"pyrunc": test_vm.INSTALLED, "runc": "/usr/sbin/runc", "crun": "/usr/bin/crun"}
# What the title says of, by package.
ENGINES = {"podman": "Podman", "docker.io": "Docker", "containerd": "containerd", "criu": "CRIU"}


def main(argv: list[str]) -> int:
    """Boot, and write the table."""
    parser = argparse.ArgumentParser(prog="conformance.vm", description=__doc__)
    parser.add_argument("table", choices=[trixie.SUITE], help="of selection.toml")
    parser.add_argument("words", nargs="*", metavar="WORD", help="only checks with one of these in the name")
    parser.add_argument("--output", metavar="PATH", help="write PATH.md and PATH.json")
    parser.add_argument("--runtime", action="append", choices=list(RUNTIMES), help="the first one is judged")
    options = parser.parse_args(argv)
    found = test_vm.collect({options.table: test_vm.SELECTION[options.table]})[options.table]
    ids = [each for each in found if not options.words or any(word in each for word in options.words)]
    names = options.runtime or list(RUNTIMES)
    versions = trixie.versions([*ENGINES, *names[1:]])
    table = tables.Results(
        suite="Checks in a guest: " + ", ".join(f"{ENGINES[name]} {versions[name]}" for name in ENGINES),
        runtimes={name: versions.get(name, "this checkout") for name in names},
        remarks=[
            f"Debian 13 in QEMU, Linux {test_vm.files(trixie.SUITE).kernel.release}, cgroup v2, systemd."
        ],
    )
    for name in names:
        guests = test_vm.Guests(test_vm.INSTALLED, {options.table: ids}, RUNTIMES[name])
        ends = guests.of(options.table)
        for test in ids:
            short = Path(test).name.replace(".py", "")
            cells = table.tests.setdefault(short, {})
            if test not in ends:
                print(guests.words[options.table], file=sys.stderr)
                continue
            cells[name] = VERDICTS[ends[test].outcome]
            if cells[name] == tables.FAIL:
                print(f"--- {name}: {test}\n{ends[test].text}", file=sys.stderr, flush=True)
                why = ends[test].text.strip().splitlines()[-1]
                table.notes.setdefault(short, why if name == names[0] else f"{name}: {why}")
        table.write(options.output or str(TOP / f"conformance/results/{options.table}_guest"))
    return 1 if table.count(names[0], tables.FAIL) or not table.count(names[0], tables.PASS) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
