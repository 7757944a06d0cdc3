"""compile.py DIRECTORY: compile the init program, write DIRECTORY/init_image.h for the extension.

The program is linked with no library: see sys.h. It is small enough to be part of the extension, so that one
file is installed and none has to be found at run time.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCES = sorted(HERE.glob("*.c"))
FLAGS = [
    "-std=gnu11",
    "-Os",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-ffreestanding",
    "-fno-stack-protector",  # it needs thread-local storage, which there is none of
    "-fno-asynchronous-unwind-tables",
    "-fno-unwind-tables",  # they are part of the ABI of aarch64 otherwise
    "-fno-pic",
    "-no-pie",
    "-static",
    "-nostdlib",
    "-Wl,--build-id=none",
    "-Wl,-z,noexecstack",
    "-Wl,-z,noseparate-code",  # one mapping for everything that is only read
    "-Wl,-z,max-page-size=65536",  # kernels for aarch64 may have pages of that size
    "-s",
]


def compile_init(output: Path) -> None:
    """Compile the program.

    Raises:
        subprocess.CalledProcessError: the compiler refuses.

    """
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    subprocess.run([compiler[0], *FLAGS, *map(str, SOURCES), "-o", str(output)], check=True)


def write_header(directory: Path) -> None:
    """Compile the program and write it as a C array."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        program = Path(work) / "init"
        compile_init(program)
        data = program.read_bytes()
    rows = (", ".join(map(str, data[at : at + 24])) for at in range(0, len(data), 24))
    text = "static const unsigned char INIT_IMAGE[] = {\n" + ",\n".join(rows) + "};\n"
    (directory / "init_image.h").write_text(text)


if __name__ == "__main__":
    write_header(Path(sys.argv[1]))
