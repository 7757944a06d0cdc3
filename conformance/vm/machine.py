"""A virtual machine over this machine's root file system: Debian's kernel, cgroup v2, full capabilities.

QEMU emulates the processors (no KVM needed). The guest reads the host's files over 9p and writes to an
overlay in its memory: nothing that it writes is kept, and it can be stopped at any moment. Its results go
    over a
second serial line into a file of the host.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from conformance.vm import initramfs, kernels

if TYPE_CHECKING:
    from collections.abc import Iterable

TOP = Path(__file__).resolve().parents[2]
PROGRAMS = {"qemu-system-x86_64": "qemu-system-x86", "busybox": "busybox-static"}


class Kind(NamedTuple):
    """A kind of machine that is emulated.

    Attributes:
        qemu: what makes QEMU one.
        second: what makes the second serial line, whose file is OUTPUT.
        line: that line's name in the guest.
        kernel: words for its kernel.

    """

    qemu: str
    second: str
    line: str
    kernel: str


# Emulated, what makes a kernel safe against its processors and quick on many of them only costs: page tables
# of five levels, mitigations (a fork takes a third without them), waiting for RCU, a clock that is a device.
KERNEL = "quiet panic=-1 mitigations=off nokaslr init_on_alloc=0 audit=0 rcupdate.rcu_expedited=1"
KINDS = {
    "": Kind(
        "qemu-system-x86_64 -machine q35 -cpu max",
        "-serial file:OUTPUT",
        "/dev/ttyS1",
        "console=ttyS0 no5lvl clocksource=tsc tsc=reliable random.trust_cpu=on",
    ),
    # `virt` has one line of its own, which is no ttyS; newer processors sign addresses, which takes time.
    "arm64": Kind(
        "qemu-system-aarch64 -machine virt,gic-version=3 -cpu cortex-a72",
        "-chardev file,id=output,path=OUTPUT -device pci-serial,chardev=output",
        "/dev/ttyS0",
        "console=ttyAMA0 random.trust_bootloader=on",
    ),
}
QEMU = (
    *("-accel", "tcg,thread=multi", "-smp", "2", "-m", "2560M", "-nodefaults", "-no-user-config"),
    *("-display", "none", "-no-reboot", "-device", "virtio-9p-pci,fsdev=root,mount_tag=host"),
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


def _busybox(root: str) -> str:
    return str(shutil.which("busybox")) if root == "/" else f"{root}/bin/busybox"


class Machine:
    """A guest that has been started."""

    def __init__(
        self,
        directory: Path,
        job: str,
        kernel: kernels.Kernel,
        *,
        systemd: bool = False,
        options: str = "",
        kind: str = "",
        root: str = "/",
        checkout: str = str(TOP),
    ) -> None:
        """Boot.

        Args:
            directory: a scratch directory of the host's.
            job: a bash script; root runs it in the checkout's directory, and then the machine goes off.
            kernel: the kernel.
            systemd: run it as a service of systemd.
            options: more words for the kernel.
            kind: one of KINDS.
            root: the directory that is the guest's root file system.
            checkout: where a checkout is in that.

        """
        made = KINDS[kind]
        self.console, self.output = directory / "console", directory / "output"
        first = directory / "initramfs"
        with first.open("wb") as file:
            initramfs.write(file, kernel.modules, job, _busybox(root))
        words = f"{KERNEL} {made.kernel} {options} pyrunc.checkout={checkout} pyrunc.line={made.line}"
        words += f" pyrunc.init={'systemd' if systemd else 'plain'} pyrunc.modules={kernel.modules}"
        # setpriv: it ends with the process that started it, however that ends.
        qemu = ["setpriv", "--pdeathsig", "KILL", *made.qemu.split(), *QEMU]
        qemu += ["-fsdev", f"local,id=root,path={root},security_model=none,readonly=on,multidevs=remap"]
        qemu += ["-serial", f"file:{self.console}", *made.second.replace("OUTPUT", str(self.output)).split()]
        boot = ("-kernel", str(kernel.image), "-initrd", str(first), "-append", words)
        self.process = subprocess.Popen([*qemu, *boot], stdin=subprocess.DEVNULL, cwd=directory)

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
