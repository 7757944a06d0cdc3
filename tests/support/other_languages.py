"""python -m tests.support.other_languages: run the linters of shell and C.

`make lint` and tests/test_linters.py call it. shellcheck and clang-format are packages of PyPI (the extra
`lint`). The compiler's warnings are errors here, but not in setup.py: a newer compiler may have more
warnings, and must still build this release.
"""

from __future__ import annotations

import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# Folders with our own files. Files that are built or unpacked are in other folders, or in a bundle's rootfs.
FOLDERS = (".ci", "bench", "bundles", "conformance", "docs", "install", "pyrunc", "schema", "tests")
SHELLS = {"sh", "bash", "dash", "busybox"}


def files() -> list[Path]:
    """Return all our own files of the checkout, in order, without symlinks."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if "rootfs" not in path.parts]
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def shell_scripts() -> list[Path]:
    """Return the shell scripts: known by the first line, or by the suffix if there is no such line."""

    def is_shell(path: Path) -> bool:
        with path.open("rb") as file:
            first = file.readline(80).decode(errors="replace")
        interpreter = first[2:].replace("/usr/bin/env ", "").split()[:1] if first.startswith("#!") else []
        return bool(interpreter and Path(interpreter[0]).name in SHELLS) or path.suffix == ".sh"

    return [path for path in files() if is_shell(path)]


def c_files(*suffixes: str) -> list[Path]:
    """Return the C files with one of these suffixes."""
    return [path for path in files() if path.suffix in suffixes]


def command(name: str) -> str:
    """Return the path of a program of this Python's environment, or of the machine.

    Raises:
        FileNotFoundError: there is none.

    """
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        raise FileNotFoundError(name)
    return found


def _run(arguments: list[str]) -> str:
    """Run a linter in the checkout; return its output, or nothing if it succeeds."""
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    return f"{arguments[0]}\n{done.stdout}{done.stderr}" if done.returncode else ""


def check_shell() -> str:
    """Run shellcheck; scripts without a first line are written for sh."""
    scripts = shell_scripts()
    bare = [str(path) for path in scripts if not path.read_bytes().startswith(b"#!")]
    others = [str(path) for path in scripts if str(path) not in bare]
    return _run([command("shellcheck"), *others]) + _run([command("shellcheck"), "--shell=sh", *bare])


def check_c_format() -> str:
    """Compare the layout of all C files with .clang-format."""
    return _run([command("clang-format"), "--dry-run", "-Werror", *map(str, c_files(".c", ".h"))])


def check_c_warnings() -> str:
    """Compile the extension, and the init program with it, so that a warning is an error."""
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")
    flags = [
        "-std=gnu11",
        "-O2",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fsyntax-only",
        "-DPy_LIMITED_API=0x030B0000",
    ]
    with tempfile.TemporaryDirectory() as made:
        # compile.py compiles pyrunc/init with the same warnings, and raises if there is one.
        runpy.run_path(str(ROOT / "pyrunc/init/compile.py"))["write_header"](Path(made))
        include = [f"-I{made}", f"-I{sysconfig.get_path('include')}"]
        sources = sorted(map(str, (ROOT / "pyrunc/linux").glob("*.c")))
        return _run([compiler[0], *flags, *include, *sources])


CHECKS = (check_shell, check_c_format, check_c_warnings)


def main() -> int:
    """Run all; return the exit status."""
    said = "".join(check() for check in CHECKS)
    print(said, end="", file=sys.stderr)
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
