"""Mistakes that people make, and the messages: one table of what was typed, written, or asked to run.

A message names what is wrong and what to write instead, in one line. docs/mistakes.md shows some of them
side by side with other runtimes.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from pyrunc import __main__ as command
from pyrunc.cli import app, report
from pyrunc.cli.match import match
from pyrunc.errors import Failure
from tests.support.specs import small

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.containers import Bundle
    from tests.support.engine import Engine

# What was typed -> the exit status, and the message.
TYPED: list[tuple[str, int, str]] = [
    ("strat box", 3, "No help topic for 'strat'; did you mean \"start\"?"),
    ("exce box sh", 3, "No help topic for 'exce'; did you mean \"exec\"?"),
    ("udpate box", 3, "No help topic for 'udpate'; did you mean \"update\"?"),
    ("rn box", 3, "No help topic for 'rn'; did you mean \"run\"?"),
    ("volume lst", 3, "No help topic for 'volume lst'; did you mean \"volume ls\"?"),
    ("voulme ls", 3, "No help topic for 'voulme'; did you mean \"volume\"?"),
    ("ls", 3, "No help topic for 'ls'; did you mean \"list\"?"),
    ("rm -f box", 3, "No help topic for 'rm'; did you mean \"delete\"?"),
    ("stats box", 3, "No help topic for 'stats'; did you mean \"events\"?"),
    ("stpo box", 3, "No help topic for 'stpo'; did you mean \"stop\"?"),
    ("logs box", 3, "No help topic for 'logs'; pyrunc keeps no logs: a program's output goes where"),
    ("pull alpine", 3, "No help topic for 'pull'; pyrunc has no images: it runs bundles"),
    ("start", 1, '"start" requires exactly 1 argument(s)'),
    ("start a b", 1, '"start" requires exactly 1 argument(s); "b" is one too many'),
    (
        "run box sh",
        1,
        '"sh" is one too many: the bundle is named with --bundle, the program in its config.json',
    ),
    ("ps -a", 1, "pyrunc list shows all containers; pyrunc ps ID shows the processes of one"),
    ("list -a", 1, "leave it out: stopped containers are listed, too"),
    ("run -it box", 1, "a terminal is asked for by /process/terminal in config.json"),
    ("run --name box", 1, "the name of a container is its id, the last word: pyrunc run ID"),
    (
        "run -p 80:80 box",
        1,
        "pyrunc makes no networks: see /linux/namespaces in config.json, or use an engine",
    ),
    ("run -e A=b box", 1, "variables stand in /process/env of config.json"),
    ("run --rm box", 1, "leave it out: what pyrunc run made goes when the program has ended"),
    ("run -m 1g box", 1, "limits stand in /linux/resources of config.json; pyrunc update changes them"),
    ("exec -it box sh", 1, "flag provided but not defined: -it; write -t: standard input is always passed"),
    ("exec -w / box sh", 1, "flag provided but not defined: -w; write --cwd DIR"),
    ("kill -9 box", 1, 'the signal comes after the id: write "pyrunc kill ID 9"'),
    ("kill -s KILL box", 1, "the signal comes after the id: pyrunc kill ID TERM"),
    ("kill box FOO", 1, "unknown signal 'FOO'; use a name such as TERM or a number up to 64"),
    ("delete -rf box", 1, "write --force"),
    ("create --bundel /b box", 1, 'flag provided but not defined: -bundel; did you mean "--bundle"?'),
    ("--bundle /b create box", 1, 'write it after "create", which it is an option of'),
    ("create -b /nowhere box", 1, "bundle /nowhere is not a directory; name one with --bundle DIR"),
    ("run box", 1, "JSON specification file config.json not found; `pyrunc spec` writes one to begin with"),
    ("run -v", 1, "flag needs an argument: -v"),
    ("run ../box", 1, "invalid container ID format: '../box'; use letters, digits and _ + . -"),
    ("list --format jsn", 1, 'invalid format: jsn; did you mean "json"?'),
    ("list --format yaml", 1, "invalid format: yaml; choose table or json"),
    ("--cgroup-manager sytemd list", 1, 'invalid cgroup-manager: sytemd; did you mean "systemd"?'),
    ("--root / list", 1, "Option --root argument should not be set to /"),
    ("state nosuch", 1, "nosuch: container does not exist; there is none in"),
    ("exec nosuch sh", 255, "exec failed: nosuch: container does not exist"),
    ("events --interval 5 box", 1, 'not a duration, such as "5s" or "1m30s"'),
    ("mounts ad box f", 1, 'did you mean "add"?'),
    ("completion tcsh", 1, 'no completions for "tcsh"; choose one of bash, zsh, fish'),
    ("explain /mounst", 1, 'the specification has nothing at /mounst; did you mean "/mounts"?'),
    ("explain hostnmae", 1, 'did you mean "hostname"?'),
]

_MOUNT = {"destination": "/data", "source": "/srv", "options": ["rbind"]}

# What was written: a place in config.json, a value -> what validate says of it, after file and line.
WRITTEN: list[tuple[str, Any, str]] = [
    ("/hostName", "box", '/hostName: not a property of the specification; did you mean "hostname"?'),
    ("/hostname", 5, "/hostname: must be a string, not the number 5"),
    ("/process/user/uid", "root", '/process/user/uid: must be an integer, not the string "root"'),
    (
        "/process/user",
        {"username": "nobody"},
        "warning: /process/user/username: a name is read on Windows only",
    ),
    ("/process/cwd", "app", "/process/cwd: Cwd must be an absolute path"),
    ("/process/args", [], "/process/args: args must not be empty"),
    ("/process/args", "sh -c id", '/process/args: must be an array, not the string "sh -c id"'),
    ("/process/env", ["PATH"], "/process/env/0: invalid environment variable: missing '=' in \"PATH\""),
    (
        "/process/rlimits",
        [{"type": "RLIMIT_NOFILES", "soft": 1, "hard": 1}],
        'wrong rlimit value: RLIMIT_NOFILES; did you mean "RLIMIT_NOFILE"?',
    ),
    (
        "/process/rlimits",
        [{"type": "RLIMIT_NOFILE", "soft": 9, "hard": 1}],
        "soft limit 9 of RLIMIT_NOFILE is above the hard limit 1",
    ),
    (
        "/process/capabilities",
        {"effective": ["CAP_KILL"]},
        "warning: /process/capabilities/effective: CAP_KILL without being permitted has no effect",
    ),
    ("/mounts", [{**_MOUNT, "options": ["rbind", "rslaev"]}], 'did you mean "rslave"?'),
    ("/mounts", [{**_MOUNT, "type": "bind", "options": ["ro"]}], "type bind needs the option bind or rbind"),
    ("/mounts", [{"source": "/srv"}], '/mounts/0: property "destination" is missing'),
    ("/mounts", [{**_MOUNT, "destination": "/data/in"}, _MOUNT], "warning: /mounts/0: hidden by /mounts/1"),
    (
        "/linux/namespaces",
        [{"type": "pid"}, {"type": "net"}],
        'namespace "net" does not exist; did you mean "network"?',
    ),
    ("/linux/namespaces", [{"type": "mount"}], "warning: /linux/namespaces: no pid namespace"),
    ("/linux/namespaces", [{"type": "pid"}], "warning: /linux/namespaces: no mount namespace"),
    (
        "/linux/seccomp",
        {"defaultAction": "SCMP_ACT_ALLOW"},
        "warning: /linux/seccomp/defaultAction: the filter refuses nothing",
    ),
    ("/linux/sysctl", {"kernel.panic": "1"}, 'sysctl "kernel.panic" is not in a separate kernel namespace'),
    ("/linux/resources", {"pids": {"limit": -5}}, "warning: /linux/resources/pids/limit: -5 is no limit"),
    ("/linux/resources", {"memory": {"limit": "64m"}}, 'limit: must be an integer, not the string "64m"'),
    (
        "/linux/cgroupsPath",
        "system.slice:pyrunc:box",
        'warning: /linux/cgroupsPath: "system.slice:pyrunc:box" is for systemd',
    ),
    (
        "/linux/devices",
        [{"path": "dev/x", "type": "c", "major": 1, "minor": 3}],
        'device path "dev/x" must be absolute',
    ),
]


def _program(content: str) -> Callable[[Bundle], None]:
    def change(bundle: Bundle) -> None:
        (bundle.rootfs / "entry").write_text(content)
        (bundle.rootfs / "entry").chmod(0o755)
        bundle.process["args"] = ["/entry"]

    return change


def _put(**values: Any) -> Callable[[Bundle], None]:
    def change(bundle: Bundle) -> None:
        bundle.process.update(values)

    return change


def _mounted(source: str, *options: str, kind: str = "bind") -> Callable[[Bundle], None]:
    return lambda bundle: bundle.mount("/data", source, *options, kind=kind)


def _root(path: str) -> Callable[[Bundle], None]:
    def change(bundle: Bundle) -> None:
        bundle.config["root"]["path"] = path

    return change


# What was asked to run -> the message.
RUN: list[tuple[str, Callable[[Bundle], None], str]] = [
    ("no such program", _put(args=["nosuch"]), "nosuch"),
    ("a directory as the program", _put(args=["/etc"]), 'exec: "/etc": is a directory'),
    ("an interpreter that is not there", _program("#!/bin/bash\n"), "but its interpreter /bin/bash is not"),
    ("lines as on Windows", _program("#!/bin/sh\r\n"), "lines that end as on Windows (CRLF)"),
    ("no #! line", _program("echo hello\n"), "is neither a program nor a script with a #! line"),
    ("a missing source", _mounted("/nowhere", "rbind"), "bind source /nowhere does not exist"),
    ("a misspelled option of tmpfs", _mounted("tmpfs", "sizee=4k", kind="tmpfs"), 'option "sizee=4k"'),
    ("a root that is not there", _root("nowhere"), "nowhere does not exist; name the directory that holds"),
]


def test_there_are_as_many_as_promised() -> None:
    assert len(TYPED) + len(WRITTEN) + len(RUN) >= 75


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Change to an empty directory."""
    monkeypatch.chdir(tmp_path)
    return str(tmp_path)


