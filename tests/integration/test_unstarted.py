"""A program that cannot be started: run, start and exec give the reason in one line that names the verb."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.engine import FOREIGN

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.containers import Bundle
    from tests.support.engine import Engine

pytestmark = pytest.mark.skipif(FOREIGN, reason="other runtimes leave it at the kernel's word")

FOREIGN_ELF, NAME = (183, "aarch64") if os.uname().machine == "x86_64" else (62, "x86_64")


def put(bundle: Bundle, path: str, content: bytes, mode: int = 0o755) -> None:
    place = bundle.rootfs / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    place.chmod(mode)


def somebody(bundle: Bundle) -> None:
    """Run as a user without rights."""
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    bundle.process["capabilities"] = {}


def interpreter(bundle: Bundle) -> None:
    put(bundle, "/x", b"#!/bin/nosuch -e\n")


def crlf(bundle: Bundle) -> None:
    put(bundle, "/x", b"#!/bin/sh\r\necho\r\n")


def loader(bundle: Bundle) -> None:
    with open("/bin/true", "rb") as program:  # of the host's: made for its C library
        put(bundle, "/x", program.read())


def machine(bundle: Bundle) -> None:
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + b"\x02\0" + FOREIGN_ELF.to_bytes(2, "little")
    put(bundle, "/x", head.ljust(120, b"\0"))


def no_head(bundle: Bundle) -> None:
    put(bundle, "/x", b"echo\n")


def noexec(bundle: Bundle) -> None:
    put(bundle, "/srv/x", b"#!/bin/sh\n")
    bundle.mount("/srv", bundle.rootfs / "srv", "rbind", "noexec")


def script_of_noexec(bundle: Bundle) -> None:
    put(bundle, "/x", b"#!/srv/sh\n")
    put(bundle, "/srv/sh", (bundle.rootfs / "bin/busybox").read_bytes())
    bundle.mount("/srv", bundle.rootfs / "srv", "rbind", "noexec")


def directory(bundle: Bundle) -> None:
    put(bundle, "/srv/deep/x", b"#!/bin/sh\n")
    (bundle.rootfs / "srv").chmod(0o700)
    somebody(bundle)


def mode(bundle: Bundle) -> None:
    put(bundle, "/x", b"#!/bin/sh\n", 0o644)


def others(bundle: Bundle) -> None:
    put(bundle, "/x", b"#!/bin/sh\n", 0o700)
    somebody(bundle)


def overridden(bundle: Bundle) -> None:
    """With CAP_DAC_OVERRIDE, which a process has until execve, the mode is not the reason."""
    put(bundle, "/srv/x", b"#!/bin/sh\n", 0o700)
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    bundle.mount("/srv", bundle.rootfs / "srv", "rbind", "noexec")


CASES: list[tuple[Callable[[Bundle], None], str, str, str]] = [
    (interpreter, "/x", "no such file or directory", "/x is there, but its interpreter /bin/nosuch is not"),
    (crlf, "/x", "no such file or directory", "lines that end as on Windows (CRLF)"),
    (loader, "/x", "no such file or directory", "/x is there, but its loader /lib"),
    (machine, "/x", "exec format error", f"/x is a program for {NAME}, and this machine is"),
    (no_head, "/x", "exec format error", "neither a program nor a script with a #! line"),
    (noexec, "/srv/x", "permission denied", "/srv is mounted noexec, and /srv/x is on it"),
    (script_of_noexec, "/x", "permission denied", "/x is a script for /srv/sh: /srv is mounted noexec"),
    (directory, "/srv/deep/x", "permission denied", "user 1000 may not pass the directory /srv"),
    (mode, "/x", "permission denied", "/x has no x in its mode (0644); chmod +x"),
    (others, "/x", "permission denied", "/x may not be executed by user 1000 (mode 0700, of user 0"),
    (overridden, "/srv/x", "permission denied", "/srv is mounted noexec"),
]


@pytest.mark.parametrize("case", CASES, ids=[case[0].__name__ for case in CASES])
def test_the_cause(
    engine: Engine, bundle: Bundle, case: tuple[Callable[[Bundle], None], str, str, str]
) -> None:
    prepare, path, kernel, said = case
    prepare(bundle)
    name = engine.start(bundle)
    failed = engine.call("exec", name, path)
    failed.fails("exec failed: ", kernel, said, code=255)
    assert failed.err.count("\n") == 1, failed
    bundle.process["args"] = [path]
    failed = engine.front(bundle)
    failed.fails("run failed: ", kernel, said)
    assert failed.err.count("\n") == 1, failed


@pytest.mark.parametrize(
    ("prepare", "said"), [(interpreter, "its interpreter /bin/nosuch is not"), (machine, f"for {NAME}")]
)
def test_start_says_it_too(
    engine: Engine, bundle: Bundle, prepare: Callable[[Bundle], None], said: str
) -> None:
    prepare(bundle)
    bundle.process["args"] = ["/x"]
    engine.call("start", engine.create(bundle)).fails("exec /x: ", said)


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ({"action": "SCMP_ACT_ERRNO"}, "the seccomp filter (/linux/seccomp) refuses execve"),
        ({"action": "SCMP_ACT_KILL_PROCESS"}, "the seccomp filter kills it"),
    ],
)
def test_a_filter_that_refuses_execve(
    engine: Engine, bundle: Bundle, action: dict[str, str], said: str
) -> None:
    name = engine.start(bundle)
    bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["execve", "execveat"], **action}],
    }
    engine.front(bundle, "exit 0").fails("run failed: ", said)
    assert engine.status(name) == "running"


def test_a_directory_that_is_missing(engine: Engine, bundle: Bundle) -> None:
    name = engine.start(bundle)
    engine.call("exec", name, "/usr/lcoal/bin/x").fails("the directory /usr is not there", code=255)
