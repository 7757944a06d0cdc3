"""pythons.py PYTHON OUT: write what the program must know about this interpreter, print what to link.

All differences between Pythons are in PYTHONS. OUT/python.h has the row for this one as C, OUT/stamps.h the
data by which the program later notices that Python was updated, and OUT/config.c the modules that are built
in.

If there is nothing to link, or no row for this Python, it fails with one line that says why.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple


class Python(NamedTuple):
    """What a process has to correct before it goes on with an interpreter that another process initialised.

    Attributes:
        key: the key under which the C library keeps each thread's state.
        local: the thread-local variable that also holds the state, "" if there is none.
        stack: whether the state contains the end of the thread's stack.
        registry: whether the registry of codecs is made only with the rest of the interpreter, even if it is
            needed earlier.
        mute: objects whose functions must not run before main. They would initialise an allocator that is
            never used, with random numbers.

    """

    key: str
    local: str
    stack: bool
    registry: bool
    mute: tuple[str, ...] = ()


MIMALLOC = ("obmalloc.o",)

PYTHONS = {
    (3, 11): Python("gilstate.autoTSSkey", "", stack=False, registry=False),
    (3, 12): Python("autoTSSkey", "_Py_tss_tstate", stack=False, registry=False),
    (3, 13): Python("autoTSSkey", "_Py_tss_tstate", stack=False, registry=True, mute=MIMALLOC),
    (3, 14): Python("autoTSSkey", "_Py_tss_tstate", stack=True, registry=True, mute=MIMALLOC),
}

# Words in the names of functions that some builds of Python (Debian's, from 3.12 on) have in archives which
# are not installed. Built-in modules that need them are left out. All are hashes, and pyrunc needs none that
# OpenSSL lacks.
NOT_INSTALLED = "Hacl_"

# Libraries that are linked statically if there is an archive: this saves the dynamic linker 0.25 ms.
STATIC = ("-lz", "-lexpat")

# Functions of the C library that image.c replaces.
WRAPPED = ("pthread_self", "pthread_getattr_np")

VERSION = sys.version_info[:2]
NAME = f"Python {VERSION[0]}.{VERSION[1]} ({sys.executable})"


def config(name: str) -> str:
    """Return a value of Python's configuration."""
    return str(sysconfig.get_config_var(name) or "")


def known() -> Python | None:
    """Return this Python's row; None for a free-threaded one, which allocates memory in another way."""
    return None if config("Py_GIL_DISABLED") not in ("", "0") else PYTHONS.get(VERSION)


def tool(name: str) -> str:
    """Return the path of a program."""
    return shutil.which(name) or sys.exit(f"needs {name}")


def archive() -> Path:
    """Return the interpreter as a library to link."""
    library = Path(config("LIBPL"), config("LIBRARY"))
    if not library.is_file():
        sys.exit(f"{NAME} comes without {library.name} (Debian: python{VERSION[0]}.{VERSION[1]}-dev)")
    return library


def words() -> list[str]:
    """Return what to link besides the interpreter."""
    wanted: list[str] = []
    for word in " ".join(map(config, ("LIBS", "MODLIBS", "SYSLIBS"))).split():
        if word in STATIC:
            asked = [tool("gcc"), f"-print-file-name=lib{word[2:]}.a"]
            found = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
            wanted.append(found if os.path.isabs(found) else word)
        elif (
            word.startswith(("-", "/")) and word not in wanted
        ):  # the others are in the directory where it was built
            wanted.append(word)
    return wanted


def unlinkable(library: Path) -> list[str]:
    """Return the built-in modules that need functions of an archive that is not installed."""
    listed = subprocess.run([tool("nm"), "-A", library], capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^[^:]*:([^:]*):[0-9a-f ]+([A-Za-z]) (\w+)$", listed, re.MULTILINE)
    defined = {name for _, kind, name in found if kind not in "Uw"}
    broken = {
        file for file, kind, name in found if kind == "U" and NOT_INSTALLED in name and name not in defined
    }
    return [
        name[7:]
        for file, kind, name in found
        if file in broken and kind == "T" and name.startswith("PyInit_")
    ]


def modules(without: list[str]) -> str:
    """Return config.c, Python's list of its built-in modules, without some."""
    names = "|".join(map(re.escape, without)) or "$^"
    listed = re.compile(rf'^.*(PyInit_({names})\(void\);|{{"({names})", *PyInit_\w+}},).*\n', re.MULTILINE)
    return listed.sub("", Path(config("LIBPL"), "config.c").read_text())


def muted_objects(library: Path, names: tuple[str, ...], out: Path) -> list[str]:
    """Take objects out of the library, and remove what would run before main; return their files."""
    for name in names:
        subprocess.run([tool("ar"), "x", library, name], check=True, cwd=out)
        arrays = [
            f"--remove-section={prefix}{when}_array*"
            for prefix in (".", ".rela.")
            for when in ("init", "fini")
        ]
        subprocess.run([tool("objcopy"), *arrays, name], check=True, cwd=out)
    return [str(out / name) for name in names]


def content(path: str) -> int:
    """Return a file's content as one number, modulo 2^61 - 1."""
    return int.from_bytes(Path(path).read_bytes(), "little") % ((1 << 61) - 1)


def stamps(python: str) -> str:
    """Return stamps.h, rows for the files of the interpreter: the program, and its library if it has one."""
    maps = Path("/proc/self/maps").read_text().split()
    rows = ["static const struct stamp STAMPS[] = {\n"]
    for path in (python, *sorted({word for word in maps if "/libpython" in word})):
        found = os.stat(path)
        rows.append(f'\t{{ "{path}", {found.st_size}, {int(found.st_mtime)}, {content(path)}ULL }},\n')
    return "".join([*rows, "};\n"])


def header(seed: bytes) -> str:
    """Return python.h."""
    lines = []
    row = known()
    if row is not None:
        lines += ["#define CAN_RESUME\n", f"#define PYRUNC_KEY _PyRuntime.{row.key}\n"]
        lines += [f"#define PYRUNC_LOCAL {row.local}\n"] if row.local else []
        lines += ["#define PYRUNC_STACK\n"] if row.stack else []
    if PYTHONS.get(VERSION, PYTHONS[max(PYTHONS)]).registry:
        lines.append("#define PYRUNC_REGISTRY\n")
    number = int.from_bytes(hashlib.sha256(seed).digest()[:4], "little") or 1
    lines.append(f"#define PYRUNC_SEED {number}\n")
    return "".join(lines)


def secret(modules: bytes) -> bytes:
    """Return the source of the seed of an image's hashes. No container knows it; two builds have the same.

    A package is built once for all machines; SOURCE_DATE_EPOCH is set for such builds.
    """
    machine = Path("/etc/machine-id")
    if "SOURCE_DATE_EPOCH" in os.environ or not machine.is_file():
        return modules
    return modules + machine.read_bytes()


def main() -> None:
    """Write both files, print the words."""
    python, out = sys.argv[1], Path(sys.argv[2])
    library = archive()
    wanted = words()
    (out / "config.c").write_text(modules(unlinkable(library)))
    (out / "stamps.h").write_text(stamps(python))
    (out / "python.h").write_text(header(secret((out / "modules.h").read_bytes())))
    row = known()
    if row is not None:
        wanted += [f"-Wl,--wrap={name}" for name in WRAPPED]
    muted = muted_objects(library, row.mute if row else (), out)
    sys.stdout.write("\n".join([*muted, str(library), *wanted]) + "\n")


if __name__ == "__main__":
    main()
