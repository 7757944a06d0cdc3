"""The contract with engines about the command line: wording, streams, exit statuses, positions.

Each test is one point of it. The integration tests show the points about pid files, console sockets and
containers that run.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from pyrunc import errors
from pyrunc.cli.match import match
from pyrunc.cli.verbs import FLAG, GLOBALS, OPTIONAL, VERBS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Call

WANT_A_VALUE = [
    (verb, f"--{names[0]}")
    for verb, options in (("", GLOBALS), *((verb, row[6]) for verb, row in VERBS.items()))
    for names, kind, _, _, _ in options
    if kind not in (FLAG, OPTIONAL)
]

NEED_A_CONTAINER = [
    "start",
    "state",
    "kill",
    "stop",
    "delete",
    "inspect",
    "pause",
    "resume",
    "ps",
    "update",
    "events",
    "mounts",
]


# 1. Phrases


@pytest.mark.parametrize("verb", NEED_A_CONTAINER)
def test_1_a_container_that_is_not_there(pyrunc: Call, verb: str) -> None:
    done = pyrunc(verb, "nosuch")
    assert done.returncode == 1
    assert "container does not exist" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("errno", "words"),
    [
        (2, "no such file or directory"),
        (3, "no such process"),
        (1, "operation not permitted"),
        (13, "permission denied"),
        (20, "not a directory"),
        (21, "is a directory"),
    ],
)
def test_1_the_kernels_words_are_lower_case(errno: int, words: str) -> None:
    """Docker and Podman map them to exit statuses 126 and 127, CRI-O looks for them case-sensitively."""
    assert errors.Failure("exec /x", errno=errno).text() == f"exec /x: {words}"


@pytest.mark.parametrize(("verb", "option"), WANT_A_VALUE)
def test_1_an_option_without_its_value(verb: str, option: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Podman finds out by this sentence whether an option exists."""
    from pyrunc.cli import app

    assert app.read([*verb.split(), option]) == 1
    assert capfd.readouterr().err == f"flag needs an argument: {option}\n"


# 2. The log


@pytest.mark.parametrize(
    "line", ["state nosuch", "exec nosuch true", "create -b gone x", "nosuchverb", "kill"]
)
def test_2_a_failed_call_logs_exactly_one_object(pyrunc: Call, tmp_path: Path, line: str) -> None:
    done = pyrunc("--log", "log.json", "--log-format", "json", *line.split())
    assert done.returncode != 0
    record = json.loads((tmp_path / "log.json").read_text())
    assert list(record) == ["level", "msg", "time"]
    assert record["level"] == "error"
    assert datetime.fromisoformat(record["time"]).tzinfo is not None
    assert done.stderr.rstrip("\n") == record["msg"]


def test_2_a_call_that_succeeds_logs_nothing(pyrunc: Call, tmp_path: Path) -> None:
    assert pyrunc("--log", "log.json", "--log-format", "json", "list").returncode == 0
    assert (tmp_path / "log.json").read_text() == ""


# 3. Clean streams


@pytest.mark.parametrize(
    "words", [["features"], ["list", "--format", "json"], ["list", "--format=json", "-q"]]
)
def test_3_json_and_nothing_else(pyrunc: Call, words: list[str]) -> None:
    done = pyrunc(*words)
    assert (done.returncode, done.stderr) == (0, "")
    if "-q" in words:
        assert done.stdout == ""
    else:
        json.loads(done.stdout)


@pytest.mark.parametrize("word", ["--version", "-v", "version"])
def test_3_version(pyrunc: Call, word: str) -> None:
    done = pyrunc(word)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("pyrunc version ")


# 6. Statuses


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("list", 0),
        ("state nosuch", 1),
        ("state", 1),
        ("state --nosuch x", 1),
        ("exec nosuch true", 255),
        ("wait nosuch", 255),
        ("exec", 1),
        ("nosuchverb", 3),
        ("", 0),
    ],
)
def test_6_statuses(pyrunc: Call, line: str, status: int) -> None:
    assert pyrunc(*line.split()).returncode == status


# 7. Positions and spellings: more of them in test_match.py


@pytest.mark.parametrize(
    "line",
    [
        "--root /r delete --force ID",
        "--root=/r delete -f ID",
        "-root=/r delete ID --force",
        "-root /r delete ID -force",
        "--root /q --root /r delete ID --force=true",
        "delete --root /r ID -f=true",
    ],
)
def test_7_options_in_any_position_and_spelling(line: str) -> None:
    command = match(line.split())
    assert command is not None
    assert (command.verb, command.root, command.force, command.id) == ("delete", "/r", True, "ID")


@pytest.mark.parametrize("line", ["delete --forc x", "--roo /r list", "create --no-piv x"])
def test_7_nothing_may_be_abbreviated(pyrunc: Call, line: str) -> None:
    done = pyrunc(*line.split())
    assert done.returncode == 1
    assert done.stderr.startswith("flag provided but not defined: -")


# 8. kill


@pytest.mark.parametrize("line", ["kill -a ID 9", "kill --all ID 9", "kill ID -a 9", "kill ID 9 --all"])
def test_8_kill_all(line: str) -> None:
    command = match(line.split())
    assert command is not None
    assert (command.all, command.id, command.signal) == (True, "ID", "9")


# 9. Help


@pytest.mark.parametrize("verb", VERBS)
def test_9_help_of_every_verb_is_a_success(pyrunc: Call, verb: str) -> None:
    done = pyrunc(*verb.split(), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1].startswith(f"   pyrunc {verb} - ")


@pytest.mark.parametrize("line", ["volume", "volume --help", "volume -h", "help volume", "--root /r volume"])
def test_9_help_of_a_group_lists_its_verbs(pyrunc: Call, line: str) -> None:
    done = pyrunc(*line.split())
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1].startswith("   pyrunc volume - ")
    assert "volume prune" in done.stdout


def test_9_a_verb_of_two_words_has_help_too(pyrunc: Call) -> None:
    assert pyrunc("help", "volume", "ls").stdout == pyrunc("volume", "ls", "-h").stdout
    done = pyrunc("volume", "lss")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "No help topic for 'volume lss'; did you mean \"volume ls\"?\n"


# 10. delete --force


@pytest.mark.parametrize("words", [["delete", "--force", "nosuch"], ["delete", "nosuch", "-f"]])
def test_10_delete_force_of_nothing_is_a_silent_success(pyrunc: Call, words: list[str]) -> None:
    done = pyrunc(*words)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
