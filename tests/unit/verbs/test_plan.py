"""`pyrunc plan`: the list that create would carry out; it needs no rights, and does nothing."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from tests.support.specs import small

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Call


def test_a_table(pyrunc: Call, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(small(hostname="h")))
    done = pyrunc("plan", "--bundle", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["STEP", "BY", "WHAT", "WHY"]
    assert any(line.split()[1:] == ["child", "hostname", "h", "/hostname"] for line in lines)
    assert "config.json" in os.listdir(tmp_path)
    assert "rootfs" not in os.listdir(tmp_path)  # none was needed, none was made


def test_json(pyrunc: Call, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(small()))
    done = pyrunc("plan", "--json", "--config", str(tmp_path / "config.json"))
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert [step["step"] for step in found["steps"]] == list(range(1, len(found["steps"]) + 1))


def test_what_create_would_refuse(pyrunc: Call, tmp_path: Path) -> None:
    mounts = [{"destination": "/d", "source": "/s", "options": ["rbind", "rslaev"]}]
    (tmp_path / "config.json").write_text(json.dumps(small(mounts=mounts)))
    done = pyrunc("plan", "--bundle", str(tmp_path))
    assert done.returncode == 1
    assert "/mounts/0/options/1" in done.stderr
    assert 'did you mean "rslave"?' in done.stderr


def tree(top: Path) -> set[str]:
    return {str(path) for path in top.rglob("*")}


def test_flags_about_mounts(pyrunc: Call, tmp_path: Path) -> None:
    """The list has the mounts that the options add, and their sources on the host; nothing is made."""
    (tmp_path / "config.json").write_text(json.dumps(small()))
    before = tree(tmp_path)
    flags = [
        "-v",
        "data:/data",
        "-v",
        f"{tmp_path}/new:/new:ro",
        "--mount",
        "dst=/any",
        "--tmpfs",
        "/t:size=1m",
    ]
    done = pyrunc("--volume-root", str(tmp_path / "volumes"), "plan", "--bundle", str(tmp_path), *flags)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [" ".join(line.split()[1:]) for line in done.stdout.splitlines()]
    volumes = f"{tmp_path}/volumes"
    assert "parent volume data: make it, fill it with the image's /data /mounts/0" in lines
    assert f"parent source {tmp_path}/new: make the directory /mounts/1" in lines
    (made,) = [line for line in lines if "anonymous" in line]
    assert made.startswith(
        "parent anonymous volume ANONYMOUS-1: make it (its name is drawn when it is made), fill"
    )
    assert made.endswith(" /mounts/2")
    assert f"child rbind {volumes}/data/_data on /data (rprivate) /mounts/0" in lines
    assert "child mount tmpfs on /t (nosuid nodev noexec size=1m mode=1777) /mounts/3" in lines
    assert tree(tmp_path) == before


def test_flags_that_create_would_refuse(pyrunc: Call, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(small()))
    done = pyrunc("plan", "--bundle", str(tmp_path), "--volumes-from", "nobody")
    assert done.returncode == 1
    assert "nobody" in done.stderr


def test_what_changes_the_order(pyrunc: Call, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(small()))
    done = pyrunc("plan", "--bundle", str(tmp_path), "--no-pivot", "--no-new-keyring")
    assert "enter the root file system (move it over / and chroot)" in done.stdout
    assert "keyring" not in done.stdout


def test_the_program(pyrunc: Call, tmp_path: Path) -> None:
    """With --program the operations of the init program stand below the steps they belong to."""
    (tmp_path / "config.json").write_text(json.dumps(small(hostname="h")))
    plain = pyrunc("plan", "--bundle", str(tmp_path)).stdout.splitlines()
    done = pyrunc("plan", "--program", "--bundle", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines if line in plain or line.split()[0].isdigit()] == [
        line.split()[:2] for line in plain
    ]
    at = next(number for number, line in enumerate(lines) if line.split()[1:3] == ["child", "program"])
    assert [line.split()[1] for line in lines[at + 1 :]] == ["FIND", "EXEC"]
    found = json.loads(pyrunc("plan", "--program", "--json", "--bundle", str(tmp_path)).stdout)
    assert [text.split()[1] for text in found["steps"][-1]["operations"]] == ["FIND", "EXEC"]
