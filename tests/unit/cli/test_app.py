"""The slow path: help, and what is said about a command line that is wrong."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyrunc.cli.app import Words, parse
from pyrunc.cli.verbs import VERBS

if TYPE_CHECKING:
    from tests.conftest import Call


def in_process(line: str) -> dict[str, object]:
    return vars(parse(Words(line.split())))


@pytest.mark.parametrize(
    ("line", "attribute", "value"),
    [
        ("--debug=T state x", "debug", True),
        ("--debug=0 state x", "debug", False),
        ("--rootless=1 state x", "rootless", "true"),
        ("--rootless=F state x", "rootless", "false"),
        ("--rootless= state x", "rootless", "auto"),
        ("events --interval 1m30s x", "interval", 90.0),
        ("events --interval=250ms x", "interval", 0.25),
        ("events --interval=-1.5h x", "interval", -5400.0),
        ("create --preserve-fds 0x3 x", "preserve_fds", 3),
        ("kill x -9", "signal", "-9"),
        ("validate -", "file", "-"),
        ("-- state x", "id", "x"),
        ("--debug --version", "verb", "version"),
        ("--version state", "verb", "version"),
    ],
)
def test_rarer_spellings_are_understood(line: str, attribute: str, value: object) -> None:
    assert in_process(line)[attribute] == value


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("form", ["{} --help", "{} -h", "help {}", "h {}", "--debug {} x y z -h"])
def test_help_of_every_verb(verb: str, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    from pyrunc.cli import app

    if VERBS[verb][5] and form.startswith("--debug"):
        form = "--debug {} -h x y z"  # behind the id, -h is the other program's
    assert app.read(form.format(verb).split()) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "NAME:"
    assert lines[1].startswith(f"   pyrunc {verb} - ")
    assert err == ""
    for names, _, _, _, text in VERBS[verb][6]:
        assert (f"--{names[0]} " in out or f"--{names[0]}\n" in out) == bool(text)


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"], ["help"], ["h"], ["--debug"]])
def test_help_of_the_program(pyrunc: Call, words: list[str]) -> None:
    done = pyrunc(*words)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:2] == ["NAME:", "   pyrunc - Open Container Initiative runtime"]
    assert all(f"   {verb} " in done.stdout for verb in VERBS)


# What the command line is, the status, the one line on stderr, and how stdout begins.
WRONG = [
    ("nosuch", 3, "No help topic for 'nosuch'", ""),
    ("nosuch -h", 3, "No help topic for 'nosuch'", ""),
    ("help nosuch", 3, "No help topic for 'nosuch'", ""),
    ("creat x", 3, "No help topic for 'creat'; did you mean \"create\"?", ""),
    ("rm x", 3, "No help topic for 'rm'; did you mean \"delete\"?", ""),
    (
        "create",
        1,
        'pyrunc: "create" requires exactly 1 argument(s)',
        "Incorrect Usage.\n\nNAME:\n   pyrunc create",
    ),
    (
        "state a b",
        1,
        'pyrunc: "state" requires exactly 1 argument(s); "b" is one too many',
        "Incorrect Usage.\n",
    ),
    (
        "run x sh",
        1,
        (
            'pyrunc: "run" requires exactly 1 argument(s); "sh" is one too many:'
            " the bundle is named with --bundle, the program in its config.json"
        ),
        "Incorrect Usage.\n",
    ),
    ("exec", 1, 'pyrunc: "exec" requires a minimum of 1 argument(s)', "Incorrect Usage.\n"),
    ("kill", 1, 'pyrunc: "kill" requires a minimum of 1 argument(s)', "Incorrect Usage.\n"),
    (
        "plan b",
        1,
        (
            'pyrunc: "plan" requires exactly 0 argument(s); "b" is one too many:'
            " the bundle is named with --bundle, the program in its config.json"
        ),
        "Incorrect Usage.\n",
    ),
    (
        "kill a b c",
        1,
        'pyrunc: "kill" requires a maximum of 2 argument(s); "c" is one too many',
        "Incorrect Usage.\n",
    ),
    (
        "state --root",
        1,
        "flag needs an argument: --root",
        "Incorrect Usage: flag needs an argument: --root\n",
    ),
    ("create -b", 1, "flag needs an argument: -b", "Incorrect Usage: flag needs an argument: -b\n"),
    (
        "delete -x a",
        1,
        "flag provided but not defined: -x",
        "Incorrect Usage: flag provided but not defined: -x\n",
    ),
    (
        "exec -td a sh",
        1,
        "flag provided but not defined: -td; write -t -d",
        "Incorrect Usage: flag provided but not defined: -td",
    ),
    (
        "create --pidfile /p a",
        1,
        'flag provided but not defined: -pidfile; did you mean "--pid-file"?',
        "Incorrect Usage: flag provided but not defined: -pidfile",
    ),
    (
        "--bundle /b create a",
        1,
        'flag provided but not defined: -bundle; write it after "create", which it is an option of',
        "Incorrect Usage: flag provided but not defined: -bundle",
    ),
    ("--log-format xml list", 1, "invalid log-format: xml; choose text or json", ""),
    ("list --format jsn", 1, 'invalid format: jsn; did you mean "json"?', ""),
    ("create --preserve-fds x a", 1, 'invalid value "x" for flag -preserve-fds: not an integer', ""),
    (
        "create --preserve-fds 99999999999999999999 a",
        1,
        'invalid value "99999999999999999999" for flag -preserve-fds: not an integer of 64 bits',
        "",
    ),
    ("delete --force=maybe a", 1, 'invalid value "maybe" for flag -force: use true or false', ""),
    ("--rootless maybe list", 1, 'invalid value "maybe" for flag -rootless: use true, false or auto', ""),
    (
        "events --interval 5 a",
        1,
        'invalid value "5" for flag -interval: not a duration, such as "5s" or "1m30s"',
        "",
    ),
]


@pytest.mark.parametrize(("line", "status", "err", "out"), WRONG, ids=[row[0] for row in WRONG])
def test_what_is_said_of_a_wrong_line(pyrunc: Call, line: str, status: int, err: str, out: str) -> None:
    done = pyrunc(*line.split())
    assert done.returncode == status
    assert done.stderr == err + "\n"
    assert done.stdout.startswith(out)
    assert bool(out) == bool(done.stdout)


def test_a_usage_error_is_logged_like_any_other(pyrunc: Call, tmp_path: Path) -> None:
    done = pyrunc("--log", "l", "--log-format", "json", "create")
    assert done.returncode == 1
    text = (tmp_path / "l").read_text()
    assert text.startswith(
        '{"level":"error","msg":"pyrunc: \\"create\\" requires exactly 1 argument(s)","time":"'
    )
    assert text.count("\n") == 1


def test_the_slow_path_without_site(pyrunc_argv: list[str]) -> None:
    """The launcher starts Python with -S: click has to be found all the same."""
    done = subprocess.run([*pyrunc_argv, "-h"], capture_output=True, check=True)
    assert done.stderr == b""
