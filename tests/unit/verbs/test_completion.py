"""`pyrunc completion`: scripts that the shells accept, and that complete everything in the table."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from pyrunc.cli.match import Command
from pyrunc.cli.verbs import VERBS
from pyrunc.errors import Failure
from pyrunc.verbs import completion
from tests.support.consoles import Screen, read_until
from tests.support.containers import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

# A pyrunc that knows two containers, one of them only under its --root.
STAND_IN = """#!/bin/sh
case "$*" in
    "list -q") echo box ;; "--root /r list -q") echo other ;;
    "volume ls -q") echo data ;; "--volume-root /v volume ls -q") echo more ;;
esac
"""


def need(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_reads_it(shell: str, tmp_path: Path) -> None:
    need(shell)
    script = tmp_path / "script"
    script.write_text(completion.SCRIPTS[shell]())
    subprocess.run([shell, "-n", str(script)], check=True, capture_output=True)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_it_holds_the_table(shell: str) -> None:
    script = completion.SCRIPTS[shell]()
    long = "-l {}" if shell == "fish" else "--{}"
    for verb, row in VERBS.items():
        assert verb in script
        for names, _, _, _, text in row[6]:
            assert not text or long.format(names[0]) in script


def complete_bash(tmp_path: Path, words: list[str]) -> list[str]:
    """Return what bash offers for the last word."""
    stand_in = tmp_path / "pyrunc"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    program = (
        completion.bash()
        + 'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _pyrunc; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", program, "bash", *words],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("pyrunc cre", ["create"]),
        ("pyrunc create --pid", ["--pidfd-socket", "--pid-file"]),
        ("pyrunc --log-format ", ["text", "json"]),
        ("pyrunc --log-format json li", ["list"]),
        ("pyrunc list -f ", ["table", "json"]),
        ("pyrunc delete -f ", ["box"]),
        ("pyrunc --root /r state ", ["other"]),
        ("pyrunc completion f", ["fish"]),
        ("pyrunc create ", []),
        ("pyrunc help ver", ["version"]),
        ("pyrunc vol", ["volume"]),
        ("pyrunc volume ", ["create", "ls", "inspect", "rm", "prune"]),
        ("pyrunc volume rm --f", ["--force"]),
        ("pyrunc volume rm ", ["data"]),
        ("pyrunc --volume-root /v volume inspect ", ["more"]),
        ("pyrunc volume ls --format ", ["table", "json"]),
    ],
)
def test_what_bash_offers(tmp_path: Path, line: str, expected: list[str]) -> None:
    assert complete_bash(tmp_path, line.split(" ")) == expected


# It keeps the words it is called with; --root is known by the one container that is there.
AT_A_TERMINAL = """
pyrunc() {
    case "$*" in
        "--root my place list -q" | "--root $HOME/my place list -q") echo box ;;
        *" list -q") echo wrong ;;
        *) printf '%s\\n' "$@" > words ;;
    esac
}
"""


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("run --bundle fol\t", ["run", "--bundle", "folder/"]),
        ("run --bundle=fol\t", ["run", "--bundle=folder/"]),
        ("run --bundle my\t", ["run", "--bundle", "my place/"]),
        ("run --bundle=my\t", ["run", "--bundle=my place/"]),
        ("run --bundle my\\ pl\tin\t", ["run", "--bundle", "my place/inner/"]),
        ("run --bundle 'my pl\t", ["run", "--bundle", "my place/"]),
        ("run --bundle odd\t", ["run", "--bundle", "odd$(touch made)*/"]),
        ("--root my\\ place stat\tb\t", ["--root", "my place", "state", "box"]),
        ("--root='my place' state b\t", ["--root=my place", "state", "box"]),
        ('--root "$HOME/my place" state w\t', ["--root", "{home}/my place", "state", "wrong"]),
        ("--root ~/my\\ place state b\t", ["--root", "{home}/my place", "state", "box"]),
    ],
)
def test_bash_at_a_terminal(tmp_path: Path, typed: str, words: list[str]) -> None:
    """Only directories are offered; each is one word, whatever is in its name, and nothing is evaluated."""
    for name in ("folder", "my place/inner", "odd$(touch made)*"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("file", "folders", "my file"):
        (tmp_path / name).touch()
    (tmp_path / "script").write_text(completion.bash() + AT_A_TERMINAL)
    screen = Screen()
    shell = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "INPUTRC": "/dev/null", "TERM": "dumb"},
        stdin=screen.slave,
        stdout=screen.slave,
        stderr=screen.slave,
        start_new_session=True,
    )
    try:
        os.write(screen.master, b"source ./script; echo $((6 * 7))\n")
        read_until(screen.master, b"42")
        os.write(screen.master, f"pyrunc {typed}\nexit 0\n".encode())
        assert shell.wait(30 * PATIENCE) == 0
    finally:
        shell.kill()
        shell.wait()
        screen.close()
    assert (tmp_path / "words").read_text().splitlines() == [
        word.replace("{home}", str(tmp_path)) for word in words
    ]
    assert not (tmp_path / "made").exists()


def test_what_fish_offers(tmp_path: Path) -> None:
    need("fish")
    (tmp_path / "script").write_text(completion.fish())
    program = 'source script; complete -C "pyrunc create --pid"; complete -C "pyrunc cre"'
    done = subprocess.run(["fish", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    offered = [line.split("\t")[0] for line in done.stdout.splitlines()]
    assert offered == ["--pidfd-socket", "--pid-file", "create"]


def test_the_shell_of_the_caller(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert completion.main(Command("completion", {"shell": None})) == 0
    assert capsys.readouterr().out == completion.fish()


@pytest.mark.parametrize(("shell", "message"), [("tcsh", 'no completions for "tcsh"'), ("", "which shell?")])
def test_a_shell_it_does_not_know(monkeypatch: pytest.MonkeyPatch, shell: str, message: str) -> None:
    monkeypatch.setenv("SHELL", shell)
    with pytest.raises(Failure, match=message):
        completion.main(Command("completion", {"shell": None}))
