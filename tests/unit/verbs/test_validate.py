"""`pyrunc validate`: all problems, on standard output, as a compiler would list them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.support.specs import small, with_process

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Call


def write(folder: Path, config: dict[str, Any], name: str = "config.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(config, indent=1))
    return path


def test_a_file_that_is_right(pyrunc: Call, tmp_path: Path) -> None:
    write(tmp_path, small())
    done = pyrunc("validate")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


def test_a_bundle(pyrunc: Call, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    write(tmp_path / "bundle", small(hostname=5))
    done = pyrunc("validate", "--bundle", str(tmp_path / "bundle"))
    place = f"{tmp_path}/bundle/config.json"
    assert done.returncode == 1
    assert done.stdout == f"{place}:38: /hostname: must be a string, not the number 5\n"


def test_all_problems_and_oddities_in_their_order(pyrunc: Call, tmp_path: Path) -> None:
    config = with_process(cwd="x", env=["A"] * 40)
    config["hostName"] = "h"
    path = write(tmp_path, config, "other.json")
    done = pyrunc("validate", str(path))
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert done.stderr == ""
    assert len(lines) == 42
    assert lines[0] == f"{path}:7: /process/cwd: Cwd must be an absolute path"
    assert lines[-1].endswith('/hostName: not a property of the specification; did you mean "hostname"?')


def test_an_oddity_alone_is_a_problem_here(pyrunc: Call, tmp_path: Path) -> None:
    write(tmp_path, small(hostName="h"))
    done = pyrunc("validate")
    assert done.returncode == 1
    assert done.stdout.startswith("config.json:38: /hostName: ")


def test_text_that_is_no_json(pyrunc: Call, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{\n "a": 1,\n}')
    done = pyrunc("validate")
    assert done.returncode == 1
    assert (
        done.stdout
        == "config.json:3:1: not JSON: there is a comma before this }, but no property follows it\n"
    )


def test_a_file_that_is_not_there(pyrunc: Call) -> None:
    done = pyrunc("validate")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "JSON specification file config.json not found" in done.stderr
