"""`pyrunc --version`: the lines engines parse."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import pytest

from pyrunc.cli.match import Command
from pyrunc.verbs import version

if TYPE_CHECKING:
    pass


def test_the_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert version.main(Command("version", {})) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"pyrunc version \d+\.\d+\.\d+\S*", lines[0])
    assert lines[1].startswith("commit: ")
    assert re.fullmatch(r"spec: \d+\.\d+\.\d+", lines[2])
    assert re.fullmatch(r"python: \d+\.\d+\.\d+", lines[3])
    assert lines[4] == f"command: script ({sys.executable})"
    assert lines[-1] == f"faster: {version.FASTER}", "not started as the installed command starts Python"
    assert [line for line in lines[5:-1] if not re.fullmatch(r"libseccomp: \d+\.\d+\.\d+", line)] == []


def test_without_libseccomp_its_line_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pyrunc.apply.seccomp.compiler.version", lambda: None)
    version.main(Command("version", {}))
    assert "libseccomp" not in capsys.readouterr().out
