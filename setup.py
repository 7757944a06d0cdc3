"""The part of the packaging that needs code: packages, the C extension, generated files, source archives.

The extension uses Python's limited API, so one build serves every CPython from 3.11 on: its wheel is tagged
cp311-abi3. The init program (pyrunc/init) is compiled first and becomes a part of it. Manual pages and
completions are written from the table of verbs, and the commit is kept in pyrunc/commit.txt.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from glob import glob
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = Path(__file__).resolve().parent

# Where shells look for completions, below the prefix; `pyrunc completion SHELL` prints them.
COMPLETIONS = {
    "bash": "share/bash-completion/completions/pyrunc",
    "zsh": "share/zsh/site-functions/_pyrunc",
    "fish": "share/fish/vendor_completions.d/pyrunc.fish",
}

LINUX = Extension(
    "pyrunc.linux._linux",
    sources=sorted(glob("pyrunc/linux/*.c")),
    depends=sorted([*glob("pyrunc/linux/*.h"), *glob("pyrunc/init/*")]),
    define_macros=[("Py_LIMITED_API", "0x030B0000")],
    extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra", "-fvisibility=hidden"],
    py_limited_api=True,
)


def keep_commit(package: Path) -> None:
    """Write down the commit that is built, if this is a clone; a source archive has the file already."""
    if (HERE / ".git").exists():
        words = ["git", "-c", "safe.directory=*", "-C", str(HERE), "rev-parse", "HEAD"]
        try:
            done = subprocess.run(words, capture_output=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return  # no git: `pyrunc --version` says "unknown"
        (package / "commit.txt").write_bytes(done.stdout)


def write_share(top: Path) -> None:
    """Write manual pages and completions below a directory."""
    sys.path.insert(0, str(HERE))
    from pyrunc.cli import man
    from pyrunc.verbs.completion import SCRIPTS

    man.write(str(top / "share/man/man8"))
    for shell, name in COMPLETIONS.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(SCRIPTS[shell]())


class BuildWithShare(build_py):  # type: ignore[misc]
    """Builds the modules, and the files for share/."""

    def run(self) -> None:
        """Do both."""
        super().run()
        if self.editable_mode:
            return
        keep_commit(Path(self.build_lib, "pyrunc"))
        made = Path(self.get_finalized_command("build").build_base, "data")
        write_share(made)
        folders: dict[str, list[str]] = {}
        for file in sorted(made.glob("share/**/*")):
            if file.is_file():
                folders.setdefault(str(file.parent.relative_to(made)), []).append(str(file))
        self.distribution.data_files = list(folders.items())


class BuildWithInit(build_ext):  # type: ignore[misc]
    """Builds the init program before the extension that contains it."""

    def build_extensions(self) -> None:
        """Compile both."""
        made = Path(self.build_temp) / "init"
        runpy.run_path("pyrunc/init/compile.py")["write_header"](made)
        for extension in self.extensions:
            extension.include_dirs.append(str(made))
        super().build_extensions()


class WholeSource(sdist):  # type: ignore[misc]
    """A source archive has all that a clone has, and the commit."""

    def make_distribution(self) -> None:
        """Add the files that git lists: in a source archive setuptools finds all but the symlinks."""
        if (HERE / ".git").exists():
            words = ["git", "-c", "safe.directory=*", "-C", str(HERE), "ls-files", "-z"]
            listed = subprocess.run(words, capture_output=True, check=True).stdout.decode().split("\0")
        else:
            listed = [name for name in glob("bundles/**", recursive=True) if os.path.islink(name)]
        self.filelist.files += [name for name in listed if os.path.lexists(HERE / name)]
        self.filelist.sort()
        self.filelist.remove_duplicates()
        sources = Path(self.get_finalized_command("egg_info").egg_info, "SOURCES.txt")
        sources.write_text("\n".join(self.filelist.files))
        super().make_distribution()

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        """Copy the files, and write down the commit. Symlinks stay symlinks, even dangling ones."""
        links = [name for name in files if os.path.islink(name)]
        super().make_release_tree(base_dir, [name for name in files if name not in links])
        for name in links:
            target = Path(base_dir, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(os.readlink(name))
        keep_commit(Path(base_dir, "pyrunc"))


setup(
    packages=[*find_packages(include=["pyrunc", "pyrunc.*"]), "pyrunc.schema"],
    ext_modules=[LINUX],
    cmdclass={"build_py": BuildWithShare, "build_ext": BuildWithInit, "sdist": WholeSource},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
