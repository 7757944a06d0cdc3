"""install/packages, with an apt of our own: what is missing is installed, and what nobody has is named."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

PACKAGES = Path(__file__).resolve().parents[3] / "install/packages"
# `there` is installed; `none` and `virtual` have no candidate. The lists are stale until they are updated.
PROGRAMS = {
    "id": "echo 0",
    "dpkg-query": 'for last; do :; done; [ "$last" != there ] || echo installed',
    "apt-cache": """case $2 in
        none) ;;
        virtual) printf 'virtual:\\n  Candidate: (none)\\n' ;;
        *) printf '%s:\\n  Candidate: 1.0\\n' "$2" ;;
    esac""",
    "apt-get": """echo "$*" >>"$SAID"
    case $* in
        update*) touch "$SAID.fresh" ;;
        *" none"* | *" virtual"*) exit 100 ;;
        *) [ ! -e "$SAID.stale" ] || [ -e "$SAID.fresh" ] ;;
    esac""",
}
INSTALL = "install -qq -y --no-install-recommends --no-remove"


@pytest.mark.parametrize(
    ("names", "stale", "calls", "status", "error"),
    [
        ("there", False, [], 0, ""),
        ("there one two", False, [f"{INSTALL} one two"], 0, ""),
        ("one", True, [f"{INSTALL} one", "update -qq", f"{INSTALL} one"], 0, ""),
        (
            "one none two virtual",
            False,
            [f"{INSTALL} one none two virtual", "update -qq", f"{INSTALL} one two"],
            1,
            "not in this distribution: none virtual\n",
        ),
        ("none", False, [f"{INSTALL} none", "update -qq"], 1, "not in this distribution: none\n"),
    ],
)
def test_what_is_missing_is_installed(
    names: str, *, stale: bool, calls: list[str], status: int, error: str, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    for name, script in PROGRAMS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    said = tmp_path / "said"
    said.touch()
    if stale:
        (tmp_path / "said.stale").touch()
    (tmp_path / "list").write_text("# why\n" + "\n".join(names.split()) + "\n")
    done = subprocess.run(
        [str(PACKAGES), str(tmp_path / "list")],
        env={
            "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
            "SAID": str(said),
            "POLICY_RC_D": str(tmp_path / "policy"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (status, error)
    assert said.read_text().splitlines() == calls
    assert not (tmp_path / "policy").exists()
