"""The example bundles about mounts: they print what their READMEs say."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from pyrunc.linux import _linux, flags
from tests.support.containers import wait_for
from tests.support.mounts import HostMounts

if TYPE_CHECKING:
    from tests.support.engine import Engine

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"


def said(engine: Engine, name: str) -> list[str]:
    """Run one of the bundles twice and return its output.

    Both outputs must be equal, and nothing may be left.
    """
    before = sorted(os.walk(BUNDLES / name))
    first = engine.call("run", "--bundle", str(BUNDLES / name), engine.new_id()).ok().out
    assert engine.call("run", "--bundle", str(BUNDLES / name), engine.new_id()).ok().out == first
    assert sorted(os.walk(BUNDLES / name)) == before
    return [" ".join(line.split()) for line in first.splitlines()]


def test_readonly(engine: Engine) -> None:
    lines = said(engine, "readonly")
    assert lines == [
        *("/data is rw", "/data written", "/data/disk written"),
        *("/ro is ro", "/ro refused", "/ro/disk written"),
        *("/rro is ro", "/rro refused", "/rro/disk refused"),
        "the last word in /data/disk/note: by way of /ro/disk",
    ]


def test_copy_up(engine: Engine) -> None:
    lines = said(engine, "copy-up")
    assert "/var/log, a plain tmpfs, has 0 files" in lines
    assert "/var/lib/app, a tmpfs with tmpcopyup, has: current, settings" in lines
    assert lines[-2:] == [
        "settings: color = blue",
        "settings, changed, and read through a symlink: color = red",
    ]
    assert (BUNDLES / "copy-up/rootfs/var/lib/app/settings").read_text() == "color = blue\n"


def test_files(engine: Engine) -> None:
    lines = said(engine, "files")
    assert lines[1] == "/run/app/latest symbolic link"
    assert lines[2] == "/run/app/same regular file, ro, mounted from settings"
    assert lines[3].startswith("/run/zero character special file")
    assert lines[5:] == [
        "settings: color = blue, the same by the symlink: color = blue",
        "written to: Read-only file system",
        "read from a device: 00 00 00",
        "whoami says: somebody else",
    ]


def test_idmap(engine: Engine) -> None:
    owner = (BUNDLES / "idmap/files/file").stat()
    assert said(engine, "idmap") == [
        "root in here is user 100000 of the host",
        "/plain/file owned by user 65534, group 65534; may be written: no",
        f"/mapped/file owned by user {owner.st_uid}, group {owner.st_gid}; may be written: yes",
    ]


def test_propagation(engine: Engine, place: Path, host: HostMounts) -> None:
    bundle = place / "propagation"
    shutil.copytree(BUNDLES / "propagation", bundle, symlinks=True)
    source = host.bind(bundle / "source", bundle / "source", propagation=flags.MS_SHARED)
    log = place / "log"
    with log.open("wb") as out:
        running = engine.begin("run", "--bundle", str(bundle), engine.new_id(), stdout=out, stderr=out)
        assert wait_for(lambda: "sudo mount -t tmpfs" in log.read_text(), 30), log.read_text()
        _linux.mount("none", str(source / "disk"), "tmpfs", 0, None)
        try:
            assert running.wait(30) == 0
        finally:
            _linux.umount2(str(source / "disk"), flags.MNT_DETACH)
    lines = [line.split() for line in log.read_text().splitlines()]
    assert lines[0][1].startswith("shared:")
    assert lines[1][1].startswith("master:")
    assert (lines[2][1:], lines[3][1:]) == ([], ["unbindable"])
    assert {line[0]: line[-1] for line in lines[-4:]} == {
        "/shared": "yes",
        "/slave": "yes",
        "/private": "no",
        "/unbindable": "no",
    }


def test_propagation_on_a_private_host(engine: Engine, place: Path, host: HostMounts) -> None:
    """The script names what is missing, and does not wait."""
    bundle = place / "propagation"
    shutil.copytree(BUNDLES / "propagation", bundle, symlinks=True)
    host.bind(bundle / "source", bundle / "source", propagation=flags.MS_PRIVATE)
    out = engine.call("run", "--bundle", str(bundle), engine.new_id()).ok().out
    assert "Make it shared and try again" in out
