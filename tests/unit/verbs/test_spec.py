"""`pyrunc spec`: the file, its content, and that it never overwrites another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyrunc.spec import load
from pyrunc.versions import SPEC_VERSION

if TYPE_CHECKING:
    from tests.conftest import Call


def test_the_file(pyrunc: Call, tmp_path: Path) -> None:
    done = pyrunc("spec")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    text = (tmp_path / "config.json").read_text()
    assert text.startswith('{\n\t"ociVersion": "')
    config = json.loads(text)
    assert config["ociVersion"] == SPEC_VERSION
    assert config["process"]["args"] == ["sh"]
    assert config["process"]["terminal"] is True
    assert config["root"] == {"path": "rootfs", "readonly": True}
    assert config["hostname"] == "pyrunc"


@pytest.mark.parametrize("options", [[], ["--rootless"]])
def test_it_is_valid(pyrunc: Call, tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "rootfs").mkdir()
    pyrunc("spec", *options)
    config, raw = load.load(str(tmp_path / "config.json"))
    assert config == json.loads(raw)


def test_a_file_that_is_there_stays(pyrunc: Call, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("mine")
    done = pyrunc("spec")
    assert (done.returncode, done.stderr) == (1, "File config.json exists. Remove it first\n")
    assert (tmp_path / "config.json").read_text() == "mine"


def test_where_it_is_written(pyrunc: Call, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    assert pyrunc("spec", "--bundle", "b", "-f", "other.json").returncode == 0
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["other.json"]
    done = pyrunc("spec", "-b", "nosuch")
    assert (done.returncode, done.stderr) == (1, "open nosuch/config.json: no such file or directory\n")
