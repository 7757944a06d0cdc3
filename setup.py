"""The part of the packaging that needs code: which packages there are, and the C extension.

The extension uses Python's limited API, so one build serves every CPython from 3.11 on: its wheel is tagged
cp311-abi3.
"""

from __future__ import annotations

from glob import glob

from setuptools import Extension, find_packages, setup

LINUX = Extension(
    "pyrunc.linux._linux",
    sources=sorted(glob("pyrunc/linux/*.c")),
    depends=sorted(glob("pyrunc/linux/*.h")),
    define_macros=[("Py_LIMITED_API", "0x030B0000")],
    extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra", "-fvisibility=hidden"],
    py_limited_api=True,
)

setup(
    packages=[*find_packages(include=["pyrunc", "pyrunc.*"]), "pyrunc.schema"],
    ext_modules=[LINUX],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
