"""The init program as a file: small, sealed, complete; the list of its operations; other architectures."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import runpy
import shutil
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyrunc.apply import init_program
from pyrunc.linux import _linux, flags
from pyrunc.plan import program as plan_program
from pyrunc.plan.program import SIGNATURES, Program
from tests.support.init_machine import STEP, as_root, carry_out, program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

INIT = Path(plan_program.__file__).resolve().parents[1] / "init"
BUILD = runpy.run_path(str(INIT / "compile.py"))
# Bytes: what every start of a container copies. aarch64's instructions take more.
MOST = 44 << 10 if os.uname().machine == "x86_64" else 46 << 10


def test_both_lists_of_operations_are_one() -> None:
    """operations.def has the same numbers as plan/program.py."""
    text = (INIT / "operations.def").read_text()
    assert dict(re.findall(r'^OPERATION\((\w+), "(\w*)"\)', text, re.MULTILINE)) == SIGNATURES
    assert re.findall(r"^OPERATION\((\w+),", text, re.MULTILINE) == list(SIGNATURES)
    arguments = max(map(len, SIGNATURES.values()))
    assert f"ARGUMENTS = {arguments}," in (INIT / "program.h").read_text()


def test_both_sides_know_one_layout() -> None:
    header = (INIT / "program.h").read_text()
    assert f"#define MAGIC {plan_program._MAGIC:#x}U" in header
    assert f"#define VERSION {plan_program._VERSION}U" in header
    assert f"enum {{ TRACE = {plan_program._TRACE} }};" in header
    assert f"SOCKET = {plan_program.SOCKET} " in header


def test_every_operation_has_its_function_in_one_file() -> None:
    found: list[str] = []
    for file in INIT.glob("*.c"):
        text = file.read_text()
        assert text.count("\n") <= 500, file
        found += re.findall(r"^long do_(\w+)\(", text, re.MULTILINE)
    assert sorted(found) == sorted(SIGNATURES)


def test_it_is_small() -> None:
    assert len(_linux.init_image()) < MOST
    assert carried(_linux.init_image()) < MOST


def carried(data: bytes) -> int:
    """Return how many bytes of an ELF file are code and data, without the gap between large pages."""
    (start,) = struct.unpack_from("=Q", data, 32)
    size, count = struct.unpack_from("=HH", data, 54)
    rows = [struct.unpack_from("=IIQQQQQQ", data, start + number * size) for number in range(count)]
    return sum(row[5] for row in rows if row[0] == 1)


def segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the kind and the flags of each program header of an ELF file."""
    (start,) = struct.unpack_from("=Q", data, 32)
    size, count = struct.unpack_from("=HH", data, 54)
    for number in range(count):
        yield struct.unpack_from("=II", data, start + number * size)


def test_it_needs_nothing_and_has_no_page_to_write_and_execute() -> None:
    load, dynamic, interpreter, stack = 1, 2, 3, 0x6474E551
    found = list(segments(_linux.init_image()))
    kinds = {kind for kind, _flags in found}
    assert not kinds & {dynamic, interpreter}
    assert stack in kinds
    assert all(how & 3 != 3 for kind, how in found if kind in (load, stack)), found


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="whom no mode of a file holds back")
def test_it_is_sealed() -> None:
    """Not even the host's root can write to it, change its size, or open it for writing through /proc."""
    fd = init_program.image()
    try:
        assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) == flags.F_SEAL_ALL
        tries: dict[str, Callable[[], object]] = {
            "write": lambda: os.pwrite(fd, b"x", 0),
            "grow": lambda: os.ftruncate(fd, 1 << 20),
            "shrink": lambda: os.ftruncate(fd, 0),
            "unseal": lambda: fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 0),
        }
        for what, attempt in tries.items():
            with pytest.raises(OSError, match=r"ermitted|denied") as caught:
                attempt()
            assert caught.value.errno == errno.EPERM, what
        writable = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)  # the open alone is let through
        with pytest.raises(PermissionError):
            os.write(writable, b"x")
        os.close(writable)
        assert os.pread(fd, 4, 0) == b"\x7fELF"
        assert os.fstat(fd).st_mode & 0o777 == 0o111
    finally:
        os.close(fd)


def see(pid: int) -> dict[str, object]:
    """Return what another process can see of this one in /proc."""
    proc = Path(f"/proc/{pid}")
    caught: list[int] = []
    for how in (os.O_WRONLY, os.O_RDWR | os.O_TRUNC):
        try:
            os.close(os.open(proc / "exe", how))
        except OSError as exc:
            caught.append(exc.errno or 0)
    return {
        "environment": (proc / "environ").read_bytes(),
        "words": (proc / "cmdline").read_bytes().split(b"\0")[0],
        "name": (proc / "comm").read_text(),
        "exe": os.readlink(proc / "exe"),
        "writing": caught,
        "descriptors": sorted(map(int, os.listdir(proc / "fd"))),
    }


class TestRunning:
    pytestmark = as_root

    def test_what_is_seen_of_it(self) -> None:
        """While it waits, it has its own name, no environment and only the socket.

        Its file cannot be written to.
        """
        found: list[dict[str, object]] = []

        def look(pid: int) -> bytes:
            found.append(see(pid))
            return b"A"

        made = Program()
        made.add(STEP, "NAME", made.text(plan_program.NAME))
        made.keep(STEP, 0, (0,))
        made.operations += program(("SEND", ord("R")), ("WAIT", ord("A"))).operations
        carry_out(made, answers={b"R": look}, before=lambda: os.environ.update(SECRET="x"))
        assert found == [
            {
                "environment": b"",
                "words": plan_program.NAME.encode(),
                "name": plan_program.NAME + "\n",
                "exe": "/memfd:pyrunc-init (deleted)",
                "writing": [errno.ETXTBSY, errno.ETXTBSY],
                "descriptors": [200],
            }
        ]


CROSS = {"aarch64": "aarch64-linux-gnu-gcc", "riscv64": "riscv64-linux-gnu-gcc"}


@pytest.mark.parametrize("name", CROSS)
def test_it_compiles_for_other_machines(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which(CROSS[name]) is None:
        pytest.skip(f"{CROSS[name]} is not installed")
    monkeypatch.setenv("CC", CROSS[name])
    BUILD["compile_init"](tmp_path / "init")
    data = (tmp_path / "init").read_bytes()
    (machine_number,) = struct.unpack_from("=H", data, 18)
    assert machine_number == {"aarch64": 183, "riscv64": 243}[name]
    assert carried(data) < MOST
    largest = 64 << 10  # a page of some kernels for aarch64
    (start,) = struct.unpack_from("=Q", data, 32)
    size, count = struct.unpack_from("=HH", data, 54)
    rows = [struct.unpack_from("=IIQQQQQQ", data, start + number * size) for number in range(count)]
    assert all(row[7] == largest for row in rows if row[0] == 1), rows


def test_other_architectures_are_refused_with_a_sentence(tmp_path: Path) -> None:
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is not installed")
    words = [
        compiler,
        "-U__x86_64__",
        "-U__aarch64__",
        "-U__riscv",
        "-ffreestanding",
        "-fsyntax-only",
        str(INIT / "enter.c"),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "does not know the system calls of this architecture" in done.stderr
