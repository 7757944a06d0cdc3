"""`pyrunc --version`: the lines engines parse."""

from __future__ import annotations

import re
import sys
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

import pyrunc
from pyrunc import store
from pyrunc.cli.match import Command
from pyrunc.verbs import version

if TYPE_CHECKING:
    from pathlib import Path


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


@pytest.mark.parametrize("kind", ["image", "program"])
def test_which_command_this_is(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    embed = ModuleType("_pyrunc_embed")
    monkeypatch.setitem(sys.modules, "_pyrunc_embed", embed)
    monkeypatch.setattr(embed, "kind", lambda: kind, raising=False)
    assert version.command() == f"{kind} ({sys.executable})"


def test_without_libseccomp_its_line_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pyrunc.apply.seccomp.compiler.version", lambda: None)
    version.main(Command("version", {}))
    assert "libseccomp" not in capsys.readouterr().out


def test_the_commit_an_installation_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyrunc, "__file__", str(tmp_path / "__init__.py"))
    assert version.commit() == "unknown"
    (tmp_path / "commit.txt").write_text("0123abc\n")
    assert version.commit() == "0123abc"
    (tmp_path / "commit.txt").write_text("")
    assert version.commit() == "unknown"


def test_state_names_the_same_version_of_the_specification() -> None:
    state = store.oci_state(store.Container("/r", "x"), "stopped")
    assert state["ociVersion"] == version.SPEC_VERSION