@pytest.mark.parametrize(("line", "status", "text"), TYPED, ids=[row[0] for row in TYPED])
def test_typed(line: str, status: int, text: str, nowhere: str, capfd: pytest.CaptureFixture[str]) -> None:
    words = [*([] if "--root" in line else ["--root", nowhere]), *line.split()]
    found = match(words) or app.read(words)
    if not isinstance(found, int):
        with pytest.raises(Failure) as caught:
            command._run(found)
        found = report.failure(found.verb, caught.value)
    out, err = capfd.readouterr()
    assert found == status
    assert text in err
    assert err.count("\n") == 1
    assert out.count("\n") in (0, 2)


@pytest.mark.parametrize(("pointer", "value", "text"), WRITTEN, ids=[row[2][:40] for row in WRITTEN])
def test_written(
    pointer: str, value: Any, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small()
    place = config
    *parts, last = pointer.strip("/").split("/")
    for part in parts:
        place = place[part]
    place[last] = value
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config, indent=1))
    cmd = match(["validate", "--strict", str(path)])
    assert cmd is not None
    assert command._run(cmd) == 1
    out = capsys.readouterr().out
    assert text in out
    assert out.startswith(f"{path}:")


@pytest.mark.root
@pytest.mark.container
@pytest.mark.skipif(os.geteuid() != 0, reason="starts real containers, which takes root")
@pytest.mark.parametrize(("change", "text"), [row[1:] for row in RUN], ids=[row[0] for row in RUN])
def test_run(engine: Engine, bundle: Bundle, change: Callable[[Bundle], None], text: str) -> None:
    change(bundle)
    engine.front(bundle).fails("run failed: ", text)
