"""The virtual machine's first file system: busybox, the modules that reach the host's files, and a script.

It is made by hand, because those of distributions wait for udev and look for disks: in emulation that takes
most of a minute, and this takes five seconds.
"""

from __future__ import annotations

import lzma
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import BinaryIO

HERE = Path(__file__).parent
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")


def write(file: BinaryIO, modules: Path, job: str, busybox: str) -> None:
    """Write an archive in the kernel's format (its Documentation: early-userspace/buffer-format, "newc").

    Args:
        file: where to.
        modules: the kernel's directory in /lib/modules.
        job: the script that `guest` shall run.
        busybox: path of a static one.

    """
    number = 0

    def add(name: str, mode: int, data: bytes = b"") -> None:
        nonlocal number
        number += 1
        path = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + path
        file.write(head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4))

    order = in_order(modules)
    for directory in ("bin", "modules"):
        add(directory, 0o40755)
    add("bin/busybox", 0o100755, Path(busybox).read_bytes())
    for name in ("init", "guest"):
        add(name, 0o100755, (HERE / name).read_bytes())
    add("job", 0o100644, job.encode())
    for index, path in enumerate(order):
        data = path.read_bytes()
        add(f"modules/{index:02}.ko", 0o100644, lzma.decompress(data) if path.suffix == ".xz" else data)
    add("TRAILER!!!", 0)


def in_order(modules: Path, wanted: tuple[str, ...] = MODULES) -> list[Path]:
    """Return the files of some modules and of all they need, the needed first (modules.dep(5))."""
    needs = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, others = line.partition(":")
        needs[os.path.basename(path).partition(".")[0]] = [path, *others.split()]
    order: list[str] = []

    def visit(name: str) -> None:
        path, *others = needs[name]
        for other in others:
            visit(os.path.basename(other).partition(".")[0])
        if path not in order:
            order.append(path)

    for name in wanted:
        if name in needs:  # else it is built in
            visit(name)
    return [modules / path for path in order]
