"""`pyrunc plan`: the list that create would carry out, for anybody, without doing anything."""

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
