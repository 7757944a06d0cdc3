"""A virtual machine over this machine's root file system: Debian's kernel, cgroup v2, full capabilities.

QEMU emulates the processors (no KVM needed), virtme-ng boots the kernel and gives it the host's files
read-only, over 9p, with overlays in memory where it wants to write. 9p is slow, so what is used all the time
travels in one archive that the guest unpacks into memory and binds over the originals.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

TOP = Path(__file__).resolve().parents[2]
GUEST = Path(__file__).with_name("guest")
MARK = "guest-exit-status "

# Programs of the guest's busiest hours; with their libraries they are a tenth of what a run would read over
# 9p.
PROGRAMS = (
    "bash",
    "busybox",
    "dbus-daemon",
    "jq",
    "mount",
    "ps",
    "sleep",
    "systemctl",
    "/usr/lib/systemd/systemd",
)
SKIPPED = {
    ".git",
    ".hypothesis",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    "build",
    "idlelib",
    "lib2to3",
    "mypy",
    "mypyc",
    "pip",
    "setuptools",
    "test",
}


def missing() -> str:
    """Return why there can be no virtual machine here, "" when there can."""
    if os.uname().machine != "x86_64":
        return "only x86_64 is emulated here"
    for program, package in (("qemu-system-x86_64", "qemu-system-x86"), ("ldd", "libc-bin")):
        if shutil.which(program) is None:
            return f"needs {program} (package {package})"
    if not _vng().exists():
        return "needs virtme-ng (PyPI) beside the interpreter"
    if not kernel():
        return "needs a kernel of Debian's in /boot (package linux-image-amd64)"
    return ""


def _vng() -> Path:
    return Path(sys.executable).with_name("vng")


def kernel() -> str:
    """Return the newest of Debian's kernels, "" without one."""
    found = sorted(Path("/boot").glob("vmlinuz-*-amd64"), key=lambda path: path.stat().st_mtime)
    return str(found[-1]) if found else ""


class Machine:
    """One boot for each job; nothing of a guest's doings outlives it."""

    def __init__(self, directory: Path) -> None:
        """Pack the archive.

        Args:
            directory: a scratch directory; the guest can read it and write to it.

        """
        self.directory = directory
        self.archive = directory / "hot.tar"
        with tarfile.open(self.archive, "w") as tar:
            for path in self._hot():
                tar.add(path, path.lstrip("/"), filter=_wanted)

    def _hot(self) -> Iterable[str]:
        yield sysconfig.get_path("stdlib")
        yield str(TOP)
        yield os.path.realpath(sys.executable)
        programs = [found for name in PROGRAMS if (found := shutil.which(name))]
        libraries = set()
        for program in [os.path.realpath(sys.executable), *programs]:
            answer = subprocess.run(["ldd", program], check=False, capture_output=True, text=True)
            libraries |= {word for word in answer.stdout.split() if word.startswith("/")}
        yield from {os.path.realpath(path) for path in (*programs, *libraries)}

    def run(self, job: str, *, systemd: bool = False, seconds: int = 3600) -> tuple[int, str]:
        """Boot, run a shell script as root in the checkout's directory, and power off.

        Args:
            job: the script.
            systemd: run it as a service of a systemd that is the first process of a pid namespace.
            seconds: how long all of it may take.

        Returns:
            its exit status (-1: there was none in time) and everything that was printed.

        """
        script = self.directory / "job"
        script.write_text(job)
        words = [str(GUEST), str(self.archive), str(TOP), str(script), "systemd" if systemd else "plain"]
        boot = [str(_vng()), "--run", kernel(), "--disable-kvm", "--force-9p", "--user", "root"]
        boot += ["--memory", "3G", "--cpus", "2", "--", shlex.join(["bash", *words])]
        output = self.directory / "output"
        with output.open("wb") as out:
            guest = subprocess.Popen(
                boot,
                cwd=self.directory,
                env={**os.environ, "PATH": f"{_vng().parent}:{os.environ['PATH']}"},  # it calls virtme-run
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                guest.wait(seconds)
            except subprocess.TimeoutExpired:
                os.killpg(guest.pid, 15)
                guest.wait(60)
        text = output.read_text(errors="replace")
        status = [line for line in text.splitlines() if line.startswith(MARK)]
        return (int(status[-1].removeprefix(MARK)) if status else -1), text


def _wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    name = member.name.rpartition("/")[2]
    return None if name in SKIPPED or name.endswith("__mypyc.cpython-311-x86_64-linux-gnu.so") else member
