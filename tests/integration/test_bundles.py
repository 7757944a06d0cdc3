"""The example bundles are documentation that can be run; this runs it."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.engine import Engine

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"


def test_each_bundle_says_what_it_shows() -> None:
    found = {path.parent.name for path in BUNDLES.glob("*/config.json")}
    assert found >= {"hello", "busybox"}
    for name in found:
        text = (BUNDLES / name / "README.md").read_text()
        assert text.startswith(f"# {name}")
        assert f"run -b bundles/{name}" in text


def test_hello(engine: Engine) -> None:
    said = engine.call("run", "--bundle", str(BUNDLES / "hello"), "hello-1").ok().out
    lines = {line.split()[0]: line for line in said.splitlines() if line.startswith("  ")}
    assert lines["host"].split()[-1] == "hello"
    assert "number 1, of 1" in lines["process"]
    assert "0x20000420" in lines["user"]
    assert lines["network"].endswith(" lo and nothing else")
    mounts = {line.split()[0]: line.split()[1:] for line in said.partition("The mounts")[2].splitlines()[1:]}
    # Words of the host's file system (lazytime, mand) may stand between them.
    assert {"ro", "nosuid", "nodev"} <= set(mounts["/usr"][1].split(","))
    assert mounts["/proc"] == ["proc", "rw,nosuid,nodev,noexec"]
    assert mounts["/tmp"][0] == "tmpfs"
    assert set(mounts) == {
        *("/", "/usr", "/etc/passwd", "/etc/group", "/hello.sh", "/proc", "/sys", "/dev", "/dev/pts", "/tmp")
    }


@pytest.mark.parametrize("path", ["/usr/new-file", "/new-file"])
def test_hello_cannot_write(engine: Engine, path: str) -> None:
    said = engine.call("run", "--bundle", str(BUNDLES / "hello"), "hello-2").ok().out
    assert f"  {path:15} refused: Read-only file system" in said.splitlines()
    assert not Path(path).exists()


def test_hello_leaves_the_checkout_as_it_was(engine: Engine) -> None:
    def listing() -> list[str]:
        return sorted(str(path) for path in (BUNDLES / "hello").rglob("*"))

    before = listing()
    engine.call("run", "--bundle", str(BUNDLES / "hello"), "hello-3").ok()
    assert listing() == before


@pytest.fixture
def busybox() -> Path:
    bundle = BUNDLES / "busybox"
    if not (bundle / "rootfs/bin/busybox").exists():
        pytest.skip("bundles/busybox is empty: make bundles fills it")
    return bundle


def test_busybox_is_a_shell_on_a_terminal(engine: Engine, busybox: Path) -> None:
    master, slave = os.openpty()
    words = engine.argv("run", "--bundle", str(busybox), "busybox-1")
    called = subprocess.Popen(words, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    os.write(master, b"tty && hostname && exit 7\n")
    said, end = b"", time.monotonic() + 30
    while called.poll() is None and time.monotonic() < end:
        if select.select([master], [], [], 0.1)[0]:
            try:
                said += os.read(master, 4096)
            except OSError:  # EIO: nobody has the terminal open any more
                break
    assert called.wait(10) == 7, said
    os.close(master)
    lines = said.decode().replace("\r", "").splitlines()
    assert "/dev/pts/0" in lines
    assert "busybox" in lines


def test_busybox_has_limits(engine: Engine, busybox: Path, tmp_path: Path) -> None:
    config = json.loads((busybox / "config.json").read_text())
    config["process"]["terminal"] = False
    config["root"]["path"] = str(busybox / "rootfs")
    config["process"]["args"] = [
        *(
            "sh",
            "-c",
            "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; ulimit -n; ls /home",
        )
    ]
    (tmp_path / "config.json").write_text(json.dumps(config))
    result = engine.call("run", "--bundle", str(tmp_path), "busybox-2")
    assert result.out.split() == ["64", "1024"], result
    assert result.code != 0  # none of the host's directories is there
    assert "/home" in result.err


def test_fill_does_its_work_once(busybox: Path, tmp_path: Path) -> None:
    copy = tmp_path / "busybox"
    copy.mkdir()
    shutil.copy(busybox / "fill", copy)
    for _ in range(2):
        subprocess.run([copy / "fill"], check=True, capture_output=True)
    names = {path.name for path in (copy / "rootfs/bin").iterdir()}
    assert names >= {"busybox", "sh", "mount", "sleep"}
    assert os.readlink(copy / "rootfs/bin/sh") == "busybox"
