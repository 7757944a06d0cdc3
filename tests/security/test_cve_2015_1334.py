"""A container that deceives a process that enters: LXC CVE-2015-1334 (attach trusts its /proc), keys, files.

The container may mount anything over its own /proc, /dev and /sys. `exec` must not read or write any of it
while it enters, and what belongs to the caller (keyring, stdio) stays the caller's.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.support.containers import command, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.containers import Bundle, Runtime

FAKE = """
mount -t tmpfs none /proc || exit 1
cd /proc
mkdir -p self/attr/apparmor self/fd thread-self/attr 1/ns sys/kernel self/task
for f in self/attr/exec self/attr/apparmor/exec thread-self/attr/exec self/status self/uid_map; do
    echo untouched > $f
done
ln -s /etc/passwd /proc/self/exe
ln -s /etc /proc/self/root
echo ready > /ready
sleep 1000
"""
KEYRING = r"""
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void)
{
    char text[400] = "";
    long ring = syscall(SYS_keyctl, 0, -3, 0); /* KEYCTL_GET_KEYRING_ID of the session */
    syscall(SYS_keyctl, 6, ring, text, sizeof text - 1); /* KEYCTL_DESCRIBE */
    long found = syscall(SYS_keyctl, 10, ring, "user", "secret-of-the-caller", 0); /* KEYCTL_SEARCH */
    printf("ring %ld %s found %ld\n", ring, text, found);
    return 0;
}
"""
KEYCTL = {"x86_64": (250, 248), "aarch64": (219, 217)}  # keyctl(2), add_key(2)


def test_exec_into_a_container_with_a_false_proc(bundle: Bundle, runtime: Runtime) -> None:
    bundle.capabilities("CAP_SYS_ADMIN")
    name = runtime.started(bundle, FAKE)
    ready = bundle.rootfs / "ready"
    assert wait_for(ready.exists)
    shown = runtime("exec", name, "/bin/sh", "-c", "cat /proc/self/*/exec /proc/self/uid_map; echo in")
    assert shown.returncode == 0
    assert shown.stdout == "untouched\n" * 2 + "in\n"
    assert runtime("exec", "--user", "1000", "--cap", "CAP_NET_RAW", name, "/bin/true").returncode == 0
    state = runtime("state", name)
    assert '"running"' in state.stdout
    assert runtime("kill", name, "KILL").returncode == 0


def test_exec_with_a_label_does_not_believe_it(bundle: Bundle, runtime: Runtime) -> None:
    """If the label were written to a false file of the container, that would look like success."""
    if os.path.exists("/sys/kernel/security/apparmor"):
        return
    bundle.capabilities("CAP_SYS_ADMIN")
    name = runtime.started(bundle, FAKE)
    assert wait_for((bundle.rootfs / "ready").exists)
    shown = runtime("exec", "--apparmor", "profile", name, "/bin/sh", "-c", "echo ran")
    assert shown.returncode != 0
    assert "ran" not in shown.stdout.splitlines()
    assert runtime("exec", name, "/bin/cat", "/proc/self/attr/exec").stdout == "untouched\n"


def test_the_callers_keys_stay_the_callers(
    bundle: Bundle, runtime: Runtime, compiled: Callable[..., Path]
) -> None:
    program = compiled("keyring", KEYRING)
    (bundle.rootfs / "keyring").write_bytes(program.read_bytes())
    (bundle.rootfs / "keyring").chmod(0o755)
    if os.uname().machine not in KEYCTL:
        return
    keyctl, add_key = KEYCTL[os.uname().machine]
    # In a process of its own, so that the key goes with it: join a new session keyring, add a key to it.
    setup = (
        "import ctypes, os, sys; libc = ctypes.CDLL(None);"
        f"libc.syscall({keyctl}, 1, 0);"
        f"libc.syscall({add_key}, b'user', b'secret-of-the-caller', b'x', 1, -3);"
        "os.execvp(sys.argv[1], sys.argv[1:])"
    )
    name = runtime.started(bundle)
    bundle.process["args"] = ["/keyring"]
    bundle.write()
    run = ["run", "--bundle", str(bundle.path), runtime.new_id()]
    for words in (run, ["exec", name, "/keyring"]):
        full = [sys.executable, "-c", setup, *command(), "--root", str(runtime.root), *words]
        shown = subprocess.run(full, capture_output=True, text=True, check=True).stdout
        assert shown.rstrip().endswith("found -1"), shown


def test_the_callers_files_stay_the_callers(bundle: Bundle, runtime: Runtime, tmp_path: Path) -> None:
    """The container's user does not become the owner of a file or of the null device that is stdio."""
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    bundle.process["args"] = ["/bin/true"]
    bundle.write()
    log = tmp_path / "log"
    before = os.stat("/dev/null")
    with log.open("wb") as out:
        words = [
            *command(),
            "--root",
            str(runtime.root),
            "run",
            "--bundle",
            str(bundle.path),
            runtime.new_id(),
        ]
        subprocess.run(words, check=True, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    after = os.stat("/dev/null")
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    assert log.stat().st_uid == os.geteuid()
    assert stat.S_ISREG(log.stat().st_mode)


def test_the_null_device_stays_the_hosts(bundle: Bundle, runtime: Runtime) -> None:
    """From crun 1.24: never chown a device. Root of the container may try it through its own stdin."""
    before = os.stat("/dev/null")
    runtime.run(bundle, "chown 5:5 /proc/self/fd/0; chmod 600 /proc/self/fd/0; true")
    after = os.stat("/dev/null")
    os.chown("/dev/null", before.st_uid, before.st_gid)
    os.chmod("/dev/null", stat.S_IMODE(before.st_mode))
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
