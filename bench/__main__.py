"""Compare pyrunc with runc and crun: python3 -m bench [--times N] [--only WORD] [--parallel N].

All runtimes take turns within one run, on the same bundles, so that other work of the machine slows down all
of them. The ratios of medians count. On a host with cgroup v1 crun gets a namespace with cgroup v2; pyrunc
and runc are measured there, too, because the two versions do not cost the same. The column "floor" is the
time of a small C program (floor.c) that only makes the system calls for `run`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import bundles

ROOT = Path(__file__).resolve().parent.parent
V2_HERE = Path("/sys/fs/cgroup/cgroup.controllers").exists()
FLOOR = "floor"
MOUNT_V2 = 'mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec "$@"'


class Runtime:
    """A runtime on one kind of cgroup, and the worker that calls it."""

    def __init__(self, name: str, program: str, folder: Path, *, v2: bool) -> None:
        self.name = name
        self.version = "v2" if v2 else "v1"
        self.state = folder / f"state-{name}-{self.version}"
        self.words = [program, "--root", str(self.state)]
        command = [sys.executable, "-m", "bench.worker"]
        if v2 and not V2_HERE:
            command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", MOUNT_V2, "sh", *command]
        self.worker = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        self.number = 0

    def ask(self, **order: object) -> Any:
        """Give the worker an order and wait for its answer."""
        assert self.worker.stdin
        assert self.worker.stdout
        self.worker.stdin.write(json.dumps(order) + "\n")
        self.worker.stdin.flush()
        answer = self.worker.stdout.readline()
        if not answer:
            sys.exit(f"the worker of {self.name} gave up")
        return json.loads(answer)

    def timed(self, *commands: list[str]) -> float:
        """Return how many seconds these calls of the runtime take."""
        return float(self.ask(do="timed", commands=[[*self.words, *words] for words in commands]))

    def name_one(self) -> str:
        """Return a new container id."""
        self.number += 1
        return f"bench-{self.name}-{self.version}-{self.number}"

    def close(self) -> None:
        """End the worker."""
        assert self.worker.stdin
        self.worker.stdin.close()
        self.worker.wait()


class Bench:
    """The measurements: each is a method that does one round for one runtime and returns seconds (or KiB)."""

    def __init__(self, folder: Path, parallel: int) -> None:
        self.folder = folder
        self.parallel_count = parallel
        self.true = bundles.make(folder, "true", "true")
        self.sleep = bundles.make(folder, "sleep", "sleep", "1000")
        self.many = {
            count: bundles.make(folder, f"binds{count}", "true", binds=count) for count in (1, 10, 100, 1000)
        }
        self.running: dict[Runtime, str] = {}
        self.measure = folder / "measure"
        compile_program("measure", self.measure)

    def run(self, runtime: Runtime, bundle: Path | None = None) -> float:
        """Run /bin/true in the foreground."""
        return runtime.timed(["run", "--bundle", str(bundle or self.true), runtime.name_one()])

    def cold(self, runtime: Runtime) -> float:
        """Run with an empty page cache."""
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3")
        return self.run(runtime)

    def cycle(self, runtime: Runtime) -> float:
        """Create, start, (wait,) delete, as engines do."""
        name, pid_file = runtime.name_one(), str(self.folder / "pid")
        taken = runtime.timed(
            ["create", "--bundle", str(self.true), "--pid-file", pid_file, name], ["start", name]
        )
        runtime.ask(do="reap", pid_file=pid_file)
        return taken + runtime.timed(["delete", name])

    def begin(self, runtime: Runtime) -> None:
        """Start the container for exec and state."""
        if runtime.name == FLOOR:
            return
        name = self.running[runtime] = runtime.name_one()
        runtime.timed(["run", "--detach", "--bundle", str(self.sleep), name])

    def end(self, runtime: Runtime) -> None:
        """Remove that container."""
        name = self.running.pop(runtime, None)
        if name is not None and runtime.worker.poll() is None:
            runtime.ask(do="call", command=[*runtime.words, "delete", "--force", name])

    def exec(self, runtime: Runtime) -> float:
        """Run /bin/true in a running container."""
        return runtime.timed(["exec", self.running[runtime], "true"])

    def state(self, runtime: Runtime) -> float:
        """Ask for the state of a running container."""
        return runtime.timed(["state", self.running[runtime]])

    def parallel(self, runtime: Runtime) -> float:
        """Run many at the same time; measure until the last one has ended."""
        commands = [
            [*runtime.words, "run", "--bundle", str(self.true), runtime.name_one()]
            for _ in range(self.parallel_count)
        ]
        return float(runtime.ask(do="parallel", commands=commands))

    def memory(self, runtime: Runtime) -> float:
        """Return the peak memory in KiB of the largest process of run and exec."""
        peaks = []
        calls = [["run", "--bundle", str(self.true), runtime.name_one()]]
        if runtime in self.running:
            calls.append(["exec", self.running[runtime], "true"])
        for words in calls:
            status, out, err = runtime.ask(do="call", command=[str(self.measure), *runtime.words, *words])
            if status != 0 or out.split()[2] != "0":
                sys.exit(f"{words}: {out}{err}")
            peaks.append(int(out.split()[1]))
        return float(max(peaks))


def compile_program(name: str, program: Path) -> None:
    """Compile one of the C programs beside this file."""
    subprocess.run(["gcc", "-O2", "-o", program, ROOT / f"bench/{name}.c"], check=True)


def takes_part(runtime: Runtime, title: str) -> bool:
    """Tell whether a measurement is possible for a runtime: the floor can only run one bundle."""
    return runtime.name != FLOOR or title in ("run", "run, cold") or title.endswith(("at once", "(KiB)"))


def measure(
    bench: Bench, runtimes: list[Runtime], arguments: argparse.Namespace
) -> dict[str, dict[Runtime, float]]:
    """Return for each measure the median of each runtime, in milliseconds or KiB."""
    times = arguments.times
    plan: list[tuple[str, Any, int]] = [
        ("run", bench.run, times),
        ("run, cold", bench.cold, max(3, times // 10)),
        ("create + start + delete", bench.cycle, times),
        ("exec", bench.exec, times),
        ("state", bench.state, times),
        (f"{bench.parallel_count} at once", bench.parallel, max(3, times // 20)),
        ("peak memory (KiB)", bench.memory, 3),
    ]
    plan += [
        (
            f"run with {count} more bind mounts",
            lambda runtime, bundle=bundle: bench.run(runtime, bundle),
            rounds,
        )
        for (count, bundle), rounds in zip(
            bench.many.items(), (times, times, max(5, times // 4), max(3, times // 20)), strict=True
        )
    ]
    results: dict[str, dict[Runtime, float]] = {}
    for title, method, rounds in plan:
        if arguments.only and arguments.only not in title:
            continue
        if arguments.title and title not in arguments.title:
            continue
        those = [runtime for runtime in runtimes if takes_part(runtime, title)]
        taken: dict[Runtime, list[float]] = {runtime: [] for runtime in those}
        for round_number in range(rounds + 1):
            for runtime in random.sample(those, len(those)):
                value = method(runtime)
                if round_number:  # the first round warms up
                    taken[runtime].append(value)
        factor = 1 if "KiB" in title else 1000
        results[title] = {runtime: factor * statistics.median(values) for runtime, values in taken.items()}
        said = "  ".join(f"{r.name}/{r.version} {value:.1f}" for r, value in results[title].items())
        print(f"{title}: {said}", file=sys.stderr)
    add_mount_costs(results)
    return results


def add_mount_costs(results: dict[str, dict[Runtime, float]]) -> None:
    """Add the time of one more bind mount, in microseconds: a run with them minus a run without."""
    for count in (100, 1000):
        most = results.get(f"run with {count} more bind mounts")
        if most and "run" in results:
            results[f"each of {count} bind mounts (us)"] = {
                runtime: 1000 * (value - results["run"][runtime]) / count for runtime, value in most.items()
            }


def shown(value: float) -> str:
    """Return a number of a table."""
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def table(results: dict[str, dict[Runtime, float]], runtimes: list[Runtime]) -> str:
    """Lay the results out as a markdown table: milliseconds unless said otherwise, then ratios."""
    rivals = [runtime for runtime in runtimes if runtime.name not in ("pyrunc", FLOOR)]
    ours = {runtime.version: runtime for runtime in runtimes if runtime.name == "pyrunc"}
    heads = [f"{runtime.name} ({runtime.version})" for runtime in runtimes]
    heads += [f"pyrunc / {rival.name} ({rival.version})" for rival in rivals if rival.version in ours]
    lines = ["| median, ms | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(heads)]
    for title, row in results.items():
        cells = [shown(row[runtime]) if runtime in row else "" for runtime in runtimes]
        cells += [f"{row[ours[rival.version]] / row[rival]:.2f}" for rival in rivals if rival.version in ours]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def machine(programs: dict[str, str]) -> str:
    """Return one line that says what was compared, and on which machine."""
    versions = []
    for program in programs.values():
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
        versions.append(said.splitlines()[0] if said else program)
    here = f"Linux {platform.release()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    return f"{', '.join(versions)}; {here}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--pyrunc", default="/usr/local/bin/pyrunc", help="the command to measure")
    parser.add_argument("--times", type=int, default=40, help="rounds of each short measurement")
    parser.add_argument("--parallel", type=int, default=100, help="containers started at once")
    parser.add_argument("--only", help="only the measurements with this word in their title")
    parser.add_argument("--title", action="append", help="only measurements of exactly such titles")
    parser.add_argument("--cgroup", choices=("v1", "v2", "both"), default="both")
    parser.add_argument("--runtimes", default=f"pyrunc,runc,crun,{FLOOR}")
    arguments = parser.parse_args()
    wanted = {"pyrunc": arguments.pyrunc, "runc": shutil.which("runc"), "crun": shutil.which("crun")}
    names = arguments.runtimes.split(",")
    programs = {name: program for name, program in wanted.items() if program and name in names}
    subprocess.run([ROOT / "bundles/busybox/fill"], check=True)
    with tempfile.TemporaryDirectory(prefix="pyrunc-bench-") as work:
        folder = Path(work)
        runtimes = []
        if not V2_HERE and arguments.cgroup != "v2":
            runtimes += [Runtime(n, p, folder, v2=False) for n, p in programs.items() if n != "crun"]
        if V2_HERE or arguments.cgroup != "v1":
            runtimes += [Runtime(n, p, folder, v2=True) for n, p in programs.items()]
            if FLOOR in names:
                compile_program(FLOOR, folder / FLOOR)
                runtimes.append(Runtime(FLOOR, str(folder / FLOOR), folder, v2=True))
        bench = Bench(folder, arguments.parallel)
        try:
            for runtime in runtimes:
                bench.begin(runtime)
            results = measure(bench, runtimes, arguments)
        finally:
            for runtime in runtimes:
                bench.end(runtime)
                runtime.close()
        print(f"\n{machine(programs)}\n\n{table(results, runtimes)}")


main()
