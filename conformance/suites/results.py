"""Write the results of a suite for people (Markdown) and programs (JSON), with all versions involved."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from dataclasses import asdict, dataclass, field

PASS, FAIL, SKIP = "pass", "**fail**", "skip"
_CAP_SYS_RESOURCE = 24


@dataclass
class Results:
    """A suite's results.

    Attributes:
        suite: its name and version.
        runtimes: name -> version.
        tests: test -> runtime -> PASS, FAIL or SKIP, with numbers behind it where there are any.
        notes: test -> why the first runtime fails it.
        remarks: what else a reader has to know.

    """

    suite: str
    runtimes: dict[str, str]
    tests: dict[str, dict[str, str]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def count(self, runtime: str, verdict: str) -> int:
        """Return how many tests of a runtime ended in a verdict."""
        return sum(cells.get(runtime, "").startswith(verdict) for cells in self.tests.values())

    def markdown(self) -> str:
        """Return the page."""
        names = list(self.runtimes)
        lines = [f"# {self.suite}", "", f"{time.strftime('%Y-%m-%d', time.gmtime())}, {host()}.", ""]
        lines += ["| runtime | version | pass | fail | skip |", "| --- | --- | --: | --: | --: |"]
        for name, version in self.runtimes.items():
            counts = " | ".join(str(self.count(name, verdict)) for verdict in (PASS, FAIL, SKIP))
            lines.append(f"| {name} | {version} | {counts} |")
        lines += ["", *self.remarks, *([""] if self.remarks else [])]
        lines.append(f"| test | {' | '.join(names)} | why {names[0]} fails |")
        lines.append(f"| --- |{' --- |' * len(names)} --- |")
        for test, cells in self.tests.items():
            row = " | ".join(cells.get(name, "not run") for name in names)
            lines.append(f"| {_cell(test)} | {row} | {_cell(self.notes.get(test, ''))} |")
        return "\n".join(lines) + "\n"

    def write(self, path: str) -> None:
        """Write `path`.md and `path`.json."""
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path + ".md", "w", encoding="utf-8") as file:
            file.write(self.markdown())
        data = {"date": time.strftime("%Y-%m-%d", time.gmtime()), "host": host(), **asdict(self)}
        with open(path + ".json", "w", encoding="utf-8") as file:
            file.write(json.dumps(data, indent=1) + "\n")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def version(runtime: str) -> str:
    """Return what a runtime calls itself, in a few words."""
    done = subprocess.run([runtime, "--version"], capture_output=True, text=True, check=False)
    return (done.stdout.splitlines() or ["?"])[0].split("version")[-1].strip(" :")


def revision(checkout: str) -> str:
    """Return the version of a suite's checkout, as git knows it, or "unknown version"."""
    command = ["git", "-c", "safe.directory=*", "-C", checkout, "describe", "--tags", "--always"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown version"
    return done.stdout.strip() or "unknown version"


def host() -> str:
    """Say what kind of machine this is, as far as tests depend on it; nothing that names it."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        status = dict(line.split(":", 1) for line in file if ":" in line)
    facts = [f"Linux {platform.release().split('-')[0]}", f"cgroup {_cgroup_kind()}"]
    facts.append("systemd" if os.path.isdir("/run/systemd/system") else "no systemd")
    if not int(status.get("CapEff", "0"), 16) >> _CAP_SYS_RESOURCE & 1:
        facts.append("no CAP_SYS_RESOURCE")
    if not os.path.isdir("/sys/kernel/security/apparmor"):
        facts.append("no AppArmor")
    return ", ".join(facts)


def _cgroup_kind() -> str:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        kinds = {line.rsplit(" - ", 1)[1].split()[0] for line in file}
    if "cgroup" in kinds:
        return "v1 and v2 (hybrid)" if "cgroup2" in kinds else "v1"
    return "v2" if "cgroup2" in kinds else "none"
