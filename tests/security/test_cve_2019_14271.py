"""Code of the image run with the runtime's rights: CVE-2019-14271 (libnss), and what it means for Python.

After the root is entered, an import, a codec, an NSS look-up or a lazily loaded library would come from the
image. Here every such file of the image leaves a mark when any process loads it.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import TOP

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.containers import Bundle, Runtime

MARK = 'open("/marked", "a").write(__file__ + "\\n")\n'
LIBRARY = r"""
#include <fcntl.h>
#include <unistd.h>
__attribute__((constructor)) static void mark(void)
{
    int fd = open("/marked", O_WRONLY | O_APPEND | O_CREAT, 0666);
    if (write(fd, NAME "\n", sizeof NAME) < 0)
        _exit(1);
    close(fd);
}
"""


def mapped() -> list[str]:
    """Return the libraries that this interpreter has loaded; pyrunc may load the same ones."""
    with open("/proc/self/maps") as maps:
        names = {line.split()[-1] for line in maps if ".so" in line}
    return [name for name in names if name.startswith("/")]


@pytest.fixture
def poisoned(bundle: Bundle, compiled: Callable[..., Path]) -> Bundle:
    """A bundle in which every Python file and library leaves a mark when it is loaded."""
    library = compiled("mark.so", LIBRARY, "-shared", "-fPIC", '-DNAME="a library"').read_bytes()
    standard = sysconfig.get_path("stdlib")
    for place in (standard, str(TOP), sysconfig.get_path("platlib")):
        for directory, folders, files in os.walk(place):
            folders[:] = [
                name for name in folders if name not in ("__pycache__", "test", ".git", "tests", "idlelib")
            ]
            inside = bundle.rootfs / directory.lstrip("/")
            wanted = [name for name in files if name.endswith((".py", ".so"))]
            if not wanted or directory.count("/") > place.count("/") + 2:
                continue
            inside.mkdir(parents=True, exist_ok=True)
            for name in wanted:
                if name.endswith(".py"):
                    (inside / name).write_text(MARK)
                else:
                    (inside / name).write_bytes(library)
    names = [*mapped(), "/lib/x86_64-linux-gnu/libnss_files.so.2", "/lib/x86_64-linux-gnu/libnss_dns.so.2"]
    names += [
        "/lib/x86_64-linux-gnu/libgcc_s.so.1",
        "/lib/x86_64-linux-gnu/libseccomp.so.2",
        "/usr/lib/libseccomp.so.2",
    ]
    for name in names:
        inside = bundle.rootfs / name.lstrip("/")
        if not inside.exists():
            inside.parent.mkdir(parents=True, exist_ok=True)
            inside.write_bytes(library)
    for name in (
        "sitecustomize.py",
        "usercustomize.py",
        "encodings.py",
        "os.py",
        "json.py",
        "signal.py",
        "pwd.py",
    ):
        (bundle.rootfs / name).write_text(MARK)
    (bundle.rootfs / "etc/nsswitch.conf").write_text("passwd: files dns\ngroup: files dns\n")
    (bundle.rootfs / "etc/ld.so.preload").write_text(names[0] + "\n")
    (bundle.rootfs / "marked").write_text("")
    (bundle.rootfs / "marked").chmod(0o666)
    return bundle


def marks(bundle: Bundle) -> str:
    return (bundle.rootfs / "marked").read_text()


def test_the_trap_works(poisoned: Bundle) -> None:
    """A Python that runs in the image does load the image's files."""
    pid = os.fork()
    if pid == 0:
        os.chroot(poisoned.rootfs)
        os.chdir("/")
        for name in ("colorsys", "this", "antigravity"):
            try:
                __import__(name)
            except BaseException:  # noqa: BLE001 - what happens to the fork does not matter
                continue
        os._exit(0)
    os.waitpid(pid, 0)
    assert marks(poisoned)


def test_nothing_of_the_image_is_loaded(poisoned: Bundle, runtime: Runtime) -> None:
    poisoned.process["cwd"] = "/no/such/place/but/made"
    name = runtime.started(poisoned)
    assert runtime("exec", "--user", "1000:1000", name, "/bin/true").returncode == 0
    assert runtime("exec", "--cwd", "/tmp", "--env", "PYTHONPATH=/", name, "/bin/true").returncode == 0
    assert runtime("exec", "--cwd", "/no/such/place", "--env", "A=B", name, "/bin/true").returncode == 0
    assert runtime("exec", "--cwd", "/no/such/place/at/all", name, "/bin/true").returncode == 255
    assert marks(poisoned) == ""


def test_not_when_something_fails_either(poisoned: Bundle, runtime: Runtime) -> None:
    """To report an error, an interpreter imports more modules."""
    (poisoned.rootfs / "script").write_text("#!/no/interpreter\n")
    (poisoned.rootfs / "script").chmod(0o755)
    (poisoned.rootfs / "elf").write_bytes(b"\x7fELF garbage")
    (poisoned.rootfs / "elf").chmod(0o755)
    for program in ("/nothing", "nothing", "/script", "/elf", "/etc", "/etc/passwd", "/\udcff", "/caf\u00e9"):
        poisoned.process["args"] = [program]
        assert runtime.run(poisoned).returncode != 0
        assert marks(poisoned) == "", program
    name = runtime.started(poisoned)
    for words in (["/nothing"], ["--cwd", "/etc/passwd", "/bin/true"], ["--user", "5", "/root/x"]):
        options, program = words[:-1], words[-1]
        assert runtime("exec", *options, name, program).returncode != 0
        assert marks(poisoned) == "", words


def test_with_everything_in_the_configuration(poisoned: Bundle, runtime: Runtime) -> None:
    hook = {"path": "/bin/true"}
    poisoned.config["hooks"] = {"createContainer": [hook], "startContainer": [hook]}
    poisoned.config["domainname"] = "test"
    poisoned.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}],
    }
    poisoned.linux["sysctl"] = {"net.ipv4.ip_forward": "1"}
    poisoned.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 100}]
    poisoned.process["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [5]}
    poisoned.process["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 4}
    poisoned.process["cwd"] = "/made/for/it"
    assert runtime.output(poisoned, "echo hello") == "hello\n"
    assert marks(poisoned) == ""


def test_the_environment_of_the_process_does_not_reach_the_runtime(bundle: Bundle, runtime: Runtime) -> None:
    bundle.process["env"] += [
        "PYTHONHOME=/nowhere",
        "PYTHONSTARTUP=/x.py",
        "LD_PRELOAD=/x.so",
        "PYTHONPATH=/",
    ]
    assert runtime.output(bundle, "echo $PYTHONHOME") == "/nowhere\n"
    assert sys.version_info >= (3, 11)
