"""The output on a terminal of 80 columns: every table fits, and only the right words are coloured."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import termios
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Call
    from tests.support.containers import Bundle
    from tests.support.engine import Engine

COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def seen(words: list[str], columns: int, **environment: str) -> str:
    """Return what a command prints on a terminal of this width."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    plain = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    with subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=slave,
        env={**plain, "TERM": "xterm", **environment},
    ) as called:
        os.close(slave)
        parts = []
        try:
            while part := os.read(master, 65536):
                parts.append(part)
        except OSError:  # EIO: nobody has the other end any more
            pass
        finally:
            os.close(master)
        called.wait(60)
    return b"".join(parts).decode().replace("\r\n", "\n")


def bare(text: str) -> str:
    return COLOURS.sub("", text)


def widest(text: str) -> int:
    return max(map(len, bare(text).splitlines()))


@pytest.fixture
def told(pyrunc_argv: list[str], tmp_path: Path) -> Callable[..., str]:
    def call(*words: str, columns: int = 80, **environment: str) -> str:
        return seen([*pyrunc_argv, "--root", str(tmp_path), *words], columns, **environment)

    return call


@pytest.mark.parametrize("columns", [60, 80, 140])
def test_help_and_explanations(told: Callable[..., str], columns: int) -> None:
    for words in (
        ["--help"],
        ["run", "--help"],
        ["explain", "/mounts/0/options"],
        ["explain", "/linux"],
        ["doctor"],
    ):
        assert widest(told(*words, columns=columns)) <= columns, words


def test_volumes(told: Callable[..., str], pyrunc: Call, tmp_path: Path) -> None:
    long = "v" * 75
    where = ["--volume-root", str(tmp_path / "volumes")]
    for name in ("short", long):
        assert pyrunc("volume", "create", name, *where).returncode == 0
    wide = bare(told("volume", "ls", *where, columns=140)).split("\n")
    assert wide == ["DRIVER    VOLUME NAME", "local     short", f"local     {long}", ""]
    assert bare(told("volume", "ls", *where)).split("\n") == ["VOLUME NAME", "short", long, ""]


def test_an_error_and_a_warning_are_coloured(told: Callable[..., str]) -> None:
    assert told("state", "nosuch").startswith("\x1b[1;31mnosuch\x1b[0m: container does not exist")
    assert told("state", "nosuch", NO_COLOR="1").startswith("nosuch: container does not exist")
    assert told("--color=never", "state", "nosuch").startswith("nosuch: ")
    assert told("state", "nosuch", "--color", "never").startswith("nosuch: ")


def test_colours_into_a_pipe_only_when_asked_for(pyrunc: Call) -> None:
    assert pyrunc("state", "nosuch").stderr.startswith("nosuch: ")
    assert pyrunc("--color=always", "state", "nosuch").stderr.startswith("\x1b[1;31mnosuch")


def test_a_log_for_programs_is_never_coloured(pyrunc: Call, tmp_path: Path) -> None:
    pyrunc("--color=always", "--log", "log", "--log-format", "json", "state", "nosuch")
    assert json.loads((tmp_path / "log").read_text())["msg"].startswith("nosuch: ")


@pytest.mark.root
@pytest.mark.container
@pytest.mark.skipif(os.geteuid() != 0, reason="starts real containers, which takes root")
@pytest.mark.parametrize("columns", [60, 80, 140])
def test_tables_about_containers(engine: Engine, bundle: Bundle, columns: int) -> None:
    name = engine.start(bundle)
    tables = (["list"], ["mounts", name], ["explain", name], ["plan", "-b", str(bundle.path)])
    for words in tables:
        text = seen(engine.argv(*words), columns)
        assert widest(text) <= columns, words
        assert COLOURS.search(text), words
        assert engine.call(*words).ok().out == engine.call(*words, "--color=never").ok().out
    assert f"\n{name}  " in bare(seen(engine.argv("list"), columns))
    traced = seen(engine.argv("exec", "--trace", name, "true"), columns)
    assert widest(traced) <= columns


@pytest.mark.root
@pytest.mark.container
@pytest.mark.skipif(os.geteuid() != 0, reason="starts real containers, which takes root")
def test_json_in_both_spellings(engine: Engine, bundle: Bundle) -> None:
    name = engine.start(bundle)
    for words in (
        ["list"],
        ["ps", name],
        ["mounts", name],
        ["plan", "-b", str(bundle.path)],
        ["volume", "ls"],
    ):
        verb, rest = (words[:2], words[2:]) if words[0] == "volume" else (words[:1], words[1:])
        where = ["--volume-root", str(engine.directory / "volumes")]
        short = engine.call(*verb, "--json", *rest, *where[: 2 if verb[0] == "volume" else 0]).ok().out
        long = (
            engine.call(*verb, "--format", "json", *rest, *where[: 2 if verb[0] == "volume" else 0]).ok().out
        )
        assert short == long
        if verb[0] != "volume":
            json.loads(short)
