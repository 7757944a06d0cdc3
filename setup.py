"""The part of the packaging that needs code: which packages there are, and the C extension.

The extension uses Python's limited API, so one build serves every CPython from 3.11 on: its wheel is tagged
cp311-abi3. The init program (pyrunc/init) is compiled first and becomes a part of it.
"""

from __future__ import annotations

import runpy
from glob import glob
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

LINUX = Extension(
    "pyrunc.linux._linux",
    sources=sorted(glob("pyrunc/linux/*.c")),
    depends=sorted([*glob("pyrunc/linux/*.h"), *glob("pyrunc/init/*")]),
    define_macros=[("Py_LIMITED_API", "0x030B0000")],
    extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra", "-fvisibility=hidden"],
    py_limited_api=True,
)


class BuildWithInit(build_ext):  # type: ignore[misc]
    """Builds the init program before the extension that contains it."""

    def build_extensions(self) -> None:
        """Compile both."""
        made = Path(self.build_temp) / "init"
        runpy.run_path("pyrunc/init/build.py")["write_header"](made)
        for extension in self.extensions:
            extension.include_dirs.append(str(made))
        super().build_extensions()


setup(
    packages=[*find_packages(include=["pyrunc", "pyrunc.*"]), "pyrunc.schema"],
    ext_modules=[LINUX],
    cmdclass={"build_ext": BuildWithInit},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
