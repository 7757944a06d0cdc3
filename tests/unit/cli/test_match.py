"""The strict matcher: it accepts what engines send, and leaves alone what is not certain."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

import pyrunc.cli.match
from pyrunc.cli.match import match
from pyrunc.cli.verbs import GLOBALS, VERBS

CONTAINERD = "--root /run/c/k8s.io --log /b/log.json --log-format json"
PODMAN = "--log-format=json --log /b/oci-log --cgroup-manager disabled"

# Command lines as the engines build them, and what must come out. FEATURES of each: options, order and
# spelling.
ENGINES: list[tuple[str, dict[str, Any]]] = [
    (
        f"{CONTAINERD} --systemd-cgroup create --bundle /b --pid-file /b/init.pid --console-socket /s ID",
        {
            "verb": "create",
            "root": "/run/c/k8s.io",
            "log": "/b/log.json",
            "log_format": "json",
            "systemd_cgroup": True,
            "bundle": "/b",
            "pid_file": "/b/init.pid",
            "console_socket": "/s",
            "id": "ID",
        },
    ),
    (
        f"{CONTAINERD} create --bundle /b --pid-file /p --no-pivot --no-new-keyring ID",
        {"verb": "create", "no_pivot": True, "no_new_keyring": True},
    ),
    (f"{CONTAINERD} start ID", {"verb": "start", "id": "ID"}),
    (
        f"{CONTAINERD} exec --process /run/p1 --console-socket /s --detach --pid-file /b/e.pid ID",
        {"verb": "exec", "process": "/run/p1", "detach": True, "args": []},
    ),
    (f"{CONTAINERD} kill --all ID 9", {"verb": "kill", "all": True, "id": "ID", "signal": "9"}),
    (f"{CONTAINERD} kill ID 15", {"verb": "kill", "all": False, "signal": "15"}),
    (f"{CONTAINERD} delete --force ID", {"verb": "delete", "force": True}),
    (f"{CONTAINERD} pause ID", {"verb": "pause"}),
    (f"{CONTAINERD} resume ID", {"verb": "resume"}),
    (f"{CONTAINERD} update --resources=- ID", {"verb": "update", "resources": "-"}),
    (f"{CONTAINERD} ps --format json ID", {"verb": "ps", "format": "json", "args": []}),
    (f"{CONTAINERD} run --bundle /b -no-subreaper ID", {"verb": "run", "no_subreaper": True}),
    ("list --format=json", {"verb": "list", "format": "json"}),
    ("events --stats ID", {"verb": "events", "stats": True, "interval": 5.0}),
    ("events --interval=2s ID", {"verb": "events", "interval": 2.0}),
    ("features", {"verb": "features"}),
    ("stop ID", {"verb": "stop", "id": "ID", "time": 10, "signal": None}),
    ("stop --time=-1 -s INT ID", {"verb": "stop", "time": -1, "signal": "INT"}),
    ("wait ID", {"verb": "wait", "id": "ID"}),
    ("inspect ID", {"verb": "inspect", "id": "ID"}),
    ("doctor --json", {"verb": "doctor", "json": True}),
    ("--version", {"verb": "version"}),
    (
        f"{PODMAN} create --bundle /b --pid-file /p --preserve-fds 2 ID",
        {"verb": "create", "cgroup_manager": "disabled", "preserve_fds": 2},
    ),
    (f"{PODMAN} kill ID 15", {"verb": "kill"}),
    ("--root /r kill -a ID 9", {"verb": "kill", "all": True, "id": "ID", "signal": "9"}),
    ("--root /r update --resources - ID", {"verb": "update", "resources": "-"}),
    (
        "--root=/r --systemd-cgroup --root=/r2 --systemd-cgroup exec -d --tty --console-socket=/s ID sh -c l",
        {"verb": "exec", "root": "/r2", "detach": True, "tty": True, "id": "ID", "args": ["sh", "-c", "l"]},
    ),
    ("run --bundle /b --keep ID", {"verb": "run", "keep": True}),
    ("state ID", {"verb": "state", "id": "ID"}),
]


@pytest.mark.parametrize(("line", "expected"), ENGINES, ids=[line for line, _ in ENGINES])
def test_what_engines_send_is_taken(line: str, expected: dict[str, Any]) -> None:
    command = match(line.split())
    assert command is not None
    assert {key: getattr(command, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("state -root=/x ID", {"root": "/x"}),
        ("-root /x state ID", {"root": "/x"}),
        ("state ID --root /x", {"root": "/x"}),
        ("--root /y state ID --root /x", {"root": "/x"}),
        ("delete ID --force", {"force": True, "id": "ID"}),
        ("delete --force=false ID", {"force": False}),
        ("delete --force --force=false ID", {"force": False}),
        ("delete -f=true ID", {"force": True}),
        ("create -b=/b ID", {"bundle": "/b"}),
        ("create --bundle= ID", {"bundle": ""}),
        ("create -b /b -- -odd", {"bundle": "/b", "id": "-odd"}),
        ("kill ID --all 9", {"id": "ID", "all": True, "signal": "9"}),
        ("kill ID", {"signal": None}),
        ("update --memory-swap -1 --pids-limit -1 ID", {"memory_swap": "-1", "pids_limit": -1}),
        ("exec -e A=1 -env B=2 --env=C=3 ID env", {"env": ["A=1", "B=2", "C=3"]}),
        ("exec -g 5 --additional-gids=0 ID id", {"additional_gids": [5, 0]}),
        ("exec ID -t --user 5", {"tty": False, "user": None, "args": ["-t", "--user", "5"]}),
        ("exec ID -- ls -- x", {"args": ["ls", "--", "x"]}),
        ("exec ID", {"env": (), "additional_gids": (), "args": []}),
        ("ps ID -ef", {"args": ["-ef"], "format": "table"}),
        ("spec --rootless", {"rootless": True}),
        ("--rootless=true spec", {"rootless": False}),
        ("--rootless=true state ID", {"rootless": "true"}),
        ("validate", {"file": None, "bundle": None}),
        ("validate f.json", {"file": "f.json"}),
        ("--root /x -v", {"verb": "version", "root": "/x"}),
    ],
)
def test_positions_and_spellings(line: str, expected: dict[str, Any]) -> None:
    command = match(line.split())
    assert command is not None
    assert {key: getattr(command, key) for key in expected} == expected


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nosuchverb",
        "create",
        "create a b",
        "kill a 9 b",
        "create --nosuch a",
        "create --bundle",
        "create -bx a",
        "exec -td a sh",
        "create --help a",
        "-h",
        "help",
        "state --version a",
        "create --preserve-fds x a",
        "create --preserve-fds 0x3 a",
        "create --preserve-fds 007 a",
        "create --preserve-fds 1234567890123456789012 a",
        "create --preserve-fds= a",
        "events --interval 5 a",
        "events --interval 1m30s a",
        "events --interval 0s a",
        "list --format xml",
        "--log-format xml list",
        "delete --force=yes a",
        "kill a -9",
        "state -",
        "-- state a",
        "--debug=T state a",
    ],
)
def test_what_is_not_certain_is_left_to_the_slow_path(line: str) -> None:
    assert match(line.split()) is None


def test_an_empty_word_is_positional() -> None:
    command = match(["state", ""])
    assert command is not None
    assert command.id == ""


def test_the_types_name_every_attribute() -> None:
    """Command's annotations are for the type checker; this keeps them whole when the table grows."""
    tree = ast.parse(Path(pyrunc.cli.match.__file__).read_text())
    declared = {
        node.target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    rows = [*GLOBALS, *(option for verb in VERBS.values() for option in verb[6])]
    attributes = {row[0][0].replace("-", "_") for row in rows}
    attributes |= {name for verb in VERBS.values() for name in verb[2]}
    assert attributes <= declared
