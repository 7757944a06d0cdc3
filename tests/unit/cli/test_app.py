"""The slow path: help, and the messages for a wrong command line."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyrunc.cli.app import Words, parse
from pyrunc.cli.verbs import GROUPS, VERBS

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


# What is printed to standard output: nothing, or how the verb is called and where its help is.
SILENT, HELPS = False, True

# What the command line is, the status, the one line on stderr, and whether two more lines follow.
WRONG = [
    ("nosuch", 3, "No help topic for 'nosuch'", SILENT),
    ("nosuch -h", 3, "No help topic for 'nosuch'", SILENT),
    ("help nosuch", 3, "No help topic for 'nosuch'", SILENT),
    ("creat x", 3, "No help topic for 'creat'; did you mean \"create\"?", SILENT),
    ("rm x", 3, "No help topic for 'rm'; did you mean \"delete\"?", SILENT),
    (
        "create",
        1,
        'pyrunc: "create" requires exactly 1 argument(s)',
        HELPS,
    ),
    (
        "state a b",
        1,
        'pyrunc: "state" requires exactly 1 argument(s); "b" is one too many',
        HELPS,
    ),
    (
        "run x sh",
        1,
        (
            'pyrunc: "run" requires exactly 1 argument(s); "sh" is one too many:'
            " the bundle is named with --bundle, the program in its config.json"
        ),
        HELPS,
    ),
    ("exec", 1, 'pyrunc: "exec" requires a minimum of 1 argument(s)', HELPS),
    ("kill", 1, 'pyrunc: "kill" requires a minimum of 1 argument(s)', HELPS),
    (
        "plan b",
        1,
        (
            'pyrunc: "plan" requires exactly 0 argument(s); "b" is one too many:'
            " the bundle is named with --bundle, the program in its config.json"
        ),
        HELPS,
    ),
    (
        "kill a b c",
        1,
        'pyrunc: "kill" requires a maximum of 2 argument(s); "c" is one too many',
        HELPS,
    ),
    (
        "state --root",
        1,
        "flag needs an argument: --root",
        HELPS,
    ),
    ("create -b", 1, "flag needs an argument: -b", HELPS),
    (
        "delete -x a",
        1,
        "flag provided but not defined: -x",
        HELPS,
    ),
    (
        "exec -td a sh",
        1,
        "flag provided but not defined: -td; write -t -d",
        HELPS,
    ),
    (
        "create --pidfile /p a",
        1,
        'flag provided but not defined: -pidfile; did you mean "--pid-file"?',
        HELPS,
    ),
    (
        "--bundle /b create a",
        1,
        'flag provided but not defined: -bundle; write it after "create", which it is an option of',
        HELPS,
    ),
    ("--log-format xml list", 1, "invalid log-format: xml; choose text or json", SILENT),
    ("list --format jsn", 1, 'invalid format: jsn; did you mean "json"?', SILENT),
    ("create --preserve-fds x a", 1, 'invalid value "x" for flag -preserve-fds: not an integer', SILENT),
    (
        "create --preserve-fds 99999999999999999999 a",
        1,
        'invalid value "99999999999999999999" for flag -preserve-fds: not an integer of 64 bits',
        SILENT,
    ),
    ("delete --force=maybe a", 1, 'invalid value "maybe" for flag -force: use true or false', SILENT),
    ("--rootless maybe list", 1, 'invalid value "maybe" for flag -rootless: use true, false or auto', SILENT),
    (
        "events --interval 5 a",
        1,
        'invalid value "5" for flag -interval: not a duration, such as "5s" or "1m30s"',
        SILENT,
    ),
]


@pytest.mark.parametrize(("line", "status", "err", "helps"), WRONG, ids=[row[0] for row in WRONG])
def test_what_is_said_of_a_wrong_line(
    line: str, status: int, err: str, helps: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    from pyrunc.cli import app

    assert app.read(line.split()) == status
    out, said = capfd.readouterr()
    assert said == err + "\n"
    verb = next((word for word in line.split() if word in VERBS), "")
    lines = out.splitlines()
    assert len(lines) == (2 if helps else 0)
    if helps and not line.startswith("-"):
        assert lines[0].startswith(f"USAGE: pyrunc {verb} ")
        assert lines[1] == f"See: pyrunc {verb} --help"


@pytest.mark.parametrize("verb", ["", *VERBS, *GROUPS])
def test_help_fits_eighty_columns(
    verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyrunc.cli import app

    monkeypatch.setenv("COLUMNS", "80")
    assert app.read([*verb.split(), "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    # No letter, and no end of a word, stands on a line of its own.
    assert [line for line in lines if len(line.strip()) == 1] == []


def test_a_usage_error_is_logged_like_any_other(pyrunc: Call, tmp_path: Path) -> None:
    done = pyrunc("--log", "l", "--log-format", "json", "create")
    assert done.returncode == 1
    text = (tmp_path / "l").read_text()
    assert text.startswith(
        '{"level":"error","msg":"pyrunc: \\"create\\" requires exactly 1 argument(s)","time":"'
    )
    assert text.count("\n") == 1


def test_the_slow_path_without_site(pyrunc_argv: list[str]) -> None:
    """The launcher starts Python with -S; click must be found nevertheless."""
    done = subprocess.run([*pyrunc_argv, "-h"], capture_output=True, check=True)
    assert done.stderr == b""
