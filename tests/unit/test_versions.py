"""The version, and the kind of the command."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from pyrunc import store, versions

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("kind", ["image", "program"])
def test_which_command_this_is(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    embed = ModuleType("_pyrunc_embed")
    monkeypatch.setitem(sys.modules, "_pyrunc_embed", embed)
    monkeypatch.setattr(embed, "kind", lambda: kind, raising=False)
    assert versions.command() == f"{kind} ({sys.executable})"


def test_the_commit_an_installation_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "__file__", str(tmp_path / "__init__.py"))
    assert versions.commit() == "unknown"
    (tmp_path / "commit.txt").write_text("0123abc\n")
    assert versions.commit() == "0123abc"
    (tmp_path / "commit.txt").write_text("")
    assert versions.commit() == "unknown"


def test_state_names_the_same_version_of_the_specification() -> None:
    state = store.oci_state(store.Container("/r", "x"), "stopped")
    assert state["ociVersion"] == versions.SPEC_VERSION
