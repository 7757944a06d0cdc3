"""The console is mounted where a symlink points: CVE-2025-52565, CVE-2015-3627.

The terminal's slave is bound over /dev/console. If that is a symlink of the image, or /dev/pts is not the
devpts that was just mounted, a file of the attacker's choice is made, covered or opened.
"""

from __future__ import annotations

import array
import os
import socket
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import command

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.containers import Bundle, Canary, Runtime


def run_with_terminal(bundle: Bundle, runtime: Runtime, script: str) -> tuple[int, str]:
    """Create and start a container with a terminal; return its exit status and what the terminal showed."""
    bundle.process["terminal"] = True
    bundle.process["args"] = ["/bin/sh", "-c", script]
    bundle.write()
    path = str(bundle.path / "console.sock")
    if os.path.exists(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    listener.settimeout(20)
    name = runtime.new_id()
    words = ["create", "--bundle", str(bundle.path), "--console-socket", path, name]
    log = bundle.path / "log"
    with log.open("w") as out:
        made = subprocess.run(
            [*command(), "--root", str(runtime.root), *words],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    if made.returncode:
        listener.close()
        return made.returncode, log.read_text()
    connection = listener.accept()[0]
    _data, descriptors, _flags, _address = socket.recv_fds(connection, 4096, 1)
    master = descriptors[0]
    assert runtime("start", name).returncode == 0
    shown = b""
    try:
        while part := os.read(master, 4096):
            shown += part
    except OSError:
        pass  # EIO: the last holder of the slave is gone
    for each in (listener, connection):
        each.close()
    os.close(master)
    return 0, shown.decode().replace("\r", "")


@pytest.fixture
def own_dev(bundle: Bundle) -> Bundle:
    """A bundle whose /dev is the image's own, with a devpts mounted in it."""
    devpts = next(mount for mount in bundle.config["mounts"] if mount["destination"] == "/dev/pts")
    bundle.without_mount("/dev")
    bundle.config["mounts"].append(devpts)
    (bundle.rootfs / "dev/pts").mkdir()
    return bundle


def test_it_works(bundle: Bundle, runtime: Runtime) -> None:
    status, shown = run_with_terminal(
        bundle, runtime, "tty; stat -c %t /dev/console; echo done > /dev/console"
    )
    assert status == 0
    assert shown.endswith("done\n")
    assert "88" in shown, "major 136, a pseudo terminal"


def test_a_console_that_is_a_link(own_dev: Bundle, runtime: Runtime, canary: Canary) -> None:
    (own_dev.rootfs / "dev/console").symlink_to("../" * 40 + str(canary.path / "made").lstrip("/"))
    run_with_terminal(own_dev, runtime, "echo x > /dev/console")
    assert canary.untouched()


def test_a_console_that_is_a_link_inside(own_dev: Bundle, runtime: Runtime) -> None:
    (own_dev.rootfs / "dev/console").symlink_to("/etc/passwd")
    before = (own_dev.rootfs / "etc/passwd").read_text()
    run_with_terminal(own_dev, runtime, "stat -c %F /etc/passwd")
    assert (own_dev.rootfs / "etc/passwd").read_text() == before


def test_a_dev_that_is_a_link(bundle: Bundle, runtime: Runtime, canary: Canary) -> None:
    bundle.without_mount("/dev")
    (bundle.rootfs / "dev").rmdir()
    (bundle.rootfs / "dev").symlink_to(canary.path)
    run_with_terminal(bundle, runtime, "true")
    assert canary.untouched()


def test_the_hosts_terminal_is_not_reachable(bundle: Bundle, runtime: Runtime, tmp_path: Path) -> None:
    """The slave belongs to the container's devpts, so its number means nothing on the host."""
    mounts = os.stat("/dev/pts")
    status, shown = run_with_terminal(bundle, runtime, "stat -c %d /dev/console")
    assert status == 0
    assert int(shown) != mounts.st_dev
    assert stat.S_ISDIR(mounts.st_mode)
    assert array.array("i").itemsize == 4
