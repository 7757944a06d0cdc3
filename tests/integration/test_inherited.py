"""What programs and hooks inherit from the caller of pyrunc, and not from pyrunc itself: one table."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import wait_for
from tests.support.engine import FOREIGN

if TYPE_CHECKING:
    from typing import Any

    from tests.support.containers import Bundle
    from tests.support.engine import Engine

pytestmark = pytest.mark.skipif(FOREIGN, reason="each runtime decides for itself")

KINDS = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
HOST = ["prestart", "createRuntime", "poststart", "poststop"]
INSIDE = ["program", "detached", "exec", "startContainer"]
EVERYONE = [*KINDS, "program", "detached", "exec"]
# A process's own files of /proc tell it all; each line begins with a name of ours.
LOOK = """{
sed -n 's/^\\(SigBlk\\|SigIgn\\|Umask\\|Cpus_allowed_list\\):/\\1/p' /proc/self/status
echo nice $(sed 's/.*) //' /proc/self/stat | cut -d ' ' -f 17)
echo oom $(cat /proc/self/oom_score_adj)
echo secret ${SECRET-unset}
echo locale ${LC_ALL-unset} ${LC_CTYPE-unset}
echo fds $(ls /proc/self/fd | tr '\\n' ' ')
} > %s/%s.new; mv %s/%s.new %s/%s"""
EVERY_CPU = sorted(os.sched_getaffinity(0))


def caller() -> None:
    """Change many properties of the caller's process: after the fork, before the command begins."""
    for ignored in (signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD):
        signal.signal(ignored, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1})
    os.umask(0o007)
    os.nice(3)
    os.sched_setaffinity(0, EVERY_CPU[:1])
    Path("/proc/self/oom_score_adj").write_text("100")


def script(kind: str, directory: str) -> str:
    return LOOK % (directory, kind, directory, kind, directory, kind)


@pytest.fixture
def seen(engine: Engine, bundle: Bundle, place: Path) -> dict[str, dict[str, str]]:
    """Return what each of them sees: by kind, then by name."""
    directory = place / "seen"
    directory.mkdir()
    (bundle.rootfs / "bin/mv").unlink()
    (bundle.rootfs / "bin/mv").symlink_to("busybox")
    bundle.mount("/seen", directory, "bind", "rw")
    path = ["PATH=/usr/bin:/bin"]
    bundle.config["hooks"] = {
        kind: [
            {
                "path": "/bin/sh",
                "args": ["sh", "-c", script(kind, "/seen" if kind in INSIDE else str(directory))],
                **({"env": path} if kind in ("createContainer", "startContainer") else {}),
            }
        ]
        for kind in KINDS
    }
    with open("/etc/passwd", "rb") as file:
        fd = os.dup2(file.fileno(), 66)
    env = {"PATH": "/usr/bin:/bin", "SECRET": "of the caller", "LC_ALL": "xx_XX"}
    how: dict[str, Any] = {"env": env, "preexec_fn": caller, "pass_fds": [fd]}
    bundle.process["args"] = ["/bin/sh", "-c", script("detached", "/seen") + "; sleep 1000"]
    name = engine.create(bundle, **how)
    engine.call("start", name, **how).ok()
    assert wait_for((directory / "detached").exists)
    engine.call("exec", name, "/bin/sh", "-c", script("exec", "/seen"), **how).ok()
    engine.call("delete", "--force", name, **how).ok()
    found = {kind: (directory / kind).read_text() for kind in [*KINDS, "detached", "exec"]}
    engine.front(bundle, script("program", "/seen"), **how).ok()
    os.close(fd)
    found["program"] = (directory / "program").read_text()
    return {
        kind: dict(([*line.split(None, 1), ""])[:2] for line in text.splitlines())
        for kind, text in found.items()
    }


def test_what_they_have(seen: dict[str, dict[str, str]]) -> None:
    """Signals and descriptors are not inherited from the caller; its limits are, by all of them.

    The rest is the caller's: its own programs have it, hooks of the host, and nothing in the container.
    """
    every, one = _list(EVERY_CPU), _list(EVERY_CPU[:1])
    for kind in EVERYONE:
        host = kind in HOST
        # Two signals are the C library's, which lets nobody change them.
        seen[kind]["SigIgn"] = f"{int(seen[kind]['SigIgn'], 16) & ~(3 << 31):016x}"
        assert seen[kind] == {
            "SigBlk": "0000000000000000",
            "SigIgn": "0000000000000000",
            "Umask": "0007" if host else "0022",
            "Cpus_allowed_list": one if host else every,
            "nice": str(os.nice(0) + 3),  # up to 19
            "oom": "100",
            "secret": "of the caller" if host else "unset",
            "locale": "xx_XX unset" if host else "unset unset",
            "fds": "0 1 2 3",  # the last one is the listing's own
        }, kind


def _list(cpus: list[int]) -> str:
    assert cpus == list(range(cpus[0], cpus[-1] + 1))
    return f"{cpus[0]}-{cpus[-1]}" if len(cpus) > 1 else f"{cpus[0]}"
