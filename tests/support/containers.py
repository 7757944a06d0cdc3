"""Bundles and the command under test, for every test with a real container."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support import refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

TOP = Path(__file__).resolve().parents[2]
# The bundle's busybox is static; the host's own, if there is one, may not be.
_FILLED = TOP / "bundles/busybox/rootfs/bin/busybox"
BUSYBOX = str(_FILLED) if _FILLED.exists() else shutil.which("busybox")
# An emulated processor takes ten times as long for everything, so all waiting is multiplied by this.
PATIENCE = float(os.environ.get("PYRUNC_TEST_PATIENCE", "1"))
DEADLINE = 60 * PATIENCE  # seconds one command may take

# What Docker and Podman give by default.
CAPABILITIES = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
]
APPLETS = """
sh cat chmod chown cp cut date dd dirname echo env false find grep head hostname id ip kill ln ls mkdir mknod
mount mv nc od ps pwd readlink rm rmdir sed setsid sleep sort stat tail test touch tr true tty umount unshare
wc
"""


def command() -> list[str]:
    """Return the command under test: this checkout's pyrunc, or what the variable PYRUNC names.

    PYRUNC is for other runtimes; INSTALLED_PYRUNC names our own installed command (`make install`), which
    starts in another way and must behave the same. REFUSED=ENOSYS (or EPERM) runs them as on a kernel (or in
    a container) without the new mount API.
    """
    start = _command()
    answer = os.environ.get("REFUSED")
    return [*refuse.prefix(answer), *start] if answer else start


def _command() -> list[str]:
    if installed := os.environ.get("INSTALLED_PYRUNC"):
        return [installed]
    if named := os.environ.get("PYRUNC"):
        return shlex.split(named)
    # As the installed command: isolated, without site; python-prctl's directory is the only other one.
    path = [str(TOP), sysconfig.get_path("platlib")]
    start = f"import sys; sys.path[:0] = {path!r}; from pyrunc.__main__ import main; main()"
    return [sys.executable, "-I", "-S", "-c", start]


def wait_for(condition: Callable[[], object], seconds: float = 10.0) -> bool:
    """Tell whether a condition comes true within some seconds."""
    end = time.monotonic() + seconds * PATIENCE
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


class Bundle:
    """A bundle directory: change rootfs and config as a test needs it, then give it to Runtime.run."""

    def __init__(self, path: Path) -> None:
        """Make the directory with a root file system of one static busybox."""
        self.path = path
        self.rootfs = path / "rootfs"
        for name in ("bin", "dev", "etc", "proc", "sys", "tmp", "root"):
            (self.rootfs / name).mkdir(parents=True)
        assert BUSYBOX is not None
        shutil.copy2(BUSYBOX, self.rootfs / "bin/busybox")
        for applet in APPLETS.split():
            (self.rootfs / "bin" / applet).symlink_to("busybox")
        (self.rootfs / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        (self.rootfs / "etc/group").write_text("root:x:0:\n")
        self.config = default_config()

    @property
    def process(self) -> dict[str, Any]:
        """The process object of the configuration."""
        found: dict[str, Any] = self.config["process"]
        return found

    @property
    def linux(self) -> dict[str, Any]:
        """The linux object of the configuration."""
        found: dict[str, Any] = self.config["linux"]
        return found

    def capabilities(self, *names: str) -> None:
        """Add capabilities to the bounding, permitted and effective sets."""
        for kind in ("bounding", "permitted", "effective"):
            self.process["capabilities"][kind] += [name for name in names if name not in CAPABILITIES]

    def mount(self, destination: str, source: str | Path, *options: str, kind: str = "bind") -> None:
        """Add a mount."""
        self.config["mounts"].append(
            {
                "destination": destination,
                "type": kind,
                "source": str(source),
                "options": list(options) or ["rbind", "rw"],
            }
        )

    def without_mount(self, destination: str) -> None:
        """Leave out a mount and all mounts below it."""
        self.config["mounts"] = [
            mount
            for mount in self.config["mounts"]
            if not (mount["destination"] + "/").startswith(destination + "/")
        ]

    def user_namespace(self, host_id: int = 100000) -> None:
        """Give the container a user namespace of its own and the root file system to its root."""
        self.linux["namespaces"].append({"type": "user"})
        for kind in ("uidMappings", "gidMappings"):
            self.linux[kind] = [{"containerID": 0, "hostID": host_id, "size": 65536}]
        for directory, _names, files in os.walk(self.rootfs):
            for name in ("", *files):
                os.lchown(os.path.join(directory, name), host_id, host_id)
        # pytest's directories are private, but a process that is not root any more has to pass through them.
        for parent in self.rootfs.parents:
            if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o011)

    def write(self) -> None:
        """Write config.json."""
        (self.path / "config.json").write_text(json.dumps(self.config))


class Canary:
    """A directory of the host with one file, which no container may change."""

    def __init__(self, path: Path) -> None:
        """Make it."""
        self.path = path
        path.mkdir()
        (path / "secret").write_text("secret of the host\n")

    def untouched(self) -> bool:
        """Tell whether it is as it was made, and nothing is mounted in it."""
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
        content = (self.path / "secret").read_text()
        alone = os.listdir(self.path) == ["secret"]
        return alone and content == "secret of the host\n" and f" {self.path}" not in mounts


class Runtime:
    """The command with a state root of its own; it remembers every container it made."""

    def __init__(self, root: Path) -> None:
        """Begin without any container."""
        self.root = root
        self.ids: list[str] = []

    def __call__(
        self,
        *words: str,
        stdin: int | None = subprocess.DEVNULL,
        pass_fds: Iterable[int] = (),
        env: dict[str, str] | None = None,
        umask: int = -1,
    ) -> subprocess.CompletedProcess[str]:
        """Run the command with global --root and return the result; stderr is in stdout."""
        return subprocess.run(
            [*command(), "--root", str(self.root), *words],
            check=False,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=DEADLINE,
            pass_fds=tuple(pass_fds),
            env=env,
            umask=umask,
        )

    def new_id(self) -> str:
        """Return an id for one more container, which will be deleted at the end of the test."""
        name = f"test-{os.getpid()}-{os.urandom(4).hex()}"
        self.ids.append(name)
        return name

    def run(self, bundle: Bundle, script: str | None = None, **how: Any) -> subprocess.CompletedProcess[str]:
        """Run a container in the foreground with a shell script, or with what its configuration says."""
        if script is not None:
            bundle.process["args"] = ["/bin/sh", "-c", script]
        bundle.write()
        return self("run", "--bundle", str(bundle.path), self.new_id(), **how)

    def output(self, bundle: Bundle, script: str | None = None, **how: Any) -> str:
        """Run a container that must succeed; return its output."""
        result = self.run(bundle, script, **how)
        assert result.returncode == 0, result.stdout
        return result.stdout

    def started(self, bundle: Bundle, script: str = "sleep 1000") -> str:
        """Start a container in the background and return its id."""
        bundle.process["args"] = ["/bin/sh", "-c", script]
        bundle.write()
        name = self.new_id()
        # Files, because a pipe would be the container's stdout, too, and never end.
        log = bundle.path / "log"
        for words in (("create", "--bundle", str(bundle.path), name), ("start", name)):
            with log.open("ab") as out:
                result = subprocess.run(
                    [*command(), "--root", str(self.root), *words],
                    check=False,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    timeout=DEADLINE,
                )
            assert result.returncode == 0, log.read_text()
        return name

    def pid(self, name: str) -> int:
        """Return the process id of a container's init."""
        found: int = json.loads(self("state", name).stdout)["pid"]
        return found

    def close(self) -> None:
        """Delete all containers."""
        for name in self.ids:
            self("delete", "--force", name)


def default_config() -> dict[str, Any]:
    """Return a configuration like those that engines write."""
    return {
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "hostname": "test",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/true"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {kind: list(CAPABILITIES) for kind in ("bounding", "permitted", "effective")},
            "noNewPrivileges": True,
        },
        "mounts": [
            {
                "destination": "/proc",
                "type": "proc",
                "source": "proc",
                "options": ["nosuid", "noexec", "nodev"],
            },
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
            },
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "nodev"]},
            {
                "destination": "/sys",
                "type": "sysfs",
                "source": "sysfs",
                "options": ["nosuid", "noexec", "nodev", "ro"],
            },
        ],
        "linux": {
            "namespaces": [{"type": name} for name in ("mount", "pid", "network", "ipc", "uts")],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }
