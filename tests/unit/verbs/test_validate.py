"""`pyrunc validate`: all problems, on standard output, in the form of a compiler's messages."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.specs import small, with_linux, with_process

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


SLIP = with_process(user={"username": "nobody"})
LINE = json.dumps(SLIP, indent=1).splitlines().index('   "username": "nobody"') + 1


def test_what_is_hardly_meant_is_a_warning(pyrunc: Call, tmp_path: Path) -> None:
    write(tmp_path, SLIP)
    done = pyrunc("validate")
    assert done.returncode == 0
    first, last = done.stdout.splitlines()
    assert first.startswith(
        f"config.json:{LINE}: warning: /process/user/username: a name is read on Windows only"
    )
    assert last == "ok"
    assert pyrunc("validate", "--strict").returncode == 1


def test_a_note_is_no_reason_to_refuse(pyrunc: Call, tmp_path: Path) -> None:
    write(tmp_path, with_linux(without=("network",)))
    done = pyrunc("validate", "--strict")
    assert done.returncode == 0
    assert "note: /linux/namespaces: no network namespace" in done.stdout


def test_systemd(pyrunc: Call, tmp_path: Path) -> None:
    write(tmp_path, with_linux(cgroupsPath="system.slice:pyrunc:box"))
    assert pyrunc("validate", "--strict").returncode == 1
    assert pyrunc("--systemd-cgroup", "validate", "--strict").stdout == "ok\n"
    assert pyrunc("--cgroup-manager", "systemd", "validate", "--strict").stdout == "ok\n"


@pytest.mark.parametrize("words", [["--json"], ["--format", "json"]])
def test_as_data(pyrunc: Call, tmp_path: Path, words: list[str]) -> None:
    path = write(tmp_path, SLIP)
    (row,) = json.loads(pyrunc("validate", *words).stdout)
    assert (row["severity"], row["line"], row["column"]) == ("warning", LINE, None)
    assert row["pointer"] == "/process/user/username"
    assert row["text"].startswith("a name is read")
    path.write_text(json.dumps(small(hostName="x", hostname="y"), indent=1).replace("hostName", "hostname"))
    (row,) = json.loads(pyrunc("validate", *words).stdout)
    assert (row["severity"], row["pointer"]) == ("error", "/hostname")
    assert "there twice" in row["text"]
    path.write_text(json.dumps(small()))
    assert json.loads(pyrunc("validate", *words).stdout) == []
    path.write_text("{")
    (row,) = json.loads(pyrunc("validate", *words).stdout)
    assert (row["severity"], row["column"]) == ("error", 2)


def test_a_working_directory_that_a_read_only_root_has_not_got(pyrunc: Call, tmp_path: Path) -> None:
    (tmp_path / "rootfs/there").mkdir(parents=True)
    (tmp_path / "rootfs/link").symlink_to("/there")
    config = with_process(cwd="/missing", noNewPrivileges=True)
    config["root"] = {"path": "rootfs", "readonly": True}
    write(tmp_path, config)
    said = pyrunc("validate").stdout
    assert "warning: /process/cwd: /missing is not in" in said
    for cwd in ("/", "/there", "/link"):
        config["process"]["cwd"] = cwd
        write(tmp_path, config)
        assert pyrunc("validate").stdout == "ok\n", cwd
    # A mount may bring it, and what cannot be looked at is not judged.
    config["process"]["cwd"] = "/mnt/missing"
    config["mounts"] = [{"destination": "/mnt", "source": "/srv", "options": ["bind"]}]
    write(tmp_path, config)
    assert pyrunc("validate").stdout == "ok\n"
    del config["mounts"]
    config["root"]["path"] = "nowhere"
    write(tmp_path, config)
    assert pyrunc("validate").stdout == "ok\n"


def test_colours_where_they_are_asked_for(pyrunc: Call, tmp_path: Path) -> None:
    write(tmp_path, SLIP)
    assert "\033" not in pyrunc("validate").stdout
    said = pyrunc("--color", "always", "validate").stdout
    assert said.startswith(f"\033[33mconfig.json:{LINE}\033[0m: warning: ")
    assert said.endswith("\033[32mok\033[0m\n")
