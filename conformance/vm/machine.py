"""A virtual machine over this machine's root file system: Debian's kernel, cgroup v2, full capabilities.

QEMU emulates the processors (no KVM needed). The guest reads the host's files over 9p and writes to an
overlay in its memory: nothing it does outlives it, and it can be stopped at any moment. What it has to say
goes over a second serial line into a file of the host's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from conformance.vm import initramfs, kernels

if TYPE_CHECKING:
    from collections.abc import Iterable

TOP = Path(__file__).resolve().parents[2]
PROGRAMS = {"qemu-system-x86_64": "qemu-system-x86", "busybox": "busybox-static"}

# Emulated, what makes a kernel safe against its processors and quick on many of them only costs: page tables
# of five levels, mitigations (a fork takes a third without them), waiting for RCU, a clock that is a device.
KERNEL = (
    "console=ttyS0 quiet panic=-1 mitigations=off no5lvl nokaslr init_on_alloc=0 audit=0 clocksource=tsc"
    " tsc=reliable rcupdate.rcu_expedited=1 random.trust_cpu=on"
)
QEMU = (
    *("setpriv", "--pdeathsig", "KILL"),  # it does not outlive who started it, however that ends
    *("qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"),
    *("-m", "2560M", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
    *("-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap"),
    *("-device", "virtio-9p-pci,fsdev=root,mount_tag=host"),
)


def missing(*, systemd: bool = False) -> str:
    """Return why there can be no virtual machine here, "" when there can."""
    if os.uname().machine != "x86_64":
        return "only x86_64 is emulated here"
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            return f"needs {program} (package {package})"
    if kernels.installed() is None:
        return "needs a kernel of Debian's in /boot (package linux-image-amd64)"
    if systemd and not (Path("/lib/systemd/systemd").exists() and shutil.which("dbus-daemon")):
        return "needs systemd and dbus (packages systemd, dbus)"
    return ""


class Machine:
    """A guest that has been started."""

    def __init__(
        self, directory: Path, job: str, kernel: kernels.Kernel, *, systemd: bool = False, options: str = ""
    ) -> None:
        """Boot.

        Args:
            directory: a scratch directory of the host's.
            job: a bash script; root runs it in the checkout's directory, and then the machine goes off.
            kernel: the kernel.
            systemd: run it as a service of systemd.
            options: more words for the kernel.

        """
        self.console, self.output = directory / "console", directory / "output"
        first = directory / "initramfs"
        with first.open("wb") as file:
            initramfs.write(file, kernel.modules, job, str(shutil.which("busybox")))
        words = f"{KERNEL} {options} pyrunc.checkout={TOP} pyrunc.init={'systemd' if systemd else 'plain'}"
        words += f" pyrunc.modules={kernel.modules}"
        serial = ("-serial", f"file:{self.console}", "-serial", f"file:{self.output}")
        boot = ("-kernel", str(kernel.image), "-initrd", str(first), "-append", words)
        self.process = subprocess.Popen([*QEMU, *serial, *boot], stdin=subprocess.DEVNULL, cwd=directory)

    def wait(self, seconds: float) -> str:
        """Wait until it goes off; after so many seconds, or if this is interrupted, it is switched off.

        Returns:
            how it ended.

        """
        start = time.monotonic()
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return f"the virtual machine was switched off after {seconds:.0f} s"
        finally:
            self.off()
        took = time.monotonic() - start
        return f"the virtual machine went off after {took:.0f} s (QEMU's exit status {status})"

    def off(self) -> None:
        """Switch it off, if it is still on."""
        self.process.kill()
        self.process.wait()

    def said(self) -> Iterable[str]:
        """Return the lines the guest wrote."""
        return self.output.read_text(errors="replace").splitlines() if self.output.exists() else []

    def last_words(self) -> str:
        """Return the end of what the guest and its kernel said."""
        kernel_said = self.console.read_text(errors="replace").splitlines() if self.console.exists() else []
        return "\n".join([*list(self.said())[-30:], "-- its kernel:", *kernel_said[-30:]])
