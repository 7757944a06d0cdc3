"""Escape sequences in text from others reach the terminal: a class of its own.

The text may be the source of a mount, its options, a destination, a container's mount point, a cgroup's path,
the name of a parameter, or the command line of a process. It must not control the terminal of the user who
lists it, and must not look like lines of ours. All output for people is checked here; JSON escapes by itself.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from subprocess import CompletedProcess

    from tests.support.containers import Bundle, Runtime

# Red, a window title, a C1 control, right-to-left, lines that look like ours.
EVIL = "x\x1b[31m\x1b]0;t\x07\x9b1m\u202e\r\nforged 1\u2028forged 2\x85forged 3"


def check(told: CompletedProcess[str], *, has: str = "x") -> None:
    """Check that there are only printable characters, and that no line begins with the forged text."""
    assert r"\x1b[31m" in told.stdout or r"\u001b[31m" in told.stdout, "it is shown, escaped"
    assert has in told.stdout
    for line in told.stdout.split("\n"):
        assert line.replace("\t", "").isprintable(), ascii(line)
        assert not line.startswith("forged")


@pytest.fixture
def evil(bundle: Bundle, tmp_path: Path) -> Bundle:
    """A bundle that can be run, and has such text at every possible place."""
    source = tmp_path / EVIL
    source.mkdir()
    bundle.mount(f"/{EVIL}", source, "rbind", "ro")
    bundle.config["mounts"].append({"destination": "/t", "type": "tmpfs", "source": EVIL, "options": []})
    # A newline in it is refused.
    bundle.linux["cgroupsPath"] = f"/{EVIL.translate({13: None, 10: None})}{os.getpid()}"
    bundle.process["args"] = ["/bin/sh", "-c", ": $0; sleep 1000 & wait", EVIL]
    bundle.write()
    return bundle


def test_a_plan(evil: Bundle, runtime: Runtime) -> None:
    check(runtime("plan", "--bundle", str(evil.path)), has="/mounts/5")


def test_what_trace_says(evil: Bundle, runtime: Runtime) -> None:
    evil.process["args"] = ["/bin/true"]
    evil.write()
    told = runtime("run", "--trace=-", "--bundle", str(evil.path), runtime.new_id())
    assert told.returncode == 0, told.stdout
    check(told, has="/mounts/5")


def test_a_container_that_is_there(evil: Bundle, runtime: Runtime, tmp_path: Path) -> None:
    moved = tmp_path / f"bundle{EVIL}"
    evil.path.rename(moved)
    evil.path = moved
    name = runtime.started(evil)
    check(runtime("mounts", name), has="/mounts/5")
    check(runtime("list"), has=name)
    # The host's own ps is asked, and not every one escapes what it shows.
    (tmp_path / "said").write_text(f"  PID CMD\n{runtime.pid(name)} {EVIL.translate({10: None})}\n")
    (tmp_path / "ps").write_text(f"#!/bin/sh\nexec cat {tmp_path}/said\n")
    (tmp_path / "ps").chmod(0o755)
    check(runtime("ps", name, env={"PATH": f"{tmp_path}:/bin:/usr/bin"}), has=str(runtime.pid(name)))
    inside = Path(f"/proc/{runtime.pid(name)}/root")
    (inside / EVIL.replace("x", "y", 1)).mkdir()
    (tmp_path / EVIL).rename(tmp_path / "elsewhere")
    drift = runtime("mounts", "--check", name)
    assert drift.returncode == 1
    check(drift, has="/mounts/5")


REFUSED = {
    "a source that is missing": lambda bundle: bundle.mount("/m", f"/nowhere/{EVIL}", "bind"),
    "an option of a bind": lambda bundle: bundle.mount("/m", "/etc", "bind", EVIL),
    "a relative path": lambda bundle: bundle.linux["namespaces"].append(
        {"type": "time", "path": f"x/{EVIL}"}
    ),
    "an option of a file system": lambda bundle: bundle.mount("/m", "tmpfs", EVIL, kind="tmpfs"),
    "a type": lambda bundle: bundle.mount("/m", "tmpfs", "rw", kind=EVIL),
    "a mount point": lambda bundle: bundle.mount(f"/proc/{EVIL}", "/etc", "bind"),
    "a device": lambda bundle: bundle.linux.update(devices=[{"path": f"/bin/sh/{EVIL}", "type": "p"}]),
    "a masked path": lambda bundle: bundle.linux.update(maskedPaths=[f"/proc/self/cwd/{EVIL}"]),
    "a parameter": lambda bundle: bundle.linux.update(sysctl={f"net.{EVIL}": "1"}),
    "a program": lambda bundle: bundle.process.update(args=[f"/{EVIL}"]),
    "a directory": lambda bundle: bundle.process.update(cwd=f"/bin/busybox/{EVIL}"),
    "a propagation": lambda bundle: bundle.linux.update(rootfsPropagation=EVIL),
    "a cgroup": lambda bundle: bundle.linux.update(cgroupsPath=f"/{EVIL}"),
    "a namespace": lambda bundle: bundle.linux["namespaces"].append({"type": "time", "path": f"/{EVIL}"}),
}


@pytest.mark.parametrize("what", REFUSED)
def test_an_error(bundle: Bundle, runtime: Runtime, what: str) -> None:
    REFUSED[what](bundle)
    bundle.write()
    told = runtime("run", "--bundle", str(bundle.path), runtime.new_id())
    assert told.returncode != 0
    check(told)
    assert len(told.stdout.splitlines()) <= 2, "the verb, and one line with the place"


@pytest.mark.parametrize("what", ["an option of a bind", "a relative path"])
def test_a_report(bundle: Bundle, runtime: Runtime, what: str) -> None:
    REFUSED[what](bundle)
    bundle.write()
    told = runtime("validate", "--bundle", str(bundle.path))
    assert told.returncode == 1
    check(told, has="config.json:")


@pytest.mark.parametrize(
    "words",
    [
        ("state", f"x{EVIL}"),
        ("run", "--bundle", f"/nowhere/{EVIL}", "x"),
        ("run", "-v", f"/srv:/x:{EVIL}", "--bundle", "BUNDLE", "x"),
        ("run", "--mount", f"type={EVIL}", "--bundle", "BUNDLE", "x"),
        ("volume", "inspect", EVIL),
        ("--log", f"/nowhere/{EVIL}", "list"),
    ],
)
def test_words_of_a_command_line(bundle: Bundle, runtime: Runtime, words: tuple[str, ...]) -> None:
    bundle.write()
    told = runtime(*(str(bundle.path) if word == "BUNDLE" else word for word in words))
    assert told.returncode != 0
    check(told)


def test_json_is_left_as_it_is(evil: Bundle, runtime: Runtime) -> None:
    told = runtime("plan", "--json", "--bundle", str(evil.path))
    mounts = [step["fields"] for step in json.loads(told.stdout)["steps"] if step["kind"] == "Mount"]
    assert f"/{EVIL}" in [fields["destination"] for fields in mounts]
    assert told.stdout.isascii()
