"""A root file system of Debian for arm64, with this checkout in it, for a guest of that architecture.

No program of it is run to make it: the packages are unpacked; the set-up of packages that the tests need is
done here; byte code is the same on every machine; a cross compiler compiles the extension. For `make install`
the guest has a compiler, and in WHEELHOUSE what pip would fetch.
"""

from __future__ import annotations

import hashlib
import os
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from conformance import debian
from conformance.vm import kernels

TOP = Path(__file__).resolve().parents[2]
SUITE, ARCHITECTURE = "bookworm", "arm64"
COMPILER = "aarch64-linux-gnu-gcc"
CHECKOUT = "/srv/pyrunc"
PYTHON = "python3.11"  # SUITE's; it has to be this machine's too, whose byte code is taken
MODULES = f"usr/local/lib/{PYTHON}/dist-packages"  # where PYTHON looks for what is not Debian's
PACKAGES = [
    "linux-image-arm64",
    "base-files",
    "base-passwd",
    "bash",
    "coreutils",
    "dash",
    "debianutils",
    "diffutils",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "iproute2",
    "jq",
    "kmod",
    "libc-bin",
    "login",
    "mawk",
    "mount",
    "ncurses-base",
    "passwd",
    "procps",
    "sed",
    "strace",
    "tar",
    "uidmap",
    "util-linux",
    "busybox-static",
    "libseccomp2",
    "libcap-dev",
    "libc6-dev",
    "python3",
    "python3-dev",
    "python3-prctl",
    # What `make install` needs.
    "gcc",
    "make",
    "python3-venv",
]
WHEELHOUSE = "/srv/wheels"
# Debian's pytest is too old. Each is pure Python, or has wheels for these.
WHEELS = ("pytest>=8", "pytest-timeout>=2.3", "hypothesis>=6.100")
PLATFORMS = ("manylinux_2_17_aarch64", "manylinux2014_aarch64", "manylinux_2_28_aarch64")


def missing() -> str:
    """Return why there can be none here, "" when there can."""
    for program, package in {
        COMPILER: "gcc-aarch64-linux-gnu",
        "qemu-system-aarch64": "qemu-system-arm",
    }.items():
        if shutil.which(program) is None:
            return f"needs {program} (package {package})"
    if shutil.which(PYTHON) is None:
        return f"needs {PYTHON}, as the guest has, to compile byte code"
    return ""


def root() -> tuple[Path, kernels.Kernel]:
    """Return the directory and its kernel; the checkout in it is as this one is now.

    Raises:
        debian.UnavailableError: it cannot be had.

    """
    if why := missing():
        raise debian.UnavailableError(why)
    with debian.locked(f"vm/{ARCHITECTURE}") as directory:
        whole = directory / "whole"
        if not whole.exists() or whole.read_text() != _kind():
            shutil.rmtree(directory)
            _unpack(directory)
            whole.write_text(_kind())
        _checkout(directory)
    (modules,) = (directory / "usr/lib/modules").iterdir()
    return directory, kernels.found(directory, modules.name)


def _requirements() -> list[str]:
    """Return what `make install` has pip fetch, python-prctl besides: that has no wheels."""
    project = tomllib.loads((TOP / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    wanted = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    wanted += [*extras["systemd"], *extras["zstd"]]
    return [each for each in wanted if not each.startswith("python-prctl")]


def _kind() -> str:
    """Return what the directory is made from: if this changes, it is made again."""
    words = [SUITE, *PACKAGES, *WHEELS, *PLATFORMS, *_requirements()]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def _unpack(directory: Path) -> None:
    for name in ("bin", "lib", "sbin"):  # as base-files' and usrmerge's scripts have it
        (directory / "usr" / name).mkdir(parents=True)
        (directory / name).symlink_to(f"usr/{name}")
    debian.Suite(SUITE, ARCHITECTURE).unpack_with_needs(PACKAGES, directory)
    for name in ("dev", "mnt", "proc", "root", "run", "srv", "sys", "tmp"):
        (directory / name).mkdir(exist_ok=True)
    for name in ("passwd", "group"):
        shutil.copy(directory / f"usr/share/base-passwd/{name}.master", directory / "etc" / name)
    (directory / "usr/bin/awk").symlink_to("mawk")
    (modules,) = (directory / "usr/lib/modules").iterdir()
    debian.call(["depmod", "-b", str(directory), modules.name])
    # Where the tests' command looks, and not in the directory of Debian's own.
    _pip("install", f"--target={directory / MODULES}", *WHEELS, *_requirements())
    wheelhouse = f"--dest={directory}{WHEELHOUSE}"
    _pip("download", wheelhouse, *_requirements())
    words = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", wheelhouse]
    debian.call([*words, "--no-deps", "--no-binary=:all:", "python-prctl"])
    _compile(directory, f"usr/lib/{PYTHON}", "usr/lib/python3", MODULES)


def _pip(verb: str, *words: str) -> None:
    """Call pip for the guest's Python."""
    platforms = [f"--platform={name}" for name in PLATFORMS]
    version = f"--python-version={PYTHON.removeprefix('python')}"
    made = [*platforms, "--only-binary=:all:", version, "--implementation=cp"]
    debian.call([sys.executable, "-m", "pip", verb, "-q", "--disable-pip-version-check", *made, *words])


def _compile(directory: Path, *places: str) -> None:
    """Compile to byte code, which takes an emulated processor minutes. Some files are for other Pythons."""
    words = [PYTHON, "-m", "compileall", "-qq", "-s", str(directory), "-p", "/"]
    subprocess.run([*words, *(str(directory / place) for place in places)], check=False)


def _checkout(directory: Path) -> None:
    """Copy this checkout, with its changes, and build in the copy."""
    copy = Path(f"{directory}{CHECKOUT}")
    shutil.rmtree(copy, ignore_errors=True)
    git = ["git", "-c", "safe.directory=*", "-C", str(TOP), "ls-files", "-co", "--exclude-standard"]
    for name in debian.call(git).splitlines():
        if os.path.lexists(TOP / name):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TOP / name, copy / name, follow_symlinks=False)
    program = copy / "bundles/busybox/rootfs/bin/busybox"
    program.parent.mkdir(parents=True)
    shutil.copy(directory / "bin/busybox", program)
    (copy / ".venv/bin").mkdir(parents=True)
    (copy / ".venv/bin/python").symlink_to("/usr/bin/python3")
    _extension(directory, copy)
    _compile(directory, f"{CHECKOUT[1:]}/pyrunc")


def _extension(directory: Path, copy: Path) -> None:
    made = copy / "build"
    made.mkdir()
    before = os.environ.get("CC")
    os.environ["CC"] = COMPILER
    try:
        runpy.run_path(str(copy / "pyrunc/init/compile.py"))["write_header"](made)
    finally:
        os.environ.pop("CC")
        if before is not None:
            os.environ["CC"] = before
    words = [
        COMPILER,
        f"--sysroot={directory}",
        "-std=gnu11",
        "-O2",
        "-fPIC",
        "-shared",
        "-fvisibility=hidden",
    ]
    words += ["-DPy_LIMITED_API=0x030B0000", f"-I{made}", f"-I{directory}/usr/include/{PYTHON}"]
    sources = sorted(str(path) for path in (copy / "pyrunc/linux").glob("*.c"))
    debian.call(
        [*words, f"-I{directory}/usr/include", *sources, "-o", str(copy / "pyrunc/linux/_linux.abi3.so")]
    )
