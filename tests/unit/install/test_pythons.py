"""What the installed command must know about the Python that it is built from."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from install.launcher import pythons

CONFIG = """\
#include "Python.h"
extern PyObject* PyInit__blake2(void);
extern PyObject* PyInit__json(void);
extern PyObject* PyInit__sha2(void);
extern PyObject* PyInit__sha2x(void);
struct _inittab _PyImport_Inittab[] = {
    {"_blake2", PyInit__blake2},
    {"_json", PyInit__json},
    {"_sha2", PyInit__sha2},
    {"_sha2x", PyInit__sha2x},
    {"builtins", NULL},
    {0, 0}
};
"""

# A module that is whole, one that wants another's function, one that wants what is in no archive.
OBJECTS = {
    "json": "void PyInit__json(void) {}",
    "sha3": "void Hacl_there(void); void PyInit__sha3(void) { Hacl_there(); }",
    "there": "void Hacl_there(void) {}",
    "sha2": "void Hacl_not_there(void); void PyInit__sha2(void) { Hacl_not_there(); }",
    "math": "double sin(double); double PyInit_math(double x) { return sin(x); }",
}


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """The configuration of this Python; a test may change it."""
    made = {"LIBPL": str(tmp_path), "LIBRARY": "libpython.a"}
    monkeypatch.setattr(pythons, "config", lambda name: made.get(name, ""))
    return made


@pytest.mark.parametrize("version", [(3, 11), (3, 12), (3, 13), (3, 14)])
def test_every_python_that_is_supported_has_a_row(
    version: tuple[int, int], configured: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pythons, "VERSION", version)
    said = pythons.header(b"")
    assert "#define CAN_RESUME\n" in said
    assert ("PYRUNC_LOCAL" in said) == (version > (3, 11))
    assert ("PYRUNC_STACK" in said) == (version > (3, 13))
    assert ("PYRUNC_REGISTRY" in said) == (version > (3, 12))
    configured["Py_GIL_DISABLED"] = "1"
    assert "CAN_RESUME" not in pythons.header(b"")


def test_a_python_that_is_not_known(configured: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets no image; the launcher is compiled as for the newest known version."""
    monkeypatch.setattr(pythons, "VERSION", (3, 99))
    said = pythons.header(b"")
    assert [line.split()[1] for line in said.splitlines()] == ["PYRUNC_REGISTRY", "PYRUNC_SEED"]


def test_the_seed_is_of_what_is_in_memory(configured: dict[str, str]) -> None:
    assert pythons.header(b"one") == pythons.header(b"one") != pythons.header(b"other")


def test_the_seed_is_the_machine_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of dictionaries may come from a container, which must not be able to compute their hashes."""
    machine = Path("/etc/machine-id")
    own = machine.read_bytes() if machine.is_file() else b""
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert pythons.secret(b"modules") == b"modules" + own
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    assert pythons.secret(b"modules") == b"modules"


@pytest.mark.parametrize(
    ("without", "left"),
    [([], ["_blake2", "_json", "_sha2", "_sha2x"]), (["_sha2", "_blake2"], ["_json", "_sha2x"])],
)
def test_modules_that_are_left_out(
    configured: dict[str, str], tmp_path: Path, without: list[str], left: list[str]
) -> None:
    (tmp_path / "config.c").write_text(CONFIG)
    said = pythons.modules(without)
    for name in ("_blake2", "_json", "_sha2", "_sha2x"):
        assert said.count(f"PyInit_{name}(void)") == said.count(f'"{name}"') == (name in left)
    assert '"builtins"' in said


def test_modules_that_want_what_is_not_installed(tmp_path: Path) -> None:
    for name, source in OBJECTS.items():
        (tmp_path / f"{name}.c").write_text(source)
        subprocess.run(["gcc", "-w", "-c", f"{name}.c"], cwd=tmp_path, check=True)
    subprocess.run(["ar", "rc", "all.a", *(f"{name}.o" for name in OBJECTS)], cwd=tmp_path, check=True)
    assert pythons.unlinkable(tmp_path / "all.a") == ["_sha2"]


def test_words_that_mean_something_elsewhere_only(configured: dict[str, str]) -> None:
    """Debian's Python 3.13 and 3.14 name a file of their build directory, which no other machine has."""
    configured["LIBS"] = "-ldl -lm"
    configured["MODLIBS"] = "-lm  Modules/_hacl/libHacl_Hash_SHA2.a \\ \\ /usr/lib/libother.a"
    assert pythons.words() == ["-ldl", "-lm", "/usr/lib/libother.a"]


def test_what_is_missing_is_said(configured: dict[str, str]) -> None:
    with pytest.raises(SystemExit) as caught:
        pythons.archive()
    major, minor = sys.version_info[:2]
    name = f"{major}.{minor}"
    expected = f"Python {name} ({sys.executable}) comes without libpython.a (Debian: python{name}-dev)"
    assert str(caught.value) == expected


BUFFER = 128 * 61 * 8  # what current.c reads at once


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff" * 8, b"\xff" * 61, b"pyrunc" * 100000]
    + [random.Random(size).randbytes(size) for size in (487, 488, 489, BUFFER, BUFFER + 1, 5 * BUFFER - 1)],
    ids=len,
)
def test_content(tmp_path: Path, data: bytes) -> None:
    """The program in C (current.c) computes the same checksum as Python."""
    (tmp_path / "file").write_bytes(data)
    source = (
        (Path(pythons.__file__).parent / "current.c")
        .read_text()
        .replace('#include "launcher.h"', "#include <string.h>")
    )
    (tmp_path / "stamps.h").write_text("static const struct stamp STAMPS[1];\n")
    (tmp_path / "current.c").write_text(
        source + '#include <stdio.h>\nint main(int c, char **v) { (void)c; printf("%lu", content(v[1])); }\n'
    )
    subprocess.run(
        ["gcc", "-D_GNU_SOURCE", "-O1", "-I.", "-o", "current", "current.c"], cwd=tmp_path, check=True
    )
    words = [tmp_path / "current", tmp_path / "file"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert int(said) == pythons.content(str(tmp_path / "file"))
